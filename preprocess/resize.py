"""Cut every eye out: photographs + CACHE/crop -> CACHE/resize/{train,test}/IMAGE.png and the histogram of its pixels.

python -m preprocess.resize --data DIR --cache DIR [--size-px 512] [--jobs N] [--allow-rejected]
"""

from __future__ import annotations

import argparse
import base64
import math
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess import crop, eyes, per_image, photograph, stage

VERSION = 1  # raise it when the same ellipse gives other pixels
SIZE_PX = 512  # the article's
# Averaging filter, run lengths: 4.7 ms and 241 kB for each of 40 real eyes, where zlib's level 1 takes 11.7 ms, 293 kB.
PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),  # first: it resets the strategy
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
)


def cut_out(rgb: np.ndarray, ellipse: tuple[float, float, float, float], size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the disc out of a picture and scale it to fill a square.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    ellipse : center x, y and semi-axes x, y in pixels of `rgb`; pixel (0, 0) has its centre at (0, 0)
    size_px : side of the square; the longer axis of the disc fills it, the aspect is kept

    Returns
    -------
    square : (size_px, size_px, 3) uint8, black outside the disc and where the photograph ends
    inside : (size_px, size_px) bool, the pixels that show the disc
    """
    center_x, center_y, semi_x, semi_y = ellipse
    scale = size_px / (2 * max(semi_x, semi_y))  # output pixels per pixel of rgb
    middle = (size_px - 1) / 2
    rgb, center_x, center_y = _crop_box(rgb, center_x, center_y, size_px / 2 / scale)
    if scale < 1:  # without the blur a coarser grid would show aliases
        rgb = cv2.GaussianBlur(rgb, (0, 0), (1 / scale - 1) / 2, borderType=cv2.BORDER_REPLICATE)
    matrix = np.array([[scale, 0, middle - scale * center_x], [0, scale, middle - scale * center_y]])
    interpolation = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    square = cv2.warpAffine(rgb, matrix, (size_px, size_px), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    inside = _draw_inside(rgb.shape[:2], matrix, (scale * semi_x, scale * semi_y), size_px)
    if not inside.any():
        raise photograph.UnreadablePhotograph("the ellipse lies outside the photograph")
    square[~inside] = 0
    return square, inside


def _crop_box(rgb: np.ndarray, center_x: float, center_y: float, half_px: float) -> tuple[np.ndarray, float, float]:
    """Return the part of a picture that a square around a point needs, and the point in it."""
    margin = half_px + 4  # what blur and interpolation look at beyond the square
    left, top = max(0, math.floor(center_x - margin)), max(0, math.floor(center_y - margin))
    bottom, right = max(0, math.ceil(center_y + margin) + 1), max(0, math.ceil(center_x + margin) + 1)
    box = rgb[top:bottom, left:right]
    if box.size == 0:
        raise photograph.UnreadablePhotograph("the ellipse lies outside the photograph")
    return box, center_x - left, center_y - top


def _draw_inside(
    shape: tuple[int, int], matrix: np.ndarray, semi_axes: tuple[float, float], size_px: int
) -> np.ndarray:
    """Return the output pixels whose centre lies in the ellipse and in the photograph."""
    position = np.arange(size_px, dtype=np.float64)
    offset = position - (size_px - 1) / 2
    ellipse = (offset[None, :] / semi_axes[0]) ** 2 + (offset[:, None] / semi_axes[1]) ** 2 <= 1
    columns = (position - matrix[0, 2]) / matrix[0, 0]
    rows = (position - matrix[1, 2]) / matrix[1, 1]
    in_columns = (columns >= -0.5) & (columns <= shape[1] - 0.5)
    in_rows = (rows >= -0.5) & (rows <= shape[0] - 0.5)
    return ellipse & in_columns[None, :] & in_rows[:, None]


def count_pixels(square: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the histogram of each channel over the pixels inside: (3, 256) int64."""
    mask = inside.astype(np.uint8)
    counts = [cv2.calcHist([square], [channel], mask, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts).astype(np.int64)


def choose_short_side(row: dict[str, Any], size_px: int) -> int:
    """Return the shorter side in pixels at which a photograph may be decoded: its disc still has `size_px`.

    No less than detection wants: then one decode serves both, and a small square is averaged from more pixels.
    """
    diameter = 2 * max(row["semi_axis_x"], row["semi_axis_y"])
    return max(crop.DETECTION_PX, math.ceil(min(row["width"], row["height"]) * size_px / diameter))


def resize_image(path: Path, row: dict[str, Any], size_px: int, target: Path) -> dict[str, Any]:
    """Cut one eye out and write it; return its histogram and digest, or {'reason': why it cannot be}."""
    try:
        rgb, reduction = photograph.decode(path, choose_short_side(row, size_px))
        return write_square(rgb, reduction, row, size_px, target)
    except photograph.UnreadablePhotograph as error:
        return {"reason": str(error)}


def write_square(rgb: np.ndarray, reduction: int, row: dict[str, Any], size_px: int, target: Path) -> dict[str, Any]:
    """Cut one eye out of a decoded photograph and write it; return its histogram and digest."""
    square, inside = cut_square(rgb, reduction, row, size_px)
    png = cv2.imencode(".png", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), PNG_OPTIONS)[1].tobytes()
    stage.write_bytes(target, png)
    return {
        "histogram": encode_histogram(count_pixels(square, inside)),
        "png_bytes": len(png),
        "png_crc32": zlib.crc32(png),
    }


def cut_square(rgb: np.ndarray, reduction: int, row: dict[str, Any], size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `cut_out`'s square of a photograph decoded at 1/reduction, whose row of the crop table is given."""
    full = [row[name] for name in crop.ELLIPSE]
    found = crop.Disc(*full, confidence=row["confidence"]).scaled(1 / reduction, 1 / reduction)
    return cut_out(rgb, (found.center_x, found.center_y, found.semi_axis_x, found.semi_axis_y), size_px)


def encode_histogram(counts: np.ndarray) -> str:
    """Return (3, 256) counts as a short text."""
    return base64.b64encode(zlib.compress(counts.astype("<u4").tobytes(), 6)).decode()


def decode_histogram(text: str) -> np.ndarray:
    """Return (3, 256) int64 counts from `encode_histogram`'s text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").reshape(3, 256).astype(np.int64)


def read_histograms(cache: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and the histograms of their pixels inside the disc, (n, 3, 256) int64, in RGB.

    Raises InputError if the stage has not run on the split.
    """
    rows = per_image.read_rows(cache / "resize", split, "preprocess.resize")
    if not rows:
        raise stage.InputError(f"{cache}/resize: every image of {split} is rejected; see {cache / 'rejected.csv'}")
    return list(rows), np.stack([decode_histogram(row["histogram"]) for row in rows.values()])


def list_tasks(
    paths: dict[str, Path], rows: dict[str, dict[str, Any]], size_px: int, folder: Path
) -> dict[str, tuple[list, tuple]]:
    """Return what to do per image and the key that tells whether it was done: image -> (key, arguments)."""
    return {
        image: (describe_task(paths[image], row), (paths[image], row, size_px, folder / f"{image}.png"))
        for image, row in rows.items()
    }


def describe_task(path: Path, row: dict[str, Any]) -> list:
    """Return the key of one image: the file's version and the ellipse."""
    return [stage.describe_source(path), [row[name] for name in crop.ELLIPSE]]


def forget_damaged(journal: per_image.Journal, folder: Path) -> None:
    """Drop the records whose PNG is gone or has another size than was written."""
    for image, row in journal.rows.items():
        path = folder / f"{image}.png"
        if not path.is_file() or path.stat().st_size != row["png_bytes"]:
            del journal.records[image]


def resize_split(
    paths: dict[str, Path], cache: Path, split: str, parameters: dict[str, Any], workers: per_image.Workers
) -> per_image.Journal:
    """Bring the squares of one split's photographs, image id -> path, up to date."""
    folder = cache / "resize" / split
    folder.mkdir(parents=True, exist_ok=True)
    stage.remove_partials(folder)
    rows = crop.read_crops(cache, split)
    eyes.check_same_images(rows, set(paths) & set(rows), f"{cache}/crop/{split}.csv", f"the {split} photographs")
    journal = per_image.Journal(cache / "resize", split, parameters)
    forget_damaged(journal, folder)
    for image in per_image.map_images(
        resize_image, journal, list_tasks(paths, rows, parameters["size_px"], folder), workers
    ):
        (folder / f"{image}.png").unlink(missing_ok=True)
    return journal


def describe_parameters(size_px: int) -> dict[str, Any]:
    """Return what the squares depend on beside photographs and ellipses."""
    return {"version": VERSION, "size_px": size_px}


def resize(data: Path, cache: Path, size_px: int, workers: per_image.Workers) -> dict[str, str]:
    """Bring the squares of both splits up to date; return the rejected images and why."""
    parameters = describe_parameters(size_px)
    outputs, inputs, reasons = stage.kept_outputs(cache / "resize", parameters), {}, {}
    for split in eyes.SPLITS:
        paths, _ = eyes.list_images(data, split)
        if not paths:
            print(f"resize: {split}: no photographs in {data / split}")
            continue
        journal = resize_split(paths, cache, split, parameters, workers)
        inputs[f"crop {split}"] = stage.read_output(cache / "crop", split, "preprocess.crop")
        outputs[split] = journal.digest
        stage.record_rejected(cache, "resize", split, journal.reasons)
        reasons |= journal.reasons
    stage.write_manifest(cache / "resize", "resize", parameters, inputs, outputs)
    return reasons


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess.resize",
        "Cut every eye out of its photograph and scale it to fill a square, black outside the disc. Writes "
        "CACHE/resize/train/IMAGE.png and test/IMAGE.png, and the histogram of the pixels inside the disc.",
        "--data data --cache cache --size-px 512 --jobs 4",
    )
    add_options(parser)
    per_image.add_image_options(parser)
    options = parser.parse_args(argv)
    with stage.locked(options.cache):
        reasons = resize(options.data, options.cache, options.size_px, per_image.choose_workers(options))
    stage.check_rejected(options.cache, reasons, options.allow_rejected)


def add_options(parser) -> None:
    """Add this stage's own options."""
    parser.add_argument("--size-px", type=parse_size, default=SIZE_PX, help="side of the squares in pixels")


def parse_size(text: str) -> int:
    """Return a side in pixels that the pipeline can work with."""
    if not text.isdecimal() or not 32 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32 to 4096")
    return int(text)


if __name__ == "__main__":
    stage.run(main)
