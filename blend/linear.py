"""The baseline blend: a weighted mean of an eye's own scores and those of its fellow."""

from __future__ import annotations

import numpy as np

from blend.pairs import Pairs
from dr.scores import measure_log_loss

PRIOR_IMAGES = 50  # a weight fitted to 120 images is off by 0.2 either way: so many images speak for 0, own scores only


def blend_linear(pairs: Pairs, fellow_weight: float) -> np.ndarray:
    """Return (1 − fellow_weight)·own + fellow_weight·fellow, (n, 5)."""
    return (1 - fellow_weight) * pairs.own + fellow_weight * pairs.fellow


def fit_fellow_weight(pairs: Pairs, levels: np.ndarray) -> float:
    """Return the fellow's weight in 0–1: the one of lowest log loss (which is convex in it), shrunk for few images."""
    from scipy.optimize import minimize_scalar

    def lose(weight: float) -> float:
        return measure_log_loss(blend_linear(pairs, weight), levels)

    best = minimize_scalar(lose, bounds=(0, 1), method="bounded").x
    return float(best * len(levels) / (len(levels) + PRIOR_IMAGES))
