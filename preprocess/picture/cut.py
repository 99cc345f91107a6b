"""Cut the square with the eye out of a photograph; encode it as a PNG and count its pixels in a histogram."""

import base64
import math
import zlib
from typing import Any

import cv2
import numpy as np

from preprocess.disk.errors import Unusable
from preprocess.picture import outline
from preprocess.picture.disc import Disc
from preprocess.picture.encode import encode_image
from preprocess.picture.photograph import Photograph

VERSION = 1  # raise it when the same row of the crop table gives other pixels
NO_BLUR = 0.01  # pixels: cv2 takes 0 for "as across"
# The averaging filter and run lengths take 4.7 ms and 241 kB for each of 40 real eyes,
# zlib's level 1 takes 11.7 ms and 293 kB.
# fmt: off
PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,  # first: it resets the strategy
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG,
)
# fmt: on


def cut_square(
    photograph: Photograph, row: outline.Row, size_px: int, shape: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return `cut_out`'s square of a photograph and the mask of its pixels, from the photograph's crop table row.

    The photograph is decoded at the coarsest scale that leaves the disc `size_px` wide, but no coarser than for
    detection: then one decode serves both, and a small square is averaged from more pixels.
    """
    disc = outline.read_disc(row)
    diameter = min(outline.find_diameters(disc, shape))
    short_side_px = math.ceil(min(row["width"], row["height"]) * size_px / diameter)
    rgb, reduction = photograph.decode(max(outline.DETECTION_PX, short_side_px))
    return cut_out(rgb, disc.scaled(1 / reduction), size_px, shape)


def cut_out(
    rgb: np.ndarray, disc: Disc, size_px: int, shape: str = "ellipse"
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a disc out of a picture (h, w, 3) uint8 RGB and scale it to fill a square.

    The disc is in pixels of the picture. The shape is "ellipse", "box" for all of the box around it, or "stretched"
    for the box with its sides made equal; unless it is stretched, the longer axis fills the square. Returns the square
    (size_px, size_px, 3) uint8 RGB, black outside the shape and beyond the picture, and the mask (size_px, size_px)
    bool of the pixels that show the shape. Raises Unusable if none does.
    """
    scale = size_px / np.array(
        outline.find_diameters(disc, shape)
    )  # x and y: output pixels per pixel of rgb
    center = np.array([disc.center_x, disc.center_y])
    reach = size_px / 2 / scale + 4  # half the square, and a margin for blur and interpolation
    left, top = np.maximum(0, np.floor(center - reach)).astype(int)
    right, bottom = np.maximum(0, np.ceil(center + reach) + 1).astype(int)
    rgb = rgb[top:bottom, left:right]
    if rgb.size == 0:
        raise Unusable("the ellipse lies outside the photograph")
    is_shrunk = scale.min() < 1
    if is_shrunk:  # without the blur a coarser grid would show aliases
        sigma_x, sigma_y = np.maximum((1 / scale - 1) / 2, NO_BLUR)
        rgb = cv2.GaussianBlur(
            rgb, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE
        )
    shift = (size_px - 1) / 2 - scale * (center - [left, top])
    matrix = np.column_stack([np.diag(scale), shift])
    square = cv2.warpAffine(
        rgb,
        matrix,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR if is_shrunk else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    semi_axes = scale * [disc.semi_axis_x, disc.semi_axis_y]
    inside = _find_inside(rgb.shape[:2], matrix, semi_axes, size_px=size_px, shape=shape)
    if not inside.any():
        raise Unusable("the ellipse lies outside the photograph")
    square[~inside] = 0
    return square, inside


def _find_inside(
    picture_shape: tuple[int, ...],
    matrix: np.ndarray,
    semi_axes: np.ndarray,
    size_px: int,
    shape: str,
) -> np.ndarray:
    """Return a mask (size_px, size_px) of the pixels whose centre lies in the shape and in the picture of (h, w).

    The matrix (2, 3) maps pixels of the picture to those of the square; the semi-axes x, y are in pixels of the square.
    """
    height, width = picture_shape
    position = np.arange(size_px, dtype=np.float64)
    offset = position - (size_px - 1) / 2
    across = (offset[None, :] / semi_axes[0]) ** 2
    down = (offset[:, None] / semi_axes[1]) ** 2
    is_in_shape = np.maximum(across, down) <= 1  # the box
    if shape == "ellipse":
        is_in_shape = across + down <= 1
    columns = (position - matrix[0, 2]) / matrix[0, 0]
    rows = (position - matrix[1, 2]) / matrix[1, 1]
    is_in_columns = (columns >= -0.5) & (columns <= width - 0.5)
    is_in_rows = (rows >= -0.5) & (rows <= height - 0.5)
    return is_in_shape & is_in_columns[None, :] & is_in_rows[:, None]


def count_pixels(square: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Return the histogram of each channel over the pixels inside, or over all: (3, 256) int64."""
    mask = None
    if inside is not None:
        mask = inside.astype(np.uint8)
    counts = [
        cv2.calcHist([square], [channel], mask, [256], [0, 256]).ravel() for channel in range(3)
    ]
    return np.stack(counts).astype(np.int64)


def encode(square: np.ndarray, inside: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    """Return a square as a PNG file, and its row: the file's size and checksum, and the histogram as a short text."""
    png = encode_image(cv2.cvtColor(square, cv2.COLOR_RGB2BGR), ".png", PNG_OPTIONS)
    counts = count_pixels(square, inside).astype("<u4")
    compressed = zlib.compress(counts.tobytes(), 6)
    row = {
        "histogram": base64.b64encode(compressed).decode(),
        "png_bytes": len(png),
        "png_crc32": zlib.crc32(png),
    }
    return png, row


def decode_histogram(text: str) -> np.ndarray:
    """Return the counts, (3, 256) int64, that `encode` wrote as a text."""
    content = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(content, "<u4").reshape(3, 256).astype(np.int64)
