"""Squares as the net is given them: uint8 pixels, in memory or in a file under CACHE/dr/pixels, and a lookup table."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from dr.squares.source import CachedSquares
from preprocess.command import progress
from preprocess.dataset.dataset import Subject
from preprocess.disk import files
from preprocess.picture import square
from preprocess.picture.square import Square

MEMORY_SHARE = 0.7  # of the free memory may go to pixels; the rest is for the net
THREADS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, eq=False)
class Squares:
    """Squares, n of them."""

    eyes: np.ndarray  # (n,) int64, whom they show: 2 * group + side, groups numbered as they come
    pixels: np.ndarray | torch.Tensor  # (n, size_px, size_px, 3) uint8 RGB, or 1 if all are grey; on the host or device
    tables: np.ndarray  # (n, 256, 3) float32, what a pixel value of a channel becomes

    @property
    def size_px(self) -> int:
        """Side of the squares."""
        return self.pixels.shape[1]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.eyes)


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """The feature maps of n squares, in their place where a body never learns."""

    eyes: np.ndarray  # of the squares
    values: np.ndarray  # (n, h, w, channels) float16 or float32
    size_px: int  # side of the squares

    def __len__(self) -> int:
        """Return of how many squares."""
        return len(self.eyes)


def gather(
    subjects: Sequence[Subject], squares: Sequence[Square], mean: Sequence[float], std: Sequence[float]
) -> Squares:
    """Return squares that were made in memory as the net that was trained with `mean` and `std` is given them."""
    tables = compose_tables(np.stack([made.lut for made in squares]), mean, std)
    return Squares(number_eyes(subjects), np.stack([made.pixels for made in squares]), tables)


def load(
    cached: CachedSquares, mean: Sequence[float], std: Sequence[float], device: torch.device, storage: str, file: Path
) -> Squares:
    """Decode the squares of a cache, once, with threads, to where they fit.

    The storage is device, memory, file or auto; the first two are taken at their word. A memory-mapped array goes to
    `file` (.npy). Mean and deviation (3,) are of the channels over the squares learned from, 0-255. Raises InputError
    for a picture that cannot be read or has another size than the others.
    """
    shape = None if storage == "file" else _find_shape(cached)  # which the file knows, if it is there
    if shape and storage == "auto":
        storage = _choose_storage(math.prod(shape), device)
    pixels: np.ndarray | torch.Tensor
    if storage == "file" or not shape:
        made_from = str([cached.images, *sorted(cached.digests.items())])
        pixels = keep_map(file, made_from, functools.partial(_map_pixels, cached, shape))
    else:
        on_device = storage == "device" and device.type != "cpu"
        pixels = torch.empty(shape, dtype=torch.uint8, device=device) if on_device else np.empty(shape, np.uint8)
        _fill(pixels, cached)
    tables = compose_tables(square.leave_luts(cached.luts, cached.making.normalize), mean, std)
    return Squares(number_eyes(cached.subjects), pixels, tables)


def compose_tables(luts: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return what each pixel value becomes, (n, 256, 3) float32, after `luts`, (n, 3, 256), and standardization."""
    standardized = (luts.astype(np.float64) - np.reshape(mean, (3, 1))) / np.reshape(std, (3, 1))
    return np.ascontiguousarray(standardized.transpose(0, 2, 1), np.float32)


def number_eyes(subjects: Sequence[Subject]) -> np.ndarray:
    """Return 2 * patient + side of each subject, (n,) int64; the fellow eye's number differs in the last bit.

    A subject without a side has no fellow, and a number of its own.
    """
    keys = [subject.patient if subject.side else row for row, subject in enumerate(subjects)]
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    eyes = []
    for key, subject in zip(keys, subjects, strict=True):
        last_bit = 1 if subject.side == "right" else 0
        eyes.append(2 * number_of[key] + last_bit)
    return np.array(eyes)


def _choose_storage(size_bytes: int, device: torch.device) -> str:
    """Return the first of device, memory, file that holds so many bytes."""
    if device.type == "cuda" and size_bytes < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    try:
        with open("/proc/meminfo") as handle:
            fields = dict(line.split(":") for line in handle)
        free_bytes = int(fields["MemAvailable"].split()[0]) * 1024
    except FileNotFoundError:  # not Linux; the kernel's caches count as taken
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "memory" if size_bytes < MEMORY_SHARE * free_bytes else "file"


def keep_map(file: Path, made_from: str, write: Callable[[Path], None]) -> np.ndarray:
    """Return the memory-mapped array of a file (.npy), written if there is none that was made from the same."""
    key_file = file.with_suffix(".json")
    if not (file.exists() and key_file.exists() and json.loads(key_file.read_text()) == made_from):
        key_file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.remove_partials(file.parent)
        with files.replacing(file) as partial:
            write(partial)
        files.write_json(key_file, made_from)
    return np.load(file, mmap_mode="r")


def _map_pixels(cached: CachedSquares, shape: tuple[int, ...] | None, file: Path) -> None:
    shape = shape or _find_shape(cached)
    print(f"{file.parent}: {math.prod(shape) / 1e9:,.1f} GB of pixels to write", flush=True)
    pixels = make_map(file, np.dtype(np.uint8), shape)
    _fill(pixels, cached)
    pixels.flush()


def make_map(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Return a new memory-mapped array, for which there is room on the disk. Raises OSError if there is none."""
    array = open_memmap(file, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # a disk that fills up under a memory map kills without a word
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def _find_shape(cached: CachedSquares) -> tuple[int, int, int, int]:
    """Return the shape of all pixels: with one channel if the three of every square are the same."""

    def is_grey(path: Path, row: int) -> bool:
        made = _decode(cached, path, row)
        return bool((made == made[..., :1]).all())

    paths, size_px = list(cached.paths.values()), cached.making.size_px
    are_grey = bool(paths) and is_grey(paths[0], 0)  # of coloured ones the first is looked at alone
    if are_grey:
        with ThreadPoolExecutor(THREADS) as pool:
            are_grey = all(pool.map(is_grey, paths, range(len(paths))))
            pool.shutdown(cancel_futures=True)
    return len(paths), size_px, size_px, 1 if are_grey else 3


def _decode(cached: CachedSquares, path: Path, row: int) -> np.ndarray:
    """Return a square's pixels, (size_px, size_px, 3) uint8, with what its lookup table alone cannot do."""
    making = cached.making
    return square.finish(square.read_pixels(path, making.size_px), cached.luts[row], making.normalize)[0]


def _fill(pixels: np.ndarray | torch.Tensor, cached: CachedSquares) -> None:
    """Decode every square into its row."""

    def fill_row(path: Path, row: int) -> None:
        made = _decode(cached, path, row)[..., : pixels.shape[3]]
        if isinstance(pixels, np.ndarray):
            pixels[row] = made
        else:
            pixels[row] = torch.from_numpy(made)

    with ThreadPoolExecutor(THREADS) as pool, progress.tracking(len(pixels), "decoding") as bar:
        for _ in pool.map(fill_row, cached.paths.values(), range(len(pixels))):
            bar.update(1)
