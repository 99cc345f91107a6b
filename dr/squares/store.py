"""The squares for the net: uint8 pixels and a lookup table each.

The pixels lie on the device, in memory, or in a file under CACHE/dr/pixels, a file per part of the data set that all
runs and folds share; or nowhere but in CACHE/resize, and are decoded each time.
"""

import ast
import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from dr.squares.pixels import ChosenPixels, DecodedPixels, Pixels, decode
from dr.squares.source import CachedSquares
from preprocess.command import progress, resources
from preprocess.dataset.dataset import Subject
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture import square
from preprocess.picture.square import Square

BLOCK = 4096  # lookup tables that are composed at a time: 50 MB of float64


@dataclasses.dataclass(frozen=True, eq=False)
class Squares:
    """Squares, n of them."""

    eyes: np.ndarray  # (n,) int64, 2 * group + side, groups numbered as they come
    # (n, size_px, size_px, 3) uint8 RGB, or 1 channel if all are grey; on the host, the device or the disk
    pixels: Pixels
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
    """Return the squares of a cache; decode them once, with threads, to a storage that holds them.

    The storage is device, memory, file, squares (nothing is kept, each batch is decoded) or auto, which
    measures the free memory. A memory-mapped array goes to `file` (.npy). Mean and deviation (3,) are
    those of the training squares' channels, 0-255. Raises InputError for a picture that cannot be read
    or differs in size from the others, and for more pixels than the memory has room for.
    """
    pixels = _load_pixels(cached, device, storage, file)
    luts = square.leave_luts(cached.luts, cached.making.normalize)
    tables = compose_tables(luts, mean, std)
    return Squares(eyes=number_eyes(cached.subjects), pixels=pixels, tables=tables)


def _load_pixels(cached: CachedSquares, device: torch.device, storage: str, file: Path) -> Pixels:
    if storage == "squares":
        return DecodedPixels(cached)
    if storage == "file":
        return _load_file(cached, file, None)
    shape = _find_shape(cached)
    size_bytes = math.prod(shape)
    if storage == "auto":
        storage = choose_storage(size_bytes, device, file)
    if storage == "file":
        return _load_file(cached, file, shape)
    if storage == "squares":
        print(
            f"{len(cached.paths):,} squares, {size_bytes / 1e9:,.1f} GB of pixels, do not fit into the memory: "
            "they are decoded each time (--storage file keeps them on the disk)",
            flush=True,
        )
        return DecodedPixels(cached)
    if storage == "device" and device.type != "cpu":
        on_device = torch.empty(shape, dtype=torch.uint8, device=device)
        _fill(on_device, cached)
        return on_device
    free_bytes = resources.read_free_memory()
    if size_bytes > free_bytes:
        raise InputError(
            f"--storage {storage}: {size_bytes / 1e9:,.1f} GB of pixels, {free_bytes / 1e9:,.1f} GB of memory free; "
            "with --storage squares they stay on the disk"
        )
    pixels = np.empty(shape, np.uint8)
    _fill(pixels, cached)
    return pixels


def choose_storage(size_bytes: int, device: torch.device, file: Path) -> str:
    """Return the first of device, memory, file, squares that holds so many bytes.

    A processor as the device decodes a square in a small part of the time that a net takes for it: no file for it.
    """
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if size_bytes < resources.PIXELS_SHARE * free_bytes:
            return "device"
    if resources.fits_memory(size_bytes):
        return "memory"
    if device.type == "cpu":
        return "squares"
    if file.exists() or size_bytes < resources.PIXELS_SHARE * files.measure_free_space(file):
        return "file"
    return "squares"


