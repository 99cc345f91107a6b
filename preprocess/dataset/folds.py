"""Folds that divide no group."""

from collections.abc import Sequence

import numpy as np

from preprocess.dataset.dataset import SOURCE
from preprocess.disk.errors import InputError

BY_SOURCE = SOURCE  # in the place of a number of folds, and the column of the table of samples that it means


def find_source_fold(sources: Sequence[str], fold: int) -> np.ndarray:
    """Return which images, (n,) bool, are of the source that a fold leaves out: the fold-th by name.

    Raises InputError if there are not so many, or only one.
    """
    names = sorted(set(sources))
    if len(names) < 2:
        raise InputError(
            f"--folds source: {names[0] if names else 'no'} source alone; there is no other to learn from"
        )
    if fold >= len(names):
        raise InputError(
            f"--fold {fold}: of {len(names)} sources, {', '.join(names)}, the last is {len(names) - 1}"
        )
    return np.array([source == names[fold] for source in sources])


def assign_folds(groups: Sequence[str], targets: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold 0..n_folds-1 of each of n images: all of a group in one, the targets spread evenly.

    The targets are (n,) int, and a group counts by its highest; or (n, k), 1 where an image has a finding: by its
    rarest. The folds do not depend on the images' order; `seed` says which of the many such divisions.
    """
    if targets.ndim == 2:
        rank = np.argsort(
            np.argsort(-(targets == 1).sum(axis=0), kind="stable")
        )  # of each, the rarest last
        targets = ((targets == 1) * (rank + 1)).max(axis=1)
    highest: dict[str, int] = {}
    for group, target in zip(groups, targets, strict=True):
        highest[group] = max(highest.get(group, 0), int(target))
    if n_folds < 2 or len(highest) < n_folds:
        raise InputError(f"{len(highest)} patients cannot be divided into {n_folds} folds")
    shuffled = np.random.default_rng(seed).permutation(np.array(sorted(highest), dtype=object))
    by_target = sorted(shuffled, key=highest.__getitem__)  # stable: random within a target
    fold_of = {group: position % n_folds for position, group in enumerate(by_target)}
    return np.array([fold_of[group] for group in groups])
