"""The proxy: what quadratic weighted kappa levels may expect where the true ones are known as distributions only."""

from typing import NamedTuple

import numpy as np

from dr.metrics.agreement import check_levels, square_distances
from dr.tasks.task import find_distribution_fault
from preprocess.disk.errors import InputError


class Errors(NamedTuple):
    """What the proxy is made of: 1 − (Σ own[i, l_i]) / (Σ chance[l_i])."""

    own: np.ndarray  # (n, k), the expected squared error of giving image i level l
    chance: np.ndarray  # (k,), the same if the image were any of the n, drawn at random


def expected_kappa(scores: np.ndarray, levels: np.ndarray) -> float:
    """Return the proxy of (n,) levels: their kappa against levels drawn from (n, k) scores, a ratio of expectations.

    The kappa of the true levels has this expectation but for terms of order 1/n, if the scores are calibrated and
    images independent. 1 where the ratio is 0/0: all images certain to be of one level, and given it.
    """
    errors = expected_errors(scores)
    levels = check_levels(levels, len(errors.chance))
    if len(levels) != len(errors.own):
        raise InputError(f"{len(errors.own)} rows of scores cannot have {len(levels)} levels")
    return proxy_of(errors, levels)


def expected_errors(scores: np.ndarray) -> Errors:
    """Return the squared errors the proxy is made of. Raises InputError if rows of `scores` are no distributions."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise InputError(f"scores of shape {scores.shape} are not (n images, k levels)")
    fault = find_distribution_fault(scores)
    if fault:
        raise InputError(f"scores[{fault.row}]: {fault.reason}")
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
