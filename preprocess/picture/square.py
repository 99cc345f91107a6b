"""Make a square: from a photograph to pixels and lookup table, by the same functions for the cache and in memory."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from preprocess.cache import manifest
from preprocess.disk.errors import InputError
from preprocess.picture import cut, depth, outline
from preprocess.picture.disc import Disc
from preprocess.picture.photograph import Bits, Photograph

# The treatment of a square's colours. "cdf" makes each channel's distribution flat, "local" then subtracts the local
# means, "none" changes nothing.
NORMALIZATIONS = ("cdf", "local", "none")
SIGMA_SHARE = (
    6 / 256
)  # of the side: the blur that is the local mean; lesions are smaller, shadows larger
GAIN = 4.0  # the local contrast is multiplied by it; more would clip vessels
GREY = 128  # the value of no difference from the local mean, and of the background
DARKEST = 12  # a pixel with no channel above this is background: black, or JPEG noise on it
RIM_PX = 3  # kernel that removes the half-dark pixels at the rim
REDUCTION = 4  # the blur is computed on squares 1/4 as wide: 4 ms instead of 30 at 512 px


class Making(NamedTuple):
    """The settings that a square, and thus a net, depends on: how the eye is found, the side, the colours.

    `bits` is the range of values of more than 8 bits in the photographs, or the ranges of a joined set's sources; None
    where these have 8.
    """

    crop: str
    size_px: int
    normalize: str
    bits: Bits | None = None

    def describe(self) -> dict[str, Any]:
        """Return the settings as a checkpoint keeps them: `bits` only where there are some."""
        return {
            name: value
            for name, value in self._asdict().items()
            if name != "bits" or value is not None
        }


class Square(NamedTuple):
    """A photograph's eye as the input of a net, before standardization."""

    pixels: np.ndarray  # (size_px, size_px, 3) uint8 RGB
    lut: np.ndarray  # (3, 256) uint8, still to be applied to them
    disc: Disc  # where the eye lies, in pixels of the photograph; the square's sides touch it


def read_making(cache: Path) -> Making:
    """Return how the squares of a cache were made. Raises InputError if a stage has not run."""
    return Making(
        crop=manifest.read_parameter(cache / "crop", "method", "preprocess.crop"),
        size_px=manifest.read_parameter(cache / "resize", "size_px", "preprocess.resize"),
        normalize=manifest.read_parameter(cache / "normalize", "method", "preprocess.normalize"),
        bits=depth.read_bits(cache / "resize"),
    )


def make_square(path: Path, making: Making) -> Square:
    """Return a photograph's square, as the stages would make it.

    Raises Unusable unless the file is a whole photograph of an eye.
    """
    photograph = Photograph(path, making.bits)
    row = outline.measure(photograph, making.crop)
    shape = outline.SHAPES[making.crop]
    pixels, inside = cut.cut_square(photograph, row, making.size_px, shape)
    histogram = cut.count_pixels(pixels, inside)
    lut = make_luts(histogram[None], making.normalize)[0]
    pixels, lut = finish(pixels, lut, making.normalize)
    return Square(pixels=pixels, lut=lut, disc=outline.read_disc(row))


def read_pixels(path: Path, size_px: int) -> np.ndarray:
    """Return a square of the cache, (size_px, size_px, 3) uint8 RGB. Raises InputError if it is no such picture."""
    bgr = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR)  # None if it cannot be read
    if bgr is None:
        raise InputError(
            f"{path}: missing or unreadable; remove it and run python -m preprocess.resize again"
        )
    if bgr.shape[:2] != (size_px, size_px):
        raise InputError(
            f"{path}: {bgr.shape[1]}x{bgr.shape[0]} px, not {size_px}x{size_px}; preprocess again"
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def make_luts(histograms: np.ndarray, method: str) -> np.ndarray:
    """Return the lookup tables of squares, (n, 3, 256) uint8, that spread each channel's values evenly over 0-255.

    The histograms, (n, 3, 256), count the pixels inside the disc; an empty one raises ValueError. A value goes to the
    share of pixels below it plus half the share at it, times 255: the mid-rank, which sends a channel of one value to
    the middle. Black stays black, as outside the disc. The method "none" changes no value.
    """
    if method == "none":
        return keep_values(len(histograms))
    totals = histograms.sum(axis=-1, keepdims=True)
    if (totals == 0).any():
        raise ValueError("an empty histogram has no distribution")
    mid_ranks = (histograms.cumsum(axis=-1) - histograms / 2) / totals
    luts = np.rint(255 * mid_ranks).astype(np.uint8)
    luts[..., 0] = 0
    return luts


def finish(pixels: np.ndarray, lut: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Finish pixels (h, w, 3) as far as a lookup table (3, 256) cannot; return them and the table still to be applied.

    Only "local" changes the pixels: it applies the table and subtracts the local means.
    """
    if method != "local":
        return pixels, lut
    flattened = cv2.LUT(pixels, lut.T[None])
    return subtract_local_mean(flattened), keep_values(1)[0]


def subtract_local_mean(square: np.ndarray) -> np.ndarray:
    """Return each pixel's difference from the mean of its neighbourhood, (h, w, 3) uint8; background is grey.

    The square, (h, w, 3) uint8 RGB, is black where there is no eye; these pixels have no part in the means. Graham's
    entry, which won the competition of 2015, subtracted the local average colour in the same way.
    """
    h, w = square.shape[:2]
    is_bright = (square.max(axis=2) > DARKEST).astype(np.uint8)
    rim_kernel = np.ones((RIM_PX, RIM_PX), np.uint8)
    is_eye = cv2.erode(is_bright, rim_kernel).astype(np.float32)[:, :, None]  # (h, w, 1)
    values = square.astype(np.float32)
    weighted = np.concatenate([values * is_eye, is_eye], axis=2)  # (h, w, 4)
    small_size = (max(1, w // REDUCTION), max(1, h // REDUCTION))
    small = cv2.resize(weighted, small_size, interpolation=cv2.INTER_AREA)
    sigma_px = SIGMA_SHARE * h / REDUCTION
    small = cv2.GaussianBlur(small, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    blurred = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
    means = blurred[:, :, :3] / np.maximum(
        blurred[:, :, 3:], 1e-3
    )  # the bound matters far from the eye only
    contrast = np.rint(GREY + GAIN * is_eye * (values - means))
    return np.clip(contrast, 0, 255).astype(np.uint8)


def leave_luts(luts: np.ndarray, method: str) -> np.ndarray:
    """Return the lookup tables (n, 3, 256) that are still to be applied to finished squares, from the original ones."""
    if method == "local":
        return keep_values(len(luts))
    return luts


def keep_values(n: int) -> np.ndarray:
    """Return lookup tables that change nothing, (n, 3, 256) uint8."""
    return np.broadcast_to(np.arange(256, dtype=np.uint8), (n, 3, 256))
