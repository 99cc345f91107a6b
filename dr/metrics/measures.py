"""Every figure of the pipeline, each formula once: scores, levels, groups and owners in, numbers out; no files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from preprocess.dataset.dataset import Owner
from preprocess.disk.errors import InputError

FLOOR = 1e-6  # of a score in the log loss: one certain error does not make the mean infinite
N_DRAWS = 1000  # of the bootstrap: the ends of a 95 % interval rest on 25 draws each
SEED = 0
INTERVAL = (2.5, 97.5)  # percent
N_BINS = 10  # of the reliability diagram
LEAST_IN_BIN = 10  # a share of fewer scores says nothing

Figure = Callable[[np.ndarray], np.ndarray]  # of confusion matrices (..., k, k) -> (...,)
Measured = tuple[list["Estimate"], list[tuple[Any, ...]]]  # of all outputs together, and of each, in their order


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Worth(NamedTuple):
    """What a step is worth by a figure, and how much more than the step before (None for the first)."""

    figure: Estimate
    gain: Estimate | None


class Reliability(NamedTuple):
    """Scores by size against how often they came true, five arrays of shape (bins,), and their mean distance."""

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    error: float


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


def quadratic_weighted_kappa(levels: np.ndarray, predicted: np.ndarray, n_levels: int = 5) -> float:
    """Return 1 − observed / chance squared disagreement (Cohen 1968, Psychological Bulletin 70(4)) of (n,) levels each.

    1 if the two are the same, even where all are one level and the ratio would be 0/0; 0 if either is constant and the
    other is not the same constant. Raises InputError for no levels, or other ones than 0..n_levels-1.
    """
    levels, predicted = (check_levels(array, n_levels) for array in (levels, predicted))
    if len(levels) != len(predicted):
        raise InputError(f"{len(levels)} levels cannot be compared with {len(predicted)}")
    return float(kappa_of_counts(count_pairs(levels, predicted, n_levels)))


def check_levels(levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Return levels as (n,) int64. Raises InputError for what is not in 0..n_levels-1, and for none at all."""
    levels = np.asarray(levels)
    if levels.ndim != 1 or not levels.size:
        raise InputError(f"levels of shape {levels.shape} are no list of levels")
    bad = np.flatnonzero(~np.isin(levels, range(n_levels)))
    if bad.size:
        raise InputError(f"level {levels[bad[0]]} at position {bad[0]} is not in 0..{n_levels - 1}")
    return levels.astype(np.int64)


def square_distances(n_levels: int) -> np.ndarray:
    """Return (n_levels, n_levels) float64: how much a disagreement weighs."""
    levels = np.arange(n_levels, dtype=np.float64)
    return (levels[:, None] - levels) ** 2


def count_pairs(levels: np.ndarray, others: np.ndarray, n_levels: int) -> np.ndarray:
    """Return how often level a meets level b, (n_levels, n_levels) int64: rows `levels`, columns `others`."""
    return np.bincount(n_levels * levels + others, minlength=n_levels**2).reshape(n_levels, n_levels)


def kappa_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the quadratic weighted kappa of each confusion matrix, (...,) float64; `counts` is (..., k, k)."""
    weights = square_distances(counts.shape[-1])
    observed = (weights * counts).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    chance = np.einsum("...i,ij,...j", rows, weights, columns)
    return 1 - np.divide(observed, chance, out=np.zeros_like(chance, np.float64), where=observed > 0)


def measure_worth(
    groups: Sequence[str], levels: np.ndarray, predicted: Mapping[str, np.ndarray], figure: Figure = kappa_of_counts
) -> dict[str, Worth]:
    """Return what each step is worth, with 95 % intervals of a bootstrap over groups: the same draws for all steps.

    `levels` are the true ones, or classes; `predicted` maps each step, in their order, to the (n,) levels it gives;
    `figure` maps confusion matrices to what they are worth, like `kappa_of_counts`.
    """
    n_levels = int(max(of.max() for of in (levels, *predicted.values()))) + 1  # those that nobody has change no figure

    def measure(rows: np.ndarray) -> np.ndarray:
        return figure(np.stack([count_pairs(levels[rows], of[rows], n_levels) for of in predicted.values()]))

    drawn = draw_figures(groups, measure)
    gains = [None, *map(estimate_drawn, np.diff(drawn).T)]
    return {step: Worth(estimate_drawn(of), gain) for step, of, gain in zip(predicted, drawn.T, gains, strict=True)}


def count_agreement(owners: Sequence[Owner], levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Return how often a left eye's level, in rows, meets the right one's, (k, k): of each group a side's first
    picture.
    """
    sides: dict[str, dict[str, int]] = {}
    for owner, level in zip(owners, levels.tolist(), strict=True):
        sides.setdefault(owner.group, {}).setdefault(owner.side, level)
    pairs = [(both["left"], both["right"]) for both in sides.values() if both.keys() >= {"left", "right"}]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return count_pairs(left, right, n_levels)


def share_near(counts: np.ndarray, most: int) -> float:
    """Return the share of a confusion matrix that lies at most so many levels off its diagonal."""
    return float(sum(np.trace(counts, off) for off in range(-most, most + 1)) / counts.sum())


def accuracy_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the share on the diagonal of each confusion matrix, (...,) float64; `counts` is (..., k, k), not empty."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def rates_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return precision, recall and F1 of each class, (..., 3, k), of confusion matrices with the true in rows; NaN is
    the precision of what nobody was given, the recall of what nobody has, the F1 of both.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    given, true = counts.sum(axis=-2), counts.sum(axis=-1)
    parts = np.stack([given, true, (given + true) / 2], axis=-2)
    return np.divide(right[..., None, :], parts, out=np.full(parts.shape, np.nan), where=parts > 0)


