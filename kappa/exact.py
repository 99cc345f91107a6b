"""The labels with the highest proxy there is, proven by Dinkelbach's iteration."""

from typing import NamedTuple

import numpy as np

from kappa.proxy import Errors, expected_errors, proxy_of, sum_errors


class Optimum(NamedTuple):
    """The best labels, (n,) int64, and the proxy they have."""

    levels: np.ndarray
    proxy: float


def optimal_levels(scores: np.ndarray) -> np.ndarray:
    """Return levels, (n,) int64, that no other levels exceed in `kappa.proxy.expected_kappa`; scores (n, k).

    Source: W. Dinkelbach, On Nonlinear Fractional Programming, Management Science 13(7), 1967. The ratio own / chance
    of two sums falls below a value r only if Σ (own − r·chance) falls below 0, and that sum is minimized image by
    image. Each round takes r from the last labels; if the minimum is not below 0, no labels have a smaller ratio.
    """
    return find_optimum(expected_errors(scores)).levels


def find_optimum(errors: Errors) -> Optimum:
    """Return the best labels and their proxy, up to rounding errors of float64.

    Certain images all of one level have chance 0 for it: those labels are right, with proxy 1 as the limit.
    """
    own = np.ascontiguousarray(errors.own.T)  # (k, n): along whole rows the least of each column is found faster
    levels = own.argmin(axis=0)  # the lower one of equals
    best = Optimum(levels, proxy_of(errors, levels))
    while sum_errors(errors, best.levels)[1]:
        ratio = 1 - best.proxy
        levels = (own - ratio * errors.chance[:, None]).argmin(axis=0)
        proxy = proxy_of(errors, levels)
        if proxy <= best.proxy:
            break
        best = Optimum(levels, proxy)
    return best
