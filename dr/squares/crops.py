"""Where each square is cut, turned, flipped and recoloured; and the cutting, on the host or on the device."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from dr.squares import draws
from dr.squares.store import Squares

FLIP_CODES = {(True, True): -1, (True, False): 0, (False, True): 1}  # cv2.flip's, for (up-down, left-right)
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
    is_flipped_vertically: np.ndarray  # bool, as the next
    is_flipped_horizontally: np.ndarray
    angle: np.ndarray  # radians about the middle of the crop, before the flips
    zoom: np.ndarray  # above 1: enlarged about the middle of the crop
    shift: np.ndarray  # (n, 2), by which share of the crop's side the picture is moved right and down, before the flips
    brightness: np.ndarray  # what the square's pixel values are multiplied by, before all that is applied to them
    gain: np.ndarray  # (n, 3), what the standardized channels are multiplied by
    offset: np.ndarray  # (n, 3), what is added to them then


def draw_crops(
    n: int, margin_px: int, seed: int, epoch: int, stream: int = draws.CROPS,
    flips: str = "both", rotation_deg: float = 0.0, zoom: Sequence[float] = (1.0, 1.0), shift: float = 0.0,
    brightness: Sequence[float] = (1.0, 1.0), jitter: float = 0.0,
) -> Crops:  # fmt: skip
    """Return a random crop per position in the dataset: corners uniform over 0..margin_px, each flip with p = 0.5.

    What a position gets is a function of the seed, the epoch and the position alone. Angles are uniform up to
    `rotation_deg` to either side, shifts up to `shift`, offsets up to `jitter`; zooms log-uniform within their
    bounds, gains from 1/(1 + jitter) to 1 + jitter; brightness is uniform within its bounds.
    """
    numbers = draws.draw(draws.make_keys(seed, stream, epoch, torch.arange(n)), N_DRAWN).numpy()
    top, left = (numbers[:, DRAWN["corner"]] * (margin_px + 1) >> draws.BITS).T
    is_heads = numbers[:, DRAWN["flips"]] >> (draws.BITS - 1) == 1

    def swing(name: str) -> np.ndarray:  # uniform in [-1, 1)
        return numbers[:, DRAWN[name]] / 2 ** (draws.BITS - 1) - 1

    def share(name: str) -> np.ndarray:  # uniform in [0, 1)
        return (1 + swing(name)) / 2

    return Crops(
        top=top,
        left=left,
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
    """Return standardized crops, (b, 3, crop_px, crop_px) float32 in channels-last order, where the pixels lie.

    Cut are the squares at `positions` (b,); the crops are given for all squares.
    """
    chosen = Crops(*(field[positions] for field in crops))
    brightened = np.rint(np.arange(256) * chosen.brightness[:, None]).clip(0, 255).astype(np.int64)  # (b, 256)
    tables = squares.tables[positions[:, None], brightened] * chosen.gain[:, None] + chosen.offset[:, None]
    if isinstance(squares.pixels, np.ndarray):
        return _cut_on_host(squares.pixels, positions, chosen, tables, crop_px).permute(0, 3, 1, 2)
    return _cut_on_device(squares.pixels, positions, chosen, tables, crop_px).permute(0, 3, 1, 2)


def _cut_on_host(
    pixels: np.ndarray, positions: np.ndarray, crops: Crops, tables: np.ndarray, crop_px: int
) -> torch.Tensor:
    """Cut with OpenCV, in one pass over the pixels.

    A loop over samples, and yet faster than torch's indexing of the batch: 3,700 against 125 crops of 448 px a second
    (one Zen 5 core, torch 2.13, OpenCV 5.0, best of 3).
    """
    batch, turns = np.empty((len(positions), crop_px, crop_px, 3), np.float32), find_turns(crops, crop_px)
    for row, (position, top, left, is_down, is_right) in enumerate(zip(positions, *crops[:4], strict=True)):
        if turns is None:
            square = pixels[position, top : top + crop_px, left : left + crop_px]
        else:
            square = pixels[position]
            square = cv2.warpAffine(square, turns[row], (crop_px,) * 2, flags=TURNING, borderMode=cv2.BORDER_REPLICATE)
        code = FLIP_CODES.get((bool(is_down), bool(is_right)))
        square = square if code is None else cv2.flip(square, code)
        square = cv2.cvtColor(square, cv2.COLOR_GRAY2RGB) if pixels.shape[3] == 1 else square
        cv2.LUT(square, tables[row][None], dst=batch[row])
    return torch.from_numpy(batch)


def _cut_on_device(
    pixels: torch.Tensor, positions: np.ndarray, crops: Crops, tables: np.ndarray, crop_px: int
) -> torch.Tensor:
    """Cut the whole batch with two gathers, or if the images are turned with one and torch's interpolation."""
    place = functools.partial(torch.as_tensor, device=pixels.device)
    offsets, turns = np.arange(crop_px), find_turns(crops, crop_px)
    y, x = (np.where(is_flipped[:, None], crop_px - 1 - offsets, offsets) for is_flipped in crops[2:4])  # (b, crop_px)
    rows = place(positions)
    if turns is None:
        y, x = y + crops.top[:, None], x + crops.left[:, None]
        cut = pixels[rows[:, None, None], place(y)[:, :, None], place(x)[:, None, :]]
    else:
        cut = _turn(pixels[rows], place(y), place(x), place(np.float32(turns)))
    images, channels = (torch.arange(count, device=pixels.device) for count in (len(rows), 3))
    return place(tables)[images[:, None, None, None], cut.int(), channels]


def find_turns(crops: Crops, crop_px: int) -> np.ndarray | None:
    """Return what takes (x, y, 1) in a crop to (x, y) in its square, (b, 2, 3) float64; None if nothing is turned."""
    if not crops.angle.any() and (crops.zoom == 1).all() and not crops.shift.any():
        return None
    cosine, sine = np.cos(crops.angle) / crops.zoom, np.sin(crops.angle) / crops.zoom
    middle = (crop_px - 1) / 2
    x, y = crop_px * crops.shift.T
    shift_x = crops.left + middle - (cosine - sine) * middle - (cosine * x - sine * y)
    shift_y = crops.top + middle - (sine + cosine) * middle - (sine * x + cosine * y)
    return np.stack([np.stack([cosine, -sine, shift_x], axis=1), np.stack([sine, cosine, shift_y], axis=1)], axis=1)


def _turn(pixels: torch.Tensor, y: torch.Tensor, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return crops interpolated between the four nearest pixels, (b, h, w, 3) uint8; the border is repeated outside."""
    rules = turns[:, :, :, None, None].unbind(1)  # two of (b, 3, 1, 1)
    places = [rule[:, 0] * x[:, None, :] + rule[:, 1] * y[:, :, None] + rule[:, 2] for rule in rules]  # (b, h, w) each
    grid = (2 * torch.stack(places, dim=3) + 1) / pixels.shape[1] - 1  # from -1 to 1, the square's edges
    images = pixels.permute(0, 3, 1, 2).float()
    turned = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return turned.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def cut_centers(squares: Squares, crop_px: int) -> torch.Tensor:
    """Return the middle of each square, standardized, (n, 3, crop_px, crop_px) float32."""
    n = len(squares)
    return cut_batch(squares, np.arange(n), center_crops(n, squares.size_px - crop_px), crop_px)
