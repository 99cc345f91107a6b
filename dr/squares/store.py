"""The squares for the net: uint8 pixels, in memory or in a file under CACHE/dr/pixels, and a lookup table."""

import dataclasses
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
from preprocess.command import progress, resources
from preprocess.dataset.dataset import Subject
from preprocess.disk import files
from preprocess.picture import square
from preprocess.picture.square import Square


@dataclasses.dataclass(frozen=True, eq=False)
class Squares:
    """Squares, n of them."""

    eyes: np.ndarray  # (n,) int64, 2 * group + side, groups numbered as they come
    # (n, size_px, size_px, 3) uint8 RGB, or 1 channel if all are grey; on the host or the device
    pixels: np.ndarray | torch.Tensor
    tables: np.ndarray  # (n, 256, 3) float32, the standardized value of each pixel value

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
    subjects: Sequence[Subject],
    squares: Sequence[Square],
    mean: Sequence[float],
    std: Sequence[float],
) -> Squares:
    """Return squares that were made in memory for the net that was trained with `mean` and `std`."""
    luts = np.stack([one.lut for one in squares])
    pixels = np.stack([one.pixels for one in squares])
    return Squares(
        eyes=number_eyes(subjects), pixels=pixels, tables=compose_tables(luts, mean, std)
    )


def load(
    cached: CachedSquares,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    storage: str,
    file: Path,
) -> Squares:
    """Decode the squares of a cache, once, with threads, to a storage that holds them.

    The storage is device, memory, file or auto; auto alone measures the free memory. A memory-mapped
    array goes to `file` (.npy). Mean and deviation (3,) are those of the training squares' channels,
    0-255. Raises InputError for a picture that cannot be read or differs in size from the others.
    """
    pixels = _load_pixels(cached, device, storage, file)
    luts = square.leave_luts(cached.luts, cached.making.normalize)
    tables = compose_tables(luts, mean, std)
    return Squares(eyes=number_eyes(cached.subjects), pixels=pixels, tables=tables)


def _load_pixels(
    cached: CachedSquares, device: torch.device, storage: str, file: Path
) -> np.ndarray | torch.Tensor:
    if storage == "file":
        return _load_file(cached, file, None)
    shape = _find_shape(cached)
    if storage == "auto":
        storage = _choose_storage(math.prod(shape), device)
    if storage == "file":
        return _load_file(cached, file, shape)
    pixels: np.ndarray | torch.Tensor
    if storage == "device" and device.type != "cpu":
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
    else:
        pixels = np.empty(shape, np.uint8)
    _fill(pixels, cached)
    return pixels


def _load_file(cached: CachedSquares, file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return the pixels as a memory-mapped file; an unknown shape is found if the file is to be written."""

    def write(partial: Path) -> None:
        _write_pixels(partial, cached, shape or _find_shape(cached))

    made_from = str([cached.images, *sorted(cached.digests.items())])
    return keep_map(file, made_from, write)


def compose_tables(luts: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return the value of each pixel value after `luts`, (n, 3, 256), and standardization.

    The result is (n, 256, 3) float32.
    """
    standardized = (luts.astype(np.float64) - np.reshape(mean, (3, 1))) / np.reshape(std, (3, 1))
    return np.ascontiguousarray(standardized.transpose(0, 2, 1), np.float32)


def number_eyes(subjects: Sequence[Subject]) -> np.ndarray:
    """Return 2 * patient + side of each subject, (n,) int64; the fellow eye's number differs in the last bit.

    A subject without a side has no fellow, and a number of its own.
    """
    eyes = np.empty(len(subjects), np.int64)
    number_of: dict[str | int, int] = {}
    for row, subject in enumerate(subjects):
        key = subject.patient if subject.side else row
        number = number_of.setdefault(key, len(number_of))
        side = 1 if subject.side == "right" else 0
        eyes[row] = 2 * number + side
    return eyes


def _choose_storage(size_bytes: int, device: torch.device) -> str:
    """Return the first of device, memory, file that holds so many bytes."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if size_bytes < resources.PIXELS_SHARE * free_bytes:
            return "device"
    if resources.fits_memory(size_bytes):
        return "memory"
    return "file"


def keep_map(file: Path, made_from: str, write: Callable[[Path], None]) -> np.ndarray:
    """Return the memory-mapped array of a file (.npy), written unless one was made from the same."""
    key_file = file.with_suffix(".json")
    is_whole = file.exists() and key_file.exists()
    if not is_whole or json.loads(key_file.read_text()) != made_from:
        key_file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.remove_partials(file.parent)
        with files.replacing(file) as partial:
            write(partial)
        files.write_json(key_file, made_from)
    return np.load(file, mmap_mode="r")


def _write_pixels(file: Path, cached: CachedSquares, shape: tuple[int, ...]) -> None:
    print(f"{file.parent}: {math.prod(shape) / 1e9:,.1f} GB of pixels to write", flush=True)
    pixels = make_map(file, np.dtype(np.uint8), shape)
    _fill(pixels, cached)
    pixels.flush()


def make_map(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Return a new memory-mapped array. Raises OSError if the disk has no room for it."""
    array = open_memmap(file, "w+", dtype, shape)
    if hasattr(
        os, "posix_fallocate"
    ):  # a disk that fills up under a memory map kills without a message
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def _find_shape(cached: CachedSquares) -> tuple[int, int, int, int]:
    """Return the shape of all pixels: with one channel if the three of every square are the same."""

    def is_grey(path: Path, row: int) -> bool:
        pixels = _decode(cached, path, row)
        return bool((pixels == pixels[..., :1]).all())

    paths = list(cached.paths.values())
    n_channels = 3
    if paths and is_grey(paths[0], 0):  # a coloured first one answers for all
        with ThreadPoolExecutor(resources.count_processors()) as pool:
            if all(pool.map(is_grey, paths, range(len(paths)))):
                n_channels = 1
            pool.shutdown(cancel_futures=True)
    return len(paths), cached.making.size_px, cached.making.size_px, n_channels


def _decode(cached: CachedSquares, path: Path, row: int) -> np.ndarray:
    """Return a square's pixels, (size_px, size_px, 3) uint8.

    The steps of normalization that a lookup table cannot do are done.
    """
    pixels = square.read_pixels(path, cached.making.size_px)
    finished, _ = square.finish(pixels, cached.luts[row], cached.making.normalize)
    return finished


def _fill(pixels: np.ndarray | torch.Tensor, cached: CachedSquares) -> None:
    """Decode every square into its row."""

    def fill_row(path: Path, row: int) -> None:
        decoded = _decode(cached, path, row)[..., : pixels.shape[3]]
        if isinstance(pixels, np.ndarray):
            pixels[row] = decoded
        else:
            pixels[row] = torch.from_numpy(decoded)

    with (
        ThreadPoolExecutor(resources.count_processors()) as pool,
        progress.tracking(len(pixels), "decoding") as bar,
    ):
        for _ in pool.map(fill_row, cached.paths.values(), range(len(pixels))):
            bar.update(1)
