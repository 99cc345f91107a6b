"""Draw the README's picture: one synthetic eye after every stage -> tests/pictures/stages.jpg.

python -m tests.draw_pictures --cache cache/demo: the heat is that of the net which the demo trained.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from dr.explain import NOBODY
from dr.nets import heat
from dr.squares import crops, store
from dr.training import runs
from dr.training.learner import load_net
from preprocess.command import cli, pipeline, process
from preprocess.picture import square
from preprocess.synthetic import eyes

TARGET, LEVEL = Path(__file__).parent / "pictures" / "stages.jpg", 3


def draw_stages(of):
    """Return the eye after each stage, caption -> (h, w, 3) uint8 RGB; the last is the checkpoint's heat over it."""
    seen, net = (
        eyes.draw_eye(1, 33, "left", LEVEL, 1024).photograph,
        load_net(of),
    )  # not the demo's seed
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eye.png"
        cv2.imwrite(str(path), seen[..., ::-1])
        made = square.make_square(path, of.making)
    disc, batch = (
        made.disc,
        crops.cut_centers(store.gather([NOBODY], [made], of.mean, of.std), net.image_px),
    )
    center, axes = (
        (round(disc.center_x), round(disc.center_y)),
        (round(disc.semi_axis_x), round(disc.semi_axis_y)),
    )
    (hot,), margin = (
        heat.map_heat(net, batch, np.array([LEVEL]), "fine"),
        (len(made.pixels) - net.image_px) // 2,
    )
    grey = cv2.cvtColor(made.pixels, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    hot = np.pad(hot, (margin, len(grey) - net.image_px - margin))
    return {
        "photograph": seen,
        "crop: the ellipse": cv2.ellipse(
            seen.copy(), center, axes, 0, 0, 360, (60, 230, 90), 8, cv2.LINE_AA
        ),
        "resize: a square": made.pixels,
        "normalize: flat histograms": cv2.LUT(made.pixels, np.ascontiguousarray(made.lut.T[None])),
        f"where the net sees level {LEVEL}": heat.blend_heat(grey, hot),
    }


def write_picture(out, pictures):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 2.45), layout="constrained", facecolor="white")
    row = figure.subplots(
        1, len(pictures), width_ratios=[p.shape[1] / p.shape[0] for p in pictures.values()]
    )
    for axes, (caption, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(caption, fontsize=10)
        axes.set_axis_off()
    figure.savefig(
        out,
        dpi=130,
        bbox_inches="tight",
        pad_inches=0.05,
        pil_kwargs={"quality": 82, "optimize": True},
    )


def main():
    parser = cli.make_bare_parser(
        "tests.draw_pictures", __doc__.splitlines()[0], "--cache cache/demo"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("cache/demo"), help="where the demo has trained its net"
    )
    trained = runs.read_trained(parser.parse_args().cache / "dr")
    write_picture(TARGET, draw_stages(runs.read_checkpoint(trained, max(trained.checkpoints))))
    print(f"{TARGET}: a drawn eye; {pipeline.NOTICE[0].lower()}{pipeline.NOTICE[1:]}")


if __name__ == "__main__":
    process.run(main)
