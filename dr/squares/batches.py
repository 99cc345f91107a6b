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
    """Return the batches of an epoch: the positions in random order, in whole batches.

    The rest is left out; fewer positions than a batch make one batch.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(positions)
    n_batches = max(1, len(shuffled) // batch_size)
    n_taken = n_batches * batch_size
    return np.split(shuffled[:n_taken], range(batch_size, n_taken, batch_size))


def order_pairs(
    positions: np.ndarray, eyes: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return the batches of an epoch, each of whole patients, who come in random order.

    A batch that is less than half full, or holds a lone image, is left out, unless there is no other.
    """
    patients, numbers = np.unique(eyes[positions] // 2, return_inverse=True)
    order = np.random.default_rng([seed, epoch]).permutation(len(patients))
    ranks = np.argsort(order)  # of the patients in that order
    shuffled = positions[np.argsort(ranks[numbers], kind="stable")]
    batches = split_by_group(shuffled, eyes, batch_size)
    least = max(2, batch_size // 2)
    kept = [batch for batch in batches if len(batch) >= least]
    if not kept:
        return batches
    return kept


def split_by_group(positions: np.ndarray, eyes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the positions in batches of about `batch_size` and of whole groups.

    Each group's positions must lie together.
    """
    groups = eyes[positions] // 2
    starts = np.flatnonzero(np.diff(groups, prepend=-1))  # of each group
    is_next = np.diff(starts // batch_size, prepend=0) > 0
    return np.split(positions, starts[is_next])


def iterate_batches(
    squares: Squares | Maps,
    batches: Sequence[np.ndarray],
    crops: Crops,
    crop_px: int,
    device: torch.device,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (positions, images or their maps on the device) per batch; a GPU's are cut ahead, in a thread."""

    def make(positions: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        if isinstance(squares, Maps):
            images = torch.from_numpy(squares.values[positions]).permute(0, 3, 1, 2)
        else:
            images = cut_batch(squares, positions, crops, crop_px)
        if device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return positions, images.to(device, non_blocking=True)

    if device.type == "cpu" or (
        isinstance(squares, Squares) and isinstance(squares.pixels, torch.Tensor)
    ):
        yield from map(
            make, batches
        )  # nothing to gain: the processor is the device, or the device does it all
        return
    with ThreadPoolExecutor(1) as pool:
        remaining = iter(batches)
        pending = [pool.submit(make, positions) for positions in islice(remaining, BATCHES_AHEAD)]
        while pending:
            yield pending.pop(0).result()
            for positions in islice(remaining, 1):
                pending.append(pool.submit(make, positions))
