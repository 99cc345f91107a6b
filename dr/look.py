"""Where does a net look? A photograph and a checkpoint's net -> heat in place: the one way there is."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dr.nets import heat
from dr.nets.net import Net
from dr.squares import crops, store
from dr.squares.source import CachedSquares
from dr.squares.store import Squares
from dr.training.checkpoint import Checkpoint
from preprocess.dataset.dataset import Subject
from preprocess.picture.square import Square
from preprocess.picture.uncrop import undo_crop

ANYBODY = Subject("")  # whose eye a photograph shows does not matter where its fellow is not asked


class Asked(NamedTuple):
    """What to explain: a layer of dr.nets.heat, and one output for each image, (n,) int64."""

    layer: str
    outputs: np.ndarray


class Heat(NamedTuple):
    """How much each pixel speaks for each of n outputs, 0-1; all 0 where nothing does."""

    maps: (
        np.ndarray
    )  # (n, image_px, image_px) float32, over the middle of the square, which the net sees
    placed: np.ndarray  # (n, h, w) float32, in the photograph


def gather_one(checkpoint: Checkpoint, square: Square) -> Squares:
    """Return a square that was made in memory as the net of a checkpoint sees it."""
    return store.gather([ANYBODY], [square], checkpoint.mean, checkpoint.std)


def map_square(net: Net, squares: Squares, asked: Asked) -> np.ndarray:
    """Return the heat of asked outputs over the middles of squares, (n, image_px, image_px) float32, 0-1.

    A single square may be asked for any number of outputs.
    """
    device = next(net.parameters()).device
    centers = crops.cut_centers(squares, net.image_px).to(device)
    if len(squares) == 1:
        centers = centers.expand(len(asked.outputs), -1, -1, -1)
    return heat.map_heat(net, centers, asked.outputs, asked.layer)


def see_photograph(
    net: Net,
    checkpoint: Checkpoint,
    square: Square,
    asked: Asked,
    shape: Sequence[int],
    scale: float = 1.0,
) -> Heat:
    """Return the heat of asked outputs over a photograph's square, and in place in a picture of shape (h, w).

    `scale` is the side of that picture by the photograph's own.
    """
    maps = map_square(net, gather_one(checkpoint, square), asked)
    disc = square.disc if scale == 1 else square.disc.scaled(scale)
    placed = [
        undo_crop(heat_map, disc, checkpoint.making, (shape[0], shape[1])) for heat_map in maps
    ]
    return Heat(maps, np.stack(placed))


def map_whole_squares(net: Net, squares: Squares, asked: Asked) -> np.ndarray:
    """Return the heat of asked outputs over whole squares, (n, size_px, size_px) float32; 0 where no net looked."""
    margin = (squares.size_px - net.image_px) // 2
    middle = slice(margin, margin + net.image_px)
    maps = np.zeros((len(squares), squares.size_px, squares.size_px), np.float32)
    maps[:, middle, middle] = map_square(net, squares, asked)
    return maps


def load_squares(cached: CachedSquares, checkpoint: Checkpoint) -> Squares:
    """Return squares of a cache as the net of a checkpoint sees them, in memory."""
    return store.load(
        cached, checkpoint.mean, checkpoint.std, torch.device("cpu"), "memory", Path()
    )
