"""What follows from a task: the columns of its scores and what a row must satisfy, and what is learned from a target.

Arrays only. What holds for all outputs of any task stands here; the arithmetic of the figures in dr.measures.
"""

import numpy as np

from dr import measures
from preprocess.samples.layout import Task

SUM_TOLERANCE = 1e-5  # float32 softmax is off by 1e-7, tables rounded to six decimals by 3e-6


def name_columns(task: Task) -> list[str]:
    """Return the columns of a score table: p0, p1, ... for levels."""
    return [f"p{level}" for level in range(len(task.names))]


def find_fault(scores: np.ndarray, tolerance: float = SUM_TOLERANCE) -> tuple[int, str] | None:
    """Return the first row of (n, k) scores that is no distribution, and why; None if all are.

    Sums may be off by `tolerance`.
    """
    finite, positive = np.all(np.isfinite(scores), axis=1), np.all(scores >= 0, axis=1)
    sums = scores.sum(axis=1)
    bad = np.flatnonzero(~(finite & positive & (np.abs(sums - 1) <= tolerance)))
    if not bad.size:
        return None
    row = int(bad[0])
    if not finite[row]:
        return row, "a score is not a finite number"
    if not positive[row]:
        return row, f"a score is negative ({scores[row].min():g})"
    return row, f"the scores sum to {sums[row]:.6g}, not 1"


def weigh_targets(task: Task, targets: np.ndarray, how: str) -> np.ndarray:
    """Return a weight per output, (k,): 1, or "balanced": all that are present count alike, an image 1 on average."""
    counts = np.bincount(targets, minlength=len(task.names))
    if how == "none":
        return np.ones(len(counts))
    return np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)


def find_prior(task: Task, targets: np.ndarray) -> np.ndarray:
    """Return what is known of an image nobody has seen, (k,): the share of each output among the targets (n,)."""
    return np.bincount(targets, minlength=len(task.names)) / len(targets)


def measure(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the figures that are followed from epoch to epoch, name -> value; scores (n, k), targets (n,)."""
    return {
        "log_loss": measures.measure_log_loss(scores, targets),
        "qwk": measures.quadratic_weighted_kappa(targets, scores.argmax(axis=1), scores.shape[1]),
    }