def _load_file(
    cached: CachedSquares, file: Path, shape: tuple[int, ...] | None
) -> np.ndarray | ChosenPixels:
    """Return the pixels as a memory-mapped file; an unknown shape is found if the file is to be written.

    A file that holds these squares among others is used as it is.
    """
    key_file = file.with_suffix(".json")
    rows = _find_rows(file, cached)
    if rows is None:
        _remove(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.remove_partials(file.parent)
        with files.replacing(file) as partial:
            _write_pixels(partial, cached, shape or _find_shape(cached))
        key = {"images": cached.images, "made_from": identify_pixels(cached)}
        files.write_json(key_file, key)
        return np.load(file, mmap_mode="r")
    pixels = np.load(file, mmap_mode="r")
    if np.array_equal(rows, np.arange(len(pixels))):
        return pixels
    return ChosenPixels(pixels, rows)


def identify_pixels(cached: CachedSquares) -> dict[str, str]:
    """Return the digests that the pixels of squares depend on: not the lookup tables, unless the pixels have them."""
    names = [f"resize {cached.part}"]
    if cached.making.normalize == "local":
        names.append(f"normalize {cached.part}")
    return {name: cached.digests[name] for name in names}


def holds(file: Path, cached: CachedSquares) -> bool:
    """Return whether a memory-mapped file holds the pixels of these squares, perhaps among others."""
    return _find_rows(file, cached) is not None


def _find_rows(file: Path, cached: CachedSquares) -> np.ndarray | None:
    """Return in which rows of a file the squares lie; None if it lacks some or was made from others."""
    key_file = file.with_suffix(".json")
    if not (file.exists() and key_file.exists()):
        return None
    key = json.loads(key_file.read_text())
    if isinstance(key, str):  # of before files were shared: as it was asked for, with all digests
        key = _read_old_key(key, cached)
    if key["made_from"] != identify_pixels(cached):
        return None
    row_of = {image: row for row, image in enumerate(key["images"])}
    if not row_of.keys() >= cached.paths.keys():
        return None
    return np.array([row_of[image] for image in cached.paths], dtype=np.int64)


def _read_old_key(text: str, cached: CachedSquares) -> dict[str, Any]:
    """Return the images of a key as version 0.2.0 first wrote it, and the digests of now, if none has changed since."""
    images, *pairs = ast.literal_eval(text)
    kept = dict(pairs)
    made_from = identify_pixels(cached)
    for name in (f"resize {cached.part}", f"normalize {cached.part}"):
        if kept.get(name) != cached.digests.get(name):
            made_from = {}
    return {"images": images, "made_from": made_from}


def _remove(file: Path) -> None:
    """Remove a memory-mapped array before another takes its place: the disk may have no room for both."""
    file.with_suffix(".json").unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def compose_tables(luts: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return the value of each pixel value after `luts`, (n, 3, 256), and standardization.

    The result is (n, 256, 3) float32.
    """
    tables = np.empty((len(luts), 256, 3), np.float32)
    for start in range(0, len(luts), BLOCK):
        values = luts[start : start + BLOCK].astype(np.float64)
        standardized = (values - np.reshape(mean, (3, 1))) / np.reshape(std, (3, 1))
        tables[start : start + BLOCK] = standardized.transpose(0, 2, 1)
    return tables


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


def keep_map(file: Path, made_from: str, write: Callable[[Path], None]) -> np.ndarray:
    """Return the memory-mapped array of a file (.npy), written unless one was made from the same."""
    key_file = file.with_suffix(".json")
    is_whole = file.exists() and key_file.exists()
    if not is_whole or json.loads(key_file.read_text()) != made_from:
        _remove(file)
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
        pixels = decode(cached, path, row)
        return bool((pixels == pixels[..., :1]).all())

    paths = list(cached.paths.values())
    n_channels = 3
    if paths and is_grey(paths[0], 0):  # a coloured first one answers for all
        with (
            ThreadPoolExecutor(resources.count_processors()) as pool,
            progress.tracking(len(paths), "looking for colour") as bar,
        ):
            n_channels = 1
            for is_row_grey in pool.map(is_grey, paths, range(len(paths))):
                bar.update(1)
                if not is_row_grey:
                    n_channels = 3
                    break
            pool.shutdown(cancel_futures=True)
    return len(paths), cached.making.size_px, cached.making.size_px, n_channels


def _fill(pixels: np.ndarray | torch.Tensor, cached: CachedSquares) -> None:
    """Decode every square into its row."""

    def fill_row(path: Path, row: int) -> None:
        decoded = decode(cached, path, row)[..., : pixels.shape[3]]
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
