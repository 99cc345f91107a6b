"""How far scores are probabilities: log loss, Brier score, calibration slope, and how often each size comes true."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dr.metrics.bootstrap import count_groups, draw_figures, estimate_share

FLOOR = 1e-6  # of a score in the log loss: one certain error does not make the mean infinite
N_BINS = 10  # of the reliability diagram
NEWTON_STEPS = 100  # of the calibration slope; most fits take seven
LONGEST_STEP = 2.0  # of Newton's method, in standardized units, so that it does not overshoot
CONVERGED = 1e-10  # a step as short ends the fit
LEAST_IN_BIN = 10  # a share of fewer scores says nothing


class Reliability(NamedTuple):
    """Scores by size against how often they came true, five arrays of shape (bins,), and their mean distance."""

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    error: float


def measure_log_loss(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of `measure_losses`."""
    return float(measure_losses(scores, targets).mean())


def measure_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(score of the true target) of each image, (n,), in nats; scores (n, k), targets (n,)."""
    return -np.log(np.maximum(scores[np.arange(len(targets)), targets], FLOOR))


def measure_finding_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(score of what is true) of each image and finding, (n, k), in nats; NaN where it is not known."""
    return -np.log(np.maximum(np.where(targets == 1, scores, 1 - scores), FLOOR)) + 0 * targets


def measure_reliability(
    groups: Sequence[str], scores: np.ndarray, targets: np.ndarray
) -> Reliability:
    """Return how often (n, k) scores of each size came true, all outputs together, with intervals over groups.

    Targets are (n,), which output is true, or (n, k), 1, 0, or NaN where it is not known, which is left out. Bins
    with fewer than `LEAST_IN_BIN` scores are left out of the arrays, not of the error.
    """
    true = (
        targets
        if targets.ndim == 2
        else (targets[:, None] == np.arange(scores.shape[1])).astype(float)
    )
    counts, predicted, observed = bin_scores(scores, true)
    shown = counts >= LEAST_IN_BIN

    def share(rows: np.ndarray) -> np.ndarray:
        in_bin, _, came_true = bin_scores(scores[rows], true[rows])[:, shown]
        return np.divide(came_true, in_bin, out=np.full(len(in_bin), np.nan), where=in_bin > 0)

    is_known = ~np.isnan(true)
    bins = np.minimum((np.where(is_known, scores, 0) * N_BINS).astype(int), N_BINS - 1)
    estimates = []
    for number, drawn in zip(np.flatnonzero(shown), draw_figures(groups, share).T, strict=True):
        is_in_bin = ((bins == number) & is_known).any(axis=1)
        estimates.append(estimate_share(drawn, count_groups(groups, is_in_bin))[:3])
    came_true, low, high = np.reshape(estimates, (-1, 3)).T
    means, error = predicted[shown] / counts[shown], measure_error(counts, predicted, observed)
    return Reliability(means, came_true, low, high, counts[shown].astype(int), error)


def bin_scores(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many known scores lie in each bin, their sums, and how many came true, (3, N_BINS)."""
    known = ~np.isnan(targets)
    bins = np.minimum((scores[known] * N_BINS).astype(int), N_BINS - 1)
    return np.stack([np.bincount(bins, of, N_BINS) for of in (None, scores[known], targets[known])])


def measure_error(counts: np.ndarray, predicted: np.ndarray, observed: np.ndarray) -> float:
    """Return how far the scores of bins, see `bin_scores`, lie from how often they came true, in the mean."""
    return (
        float(np.abs(predicted - observed).sum() / counts.sum()) if counts.any() else float("nan")
    )


def measure_brier(
    probabilities: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the mean squared distance of probabilities (n,) from what is true, 1 or 0, of many draws, (d,).

    Weights (d, n) say how often each image is in each draw. Source: Brier, Monthly Weather Review 78(1), 1950.
    """
    total = weights.sum(axis=1)
    squares = weights @ (probabilities - is_true) ** 2
    return np.divide(squares, total, out=np.full(len(weights), np.nan), where=total > 0)


def measure_weighted_error(
    probabilities: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return `measure_error` of the bins of probabilities (n,), of many draws, (d,); weights (d, n), as above."""
    bins = np.minimum((probabilities * N_BINS).astype(int), N_BINS - 1)
    is_in_bin = bins[:, None] == np.arange(N_BINS)
    differences = weights @ (is_in_bin * (probabilities - is_true)[:, None])
    total = weights.sum(axis=1)
    return np.divide(
        np.abs(differences).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0
    )


def fit_slope(probabilities: np.ndarray, is_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the calibration slope of probabilities (n,), of many draws, (d,); weights (d, n), as above.

    The slope of a logistic regression, by maximum likelihood, of what is true on the logit of the probability, beside
    an intercept: 1 is ideal, less means that the probabilities are too extreme, more that they are too timid.
    Probabilities are taken as at least FLOOR and at most 1 - FLOOR. Not measurable, NaN, where all or none are true,
    or a threshold tells the two apart without an error. Source: Cox, Biometrika 45(3/4), 1958; Van Calster et al., BMC
    Medicine 17:230, 2019.
    """
    slopes = np.full(len(weights), np.nan)
    if not len(probabilities):
        return slopes
    clipped = np.clip(probabilities, FLOOR, 1 - FLOOR)
    logits = np.log(clipped / (1 - clipped))
    deviation = logits.std()
    is_fitted = _find_overlap(logits, is_true, weights)
    if deviation == 0 or not is_fitted.any():
        return slopes
    x = (logits - logits.mean()) / deviation
    slopes[is_fitted] = _fit_logistic(x, is_true.astype(np.float64), weights[is_fitted]) / deviation
    return slopes


def _find_overlap(values: np.ndarray, is_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return in which draws, (d,) bool, neither all true values lie beyond all others nor all others beyond these."""
    is_drawn = weights > 0
    highest = []
    lowest = []
    for is_chosen in (is_true, ~is_true):
        is_here = is_drawn & is_chosen
        highest.append(np.where(is_here, values, -np.inf).max(axis=1))
        lowest.append(np.where(is_here, values, np.inf).min(axis=1))
    return (highest[1] > lowest[0]) & (highest[0] > lowest[1])


def _fit_logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the slope of y (n,), 1 or 0, on x (n,) of each draw, (d,), by Newton's method; NaN if it does not end."""
    intercept = np.zeros(len(weights))
    slope = np.zeros(len(weights))
    is_done = np.zeros(len(weights), bool)
    for _ in range(NEWTON_STEPS):
        rows = np.flatnonzero(~is_done)
        drawn = weights[rows]
        expected = 1 / (1 + np.exp(-(intercept[rows, None] + slope[rows, None] * x)))
        residuals = drawn * (y - expected)
        variances = drawn * expected * (1 - expected)
        first = residuals.sum(axis=1)
        second = residuals @ x
        whole = variances.sum(axis=1)
        mixed = variances @ x
        square = variances @ x**2
        determinant = whole * square - mixed**2
        steps = np.stack(
            [square * first - mixed * second, whole * second - mixed * first]
        )  # (2, rows)
        steps = np.divide(
            steps, determinant, out=np.full(steps.shape, np.nan), where=determinant > 0
        )
        steps = np.clip(steps, -LONGEST_STEP, LONGEST_STEP)
        intercept[rows] += steps[0]
        slope[rows] += steps[1]
        is_done[rows] = ~(np.abs(steps).max(axis=0) > CONVERGED)  # NaN is done, too
        if is_done.all():
            return slope
    return np.where(is_done, slope, np.nan)
