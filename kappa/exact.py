"""The labels with the highest proxy there is, proven by Dinkelbach's iteration."""

import numpy as np

from kappa.proxy import Errors, expected_errors, proxy_of, sum_errors


def optimal_levels(scores: np.ndarray) -> np.ndarray:
    """Return levels, (n,) int64, that no other levels exceed in `kappa.proxy.expected_kappa`; scores (n, k)."""
    return find_optimum(expected_errors(scores))


def find_optimum(errors: Errors) -> np.ndarray:
    """Return levels, (n,) int64, of the highest proxy there is, up to rounding errors of float64.

    Source: W. Dinkelbach, On Nonlinear Fractional Programming, Management Science 13(7), 1967. The ratio own / chance
    of two sums falls below a value r only if Σ (own − r·chance) falls below 0, and that sum is minimized image by
    image. Each round takes r from the last labels; if the minimum is not below 0, no labels have a smaller ratio.
    Certain images all of one level have chance 0 for it: those labels are right, with proxy 1 as the limit.
    """
    own = np.ascontiguousarray(
        errors.own.T
    )  # (k, n): along whole rows the least of each column is found faster
    best = own.argmin(axis=0)  # the lower one of equals
    while sum_errors(errors, best)[1]:
        proxy = proxy_of(errors, best)
        levels = (own - (1 - proxy) * errors.chance[:, None]).argmin(axis=0)
        if proxy_of(errors, levels) <= proxy:
            break
        best = levels
    return best
