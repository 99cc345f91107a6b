"""Draw the README's picture: one synthetic eye after every stage -> tests/pictures/stages.jpg.

python -m tests.draw_pictures --cache cache/demo

The heat is that of the net which the demo trained. The script lies with the tests because no run of the pipeline needs
it, and is committed so that the picture can be drawn anew when a stage changes. The eye is drawn, no person's.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dr import checkpoint, gradcam, prepare
from dr.predict import read_checkpoint, read_trained
from preprocess import stage, synthetic

TARGET = Path(__file__).parent / "pictures" / "stages.jpg"
SEED = 1  # not the demo's: the net has never seen this eye
PATIENT, SIDE, LEVEL, WIDTH_PX = 33, "left", 3, 1024
SIZE_IN, DPI, QUALITY = (11.6, 2.45), 130, 82
ELLIPSE_RGB = (60, 230, 90)


def draw_ellipse(rgb: np.ndarray, disc) -> np.ndarray:
    """Return a photograph (h, w, 3) with the disc that was found in it."""
    center, axes = (round(disc.center_x), round(disc.center_y)), (round(disc.semi_axis_x), round(disc.semi_axis_y))
    return cv2.ellipse(rgb.copy(), center, axes, 0, 0, 360, ELLIPSE_RGB, 8, cv2.LINE_AA)


def draw_heat(rgb: np.ndarray, square: prepare.Square, content: dict) -> np.ndarray:
    """Return the square (h, w, 3), grey, with the places over it that speak for the eye's level."""
    net = checkpoint.make_net(content)
    batch = prepare.cut_centers(prepare.gather([f"{PATIENT}_{SIDE}"], [square], content), net.image_px)
    heat = np.zeros(rgb.shape[:2], np.float32)
    start = (len(rgb) - net.image_px) // 2
    middle = slice(start, start + net.image_px)
    (heat[middle, middle],) = gradcam.map_heat(net, batch, np.array([LEVEL]), "fine")
    return gradcam.blend_heat(np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2), heat)


def draw_stages(content: dict) -> dict[str, np.ndarray]:
    """Return the eye after each stage, caption -> (h, w, 3) uint8 RGB; `content` is that of a checkpoint."""
    eye = synthetic.draw_eye(SEED, PATIENT, SIDE, LEVEL, WIDTH_PX)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eye.png"
        cv2.imwrite(str(path), eye.photograph[..., ::-1])
        square = prepare.prepare(path, content)
    flattened = np.ascontiguousarray(cv2.LUT(square.pixels, np.ascontiguousarray(square.lut.T[None])))
    return {
        "photograph": eye.photograph,
        "crop: the ellipse": draw_ellipse(eye.photograph, square.disc),
        "resize: a square": square.pixels,
        "normalize: flat histograms": flattened,
        f"where the net sees level {LEVEL}": draw_heat(square.pixels, square, content),
    }


def join(pictures: dict[str, np.ndarray]) -> bytes:
    """Return the pictures side by side with their captions, as a JPEG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained", facecolor="white")
    widths = [picture.shape[1] / picture.shape[0] for picture in pictures.values()]
    for axes, (caption, picture) in zip(
        figure.subplots(1, len(pictures), width_ratios=widths), pictures.items(), strict=True
    ):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(caption, fontsize=10)
        axes.set_axis_off()
    content = io.BytesIO()
    figure.savefig(
        content,
        format="jpeg",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.05,
        pil_kwargs={"quality": QUALITY, "optimize": True},
    )
    return content.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/demo"), help="where the demo has trained its net")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args(argv)
    trained = read_trained(options.cache / "dr" / "epochs")
    picture = join(draw_stages(read_checkpoint(trained, max(trained.checkpoints))))
    stage.write_bytes(options.out, picture)
    print(f"{options.out}: {len(picture) / 1000:.0f} kB. A drawn eye; {stage.NOTICE[0].lower()}{stage.NOTICE[1:]}")


if __name__ == "__main__":
    stage.run(main)
