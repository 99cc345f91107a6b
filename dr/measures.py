"""Every figure of the pipeline, each formula once: scores, levels, groups and owners in, numbers out; no files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from preprocess.cache.errors import InputError
from preprocess.samples.layout import Owner

FLOOR = 1e-6  # of a score in the log loss: one certain error does not make the mean infinite
N_DRAWS = 1000  # of the bootstrap: the ends of a 95 % interval rest on 25 draws each
SEED = 0
DRAWS_AT_A_TIME = 100  # 26,788 groups in float32 take 11 MB
INTERVAL = (2.5, 97.5)  # percent
Z95 = 1.959964  # of a normal distribution 95 % lie within so many deviations
N_BINS = 10  # of the reliability diagram
LEAST_IN_BIN = 10  # a share of fewer scores says nothing

Figure = Callable[[np.ndarray], np.ndarray]  # of confusion matrices or weights (..., n) -> (...,)


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Worth(NamedTuple):
    """What a step is worth by a figure, and how much more than the step before (None for the first)."""

    figure: Estimate
    gain: Estimate | None


class ClassFigures(NamedTuple):
    """How well one class is told from the others: how many images have it, and the figures; NaN if not measurable."""

    n_images: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate


class ClassesFigures(NamedTuple):
    """How well classes are told apart, all together, and each of them in their order."""

    accuracy: Estimate
    log_loss: Estimate
    macro_f1: Estimate
    each: list[ClassFigures]


class FindingFigures(NamedTuple):
    """How well one finding is told: how many of the known images have it, and the figures; NaN if not measurable."""

    n_images: int
    n_known: int
    auc: Estimate
    average_precision: Estimate
    calibration_error: float


class FindingsFigures(NamedTuple):
    """How well findings are told: the means over those that are measurable, and each of them in their order."""

    auc: Estimate
    average_precision: Estimate
    log_loss: Estimate
    each: list[FindingFigures]


class Agreement(NamedTuple):
    """How the two eyes of patients agree: counts (k, k), left by right; the shares at most 0, 1, 2 levels apart."""

    counts: np.ndarray
    shares: tuple[float, float, float]


class Reliability(NamedTuple):
    """Scores by size against how often they came true, five arrays of shape (bins,), and their mean distance."""

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    error: float


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Return each image's group as a number 0..n_groups-1, (n,) int64."""
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def draw_groups(n_groups: int) -> np.ndarray:
    """Return how often each draw, with replacement, takes each group: (N_DRAWS, n_groups) uint8."""
    rng = np.random.default_rng(SEED)
    taken = (rng.integers(n_groups, size=n_groups) for _ in range(N_DRAWS))
    return np.stack([np.bincount(groups, minlength=n_groups).astype(np.uint8) for groups in taken])


def sum_draws(draws: np.ndarray, by_group: np.ndarray) -> np.ndarray:
    """Return the sums over the groups of each draw, (n_draws, k); `by_group` is (n_groups, k), counts or losses."""
    values = by_group.astype(np.float32)  # whole numbers below 2**24 stay exact
    parts = (draws[start : start + DRAWS_AT_A_TIME] for start in range(0, len(draws), DRAWS_AT_A_TIME))
    return np.concatenate([part.astype(np.float32) @ values for part in parts]).astype(np.float64)


def draw_weighted(draws: np.ndarray, numbers: np.ndarray, figure: Figure) -> np.ndarray:
    """Return the figure of each draw, (n_draws,): `figure` maps how often each image counts, (m, n), to (m,)."""
    parts = (draws[start : start + DRAWS_AT_A_TIME] for start in range(0, len(draws), DRAWS_AT_A_TIME))
    return np.concatenate([figure(part[:, numbers]) for part in parts])


def estimate(value: float, drawn: np.ndarray) -> Estimate:
    """Return a figure with the percentile interval of its draws, of those in which it can be measured."""
    drawn = drawn[~np.isnan(drawn)] if np.isfinite(value) else np.full(1, np.nan)
    low, high = np.percentile(drawn, INTERVAL)
    return Estimate(value, float(low), float(high))


