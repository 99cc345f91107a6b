"""How far scores are probabilities: log loss, and how often scores of each size come true."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dr.metrics.bootstrap import draw_figures, estimate_drawn

FLOOR = 1e-6  # of a score in the log loss: one certain error does not make the mean infinite
N_BINS = 10  # of the reliability diagram
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


def measure_reliability(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Reliability:
    """Return how often (n, k) scores of each size came true, all outputs together, with intervals over groups.

    Targets are (n,), which output is true, or (n, k), 1, 0, or NaN where it is not known, which is left out. Bins
    with fewer than `LEAST_IN_BIN` scores are left out of the arrays, not of the error.
    """
    true = targets if targets.ndim == 2 else (targets[:, None] == np.arange(scores.shape[1])).astype(float)
    counts, predicted, observed = bin_scores(scores, true)
    shown = counts >= LEAST_IN_BIN

    def share(rows: np.ndarray) -> np.ndarray:
        in_bin, _, came_true = bin_scores(scores[rows], true[rows])[:, shown]
        return np.divide(came_true, in_bin, out=np.full(len(in_bin), np.nan), where=in_bin > 0)

    estimates = [estimate_drawn(of) for of in draw_figures(groups, share).T]
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
    return float(np.abs(predicted - observed).sum() / counts.sum()) if counts.any() else float("nan")
