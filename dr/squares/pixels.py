"""Pixels of squares that lie on the disk: decoded each time that they are wanted, or rows of a memory-mapped file."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from dr.squares.source import CachedSquares
from preprocess.command import resources
from preprocess.picture import square


class DecodedPixels:
    """The pixels of n squares of a cache, which threads decode each time that a batch wants them."""

    def __init__(self, cached: CachedSquares):
        size_px = cached.making.size_px
        self.shape = (len(cached.paths), size_px, size_px, 3)
        self._cached = cached
        self._paths = list(cached.paths.values())
        self._pool = ThreadPoolExecutor(resources.count_processors())

    def read(self, positions: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield the pixels of the squares at some positions, (size_px, size_px, 3) uint8 each."""
        return self._pool.map(self._decode, positions)

    def _decode(self, row: int) -> np.ndarray:
        return decode(self._cached, self._paths[row], row)


class ChosenPixels:
    """The pixels of n squares, rows of an array of more, such as a file that several folds share."""

    def __init__(self, pixels: np.ndarray, rows: np.ndarray):
        self.shape = (len(rows), *pixels.shape[1:])
        self._pixels = pixels
        self._rows = rows

    def read(self, positions: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield the pixels of the squares at some positions, (size_px, size_px, channels) uint8 each."""
        for position in positions:
            yield self._pixels[self._rows[position]]


Pixels = np.ndarray | torch.Tensor | DecodedPixels | ChosenPixels


def read_rows(
    pixels: np.ndarray | DecodedPixels | ChosenPixels, positions: Iterable[int]
) -> Iterator[np.ndarray]:
    """Yield the pixels of the squares at some positions, wherever they lie on the host."""
    if isinstance(pixels, np.ndarray):
        for position in positions:
            yield pixels[position]
        return
    yield from pixels.read(positions)


def decode(cached: CachedSquares, path: Path, row: int) -> np.ndarray:
    """Return a square's pixels, (size_px, size_px, 3) uint8.

    The steps of normalization that a lookup table cannot do are done.
    """
    pixels = square.read_pixels(path, cached.making.size_px)
    finished, _ = square.finish(pixels, cached.luts[row], cached.making.normalize)
    return finished
