"""The uncertainty of a figure: 95 % intervals by a bootstrap over patients, exact ones of shares of none and of all.

No draw of a bootstrap differs where a share is 0 or 1, however few patients there are. Such a share has the interval of
Clopper and Pearson (Biometrika 26(4), 1934) instead, with the patients as its units.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dr.metrics.agreement import count_pairs, kappa_of_counts

N_DRAWS = 1000  # of the bootstrap: the ends of a 95 % interval rest on 25 draws each
SEED = 0
INTERVAL = (2.5, 97.5)  # percent
EXACT = "exact"  # the kinds of intervals that are no bootstrap's
NO_WIDTH = "none"
WEIGHTS_AT_ONCE = 2_000_000  # of draws and images, together: 16 MB
Figure = Callable[[np.ndarray], np.ndarray]  # of confusion matrices (..., k, k) -> (...,)


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval, NaN without one."""

    value: float
    low: float
    high: float
    draws: int = N_DRAWS  # in which it can be measured: the others are left out of the interval
    is_exact: bool = False  # whether the interval is that of Clopper and Pearson

    @property
    def kind(self) -> str:
        """What the interval is of: bootstrap, exact, none where no draw differed, or empty without an interval."""
        if np.isnan(self.low):
            return ""
        if self.is_exact:
            return EXACT
        if self.low == self.high:
            return NO_WIDTH
        return "bootstrap"

    def describe_interval(self, form: str = ".3f") -> str:
        """Return the interval for people: ends, kind unless it is a bootstrap, and draws that it leaves out."""
        if not self.kind:
            return "no interval"
        text = f"{self.low:{form}} to {self.high:{form}}"
        if self.kind == EXACT:
            return f"{text}, {EXACT}"
        if self.kind == NO_WIDTH:
            text = "no draw differed"
        if self.draws < N_DRAWS:
            text += f", {self.draws:,} of {N_DRAWS:,} draws"
        return text


class StepGain(NamedTuple):
    """What a step is worth by a figure, and how much more than the step before (None for the first)."""

    figure: Estimate
    gain: Estimate | None


def draw_figures(
    groups: Sequence[str], figure: Callable[[np.ndarray], np.ndarray | list]
) -> np.ndarray:
    """Return the figures of all images, first, and of each draw of a bootstrap over groups, (1 + N_DRAWS, ...).

    `figure` maps rows, in a draw some of them several times, to its figures. The draws are the same for all figures of
    the same groups, so that differences may be taken draw by draw. Of a single group nothing can be drawn: all draws
    are NaN.
    """
    numbers = number_groups(groups)
    order = np.argsort(numbers, kind="stable")
    drawn = [figure(np.arange(len(numbers)))]
    if numbers.max() == 0:
        return _add_no_draws(np.array(drawn, np.float64))
    for times in draw_groups(numbers.max() + 1):
        drawn.append(figure(np.repeat(order, times[numbers[order]])))
    return np.array(drawn, np.float64)


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Return the number of each image's group, (n,) int64, by the names' order."""
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def draw_groups(n_groups: int) -> Iterator[np.ndarray]:
    """Yield how often each group is in each of N_DRAWS draws, (n_groups,) int64; always the same draws."""
    rng = np.random.default_rng(SEED)
    for _ in range(N_DRAWS):
        yield np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)


def draw_weighted(groups: Sequence[str], figures: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return f figures of all images, first, and of each draw of `draw_figures`, (1 + N_DRAWS, f).

    `figures` maps the weights of many draws at once, (d, n) float64, how often each image is in each of them, to
    (d, f). It is as good as `draw_figures`, and many times faster where a figure is a sum.
    """
    numbers = number_groups(groups)
    n_at_once = max(1, WEIGHTS_AT_ONCE // len(numbers))
    parts = [figures(np.ones((1, len(numbers))))]
    if numbers.max() == 0:
        return _add_no_draws(parts[0])
    waiting: list[np.ndarray] = []
    for times in draw_groups(numbers.max() + 1):
        waiting.append(times[numbers])
        if len(waiting) == n_at_once:
            parts.append(figures(np.array(waiting, np.float64)))
            waiting = []
    if waiting:
        parts.append(figures(np.array(waiting, np.float64)))
    return np.concatenate(parts)


def _add_no_draws(figures: np.ndarray) -> np.ndarray:
    """Return the figures of all images, (1, ...), followed by draws that could not be made, NaN."""
    return np.concatenate([figures, np.full((N_DRAWS, *figures.shape[1:]), np.nan)])


def estimate_drawn(drawn: np.ndarray) -> Estimate:
    """Return a figure with the percentile interval of its draws in which it can be measured, see `draw_figures`."""
    value = float(drawn[0])
    draws = drawn[1:]
    measurable = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(measurable):
        return Estimate(value, float("nan"), float("nan"), draws=0)
    low, high = np.percentile(measurable, INTERVAL)
    return Estimate(value, float(low), float(high), draws=len(measurable))


def estimate_share(drawn: np.ndarray, n_groups: int) -> Estimate:
    """Return a share like `estimate_drawn`; one of 0 or 1 with the exact interval over the groups that count in it.

    Of n groups none or all of which have what is counted, that is (0, b) or (1 - b, 1) with b = 1 - 0.025^(1/n), about
    3.7 / n. Source: Clopper and Pearson, Biometrika 26(4), 1934.
    """
    estimate = estimate_drawn(drawn)
    if estimate.value not in (0, 1) or n_groups < 1:
        return estimate
    bound = 1 - (INTERVAL[0] / 100) ** (1 / n_groups)
    if estimate.value == 0:
        return Estimate(0.0, 0.0, bound, is_exact=True)
    return Estimate(1.0, 1 - bound, 1.0, is_exact=True)


def count_groups(groups: Sequence[str], is_counted: np.ndarray) -> int:
    """Return how many groups have an image that counts; `is_counted` is (n,) bool."""
    return len(set(np.asarray(groups)[is_counted].tolist()))


def measure_step_gains(
    groups: Sequence[str],
    levels: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    figure: Figure = kappa_of_counts,
    is_share: bool = False,
) -> dict[str, StepGain]:
    """Return what each step is worth, with 95 % intervals of a bootstrap over groups: the same draws for all steps.

    `levels` are the true ones, or classes; `predicted` maps each step, in their order, to the (n,) levels it gives;
    `figure` maps confusion matrices to what they are worth, like `kappa_of_counts`; if it is a share of all images, one
    of 0 or 1 has an exact interval, see `estimate_share`.
    """
    n_levels = (
        int(max(of.max() for of in (levels, *predicted.values()))) + 1
    )  # those that nobody has change no figure

    def measure(rows: np.ndarray) -> np.ndarray:
        return figure(
            np.stack([count_pairs(levels[rows], of[rows], n_levels) for of in predicted.values()])
        )

    drawn = draw_figures(groups, measure)
    gains = [None, *map(estimate_drawn, np.diff(drawn).T)]
    n_groups = len(set(groups))
    steps = {}
    for step, values, gain in zip(predicted, drawn.T, gains, strict=True):
        worth = estimate_share(values, n_groups) if is_share else estimate_drawn(values)
        steps[step] = StepGain(worth, gain)
    return steps
