"""The uncertainty of a figure: 95 % intervals by a bootstrap over patients, or for shares by Wilson's formula."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dr.metrics.agreement import count_pairs, kappa_of_counts

N_DRAWS = 1000  # of the bootstrap: the ends of a 95 % interval rest on 25 draws each
SEED = 0
INTERVAL = (2.5, 97.5)  # percent
Figure = Callable[[np.ndarray], np.ndarray]  # of confusion matrices (..., k, k) -> (...,)


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class StepGain(NamedTuple):
    """What a step is worth by a figure, and how much more than the step before (None for the first)."""

    figure: Estimate
    gain: Estimate | None


def draw_figures(groups: Sequence[str], figure: Callable[[np.ndarray], np.ndarray | list]) -> np.ndarray:
    """Return the figures of all images, first, and of each draw of a bootstrap over groups, (1 + N_DRAWS, ...).

    `figure` maps rows, in a draw some of them several times, to its figures. The draws are the same for all figures of
    the same groups, so that differences may be taken draw by draw.
    """
    numbers = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    order, n_groups, rng = np.argsort(numbers, kind="stable"), numbers.max() + 1, np.random.default_rng(SEED)
    taken = (np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups) for _ in range(N_DRAWS))
    drawn = [figure(np.repeat(order, times[numbers[order]])) for times in taken]
    return np.array([figure(np.arange(len(numbers))), *drawn], np.float64)


def estimate_drawn(drawn: np.ndarray) -> Estimate:
    """Return a figure with the percentile interval of its draws in which it can be measured, see `draw_figures`."""
    value, draws = float(drawn[0]), drawn[1:]
    low, high = np.percentile(draws[~np.isnan(draws)] if np.isfinite(value) else np.nan, INTERVAL)
    return Estimate(value, float(low), float(high))


def estimate_share(n_true: int, n: int) -> Estimate:
    """Return a share with its 95 % interval (Wilson, JASA 22(158), 1927), of n that are independent; NaN of none."""
    if not n:
        return Estimate(*[float("nan")] * 3)
    from scipy.stats import binomtest  # takes a while; few ask for shares

    interval = binomtest(n_true, n).proportion_ci(method="wilson")
    return Estimate(n_true / n, interval.low, interval.high)


def measure_step_gains(
    groups: Sequence[str], levels: np.ndarray, predicted: Mapping[str, np.ndarray], figure: Figure = kappa_of_counts
) -> dict[str, StepGain]:
    """Return what each step is worth, with 95 % intervals of a bootstrap over groups: the same draws for all steps.

    `levels` are the true ones, or classes; `predicted` maps each step, in their order, to the (n,) levels it gives;
    `figure` maps confusion matrices to what they are worth, like `kappa_of_counts`.
    """
    n_levels = int(max(of.max() for of in (levels, *predicted.values()))) + 1  # those that nobody has change no figure

    def measure(rows: np.ndarray) -> np.ndarray:
        return figure(np.stack([count_pairs(levels[rows], of[rows], n_levels) for of in predicted.values()]))

    drawn = draw_figures(groups, measure)
    gains = [None, *map(estimate_drawn, np.diff(drawn).T)]
    return {step: StepGain(estimate_drawn(of), gain) for step, of, gain in zip(predicted, drawn.T, gains, strict=True)}
