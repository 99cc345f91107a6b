"""Draw the README's picture: one synthetic eye after every stage -> tests/pictures/stages.jpg.

python -m tests.draw_pictures --cache cache/demo

The heat is that of the net which the demo trained. No run of the pipeline needs the script; it is kept so that the
picture can be drawn anew when a stage changes. The eye is drawn, no person's.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dr.explain import NOBODY
from dr.nets import heat
from dr.squares import crops, store
from dr.training import runs
from dr.training.checkpoint import Checkpoint
from dr.training.learner import load_net
from preprocess import synthetic
from preprocess.cache import files, stage
from preprocess.picture import square
from preprocess.picture.square import Square

TARGET = Path(__file__).parent / "pictures" / "stages.jpg"
SEED = 1  # not the demo's: the net has never seen this eye
PATIENT, SIDE, LEVEL, WIDTH_PX = 33, "left", 3, 1024
SIZE_IN, DPI, QUALITY = (11.6, 2.45), 130, 82
ELLIPSE_RGB = (60, 230, 90)


def draw_heat(made: Square, of: Checkpoint) -> np.ndarray:
    """Return the square (h, w, 3), grey, with the places over it that speak for the eye's level."""
    net = load_net(of)
    batch = crops.cut_centers(store.gather([NOBODY], [made], of.mean, of.std), net.image_px)
    (seen,), margin = heat.map_heat(net, batch, np.array([LEVEL]), "fine"), (len(made.pixels) - net.image_px) // 2
    grey = cv2.cvtColor(made.pixels, cv2.COLOR_RGB2GRAY)[..., None]
    return heat.blend_heat(np.repeat(grey, 3, axis=2), np.pad(seen, (margin, len(grey) - net.image_px - margin)))


def draw_stages(of: Checkpoint) -> dict[str, np.ndarray]:
    """Return the eye after each stage, caption -> (h, w, 3) uint8 RGB."""
    eye = synthetic.draw_eye(SEED, PATIENT, SIDE, LEVEL, WIDTH_PX)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eye.png"
        cv2.imwrite(str(path), eye.photograph[..., ::-1])
        made = square.make_square(path, of.making)
    disc = made.disc
    center, axes = (round(disc.center_x), round(disc.center_y)), (round(disc.semi_axis_x), round(disc.semi_axis_y))
    return {
        "photograph": eye.photograph,
        "crop: the ellipse": cv2.ellipse(eye.photograph.copy(), center, axes, 0, 0, 360, ELLIPSE_RGB, 8, cv2.LINE_AA),
        "resize: a square": made.pixels,
        "normalize: flat histograms": cv2.LUT(made.pixels, np.ascontiguousarray(made.lut.T[None])),
        f"where the net sees level {LEVEL}": draw_heat(made, of),
    }


def join(pictures: dict[str, np.ndarray]) -> bytes:
    """Return the pictures side by side with their captions, as a JPEG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained", facecolor="white")
    widths = [picture.shape[1] / picture.shape[0] for picture in pictures.values()]
    row = figure.subplots(1, len(pictures), width_ratios=widths)
    for axes, (caption, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(caption, fontsize=10)
        axes.set_axis_off()
    content, options = io.BytesIO(), {"quality": QUALITY, "optimize": True}
    figure.savefig(content, format="jpeg", dpi=DPI, bbox_inches="tight", pad_inches=0.05, pil_kwargs=options)
    return content.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/demo"), help="where the demo has trained its net")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args(argv)
    trained = runs.read_trained(options.cache, None)
    picture = join(draw_stages(runs.read_checkpoint(trained, trained.newest)))
    files.write_bytes(options.out, picture)
    print(f"{options.out}: {len(picture) / 1000:.0f} kB. A drawn eye; {stage.NOTICE[0].lower()}{stage.NOTICE[1:]}")


if __name__ == "__main__":
    stage.run(main)
