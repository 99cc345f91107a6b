"""The baseline blend: a weighted mean of an eye's own scores and those of its fellow."""

from __future__ import annotations

import numpy as np

from blend.pairs import Pairs

FLOOR = 1e-6  # scores below it count as it, so that one certain error does not make the log loss infinite


def blend_linear(pairs: Pairs, fellow_weight: float) -> np.ndarray:
    """Return (1 − fellow_weight)·own + fellow_weight·fellow, (n, 5)."""
    return (1 - fellow_weight) * pairs.own + fellow_weight * pairs.fellow


def fit_fellow_weight(pairs: Pairs, levels: np.ndarray) -> float:
    """Return the fellow's weight in 0–1 with the lowest log loss, which is convex in it."""
    from scipy.optimize import minimize_scalar

    def lose(weight: float) -> float:
        return measure_log_loss(blend_linear(pairs, weight), levels)

    return float(minimize_scalar(lose, bounds=(0, 1), method="bounded").x)


def measure_log_loss(scores: np.ndarray, levels: np.ndarray) -> float:
    """Return the mean of −log(score of the true level), in nats."""
    return float(-np.log(np.maximum(scores[np.arange(len(levels)), levels], FLOOR)).mean())