def macro_f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that somebody has or was given, (...,) float64; `counts` is (..., k, k)."""
    return np.nanmean(rates_of_counts(counts)[..., 2, :], axis=-1)


def count_runs(scores: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many true and how many other images have each score, the lowest first; all given are (n,)."""
    values, places = np.unique(scores, return_inverse=True)
    return np.bincount(places[is_true], minlength=len(values)), np.bincount(places[~is_true], minlength=len(values))


def measure_auc(scores: np.ndarray, is_true: np.ndarray) -> float:
    """Return how often what is true has the higher score than what is not, ties counting half: the area under the ROC.

    Not measurable, NaN, where one of the two is missing. Source: Hanley and McNeil, Radiology 143(1), 1982.
    """
    true, false = count_runs(scores, is_true)
    n_pairs = true.sum() * false.sum()
    return float((true * (np.cumsum(false) - false / 2)).sum() / n_pairs) if n_pairs else float("nan")


def measure_classes(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
    """Return accuracy, log loss and macro F1 of (n, k) scores as classes, the likeliest given; of each class how many
    images have it, precision, recall, F1 and AUC, NaN if not measurable.

    Intervals of shares are Wilson's, which take images as independent; the others are of a bootstrap over groups.
    """
    n_classes, given, losses = scores.shape[1], scores.argmax(axis=1), measure_losses(scores, targets)
    is_true = targets[:, None] == np.arange(n_classes)

    def measure(rows: np.ndarray) -> list[float]:
        counts = count_pairs(targets[rows], given[rows], n_classes)
        aucs = [measure_auc(scores[rows, number], is_true[rows, number]) for number in range(n_classes)]
        return [losses[rows].mean(), macro_f1_of_counts(counts), *rates_of_counts(counts)[2], *aucs]

    log_loss, macro_f1, *own = map(estimate_drawn, draw_figures(groups, measure).T)
    counts = count_pairs(targets, given, n_classes)
    right, n_given, n_true = (of.tolist() for of in (np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)))
    precisions, recalls = (list(map(estimate_share, right, of)) for of in (n_given, n_true))
    each = zip(n_true, precisions, recalls, own[:n_classes], own[n_classes:], strict=True)
    return [estimate_share(sum(right), len(targets)), log_loss, macro_f1], list(each)


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


def measure_finding_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(score of what is true) of each image and finding, (n, k), in nats; NaN where it is not known."""
    return -np.log(np.maximum(np.where(targets == 1, scores, 1 - scores), FLOOR)) + 0 * targets


def measure_findings(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
    """Return mean AUC, mean average precision and log loss of (n, k) scores as findings; of each finding how many
    images have it, of how many it is known, AUC, average precision, NaN if not measurable, and `measure_error`.

    Targets are 1, 0, or NaN where it is not known. A mean is over what is measurable.
    """
    losses = measure_finding_losses(scores, targets)

    def measure(rows: np.ndarray) -> list[float]:
        both = [measure_each(of, scores[rows], targets[rows]) for of in (measure_auc, measure_average_precision)]
        return [*map(mean_measurable, both), float(np.nanmean(losses[rows])), *np.concatenate(both)]

    auc, precision, log_loss, *own = map(estimate_drawn, draw_figures(groups, measure).T)
    n_true, n_known = ((targets == 1).sum(axis=0).tolist(), (~np.isnan(targets)).sum(axis=0).tolist())
    errors = [measure_error(*bin_scores(scores[:, k], targets[:, k])) for k in range(len(n_true))]
    each = zip(n_true, n_known, own[: len(n_true)], own[len(n_true) :], errors, strict=True)
    return [auc, precision, log_loss], list(each)


def estimate_share(n_true: int, n: int) -> Estimate:
    """Return a share with its 95 % interval (Wilson, JASA 22(158), 1927), of n that are independent; NaN of none."""
    if not n:
        return Estimate(*[float("nan")] * 3)
    from scipy.stats import binomtest  # takes a while; few ask for shares

    interval = binomtest(n_true, n).proportion_ci(method="wilson")
    return Estimate(n_true / n, interval.low, interval.high)


def expect_levels(scores: np.ndarray) -> np.ndarray:
    """Return the mean level of each distribution, (...,) in 0..k-1; `scores` is (..., k)."""
    return scores @ np.arange(scores.shape[-1])


def round_levels(scores: np.ndarray) -> np.ndarray:
    """Return the level nearest to the mean one, (...,) int64, the higher of two as near; `scores` is (..., k)."""
    return np.searchsorted(np.arange(scores.shape[-1] - 1) + 0.5, expect_levels(scores), side="right")


def measure_log_loss(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of `measure_losses`."""
    return float(measure_losses(scores, targets).mean())


def measure_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(score of the true target) of each image, (n,), in nats; scores (n, k), targets (n,)."""
    return -np.log(np.maximum(scores[np.arange(len(targets)), targets], FLOOR))


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


def rank_groups(groups: Sequence[str], levels: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> list[str]:
    """Return the groups, the hardest first: by squared error of the levels over all images, then by log loss.

    Of each of n images its group, true level, predicted one and (n, k) scores; equal groups stay in their order.
    """
    errors, losses = (levels - predicted) ** 2, measure_losses(scores, levels)
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    first = np.unique(numbers, return_index=True)[1]
    sums = [-np.bincount(numbers, of) for of in (errors, losses)]
    return names[np.lexsort((first, sums[1], sums[0]))].tolist()
