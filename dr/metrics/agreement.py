"""How far levels or classes agree with the true ones: confusion matrices, kappa, accuracy, precision, recall, F1."""

from collections.abc import Sequence

import numpy as np

from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError


def quadratic_weighted_kappa(levels: np.ndarray, predicted: np.ndarray, n_levels: int = 5) -> float:
    """Return 1 − observed / chance squared disagreement (Cohen 1968, Psychological Bulletin 70(4)) of (n,) levels each.

    1 if the two are the same, even where all are one level and the ratio would be 0/0; 0 if either is constant and the
    other is not the same constant. Raises InputError for no levels, or other ones than 0..n_levels-1.
    """
    levels, predicted = (check_levels(array, n_levels) for array in (levels, predicted))
    if len(levels) != len(predicted):
        raise InputError(f"{len(levels)} levels cannot be compared with {len(predicted)}")
    return float(kappa_of_counts(count_pairs(levels, predicted, n_levels)))


def check_levels(levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Return levels as (n,) int64. Raises InputError for what is not in 0..n_levels-1, and for none at all."""
    levels = np.asarray(levels)
    if levels.ndim != 1 or not levels.size:
        raise InputError(f"levels of shape {levels.shape} are no list of levels")
    bad = np.flatnonzero(~np.isin(levels, range(n_levels)))
    if bad.size:
        raise InputError(f"level {levels[bad[0]]} at position {bad[0]} is not in 0..{n_levels - 1}")
    return levels.astype(np.int64)


def square_distances(n_levels: int) -> np.ndarray:
    """Return (n_levels, n_levels) float64: how much a disagreement weighs."""
    levels = np.arange(n_levels, dtype=np.float64)
    return (levels[:, None] - levels) ** 2


def count_pairs(levels: np.ndarray, others: np.ndarray, n_levels: int) -> np.ndarray:
    """Return how often level a meets level b, (n_levels, n_levels) int64: rows `levels`, columns `others`."""
    return np.bincount(n_levels * levels + others, minlength=n_levels**2).reshape(
        n_levels, n_levels
    )


def count_weighted_pairs(
    levels: np.ndarray, others: np.ndarray, n_levels: int, weights: np.ndarray
) -> np.ndarray:
    """Return `count_pairs` of many draws, (d, n_levels, n_levels); weights (d, n): how often each image is in each."""
    cells = np.zeros((len(levels), n_levels**2))
    cells[np.arange(len(levels)), n_levels * levels + others] = 1
    return (weights @ cells).reshape(-1, n_levels, n_levels)


def kappa_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the quadratic weighted kappa of each confusion matrix, (...,) float64; `counts` is (..., k, k)."""
    weights = square_distances(counts.shape[-1])
    observed = (weights * counts).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    chance = np.einsum("...i,ij,...j", rows, weights, columns)
    return 1 - np.divide(
        observed, chance, out=np.zeros_like(chance, np.float64), where=observed > 0
    )


def kappa_of_draws(counts: np.ndarray) -> np.ndarray:
    """Return `kappa_of_counts`, but NaN where all true levels are one: such a draw says nothing of agreement."""
    n_true_levels = (counts.sum(axis=-1) > 0).sum(axis=-1)
    return np.where(n_true_levels > 1, kappa_of_counts(counts), np.nan)


def count_agreement(subjects: Sequence[Subject], levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Return how often a left eye's level, in rows, meets the right one's, (k, k): of each group a side's first
    picture.
    """
    sides: dict[str, dict[str, int]] = {}
    for subject, level in zip(subjects, levels.tolist(), strict=True):
        sides.setdefault(subject.patient, {}).setdefault(subject.side, level)
    pairs = [
        (both["left"], both["right"]) for both in sides.values() if both.keys() >= {"left", "right"}
    ]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return count_pairs(left, right, n_levels)


def share_near(counts: np.ndarray, most: int) -> float:
    """Return the share of a confusion matrix that lies at most so many levels off its diagonal."""
    return float(sum(np.trace(counts, off) for off in range(-most, most + 1)) / counts.sum())


def accuracy_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the share on the diagonal of each confusion matrix, (...,) float64; `counts` is (..., k, k), not empty."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def rates_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return precision, recall and F1 of each class, (..., 3, k), of confusion matrices with the true in rows; NaN is
    the precision of what nobody was given, the recall of what nobody has, the F1 of both.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    given, true = counts.sum(axis=-2), counts.sum(axis=-1)
    parts = np.stack([given, true, (given + true) / 2], axis=-2)
    return np.divide(right[..., None, :], parts, out=np.full(parts.shape, np.nan), where=parts > 0)


def macro_f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that somebody has or was given, (...,) float64; `counts` is (..., k, k)."""
    return np.nanmean(rates_of_counts(counts)[..., 2, :], axis=-1)


def expect_levels(scores: np.ndarray) -> np.ndarray:
    """Return the mean level of each distribution, (...,) in 0..k-1; `scores` is (..., k)."""
    return scores @ np.arange(scores.shape[-1])


def round_levels(scores: np.ndarray) -> np.ndarray:
    """Return the level nearest to the mean one, (...,) int64, the higher of two as near; `scores` is (..., k)."""
    return np.searchsorted(
        np.arange(scores.shape[-1] - 1) + 0.5, expect_levels(scores), side="right"
    )
