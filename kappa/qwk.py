"""The quadratic weighted kappa of two sets of levels, and its proxy where one is known as distributions only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dr.scores import find_fault
from preprocess.stage import InputError


class Errors(NamedTuple):
    """What the proxy is made of: 1 − (Σ own[i, l_i]) / (Σ chance[l_i]).

    own : (n, k), the expected squared error of giving image i level l
    chance : (k,), the same if the image were any of the n, drawn at random
    """

    own: np.ndarray
    chance: np.ndarray


def quadratic_weighted_kappa(levels: np.ndarray, predicted: np.ndarray, n_levels: int = 5) -> float:
    """Return 1 − observed / chance squared disagreement (Cohen 1968, Psychological Bulletin 70(4)).

    Parameters
    ----------
    levels, predicted : (n,) integers in 0..n_levels-1, n at least 1; exchanging the two changes nothing

    1 if the two are the same, even where all are one level and the ratio would be 0/0 (scikit-learn gives NaN there);
    0 if either is constant and the other is not the same constant. Raises InputError for other levels or lengths.
    """
    levels, predicted = (_check_levels(array, n_levels) for array in (levels, predicted))
    if len(levels) != len(predicted):
        raise InputError(f"{len(levels)} levels cannot be compared with {len(predicted)}")
    counts = np.bincount(n_levels * levels + predicted, minlength=n_levels**2).reshape(n_levels, n_levels)
    weights = square_distances(n_levels)
    observed = (weights * counts).sum() * len(levels)
    chance = counts.sum(axis=1) @ weights @ counts.sum(axis=0)
    return float(1 - observed / chance) if observed else 1.0


def expected_kappa(scores: np.ndarray, levels: np.ndarray) -> float:
    """Return the proxy: the kappa of `levels` against levels drawn from `scores`, as a ratio of expectations.

    Parameters
    ----------
    scores : (n, k), row i the distribution of image i's true level, independent of the others
    levels : (n,) integers in 0..k-1

    The kappa of the true levels has this expectation but for terms of order 1/n, if the scores are calibrated.
    1 where the ratio is 0/0: all images certain to be of one level, and given it.
    """
    errors = expected_errors(scores)
    levels = _check_levels(levels, len(errors.chance))
    if len(levels) != len(errors.own):
        raise InputError(f"{len(errors.own)} rows of scores cannot have {len(levels)} levels")
    return proxy_of(errors, levels)


def expected_errors(scores: np.ndarray) -> Errors:
    """Return the squared errors the proxy is made of. Raises InputError if rows of `scores` are no distributions."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise InputError(f"scores of shape {scores.shape} are not (n images, k levels)")
    fault = find_fault(scores)
    if fault:
        raise InputError(f"scores[{fault[0]}]: {fault[1]}")
    distances = square_distances(scores.shape[1])
    return Errors(scores @ distances, scores.mean(axis=0) @ distances)


def proxy_of(errors: Errors, levels: np.ndarray) -> float:
    """Return the proxy of levels that are known to be good."""
    own, chance = sum_errors(errors, levels)
    return 1 - own / chance if chance else 1.0


def sum_errors(errors: Errors, levels: np.ndarray) -> tuple[float, float]:
    """Return the two sums whose ratio the proxy is made of, own / chance."""
    own = np.take_along_axis(errors.own, levels[:, None], axis=1).sum()
    counts = np.bincount(levels, minlength=len(errors.chance))
    return float(own), float(counts @ errors.chance)


def square_distances(n_levels: int) -> np.ndarray:
    """Return (n_levels, n_levels) float64: how much a disagreement weighs."""
    levels = np.arange(n_levels, dtype=np.float64)
    return (levels[:, None] - levels) ** 2


def _check_levels(levels: np.ndarray, n_levels: int) -> np.ndarray:
    levels = np.asarray(levels)
    if levels.ndim != 1 or not levels.size:
        raise InputError(f"levels of shape {levels.shape} are no list of levels")
    bad = ~np.isin(levels, range(n_levels))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"level {levels[row]} at position {row} is not in 0..{n_levels - 1}")
    return levels.astype(np.int64)
