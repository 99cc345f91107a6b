"""The batches of an epoch, and the crops of a batch as tensors on the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from dr.squares.crops import Crops, cut_batch
from dr.squares.store import Maps, Squares

BATCHES_AHEAD = 2  # made while the device works on one


def order_epoch(positions: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch: the positions in random order, in whole batches as far as there are so many; the
    rest is left out.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(positions)
    n_batches = max(1, len(shuffled) // batch_size)
    return np.split(shuffled[: n_batches * batch_size], range(batch_size, n_batches * batch_size, batch_size))


def order_pairs(positions: np.ndarray, eyes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch in which no patient is torn apart: the patients in random order.

    A batch that is less than half full, or holds a lone image, is left out, unless there is no other.
    """
    patients, numbers = np.unique(eyes[positions] // 2, return_inverse=True)
    ranks = np.argsort(np.random.default_rng([seed, epoch]).permutation(len(patients)))[numbers]
    shuffled = positions[np.argsort(ranks, kind="stable")]
    batches = split_by_group(shuffled, eyes, batch_size)
    return [batch for batch in batches if len(batch) >= max(2, batch_size // 2)] or batches


def split_by_group(positions: np.ndarray, eyes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the positions, in which a group's lie together, in batches of about `batch_size` and whole groups."""
    patients = eyes[positions] // 2
    starts = np.flatnonzero(np.diff(patients, prepend=-1))  # of each patient
    is_next = np.diff(starts // batch_size, prepend=0) > 0
    return np.split(positions, starts[is_next])


def iterate_batches(
    squares: Squares | Maps, batches: Sequence[np.ndarray], crops: Crops, crop_px: int, device: torch.device
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (positions, images or their maps on the device) per batch; those of a GPU are cut ahead, in a thread."""

    def make(positions: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        if isinstance(squares, Maps):
            images = torch.from_numpy(squares.values[positions]).permute(0, 3, 1, 2)
        else:
            images = cut_batch(squares, positions, crops, crop_px)
        if device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return positions, images.to(device, non_blocking=True)

    if device.type == "cpu" or (isinstance(squares, Squares) and isinstance(squares.pixels, torch.Tensor)):
        yield from map(make, batches)  # nothing to gain: the processor is the device, or the device does it all
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = iter(batches)
        made = [pool.submit(make, positions) for positions in islice(waiting, BATCHES_AHEAD)]
        while made:
            yield made.pop(0).result()
            made += [pool.submit(make, positions) for positions in islice(waiting, 1)]
