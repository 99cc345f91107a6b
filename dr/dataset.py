"""Cached uint8 images and their lookup tables -> cropped, flipped, standardized float batches, on any device.

Images stay uint8 in device memory, in main memory or in a memory-mapped file under CACHE/dr/pixels, the first of these
that holds them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from dr import contrast, draws, inputs
from preprocess import stage
from preprocess.eyes import parse_image_id
from preprocess.stage import InputError

MEMORY_SHARE = 0.7  # of the free memory may go to images; the rest is for the net
FLIP_CODES = {(True, True): -1, (True, False): 0, (False, True): 1}  # cv2.flip's, for (up-down, left-right)
# How OpenCV turns a square: the matrix leads back from the crop, and the border is repeated outside.
TURNING = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
BATCHES_AHEAD = 2  # made while the device works on one
THREADS = os.cpu_count() or 1


class Crops(NamedTuple):
    """Where each image is cut, how it is turned and how its colours are changed: arrays of shape (n,)."""

    top: np.ndarray
    left: np.ndarray
    is_flipped_vertically: np.ndarray  # bool, as the next
    is_flipped_horizontally: np.ndarray
    angle: np.ndarray  # radians about the middle of the crop, before the flips
    zoom: np.ndarray  # above 1: enlarged about the middle of the crop
    gain: np.ndarray  # (n, 3), what the standardized channels are multiplied by
    shift: np.ndarray  # (n, 3), what is added to them then


@dataclass
class Photographs:
    """The squares of a split in memory.

    images : n image ids
    eyes : (n,) int64, whose eyes they show: 2 * patient + side, patients numbered as they come
    pixels : (n, size_px, size_px, 3) uint8 RGB, a numpy array on the host or a tensor on the device
    tables : (n, 256, 3) float32, what a pixel value of a channel becomes
    """

    images: list[str]
    eyes: np.ndarray
    pixels: np.ndarray | torch.Tensor
    tables: np.ndarray | torch.Tensor

    @property
    def size_px(self) -> int:
        """Side of the squares."""
        return self.pixels.shape[1]


# --- lookup tables ---------------------------------------------------------------------------------------------------


def compose_tables(luts: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return what each pixel value becomes, equalized and standardized: (n, 256, 3) float32.

    Parameters
    ----------
    luts : (n, 3, 256) uint8
    mean, std : (3,) of the channels after `luts`, 0-255
    """
    standardized = (luts.astype(np.float64) - np.reshape(mean, (3, 1))) / np.reshape(std, (3, 1))
    return np.ascontiguousarray(standardized.transpose(0, 2, 1), np.float32)


