"""Show where the net looks: photographs and a checkpoint -> OUT/NAME_heat.jpeg, the photograph with heat over it.

python -m dr.explain IMAGE... [--checkpoint FILE.pt | --cache DIR [--run NAME]] [--level N] [--layer last|fine]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dr import checkpoint, predict, prepare, settings, threads
from dr.prepare import Square
from preprocess import eyes, photograph, stage
from preprocess.disc import Disc
from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch

    from dr.model import NineConvNet

LAYERS = ("fine", "last")  # those of dr.gradcam, which needs torch
JPEG_QUALITY = 92
SUFFIX = "_heat.jpeg"
ALONE = "0_left"  # whose eye a photograph shows does not matter where its fellow is not asked


def read_net(options: argparse.Namespace) -> dict[str, Any]:
    """Return the content of the checkpoint that is named, or of the last epoch in the cache."""
    if options.checkpoint:
        return checkpoint.read(options.checkpoint)
    trained = predict.read_trained(checkpoint.folder_of(options.cache, options.run) / "epochs")
    return predict.read_checkpoint(trained, max(trained.checkpoints))


def choose_targets(paths: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Return where the picture of each photograph goes. Raises InputError if two would go to the same place."""
    targets = {path: out / f"{path.stem}{SUFFIX}" for path in paths}
    if len(set(targets.values())) < len(paths):
        raise InputError("two of the photographs have the same name; explain them in two runs with another --out each")
    return targets


def explain(options: argparse.Namespace) -> None:
    """Write the picture of each photograph, say what the net thinks of it, and name at last those that are refused."""
    targets = choose_targets(options.images, options.out)
    content = read_net(options)
    threads.let_waiting_threads_sleep()
    from dr import device

    place = device.choose_device(options.device)
    net = checkpoint.make_net(content).to(place)
    reasons = {}
    for path, target in targets.items():
        try:
            square = prepare.prepare(path, content)
        except prepare.Refused as refusal:
            reasons[prepare.show(path)] = str(refusal)
            print(f"{prepare.show(path)}: refused: {refusal}", flush=True)
            continue
        scores = score_center(net, square, content)
        level = int(scores.argmax()) if options.level is None else options.level
        heat = map_square(net, square, content, level, options.layer)
        write_picture(target, path, heat, square.disc, content["size_px"])
        print(f"{prepare.show(path)}: {describe(scores, level, heat)} -> {prepare.show(target)}", flush=True)
    print(stage.NOTICE)
    prepare.report_refused(reasons, len(targets) - len(reasons))


def describe(scores: np.ndarray, level: int, heat: np.ndarray) -> str:
    """Return what the net thinks, and which level the heat is for."""
    thought = f"level {level} ({scores[level]:.0%} by this net)"
    if level != scores.argmax():
        thought += f", likeliest {scores.argmax()} ({scores.max():.0%})"
    return thought if heat.any() else f"{thought}, for which nothing speaks"


def score_center(net: NineConvNet, square: Square, content: dict[str, Any]) -> np.ndarray:
    """Return the net's scores of the middle of the square, (5,)."""
    from tqdm import tqdm

    from dr import dataset, passes

    photographs = prepare.gather([ALONE], [square], content)
    crops = dataset.center_crops(1, content["size_px"] - net.image_px)
    with tqdm(disable=True) as bar:
        (scores,) = passes.score(net, photographs, np.arange(1), crops, content["settings"]["precision"], 1, bar)
    return scores


def map_square(net: NineConvNet, square: Square, content: dict[str, Any], level: int, layer: str) -> np.ndarray:
    """Return the heat of the middle of the square, (image_px, image_px) float32, 0-1."""
    from dr import gradcam

    images: torch.Tensor = prepare.cut_centers(prepare.gather([ALONE], [square], content), net.image_px)
    (heat,) = gradcam.map_heat(net, images.to(next(net.parameters()).device), np.array([level]), layer)
    return heat


def write_picture(target: Path, source: Path, heat: np.ndarray, disc: Disc, size_px: int) -> None:
    """Write a photograph with heat over it, in the photograph's own size."""
    from dr import gradcam

    rgb, _ = photograph.decode(source, photograph.MAX_PIXELS)  # never reduced
    blended = gradcam.blend_heat(rgb, undo_crop(heat, disc, size_px, rgb.shape[:2]))
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, jpeg = cv2.imencode(".jpeg", cv2.cvtColor(blended, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"{target}: OpenCV cannot encode it")
    stage.write_bytes(target, jpeg.tobytes())


def undo_crop(heat: np.ndarray, disc: Disc, size_px: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the heat of a square's middle where it lies in the photograph, (h, w) float32; 0 where no net looked.

    Parameters
    ----------
    heat : (crop_px, crop_px) of the middle of a square of `size_px` that the disc fills
    disc : in pixels of the photograph
    shape : (h, w) of the photograph
    """
    step = 2 * max(disc.semi_axis_x, disc.semi_axis_y) / size_px  # pixels of the photograph per pixel of the square
    margin = (size_px - len(heat)) // 2
    corner = margin - (size_px - 1) / 2  # of the heat, from the middle of the square
    matrix = np.array([[step, 0, disc.center_x + step * corner], [0, step, disc.center_y + step * corner]])
    placed = cv2.warpAffine(heat, matrix, shape[::-1], flags=cv2.INTER_LINEAR)
    columns = (np.arange(shape[1], dtype=np.float32) - disc.center_x) / disc.semi_axis_x
    rows = (np.arange(shape[0], dtype=np.float32) - disc.center_y) / disc.semi_axis_y
    return np.where(columns**2 + rows[:, None] ** 2 <= 1, placed, 0)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_bare_parser(
        "dr.explain",
        "Show which places of a photograph speak for a level (Grad-CAM): the hotter the colour, the more, "
        "against the rest of the same photograph. "
        f"Writes OUT/NAME{SUFFIX}, in the photograph's size. Takes photographs as they come from the camera; the cache "
        f"need not know them. {stage.NOTICE}",
        "data/test/10_left.jpeg --checkpoint cache/dr/epochs/0060.pt --out heat",
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photographs, JPEG or PNG")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pt", help="the net, without a cache")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="where dr.train left the net: its last epoch")
    parser.add_argument("--run", type=settings.parse_run, help="name of one of several nets in the cache")
    parser.add_argument("--level", type=int, choices=range(eyes.N_LEVELS), help="level to explain (the likeliest)")
    parser.add_argument("--layer", choices=LAYERS, default="fine", help="fine: an earlier convolution, which shows "
                        "single spots; last: the last one, coarse, Grad-CAM proper")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("heat"), help="folder for the pictures")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first of them at hand")
    explain(parser.parse_args(argv))


if __name__ == "__main__":
    stage.run(main)
