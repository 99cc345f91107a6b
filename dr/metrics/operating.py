"""Operating points: from which probability on a condition counts as present, and what that is worth.

Gulshan et al. (JAMA 316(22), 2016) set the form: one point of high sensitivity, for screening, and one of high
specificity, both chosen on images that they are not reported on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dr.metrics import ranking
from preprocess.dataset import folds

LEAST_SHARE = 0.9  # of the positives to find, or of the negatives to leave
LEAST_POSITIVES = 10  # a threshold chosen on fewer is marked, and decides nothing
UNSURE = f"a threshold chosen on fewer than {LEAST_POSITIVES} positives decides nothing"
N_FOLDS = 5  # of cross-fitting
SEED = 0

Rule = Callable[
    [np.ndarray, np.ndarray], float
]  # probabilities and what is true, (n,) each -> a threshold


class OperatingPoint(NamedTuple):
    """A threshold: probabilities from it on count as positive. NaN if it could not be chosen."""

    name: str
    threshold: float
    positives: int | None  # among the images it was chosen on; None if it is given by hand

    @property
    def is_sure(self) -> bool:
        """Whether it may decide: it is given, or was chosen on enough positives."""
        return math.isfinite(self.threshold) and (
            self.positives is None or self.positives >= LEAST_POSITIVES
        )


class Rates(NamedTuple):
    """What a threshold is worth; each is (d,), of draws, or an Estimate."""

    sensitivity: Any  # the share of the positives that reach it
    specificity: Any  # the share of the negatives that do not
    positive_predictive_value: Any  # the share of what reaches it that is positive
    negative_predictive_value: Any  # the share of what does not that is negative


def choose_sensitive(probabilities: np.ndarray, is_true: np.ndarray) -> float:
    """Return the highest threshold that at least LEAST_SHARE of the positives reach; NaN without positives."""
    if not is_true.any():
        return float("nan")
    true, _ = ranking.count_runs(probabilities, is_true)
    found = np.cumsum(np.flip(true)) / true.sum()
    return float(np.unique(probabilities)[::-1][int((found >= LEAST_SHARE).argmax())])


def choose_specific(probabilities: np.ndarray, is_true: np.ndarray) -> float:
    """Return the lowest threshold that at least LEAST_SHARE of the negatives do not reach.

    NaN without negatives or positives, or if too many negatives share the highest probability.
    """
    if is_true.all() or not is_true.any():
        return float("nan")
    _, false = ranking.count_runs(probabilities, is_true)
    left = (np.cumsum(false) - false) / false.sum()
    is_enough = left >= LEAST_SHARE
    if not is_enough.any():
        return float("nan")
    return float(np.unique(probabilities)[int(is_enough.argmax())])


RULES: dict[str, Rule] = {"high sensitivity": choose_sensitive, "high specificity": choose_specific}


def choose_points(
    probabilities: np.ndarray, truth: np.ndarray, rules: Mapping[str, Rule]
) -> list[OperatingPoint]:
    """Return an operating point for each rule; `truth` is (n,): 1, 0, or NaN where it is unknown."""
    is_known = ~np.isnan(truth)
    is_true = truth[is_known] == 1
    points = []
    for name, rule in rules.items():
        threshold = rule(probabilities[is_known], is_true) if is_known.any() else float("nan")
        points.append(OperatingPoint(name, threshold, int(is_true.sum())))
    return points


def cross_fit(
    patients: Sequence[str], probabilities: np.ndarray, truth: np.ndarray, rules: Mapping[str, Rule]
) -> dict[str, np.ndarray]:
    """Return by rule the threshold of each image, (n,), chosen on the images of other patients alone.

    With it the images on which a point was chosen can be reported on. One patient has none to choose by: NaN.
    """
    thresholds = {name: np.full(len(truth), np.nan) for name in rules}
    n_folds = min(N_FOLDS, len(set(patients)))
    if n_folds < 2:
        return thresholds
    # Without the targets: which images a threshold is chosen on must not depend on what is true of its own.
    fold_of = folds.assign_folds(patients, np.zeros(len(truth), np.int64), n_folds, SEED)
    for fold in range(n_folds):
        is_held = fold_of == fold
        for point in choose_points(probabilities[~is_held], truth[~is_held], rules):
            thresholds[point.name][is_held] = point.threshold
    return thresholds


def list_counted(
    probabilities: np.ndarray, is_true: np.ndarray, threshold: float | np.ndarray
) -> Rates:
    """Return which images each rate is a share of, (n,) bool; the threshold as in `measure_rates`."""
    thresholds = np.broadcast_to(threshold, len(probabilities))
    is_used = ~np.isnan(thresholds)
    is_reached = is_used & (probabilities >= thresholds)
    return Rates(
        sensitivity=is_used & is_true,
        specificity=is_used & ~is_true,
        positive_predictive_value=is_reached,
        negative_predictive_value=is_used & ~is_reached,
    )


def measure_rates(
    probabilities: np.ndarray,
    is_true: np.ndarray,
    threshold: float | np.ndarray,
    weights: np.ndarray,
) -> Rates:
    """Return the rates of many draws, (d,) each; NaN of none.

    The threshold is one for all images, or one each, (n,); an image whose threshold is NaN is left out. Weights (d, n)
    say how often each image is in each draw.
    """
    thresholds = np.broadcast_to(threshold, len(probabilities))
    is_used = ~np.isnan(thresholds)
    is_reached = is_used & (probabilities >= thresholds)
    is_left = is_used & ~is_reached
    found = weights @ (is_reached & is_true)
    missed = weights @ (is_left & is_true)
    wrong = weights @ (is_reached & ~is_true)
    right = weights @ (is_left & ~is_true)
    return Rates(
        sensitivity=_divide(found, found + missed),
        specificity=_divide(right, right + wrong),
        positive_predictive_value=_divide(found, found + wrong),
        negative_predictive_value=_divide(right, right + missed),
    )


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