def estimate_drawn(drawn: np.ndarray) -> Estimate:
    """Return a figure with its interval, of its value for all images, first, and for each draw: (1 + n_draws,)."""
    return estimate(float(drawn[0]), drawn[1:])


def quadratic_weighted_kappa(levels: np.ndarray, predicted: np.ndarray, n_levels: int = 5) -> float:
    """Return 1 − observed / chance squared disagreement (Cohen 1968, Psychological Bulletin 70(4)).

    Levels are (n,) integers in 0..n_levels-1, n at least 1; exchanging the two changes nothing. 1 if the two are the
    same, even where all are one level and the ratio would be 0/0 (scikit-learn gives NaN there); 0 if either is
    constant and the other is not the same constant. Raises InputError for other levels or lengths.
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
    numbers = number_groups(groups)
    draws = draw_groups(numbers.max() + 1)
    worth: dict[str, Worth] = {}
    before = None
    for step, guessed in predicted.items():
        n_levels = int(max(levels.max(), guessed.max())) + 1  # higher ones that nobody has change no figure
        drawn = figure(count_draws(draws, numbers, levels, guessed, n_levels))  # first that of all images
        gain = None if before is None else estimate_drawn(drawn - before)
        worth[step], before = Worth(estimate_drawn(drawn), gain), drawn
    return worth


def count_draws(
    draws: np.ndarray, numbers: np.ndarray, levels: np.ndarray, predicted: np.ndarray, n_levels: int
) -> np.ndarray:
    """Return the confusion matrix of all images and then that of each draw, (1 + n_draws, n_levels, n_levels)."""
    n_cells = n_levels**2
    cells = n_cells * numbers + n_levels * levels + predicted
    by_group = np.bincount(cells, minlength=n_cells * draws.shape[1]).reshape(-1, n_cells)
    return np.vstack([by_group.sum(axis=0), sum_draws(draws, by_group)]).reshape(-1, n_levels, n_levels)


def measure_agreement(owners: Sequence[Owner], levels: np.ndarray, n_levels: int) -> Agreement | None:
    """Return how left and right eyes agree, a group's first picture of each; None without a group with both."""
    sides: dict[str, dict[str, int]] = {}
    for owner, level in zip(owners, levels.tolist(), strict=True):
        sides.setdefault(owner.group, {}).setdefault(owner.side, level)
    pairs = np.array([(both["left"], both["right"]) for both in sides.values() if both.keys() >= {"left", "right"}])
    if not pairs.size:
        return None
    left, right = pairs.T
    shares = np.mean(np.abs(left - right) <= np.arange(3)[:, None], axis=1).tolist()
    return Agreement(count_pairs(left, right, n_levels), (shares[0], shares[1], shares[2]))


