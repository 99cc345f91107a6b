"""Undo a crop: what was computed over a square, put where it lies in the photograph."""

import cv2
import numpy as np

from preprocess.picture import outline
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making


def undo_crop(values: np.ndarray, disc: Disc, making: Making, shape: tuple[int, int]) -> np.ndarray:
    """Return values over the middle of a square, (crop_px, crop_px) float32, in their place in the photograph, (h, w).

    The disc fills the square and is given in pixels of the photograph, whose shape is (h, w). Outside the values, and
    outside a disc that was found, all is 0.
    """
    diameter_x, diameter_y = outline.find_diameters(disc, outline.SHAPES[making.crop])
    step_x = diameter_x / making.size_px  # pixels of the photograph per pixel of the square
    step_y = diameter_y / making.size_px
    corner = (making.size_px - len(values)) // 2 - (
        making.size_px - 1
    ) / 2  # of the heat, from the square's middle
    matrix = np.array(
        [[step_x, 0, disc.center_x + step_x * corner], [0, step_y, disc.center_y + step_y * corner]]
    )
    placed = cv2.warpAffine(values, matrix, shape[::-1], flags=cv2.INTER_LINEAR)
    if outline.SHAPES[making.crop] != "ellipse":
        return placed
    columns = (np.arange(shape[1], dtype=np.float32) - disc.center_x) / disc.semi_axis_x
    rows = (np.arange(shape[0], dtype=np.float32) - disc.center_y) / disc.semi_axis_y
    return np.where(columns**2 + rows[:, None] ** 2 <= 1, placed, 0)
