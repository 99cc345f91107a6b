"""The canvas of a drawing: places become pixels, strokes and spots become ink layers, noise becomes texture; no file.

Places are in units of the field's radius, the origin at its centre, y downwards, and x towards the temple, so that a
left eye is drawn as a photograph shows it and a right eye as its mirror image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

SUBPIXEL_BITS = 4  # cv2 draws at fractions of 1/16 pixel
INK_SCALE = 2  # vessels and spots are drawn at twice the size, then averaged down


class Frame(NamedTuple):
    """Where the field lies in a picture, in pixels; `mirrored` for a right eye."""

    width: int
    height: int
    center_x: float
    center_y: float
    radius: float
    bottom: (
        float  # the row where the field is cut off: the picture's height, or a flat bottom above it
    )
    mirrored: bool


def coarsen(frame: Frame, step: int) -> Frame:
    """Return the frame of the same picture with one pixel for each `step` x `step`."""
    return Frame(
        width=-(-frame.width // step),
        height=-(-frame.height // step),
        center_x=frame.center_x / step,
        center_y=frame.center_y / step,
        radius=frame.radius / step,
        bottom=frame.bottom / step,
        mirrored=frame.mirrored,
    )


def find_limits(frame: Frame) -> tuple[float, float]:
    """Return the least and the greatest y that the photograph shows."""
    top = -frame.center_y / frame.radius
    bottom = (frame.bottom - frame.center_y) / frame.radius
    return top, bottom


def to_pixels(places: ArrayLike, frame: Frame) -> np.ndarray:
    """Map (..., 2) places to (..., 2) pixels of the frame."""
    side = -1 if frame.mirrored else 1
    return np.asarray(places) * [side * frame.radius, frame.radius] + [
        frame.center_x,
        frame.center_y,
    ]


def to_ink(places: ArrayLike, frame: Frame) -> np.ndarray:
    """Map (..., 2) places to the fixed-point pixels of an ink layer that cv2 draws at."""
    pixels = (to_pixels(places, frame) + 0.5) * INK_SCALE - 0.5
    return np.round(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def new_ink(frame: Frame) -> np.ndarray:
    """Return an empty ink layer, uint8, INK_SCALE times the frame's size."""
    return np.zeros((frame.height * INK_SCALE, frame.width * INK_SCALE), np.uint8)


def diffuse(ink: np.ndarray, sigma: float, frame: Frame) -> np.ndarray:
    """Return an ink layer at the frame's size, float32 of 0-1, blurred by `sigma` radii: no eye has a pen's edges."""
    small = cv2.resize(ink, (frame.width, frame.height), interpolation=cv2.INTER_AREA)
    layer = small * np.float32(1 / 255)
    sigma_px = sigma * frame.radius
    if sigma_px <= 0.3:
        return layer
    return cv2.GaussianBlur(layer, (0, 0), sigma_px)


def blend(planes: np.ndarray, cover: np.ndarray, color: Sequence[float] | np.ndarray) -> None:
    """Paint a colour (3,) over planes (3, h, w) in place, as much as the cover (h, w), 0-1."""
    for plane, value in zip(planes, color, strict=True):
        plane += cover * (np.float32(value) - plane)


def make_texture(rng: Generator, cells: int, frame: Frame) -> np.ndarray:
    """Return smooth noise (height, width) float32 with about unit deviation and `cells` bumps across the width."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    square = cv2.resize(grid, (frame.width, frame.width), interpolation=cv2.INTER_CUBIC)
    return square[: frame.height]


def blur_noise(rng: Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Return noise of a shape (h, w) and unit deviation, blurred by `sigma` parts of the height."""
    noise = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), sigma * shape[0])
    return noise / noise.std()


def soften(mask: np.ndarray, parts: int) -> np.ndarray:
    """Return a mask as (h, w) float64 of 0-1, its edges blurred by 1/parts of the height."""
    return cv2.GaussianBlur(mask.astype(np.float64), (0, 0), len(mask) / parts)


def measure_distance(place: ArrayLike, frame: Frame) -> np.ndarray:
    """Return the distance (h, w) float32 of every pixel to a place, in units of the field's radius."""
    x, y = to_pixels(place, frame)
    dx = (np.arange(frame.width, dtype=np.float32) - np.float32(x)) / np.float32(frame.radius)
    dy = (np.arange(frame.height, dtype=np.float32) - np.float32(y)) / np.float32(frame.radius)
    return np.sqrt(dx**2 + dy[:, None] ** 2)


def stroke(
    ink: np.ndarray, paths: np.ndarray, widths: np.ndarray, value: int, frame: Frame
) -> None:
    """Draw paths (n, steps, 2) of varying widths (n, steps) into an ink layer; a width of 0 leaves a gap."""
    pixels = to_ink(paths, frame)
    starts = pixels[:, :-1].reshape(-1, 2)
    ends = pixels[:, 1:].reshape(-1, 2)
    segments = np.stack([starts, ends], axis=1)
    end_widths = widths[:, 1:].ravel()
    thickness = np.ceil(end_widths * frame.radius * INK_SCALE - 0.5).astype(int)
    thickness[end_widths == 0] = 0
    for thickness_px in np.unique(thickness[thickness > 0]):
        chosen = list(segments[thickness == thickness_px])
        cv2.polylines(ink, chosen, False, value, int(thickness_px), cv2.LINE_8, SUBPIXEL_BITS)


def fill_spot(ink: np.ndarray, place: ArrayLike, radius: float, value: int, frame: Frame) -> None:
    """Draw a filled circle into an ink layer."""
    x, y = to_ink(place, frame)
    radius_px = round(radius * frame.radius * INK_SCALE * 2**SUBPIXEL_BITS)
    cv2.circle(ink, (int(x), int(y)), radius_px, value, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