def measure_channels(pixels: np.ndarray | torch.Tensor, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel over all pixels of some squares: two (3,), 0-255.

    Raises InputError if a channel does not vary.
    """
    counts = np.zeros((3, 256), np.int64)
    for position in positions:
        square = pixels[position] if isinstance(pixels, np.ndarray) else pixels[position].cpu().numpy()
        counts += [cv2.calcHist([square], [channel], None, [256], [0, 256]).ravel().astype(int) for channel in range(3)]
    mean = counts @ np.arange(256) / counts.sum(axis=1)
    variance = counts @ np.arange(256) ** 2 / counts.sum(axis=1) - mean**2
    if not (variance > 1e-9).all():
        raise InputError("the training photographs have a channel without variance")
    return mean, np.sqrt(variance)


def make_photographs(
    images: list[str], pixels: np.ndarray | torch.Tensor, luts: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> Photographs:
    """Return pixels and their tables together, on the pixels' device."""
    tables = compose_tables(luts, mean, std)
    if isinstance(pixels, torch.Tensor):
        tables = torch.from_numpy(tables).to(pixels.device)
    return Photographs(images, number_eyes(images), pixels, tables)


def number_eyes(images: Sequence[str]) -> np.ndarray:
    """Return 2 * patient + side for each image, (n,) int64; the fellow's number differs in the last bit."""
    shown = [parse_image_id(image) for image in images]
    number_of = {patient: number for number, patient in enumerate(dict.fromkeys(eye.patient for eye in shown))}
    return np.array([2 * number_of[eye.patient] + (eye.side == "right") for eye in shown])


# --- decoding and storing ---------------------------------------------------------------------------------------------


def load_squares(
    paths: dict[str, Path], luts: np.ndarray, is_local: bool, device: torch.device, storage: str, file: Path, key: str
) -> tuple[np.ndarray | torch.Tensor, np.ndarray]:
    """Return the pixels of the squares, (n, size_px, size_px, 3) uint8 RGB, and the lookup tables still to be applied.

    Parameters
    ----------
    luts : (n, 3, 256) uint8
    is_local : keep local contrast instead of the pixels, see dr.contrast; its tables have been applied then
    storage, file, key : see load_pixels
    """
    if not is_local:
        return load_pixels(paths, device, storage, file, key), luts
    pixels = load_pixels(paths, device, storage, file, f"{key} local contrast", luts)
    return pixels, inputs.keep_values(len(paths))


def load_pixels(
    paths: dict[str, Path], device: torch.device, storage: str, file: Path, key: str, luts: np.ndarray | None = None
) -> np.ndarray | torch.Tensor:
    """Decode the squares, once, with threads, to where they fit: (n, size_px, size_px, 3) uint8 RGB.

    Parameters
    ----------
    luts : (n, 3, 256) uint8; if given, the squares are kept equalized by them and without their local means
    storage : device, memory, file or auto; "device" and "memory" are taken at their word
    file : where the memory-mapped array goes (.npy) if it comes to that
    key : what is decoded; a file of the same key is used again

    Raises InputError for a picture that cannot be read or has another size than the first.
    """
    size_px = len(_decode(next(iter(paths.values()))))
    shape = (len(paths), size_px, size_px, 3)
    storage = choose_storage(int(np.prod(shape)), device) if storage == "auto" else storage
    if storage == "file":
        return _map_pixels(paths, shape, file, key, luts)
    if storage == "device" and device.type != "cpu":
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
    else:
        pixels = np.empty(shape, np.uint8)
    _fill(pixels, paths, luts)
    return pixels


def choose_storage(size_bytes: int, device: torch.device) -> str:
    """Return the first of device, memory, file that holds so many bytes."""
    if device.type == "cuda" and size_bytes < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "memory" if size_bytes < MEMORY_SHARE * measure_free_memory() else "file"


def measure_free_memory() -> int:
    """Return the bytes of main memory that programs may still take."""
    try:
        with open("/proc/meminfo") as handle:
            fields = dict(line.split(":") for line in handle)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except FileNotFoundError:  # not Linux; the kernel's caches count as taken
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _map_pixels(paths: dict[str, Path], shape: tuple, file: Path, key: str, luts: np.ndarray | None) -> np.ndarray:
    key_file = file.with_suffix(".json")
    if not (file.exists() and key_file.exists() and json.loads(key_file.read_text()) == key):
        key_file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        stage.remove_partials(file.parent)
        with stage.replacing(file) as partial:
            pixels = open_memmap(partial, "w+", np.uint8, shape)
            _reserve(partial)
            _fill(pixels, paths, luts)
            pixels.flush()
        stage.write_json(key_file, key)
    return np.load(file, mmap_mode="r")


def _reserve(path: Path) -> None:
    """Take the room that a file's size promises: a disk that fills up under a memory map kills without a word."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def _fill(pixels: np.ndarray | torch.Tensor, paths: dict[str, Path], luts: np.ndarray | None) -> None:
    """Decode every square into its row."""
    size_px = pixels.shape[1]

    def fill_row(row: int, path: Path) -> None:
        square = _decode(path)
        if len(square) != size_px:
            raise InputError(f"{path}: {len(square)} px wide, the others are {size_px}")
        square = square if luts is None else contrast.finish(square, luts[row])
        pixels[row] = square if isinstance(pixels, np.ndarray) else torch.from_numpy(square)

    with ThreadPoolExecutor(THREADS) as pool:
        rows = pool.map(fill_row, range(len(paths)), paths.values())
        for _ in tqdm(rows, total=len(paths), desc="decoding", unit="image", mininterval=1, leave=False):
            pass


def _decode(path: Path) -> np.ndarray:
    """Return a square picture, (size_px, size_px, 3) uint8 RGB. Raises InputError if it is none."""
    bgr = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR)  # None for whatever it cannot read
    if bgr is None:
        raise InputError(f"{path}: missing or unreadable; remove it and run python -m preprocess.resize again")
    if bgr.shape[0] != bgr.shape[1]:
        raise InputError(f"{path}: {bgr.shape[1]}x{bgr.shape[0]} px, not a square")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


# --- crops and flips --------------------------------------------------------------------------------------------------


def draw_crops(
    n: int,
    margin_px: int,
    seed: int,
    epoch: int,
    stream: int = draws.CROPS,
    rotation_deg: float = 0.0,
    zoom: float = 1.0,
    jitter: float = 0.0,
) -> Crops:
    """Return a random crop per position in the dataset: corners uniform over 0..margin_px, each flip with p = 0.5.

    What a position gets is a function of the seed, the epoch and the position alone. Angles are uniform up to
    `rotation_deg` to either side, zooms log-uniform from 1/zoom to zoom, gains log-uniform from 1/(1 + jitter) to
    1 + jitter, shifts uniform up to `jitter` to either side.
    """
    numbers = draws.draw(draws.make_keys(seed, stream, epoch, torch.arange(n)), 12).numpy()
    top, left = (numbers[:, :2] * (margin_px + 1) >> draws.BITS).T
    is_flipped = numbers[:, 2:4] >> (draws.BITS - 1) == 1
    uniform = numbers[:, 4:] / 2 ** (draws.BITS - 1) - 1  # in [-1, 1)
    angle, zooms = np.deg2rad(rotation_deg) * uniform[:, 0], zoom ** uniform[:, 1]
    gain, shift = np.float32((1 + jitter) ** uniform[:, 2:5]), np.float32(jitter * uniform[:, 5:])
    return Crops(top, left, is_flipped[:, 0], is_flipped[:, 1], angle, zooms, gain, shift)


def center_crops(n: int, margin_px: int) -> Crops:
    """Return the middle crop, unflipped, for each of n images."""
    corners, unflipped = np.full(n, margin_px // 2), np.zeros(n, bool)
    gain, shift = np.ones((n, 3), np.float32), np.zeros((n, 3), np.float32)
    return Crops(corners, corners, unflipped, unflipped, np.zeros(n), np.ones(n), gain, shift)


def cut_batch(photographs: Photographs, positions: np.ndarray, crops: Crops, crop_px: int) -> torch.Tensor:
    """Return standardized crops, (b, 3, crop_px, crop_px) float32 in channels-last order, where the pixels lie.

    Parameters
    ----------
    positions : (b,) rows of the photographs
    crops : of all photographs
    """
    chosen = Crops(*(field[positions] for field in crops))
    cut = _cut_on_host if isinstance(photographs.pixels, np.ndarray) else _cut_on_device
    return cut(photographs, positions, chosen, crop_px).permute(0, 3, 1, 2)


def _cut_on_host(photographs: Photographs, positions: np.ndarray, crops: Crops, crop_px: int) -> torch.Tensor:
    """Cut with OpenCV, in one pass over the pixels.

    A loop over samples, and yet faster than torch's indexing of the batch: 3,700 against 125 crops of 448 px a second
    (one Zen 5 core, torch 2.13, OpenCV 5.0, best of 3).
    """
    batch = np.empty((len(positions), crop_px, crop_px, 3), np.float32)
    turns = find_turns(crops, crop_px)
    tables = photographs.tables[positions] * crops.gain[:, None] + crops.shift[:, None]
    for row, (position, top, left, *flips) in enumerate(zip(positions, *crops[:4], strict=True)):
        if turns is None:
            square = photographs.pixels[position, top : top + crop_px, left : left + crop_px]
        else:
            square = cv2.warpAffine(photographs.pixels[position], turns[row], (crop_px, crop_px), **TURNING)
        code = FLIP_CODES.get(tuple(map(bool, flips)))
        square = square if code is None else cv2.flip(square, code)
        cv2.LUT(square, tables[row][None], dst=batch[row])
    return torch.from_numpy(batch)


def _cut_on_device(photographs: Photographs, positions: np.ndarray, crops: Crops, crop_px: int) -> torch.Tensor:
    """Cut the whole batch with two gathers; five if the images are turned."""
    device = photographs.pixels.device
    rows = torch.from_numpy(positions).to(device)
    top, left, is_flipped_vertically, is_flipped_horizontally = (
        torch.from_numpy(field).to(device)[:, None] for field in crops[:4]
    )
    offsets = torch.arange(crop_px, device=device)
    y = torch.where(is_flipped_vertically, crop_px - 1 - offsets, offsets)  # (b, crop_px)
    x = torch.where(is_flipped_horizontally, crop_px - 1 - offsets, offsets)
    turns = find_turns(crops, crop_px)
    if turns is None:
        squares = photographs.pixels[rows[:, None, None], (top + y)[:, :, None], (left + x)[:, None, :]]
    else:
        squares = _turn(photographs.pixels, rows, y, x, torch.from_numpy(np.float32(turns)).to(device))
    gain, shift = (torch.from_numpy(field).to(device)[:, None] for field in (crops.gain, crops.shift))
    tables = photographs.tables[rows] * gain + shift
    images, channels = (torch.arange(count, device=device) for count in (len(rows), 3))
    return tables[images[:, None, None, None], squares.int(), channels]


def find_turns(crops: Crops, crop_px: int) -> np.ndarray | None:
    """Return what takes (x, y, 1) in a crop to (x, y) in its square, (b, 2, 3) float64; None if nothing is turned."""
    if not crops.angle.any() and (crops.zoom == 1).all():
        return None
    cosine, sine = np.cos(crops.angle) / crops.zoom, np.sin(crops.angle) / crops.zoom
    middle = (crop_px - 1) / 2
    shift_x = crops.left + middle - (cosine - sine) * middle
    shift_y = crops.top + middle - (sine + cosine) * middle
    return np.stack([np.stack([cosine, -sine, shift_x], axis=1), np.stack([sine, cosine, shift_y], axis=1)], axis=1)


def _turn(
    pixels: torch.Tensor, rows: torch.Tensor, y: torch.Tensor, x: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    """Return crops interpolated between the four nearest pixels, (b, h, w, 3) uint8; the border is repeated outside."""
    turns = turns[:, :, :, None, None].unbind(1)  # two of (b, 3, 1, 1)
    x_of, y_of = (turn[:, 0] * x[:, None, :] + turn[:, 1] * y[:, :, None] + turn[:, 2] for turn in turns)  # (b, h, w)
    total = 0
    for is_lower in (0, 1):
        for is_right in (0, 1):
            y_near, x_near = y_of.floor() + is_lower, x_of.floor() + is_right
            weights = (1 - (y_of - y_near).abs()) * (1 - (x_of - x_near).abs())
            edge = pixels.shape[1] - 1
            near = pixels[rows[:, None, None], y_near.long().clamp(0, edge), x_near.long().clamp(0, edge)]
            total = total + weights[..., None].float() * near
    return total.round().to(torch.uint8)


# --- batches ----------------------------------------------------------------------------------------------------------


def order_epoch(positions: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch: the positions in random order, cut into whole batches; the rest is left out.

    A batch may be smaller than `batch_size` only if there are fewer positions than that.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(positions)
    n_batches = max(1, len(shuffled) // batch_size)
    return np.split(shuffled[: n_batches * batch_size], range(batch_size, n_batches * batch_size, batch_size))


def order_pairs(positions: np.ndarray, eyes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch in which no patient is torn apart: the patients in random order.

    A batch that is less than half full, or holds a lone image, is left out, unless there is no other.
    """
    patients = np.random.default_rng([seed, epoch]).permutation(np.unique(eyes[positions] // 2))
    place_of = np.empty(patients.max() + 1, int)
    place_of[patients] = np.arange(len(patients))
    shuffled = positions[np.argsort(place_of[eyes[positions] // 2], kind="stable")]
    batches = split_by_patient(shuffled, eyes, batch_size)
    return [batch for batch in batches if len(batch) >= max(2, batch_size // 2)] or batches


def split_by_patient(positions: np.ndarray, eyes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the positions, in which a patient's lie together, in batches of about `batch_size` and whole patients."""
    patients = eyes[positions] // 2
    starts = np.flatnonzero(np.diff(patients, prepend=-1))  # of each patient
    is_next = np.diff(starts // batch_size, prepend=0) > 0
    return np.split(positions, starts[is_next])


def iterate_batches(
    photographs: Photographs, batches: Sequence[np.ndarray], crops: Crops, crop_px: int, device: torch.device
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (positions, images on the device) per batch; batches of a GPU are cut ahead, in a thread."""

    def make(positions: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        images = cut_batch(photographs, positions, crops, crop_px)
        if device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return positions, images.to(device, non_blocking=True)

    if device.type == "cpu" or isinstance(photographs.pixels, torch.Tensor):
        yield from map(make, batches)  # nothing to gain: the processor is the device, or the device does it all
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = iter(batches)
        made = [pool.submit(make, positions) for positions in islice(waiting, BATCHES_AHEAD)]
        while made:
            yield made.pop(0).result()
            made += [pool.submit(make, positions) for positions in islice(waiting, 1)]
