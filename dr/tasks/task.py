"""What follows from a task: the columns of its scores, what a row must satisfy, and what is learned from a target."""

from collections.abc import Sequence

import numpy as np

from dr.metrics import agreement, bootstrap, calibration, ranking
from preprocess.dataset.dataset import Task
from preprocess.disk.errors import InputError

# Kind -> which figure tells the best epoch, beside the log loss, and its name for people.
HEADLINES = {"levels": ("qwk", "QWK"), "classes": ("accuracy", "accuracy"), "findings": ("auc", "mean AUC")}
SUM_TOLERANCE = 1e-5  # float32 softmax is off by 1e-7, tables rounded to six decimals by 3e-6


def name_columns(task: Task) -> list[str]:
    """Return the columns of a score table: p0, p1, ... for levels, the names of classes and findings."""
    return [f"p{level}" for level in range(len(task.names))] if task.kind == "levels" else list(task.names)


def decide_alone(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return what (n, k) scores say of images each by itself, (n,) int64: the level nearest to the mean, the likeliest
    class, or finding, though it may be likely that there is none.
    """
    return agreement.round_levels(scores) if task.kind == "levels" else scores.argmax(axis=1)


def explain_absence(task: Task) -> str | None:
    """Return why the stages that blend two eyes and choose levels have no part in a task; None if they have."""
    return None if task.kind == "levels" else f"no part in this recipe: {task.kind} have no pairs and no order"


def find_fault(scores: np.ndarray, tolerance: float = SUM_TOLERANCE, kind: str = "levels") -> tuple[int, str] | None:
    """Return the first row of (n, k) scores that is no distribution, and why; None if all are.

    Sums may be off by `tolerance`. Of findings each score is a probability by itself.
    """
    sums, is_finding = scores.sum(axis=1), kind == "findings"
    faults = {
        "a score is not a finite number": ~np.isfinite(scores).all(axis=1),
        "a score is negative ({least:g})": (scores < 0).any(axis=1),
        "a score is above 1 ({most:g})": is_finding & (scores > 1).any(axis=1),
        "the scores sum to {sum:.6g}, not 1": ~is_finding & (np.abs(sums - 1) > tolerance),
    }
    bad = np.flatnonzero(np.any([*faults.values()], axis=0))
    if not bad.size:
        return None
    row = int(bad[0])
    told = next(told for told, has_it in faults.items() if has_it[row])
    return row, told.format(least=scores[row].min(), most=scores[row].max(), sum=sums[row])


def weigh_targets(task: Task, targets: np.ndarray, how: str, most: float | None = None) -> np.ndarray:
    """Return a weight per output, (k,), at most `most`: what an image of it counts, of findings one that has it.

    "none": 1. "balanced": all outputs that are present count alike, an image 1 on average; the images that have a
    finding count as much as those that have not. "positives", of findings alone: N / N_l, the images by those that have
    it; else InputError. Without any it is 1, or 0 of levels and classes.
    """
    if how == "none":
        return np.ones(len(task.names))
    if task.kind == "findings":
        known, counts = (~np.isnan(targets)).sum(axis=0), (targets == 1).sum(axis=0)
        weights = np.where(counts > 0, (known - counts * (how == "balanced")) / np.maximum(counts, 1), 1.0)
    elif how == "positives":
        raise InputError(f"--class-weights positives: an image has one of the {task.kind}; balanced weighs them")
    else:
        counts = np.bincount(targets, minlength=len(task.names))
        weights = np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return np.minimum(weights, np.inf if most is None else most)


def find_prior(task: Task, targets: np.ndarray) -> np.ndarray:
    """Return what is known of an image nobody has seen, (k,): the share of each output among the targets."""
    if task.kind == "findings":
        return np.nansum(targets, axis=0) / np.maximum((~np.isnan(targets)).sum(axis=0), 1)
    return np.bincount(targets, minlength=len(task.names)) / len(targets)


def measure(task: Task, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the figures that are followed from epoch to epoch; scores (n, k), targets (n,), of findings (n, k)."""
    if task.kind == "findings":
        aucs = ranking.measure_each(ranking.measure_auc, scores, targets)
        log_loss = float(np.nanmean(calibration.measure_finding_losses(scores, targets)))
        return {"log_loss": log_loss, "auc": ranking.mean_measurable(aucs)}
    log_loss, given = calibration.measure_log_loss(scores, targets), scores.argmax(axis=1)
    if task.kind == "levels":
        return {"log_loss": log_loss, "qwk": agreement.quadratic_weighted_kappa(targets, given, scores.shape[1])}
    counts = agreement.count_pairs(targets, given, scores.shape[1])
    accuracy, macro_f1 = agreement.accuracy_of_counts(counts), agreement.macro_f1_of_counts(counts)
    return {"log_loss": log_loss, "accuracy": float(accuracy), "macro_f1": float(macro_f1)}


def draw_measures(task: Task, groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Return each figure of all images, first, and of each draw, (1 + N_DRAWS,), see `bootstrap.draw_figures`."""
    names = measure(task, scores, targets)
    drawn = bootstrap.draw_figures(groups, lambda rows: [*measure(task, scores[rows], targets[rows]).values()])
    return dict(zip(names, drawn.T, strict=True))
