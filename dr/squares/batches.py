"""The batches of an epoch, and the crops of a batch as tensors on the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from dr.squares.crops import Crops, cut_batch
from dr.squares.store import Maps, Squares

BATCHES_AHEAD = 2  # made while the device works on one


class Batch(NamedTuple):
    """Images to score together, filled up to `size` with images whose scores are not wanted."""

    positions: np.ndarray
    size: int

    def fill(self) -> np.ndarray:
        """Return the positions of all images of the batch, (size,): the first one fills it up."""
        n_more = self.size - len(self.positions)
        return np.concatenate([self.positions, np.repeat(self.positions[:1], n_more)])

    def find_eyes(self, eyes: np.ndarray) -> np.ndarray:
        """Return the eyes of all images of the batch, (size,); those that fill it up are nobody's fellows."""
        n_more = self.size - len(self.positions)
        unused = 2 * (int(eyes.max()) // 2 + 1)
        return np.concatenate([eyes[self.positions], unused + 2 * np.arange(n_more)])


def order_groups(positions: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Return the positions so that each group's lie together, groups in the order in which their numbers rise.

    The names of other groups may lie between a group's: a_left, a_b_left, a_right.
    """
    return positions[np.argsort(eyes[positions] // 2, kind="stable")]


def plan_batches(
    batches: Sequence[np.ndarray], groups: np.ndarray, is_due: np.ndarray
) -> list[Batch]:
    """Return the batches to score so that the images that are due, (n,) bool, have the scores they have among all.

    `batches` are those of all images. How a processor rounds hangs on the size of a batch, though not on what else is
    in it or in which place (measured: tests/benchmarks/RESULTS.md). So an image is always scored in a batch as large
    as its own among all. A batch of which all is due stays as it is; of the others the groups that are due come
    together: `groups`, (n,), says which images must be scored together, as a net of pairs does a patient's eyes.
    """
    planned = []
    left: dict[int, list[np.ndarray]] = {}  # size -> groups
    for batch in batches:
        due = is_due[batch]
        if due.all():
            planned.append(Batch(batch, len(batch)))
        elif due.any():
            groups_here = groups[batch]
            for group in np.unique(groups_here[due]):
                left.setdefault(len(batch), []).append(batch[groups_here == group])
    for size, groups_of_size in left.items():
        planned += _pack(groups_of_size, size)
    return planned


def _pack(groups: Sequence[np.ndarray], size: int) -> list[Batch]:
    """Return batches of whole groups, each of at most `size` positions."""
    packed = []
    begun: list[np.ndarray] = []
    n_begun = 0
    for group in groups:
        if n_begun + len(group) > size:
            packed.append(Batch(np.concatenate(begun), size))
            begun = []
            n_begun = 0
        begun.append(group)
        n_begun += len(group)
    packed.append(Batch(np.concatenate(begun), size))
    return packed


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