def share_levels(levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Return the share of each level, (n_levels,)."""
    return np.bincount(levels, minlength=n_levels) / len(levels)


def accuracy_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the share on the diagonal of each confusion matrix, (...,) float64; `counts` is (..., k, k), not empty."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def rates_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return precision, recall and F1 of each class, (..., 3, k) float64, of confusion matrices with the true in rows.

    Not measurable, NaN, is the precision of what nobody was given, the recall of what nobody has, the F1 of both.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    given, true = counts.sum(axis=-2), counts.sum(axis=-1)
    parts = np.stack([given, true, (given + true) / 2], axis=-2)
    return np.divide(right[..., None, :], parts, out=np.full(parts.shape, np.nan), where=parts > 0)


def macro_f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that somebody has or was given, (...,) float64; `counts` is (..., k, k)."""
    return np.nanmean(rates_of_counts(counts)[..., 2, :], axis=-1)


def count_runs(scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many true and how many other images have each score, the lowest first, (..., n_different) each.

    Parameters: see `measure_auc`.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    weights, is_true = np.asarray(weights, np.float64)[..., order], np.asarray(is_true, bool)[order]
    true, false = (np.add.reduceat(weights * part, starts, axis=-1) for part in (is_true, ~is_true))
    return true, false


def measure_auc(scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how often what is true has the higher score than what is not, ties counting half: the area under the ROC.

    Scores and what is true are (n,), weights, (..., n), tell how often each image counts; the result is (...,). Not
    measurable, NaN, where one of the two is missing. Source: Hanley and McNeil, Radiology 143(1), 1982.
    """
    true, false = count_runs(scores, is_true, weights)
    below = np.cumsum(false, axis=-1) - false / 2
    pairs = true.sum(axis=-1) * false.sum(axis=-1)
    return np.divide((true * below).sum(axis=-1), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def measure_classes(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> ClassesFigures:
    """Return what (n, k) scores are worth as classes, the likeliest given, with 95 % intervals.

    Those of shares are Wilson's, which take images as independent; the others are of a bootstrap over groups.
    """
    n_classes, given, numbers = scores.shape[1], scores.argmax(axis=1), number_groups(groups)
    draws = draw_groups(numbers.max() + 1)
    counts = count_draws(draws, numbers, targets, given, n_classes)
    whole, f1, macro = counts[0].astype(int), rates_of_counts(counts)[:, 2], macro_f1_of_counts(counts)
    losses = np.stack([np.bincount(numbers, weights) for weights in (measure_losses(scores, targets), None)], axis=1)
    lost, drawn = sum_draws(draws, losses).T
    each = []
    for number in range(n_classes):
        right, true = int(whole[number, number]), targets == number
        auc = float(measure_auc(scores[:, number], true, np.ones(len(true))))
        aucs = draw_weighted(draws, numbers, functools.partial(measure_auc, scores[:, number], true))
        precision, recall = (estimate_share(right, int(whole.sum(axis=axis)[number])) for axis in (0, 1))
        of_f1 = estimate_drawn(f1[:, number])
        each.append(ClassFigures(int(true.sum()), precision, recall, of_f1, estimate(auc, aucs)))
    return ClassesFigures(
        estimate_share(int(np.trace(whole)), len(targets)),
        estimate(measure_log_loss(scores, targets), lost / drawn),
        estimate_drawn(macro),
        each,
    )


def trace_roc(scores: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Return the shares of the false and of the true images with a score from each on, (2, n), from 0 to 1."""
    runs = count_runs(scores, is_true, np.ones(len(scores)))
    false, true = (np.r_[0, np.cumsum(np.flip(of))] for of in runs[::-1])
    return np.stack([false / false[-1], true / true[-1]])


def measure_average_precision(scores: np.ndarray, is_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean precision at the score of each true image, (...,); NaN of none. Parameters: see `measure_auc`."""
    true, false = (np.flip(of, axis=-1) for of in count_runs(scores, is_true, weights))
    hits, given = np.cumsum(true, axis=-1), np.cumsum(true + false, axis=-1)
    precision = np.divide(hits, given, out=np.zeros_like(hits), where=given > 0)
    n_true = hits[..., -1]
    return np.divide((true * precision).sum(axis=-1), n_true, out=np.full(n_true.shape, np.nan), where=n_true > 0)


def choose_threshold(scores: np.ndarray, is_true: np.ndarray) -> float:
    """Return from which score on a finding is believed so that F1 is best, the highest of several; NaN if none is true.

    `scores` and `is_true` are (n,).
    """
    true, false = (np.flip(of) for of in count_runs(scores, is_true, np.ones(len(scores))))
    if not true.any():
        return float("nan")
    f1 = np.cumsum(true) / (np.cumsum(true + false) + true.sum())  # its half
    return float(np.unique(scores)[::-1][int(f1.argmax())])


def mean_measurable(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is measurable, (...); NaN where nothing is."""
    counts = (~np.isnan(values)).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def measure_aucs(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the AUC of each finding, (k,), NaN where not measurable; scores and targets, 1, 0 or NaN, are (n, k)."""
    each = zip(scores.T, targets.T, strict=True)
    known = ((of, true, ~np.isnan(true)) for of, true in each)
    return np.array([float(measure_auc(of[k], true[k] == 1, np.ones(k.sum()))) for of, true, k in known])


def measure_finding_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(score of what is true) of each image and finding, (n, k), in nats; NaN where it is not known."""
    return -np.log(np.maximum(np.where(targets == 1, scores, 1 - scores), FLOOR)) + 0 * targets


def measure_findings(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> FindingsFigures:
    """Return what scores are worth as findings, with 95 % intervals of a bootstrap over groups.

    Scores and targets, 1, 0, or NaN where it is not known, are (n, k).
    """
    numbers = number_groups(groups)
    draws = draw_groups(numbers.max() + 1)
    found: dict[Callable, list[tuple[float, np.ndarray]]] = {measure_auc: [], measure_average_precision: []}
    for of, true in zip(scores.T, targets.T, strict=True):
        known = ~np.isnan(true)
        for figure, drawn in found.items():
            own = functools.partial(figure, of[known], true[known] == 1)
            drawn.append((float(own(np.ones(known.sum()))), draw_weighted(draws, numbers[known], own)))
    aucs, precisions = ([estimate(*both) for both in drawn] for drawn in found.values())
    means = [
        estimate(float(mean_measurable(np.array([value for value, _ in drawn]))),
                 mean_measurable(np.stack([of for _, of in drawn])))
        for drawn in found.values()
    ]  # fmt: skip
    losses = measure_finding_losses(scores, targets)
    by_group = [np.bincount(numbers, of) for of in (np.nansum(losses, axis=1), (~np.isnan(losses)).sum(axis=1))]
    lost, counted = sum_draws(draws, np.stack(by_group, axis=1)).T
    log_loss = estimate(float(np.nanmean(losses)), lost / counted)
    errors = [measure_reliability(groups, scores[:, [k]], targets[:, [k]]).error for k in range(scores.shape[1])]
    counts = (targets == 1).sum(axis=0).tolist(), (~np.isnan(targets)).sum(axis=0).tolist()
    each = [FindingFigures(*of) for of in zip(*counts, aucs, precisions, errors, strict=True)]
    return FindingsFigures(means[0], means[1], log_loss, each)


def estimate_share(n_true: int, n: int) -> Estimate:
    """Return a share with its 95 % interval (Wilson, JASA 22(158), 1927); NaN of none.

    It takes the n as independent: with several of a group it is too narrow.
    """
    if not n:
        return Estimate(*[float("nan")] * 3)
    share, spread = n_true / n, Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Estimate(share, min(share, max(0.0, float(middle - half))), max(share, min(1.0, float(middle + half))))


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
    n_outputs = scores.shape[1]
    true = targets if targets.ndim == 2 else targets[:, None] == np.arange(n_outputs)
    known = ~np.isnan(true)
    numbers = np.repeat(number_groups(groups), n_outputs)[known.ravel()]
    sizes, hits = scores[known], true[known]
    bins = np.minimum((sizes * N_BINS).astype(int), N_BINS - 1)
    n_groups = len(set(groups))
    cells, n_cells = N_BINS * numbers + bins, N_BINS * n_groups
    come, came = (np.bincount(cells, weight, n_cells).reshape(-1, N_BINS) for weight in (None, hits))
    counts, predicted = np.bincount(bins, minlength=N_BINS), np.bincount(bins, sizes, N_BINS)
    observed, shown = came.sum(axis=0), counts >= LEAST_IN_BIN
    error = float(np.abs(predicted - observed).sum() / counts.sum()) if len(sizes) else float("nan")
    draws = draw_groups(n_groups)
    hit, all_of_bin = (sum_draws(draws, of[:, shown]) for of in (came, come))
    shares = np.divide(hit, all_of_bin, out=np.full(hit.shape, np.nan), where=all_of_bin > 0)
    low, high = np.nanpercentile(shares, INTERVAL, axis=0).reshape(2, -1)  # of no bin, numpy returns (0,)
    counts, predicted, observed = counts[shown], predicted[shown], observed[shown]
    return Reliability(predicted / counts, observed / counts, low, high, counts, error)


def rank_groups(groups: Sequence[str], levels: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> list[str]:
    """Return the groups, the hardest first: by squared error of the levels over all images, then by log loss.

    The groups, true levels, predicted ones and (n, k) scores of n images; equal groups stay in the order they come in.
    """
    worth: dict[str, list[float]] = {}
    errors, losses = ((levels - predicted) ** 2).tolist(), measure_losses(scores, levels).tolist()
    for group, error, loss in zip(groups, errors, losses, strict=True):
        sums = worth.setdefault(group, [0, 0.0])
        sums[0] -= error
        sums[1] -= loss
    return sorted(worth, key=lambda group: worth[group])
