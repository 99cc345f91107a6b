"""How well scores rank what is true above what is not: ROC curve, AUC, average precision, the threshold of best F1."""

from collections.abc import Callable

import numpy as np


def count_runs(scores: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many true and how many other images have each score, the lowest first; all given are (n,)."""
    values, places = np.unique(scores, return_inverse=True)
    return np.bincount(places[is_true], minlength=len(values)), np.bincount(
        places[~is_true], minlength=len(values)
    )


def measure_auc(scores: np.ndarray, is_true: np.ndarray) -> float:
    """Return how often what is true has the higher score than what is not, ties counting half: the area under the ROC.

    Not measurable, NaN, where one of the two is missing. Source: Hanley and McNeil, Radiology 143(1), 1982.
    """
    true, false = count_runs(scores, is_true)
    n_pairs = true.sum() * false.sum()
    return (
        float((true * (np.cumsum(false) - false / 2)).sum() / n_pairs) if n_pairs else float("nan")
    )


def count_weighted_runs(
    scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count_runs` of many draws, (d, values) each; weights (d, n): how often each image is in each draw."""
    order = np.argsort(scores, kind="stable")
    starts = np.unique(scores[order], return_index=True)[1]
    ordered = weights[:, order]
    true = np.add.reduceat(ordered * is_true[order], starts, axis=1)
    false = np.add.reduceat(ordered * ~is_true[order], starts, axis=1)
    return true, false


def measure_weighted_auc(
    scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return `measure_auc` of many draws, (d,); weights (d, n): how often each image is in each draw."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    true, false = count_weighted_runs(scores, is_true, weights)
    n_pairs = true.sum(axis=1) * false.sum(axis=1)
    n_right = (true * (np.cumsum(false, axis=1) - false / 2)).sum(axis=1)
    return np.divide(n_right, n_pairs, out=np.full(len(weights), np.nan), where=n_pairs > 0)


def measure_weighted_average_precision(
    scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return `measure_average_precision` of many draws, (d,); weights (d, n), as above."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    true, false = count_weighted_runs(scores, is_true, weights)
    true = np.flip(true, axis=1)
    reached = np.cumsum(true + np.flip(false, axis=1), axis=1)
    precision = np.divide(
        np.cumsum(true, axis=1), reached, out=np.zeros_like(reached), where=reached > 0
    )
    n_true = true.sum(axis=1)
    total = (true * precision).sum(axis=1)
    return np.divide(total, n_true, out=np.full(len(weights), np.nan), where=n_true > 0)


def trace_roc(scores: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Return the shares of the false and of the true images with a score from each on, (2, n), from 0 to 1."""
    true, false = (np.r_[0, np.cumsum(np.flip(of))] for of in count_runs(scores, is_true))
    return np.stack([false / false[-1], true / true[-1]])


def measure_average_precision(scores: np.ndarray, is_true: np.ndarray) -> float:
    """Return the mean precision at the score of each true image; NaN of none."""
    true, false = (np.flip(of) for of in count_runs(scores, is_true))
    precision = np.cumsum(true) / np.cumsum(true + false)
    return float((true * precision).sum() / true.sum()) if true.any() else float("nan")


def choose_threshold(scores: np.ndarray, is_true: np.ndarray) -> float:
    """Return from which score on a finding is believed so that F1 is best, the highest of several; NaN of none."""
    true, false = (np.flip(of) for of in count_runs(scores, is_true))
    if not true.any():
        return float("nan")
    f1 = np.cumsum(true) / (np.cumsum(true + false) + true.sum())  # its half
    return float(np.unique(scores)[::-1][int(f1.argmax())])


def mean_measurable(values: np.ndarray) -> float:
    """Return the mean of what is measurable; NaN where nothing is."""
    measurable = values[~np.isnan(values)]
    return float(measurable.mean()) if len(measurable) else float("nan")


def measure_each(
    figure: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Return a figure, such as `measure_auc`, of each finding's known images, (k,); (n, k) targets are 1, 0 or NaN."""
    known = ~np.isnan(targets)
    return np.array([figure(scores[of, k], targets[of, k] == 1) for k, of in enumerate(known.T)])
