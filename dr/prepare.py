"""Raw photographs, in memory and without a cache -> what the pipeline's stages make of them for a trained net.

A checkpoint tells all that is needed: how the eye is found, the side of the squares, mean and standard deviation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import contrast, inputs
from preprocess import crop, normalize, photograph, resize
from preprocess.disc import Disc
from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch

    from dr.dataset import Photographs


class Refused(ValueError):
    """A file that no net can grade; the message is the reason, for people, without the file's name."""


class Square(NamedTuple):
    """A photograph's eye as the net is given it, before crop and standardization.

    pixels : (size_px, size_px, 3) uint8 RGB
    lut : (3, 256) uint8, which flattens the distribution of each channel where `pixels` are not already final
    disc : where the eye lies, in pixels of the photograph; the square's sides touch it
    is_found : False for a ready-made square, which is taken whole, so that the disc's confidence says nothing
    """

    pixels: np.ndarray
    lut: np.ndarray
    disc: Disc
    is_found: bool


def describe_squares(content: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    """Return all of a checkpoint that the squares depend on: nets of which it is the same can share them."""
    return content["size_px"], content["crop_method"], content["settings"].get("local_contrast", False)


def prepare(path: Path, content: Mapping[str, Any]) -> Square:
    """Return the eye that a photograph shows, as the squares were made that a net was trained on.

    Parameters
    ----------
    path : a JPEG or PNG file
    content : of the net's checkpoint

    Raises Refused for what is no whole photograph of an eye.
    """
    size_px, method, is_local = describe_squares(content)
    try:
        square = take_square(path, size_px) if method is None else cut_square(path, size_px, method)
    except photograph.UnreadablePhotograph as error:
        raise Refused(str(error)) from error
    if is_local:
        return square._replace(pixels=contrast.finish(square.pixels, square.lut), lut=inputs.keep_values(1)[0])
    return square


def cut_square(path: Path, size_px: int, method: str) -> Square:
    """Find the eye in a photograph, cut it out and flatten its channels. Raises Refused and UnreadablePhotograph."""
    row = crop.measure(path, method, correction=None)
    if "reason" in row:
        raise Refused(row["reason"])
    rgb, reduction = photograph.decode(path, resize.choose_short_side(row, size_px))
    pixels, inside = resize.cut_square(rgb, reduction, row, size_px)
    (lut,) = normalize.flatten_distribution(resize.count_pixels(pixels, inside)[None])
    return Square(pixels, lut, Disc(*(row[name] for name in crop.ELLIPSE), row["confidence"]), is_found=True)


def take_square(path: Path, size_px: int) -> Square:
    """Take a ready-made square as it is. Raises Refused for one of another size, and UnreadablePhotograph."""
    pixels, _ = photograph.decode(path, photograph.MAX_PIXELS)  # never reduced
    if pixels.shape[:2] != (size_px, size_px):
        shown = " x ".join(map(str, pixels.shape[1::-1]))
        raise Refused(f"{shown} pixels; the net was trained on ready-made squares of {size_px}")
    half = size_px / 2
    return Square(
        pixels, inputs.keep_values(1)[0], Disc(half - 0.5, half - 0.5, half, half, confidence=1.0), is_found=False
    )


def gather(images: Sequence[str], squares: Sequence[Square], content: Mapping[str, Any]) -> Photographs:
    """Return the squares of image ids, with the tables that standardize them as the net of a checkpoint wants them."""
    from dr import contrast, dataset, inputs

    pixels, luts = (np.stack([getattr(square, field) for square in squares]) for field in ("pixels", "lut"))
    if content["settings"].get("local_contrast"):
        pixels = np.stack([contrast.finish(square, lut) for square, lut in zip(pixels, luts, strict=True)])
        luts = inputs.keep_values(len(images))
    return dataset.make_photographs(list(images), pixels, luts, np.array(content["mean"]), np.array(content["std"]))


def cut_centers(photographs: Photographs, crop_px: int) -> torch.Tensor:
    """Return the middle of each square, standardized, (n, 3, crop_px, crop_px) float32."""
    from dr import dataset

    n = len(photographs.images)
    crops = dataset.center_crops(n, photographs.size_px - crop_px)
    return dataset.cut_batch(photographs, np.arange(n), crops, crop_px)


def show(path: Path) -> str:
    """Return a path that can be printed, whatever bytes the file system holds."""
    return os.fsencode(path).decode(errors="backslashreplace")


def report_refused(reasons: Mapping[str, str], n_done: int) -> None:
    """Raise InputError if photographs were refused, name -> reason; all others, so many, have been dealt with."""
    if reasons:
        name, reason = next(iter(reasons.items()))
        counted = f"{len(reasons)} photograph{'s are' if len(reasons) > 1 else ' is'} refused"
        raise InputError(f"{counted} ({name}: {reason})" + f"; {n_done} done" * (n_done > 0))
