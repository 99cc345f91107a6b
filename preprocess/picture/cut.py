"""Cut the eye out of a photograph: the square, and what of it is kept: a PNG, the histogram of the pixels inside."""

import base64
import math
import zlib
from typing import Any

import cv2
import numpy as np

from preprocess.disk.errors import Unusable
from preprocess.picture import outline
from preprocess.picture.disc import Disc
from preprocess.picture.photograph import Photograph

VERSION = 1  # raise it when the same row of the crop table gives other pixels
NO_BLUR = 0.01  # pixels: cv2 takes 0 for "as across"
# Averaging filter, run lengths: 4.7 ms and 241 kB for each of 40 real eyes, where zlib's level 1 takes 11.7 ms, 293 kB.
PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),  # first: it resets the strategy
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
)


def cut_square(photograph: Photograph, row: outline.Row, size_px: int, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Return `cut_out`'s square of a photograph whose row of the crop table is given.

    It is decoded as small as leaves the disc `size_px`, but no smaller than for detection: then one decode serves
    both, and a small square is averaged from more pixels.
    """
    disc = outline.read_disc(row)
    short_side_px = math.ceil(min(row["width"], row["height"]) * size_px / min(outline.find_diameters(disc, shape)))
    rgb, reduction = photograph.decode(max(outline.DETECTION_PX, short_side_px))
    return cut_out(rgb, disc.scaled(1 / reduction), size_px, shape)


def cut_out(rgb: np.ndarray, disc: Disc, size_px: int, shape: str = "ellipse") -> tuple[np.ndarray, np.ndarray]:
    """Cut a disc out of a picture (h, w, 3) uint8, in whose pixels it is given, and scale it to fill a square.

    The shape is "ellipse", "box" for all of the box around it, or "stretched" for the box with its sides made equal;
    else the longer axis fills the square. Returns the square, uint8 RGB, black outside the shape and where the
    photograph ends, and which of its pixels show the shape, bool. Raises Unusable if none does.
    """
    scale = size_px / np.array(outline.find_diameters(disc, shape))  # x and y: output pixels per pixel of rgb
    center = np.array([disc.center_x, disc.center_y])
    reach = size_px / 2 / scale + 4  # half the square, and what is looked at beyond it
    left, top = np.maximum(0, np.floor(center - reach)).astype(int)
    right, bottom = np.maximum(0, np.ceil(center + reach) + 1).astype(int)
    rgb = rgb[top:bottom, left:right]
    if rgb.size == 0:
        raise Unusable("the ellipse lies outside the photograph")
    is_shrunk = scale.min() < 1
    if is_shrunk:  # without the blur a coarser grid would show aliases
        blur = np.maximum((1 / scale - 1) / 2, NO_BLUR)
        rgb = cv2.GaussianBlur(rgb, (0, 0), blur[0], sigmaY=blur[1], borderType=cv2.BORDER_REPLICATE)
    shift = (size_px - 1) / 2 - scale * (center - [left, top])
    matrix = np.column_stack([np.diag(scale), shift])
    interpolation = cv2.INTER_LINEAR if is_shrunk else cv2.INTER_CUBIC
    square = cv2.warpAffine(rgb, matrix, (size_px, size_px), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    semi_axes = scale[0] * disc.semi_axis_x, scale[1] * disc.semi_axis_y
    inside = _draw_inside(rgb.shape[:2], matrix, semi_axes, size_px, shape)
    if not inside.any():
        raise Unusable("the ellipse lies outside the photograph")
    square[~inside] = 0
    return square, inside


def _draw_inside(
    picture: tuple[int, ...], matrix: np.ndarray, semi_axes: tuple[float, float], size_px: int, shape: str
) -> np.ndarray:
    """Return the output pixels whose centre lies in the shape and in the picture of (h, w)."""
    position = np.arange(size_px, dtype=np.float64)
    offset = position - (size_px - 1) / 2
    across, down = (offset[None, :] / semi_axes[0]) ** 2, (offset[:, None] / semi_axes[1]) ** 2
    filled = across + down <= 1 if shape == "ellipse" else np.maximum(across, down) <= 1
    columns = (position - matrix[0, 2]) / matrix[0, 0]
    rows = (position - matrix[1, 2]) / matrix[1, 1]
    in_columns = (columns >= -0.5) & (columns <= picture[1] - 0.5)
    in_rows = (rows >= -0.5) & (rows <= picture[0] - 0.5)
    return filled & in_columns[None, :] & in_rows[:, None]


def count_pixels(square: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Return the histogram of each channel over the pixels inside, or all: (3, 256) int64."""
    mask = None if inside is None else inside.astype(np.uint8)
    counts = [cv2.calcHist([square], [channel], mask, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts).astype(np.int64)


def encode(square: np.ndarray, inside: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    """Return a square as a PNG file, and its row: the file's size and checksum, and the histogram as a short text."""
    png = cv2.imencode(".png", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), PNG_OPTIONS)[1].tobytes()
    histogram = base64.b64encode(zlib.compress(count_pixels(square, inside).astype("<u4").tobytes(), 6)).decode()
    return png, {"histogram": histogram, "png_bytes": len(png), "png_crc32": zlib.crc32(png)}


def decode_histogram(text: str) -> np.ndarray:
    """Return the (3, 256) int64 counts of a square's row."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").reshape(3, 256).astype(np.int64)
