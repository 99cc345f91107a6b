"""All figures of an evaluation: images whose truth is known and what a run makes of them -> records with intervals.

submissions.score, submissions.evaluate and the report take them from here, so that all three say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dr.metrics import agreement, bootstrap, calibration, detection, ranking
from dr.metrics.bootstrap import Estimate
from dr.metrics.calibration import Reliability
from dr.metrics.detection import Thresholds
from dr.metrics.operating import OperatingPoint
from dr.tasks.task import Task, estimate_overall
from dr.validation import Validation
from kappa import assign

LOG_LOSS = "log loss"  # among the overall figures of every task

Points = Mapping[str, Sequence[Thresholds]]  # condition -> its operating points


class Sample(NamedTuple):
    """Images whose truth is known, n of them, and the last scores that a run gives them."""

    title: str
    images: list[str]
    patients: list[str]
    scores: np.ndarray  # (n, k)
    targets: np.ndarray  # (n,), of findings (n, k)


class Figures(NamedTuple):
    """What a run is worth on a sample."""

    sample: Sample
    overall: dict[str, list[Estimate]]  # by decision, the task's own first
    guessed: dict[str, list[Estimate]]  # the same of guesses that need no image
    each: dict[str, Any]  # by output: a record of the task
    conditions: dict[str, detection.Measured]
    verdicts: list[str]  # in what it is no better than a guess; none if it is better


def measure(
    task: Task, sample: Sample, points: Points, more: Mapping[str, np.ndarray] | None = None
) -> Figures:
    """Return all figures of a sample at operating points that were not chosen on it.

    `more` are further decisions on its images, (n,) each, by name. Over a single patient there are no intervals.
    """
    patients = sample.patients
    decisions = {task.decision_name: task.decide(sample.scores), **(more or {})}
    overall = {}
    for name, decided in decisions.items():
        overall[name] = task.measure_overall(patients, sample.scores, sample.targets, decided)
    guessed = {}
    for name, scores in task.guess(sample.targets).items():
        guessed[name] = task.measure_overall(patients, scores, sample.targets, task.decide(scores))
    each = task.measure_all(patients, sample.scores, sample.targets).each
    conditions = {}
    for condition in task.conditions:
        conditions[condition.name] = detection.measure_condition(
            patients,
            probabilities=task.score_condition(condition, sample.scores),
            truth=task.find_condition(condition, sample.targets),
            thresholds=points.get(condition.name, ()),
        )
    return Figures(
        sample=sample,
        overall=overall,
        guessed=guessed,
        each=dict(zip(task.names, each, strict=True)),
        conditions=conditions,
        verdicts=judge(task, overall[task.decision_name], guessed),
    )


def list_decisions(task: Task, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return what else can be decided by scores (n, k), beside the task's own decision: of levels the likeliest, and
    those that kappa.assign anneals.
    """
    if not task.has_eyes:
        return {}
    return {"argmax": scores.argmax(axis=1), "annealed": assign.decide(scores, "anneal").levels}


def judge(
    task: Task, own: Sequence[Estimate], guessed: Mapping[str, Sequence[Estimate]]
) -> list[str]:
    """Return in what figures, the headline and the log loss, a run is no better than guesses that need no image."""
    verdicts = []
    headline = task.overall_names[0]
    name, best = max(guessed.items(), key=lambda item: item[1][0].value)
    if own[0].value <= best[0].value:
        verdicts.append(
            f"no better than {name}: {headline} {own[0].value:.4f}, not above {best[0].value:.4f}"
        )
    position = task.overall_names.index(LOG_LOSS)
    name, best = min(guessed.items(), key=lambda item: item[1][position].value)
    if own[position].value >= best[position].value:
        figure = f"{LOG_LOSS} {own[position].value:.4f}, not below {best[position].value:.4f}"
        verdicts.append(f"no better than {name}: {figure}")
    return verdicts


def choose_points(task: Task, validation: Validation) -> Points:
    """Return the operating points that a run's validation patients give, for any other images."""
    chosen = task.choose_points(validation.scores, validation.targets)
    points: dict[str, list[Thresholds]] = {}
    for condition, points_of_condition in chosen.items():
        points[condition] = [Thresholds(point, point.threshold) for point in points_of_condition]
    return points


def give_points(task: Task, threshold: float) -> Points:
    """Return one operating point, given by hand, for every condition."""
    point = OperatingPoint("given", threshold, None)
    return {condition.name: [Thresholds(point, threshold)] for condition in task.conditions}


def measure_validation(task: Task, validation: Validation, threshold: float | None) -> Figures:
    """Return the figures of the validation patients themselves: each is judged by thresholds chosen on the others."""
    sample = Sample(
        title="validation patients",
        images=validation.images,
        patients=validation.patients,
        scores=validation.scores,
        targets=validation.targets,
    )
    if threshold is None:
        points: Points = task.cross_fit_points(
            validation.patients, validation.scores, validation.targets
        )
    else:
        points = give_points(task, threshold)
    return measure(task, sample, points)


class Curve(NamedTuple):
    """The ROC curve of a condition and its operating points, for a chart."""

    roc: (
        np.ndarray
    )  # (2, points) the shares of the negatives and of the positives that reach each score
    points: dict[str, tuple[float, float]]  # operating point -> 1 - specificity, sensitivity


def trace_curves(task: Task, figures: Figures) -> dict[str, Curve]:
    """Return the ROC curve of each condition that some images have and some have not."""
    curves = {}
    for condition in task.conditions:
        truth = task.find_condition(condition, figures.sample.targets)
        is_known = ~np.isnan(truth)
        is_true = truth[is_known] == 1
        if is_true.all() or not is_true.any():
            continue
        probabilities = task.score_condition(condition, figures.sample.scores)[is_known]
        points = {}
        for point, rates in figures.conditions[condition.name].points:
            if np.isfinite(rates.sensitivity.value) and np.isfinite(rates.specificity.value):
                points[point.name] = (1 - rates.specificity.value, rates.sensitivity.value)
        curves[condition.name] = Curve(ranking.trace_roc(probabilities, is_true), points)
    return curves


def measure_reliability(task: Task, figures: Figures) -> dict[str, Reliability]:
    """Return how often each condition's probabilities came true, by their size.

    A condition of so few images that no bin can be shown is left out.
    """
    reliability = {}
    sample = figures.sample
    for condition in task.conditions:
        probabilities = task.score_condition(condition, sample.scores)[:, None]
        truth = task.find_condition(condition, sample.targets)[:, None]
        bins = calibration.measure_reliability(sample.patients, probabilities, truth)
        if len(bins.counts):
            reliability[condition.name] = bins
    return reliability


def count_confusion(task: Task, sample: Sample, decided: np.ndarray) -> dict[str, Any] | None:
    """Return a confusion matrix as the page shows it; None where outputs exclude each other not."""
    if not task.is_exclusive:
        return None
    counts = agreement.count_pairs(sample.targets, decided, len(task.names))
    note = f"{agreement.share_near(counts, 0):.1%} right"
    return {"title": task.decision_name, "counts": counts.tolist(), "note": note}


def compare(task: Task, sample: Sample, others: Mapping[str, np.ndarray]) -> list[list[Any]]:
    """Return rows of figures of this run and of others, scores (n, k) each, with paired differences.

    The differences are taken draw by draw of the same patients. The first row names the columns.
    """
    names = [*task.overall_names, *(f"AUC, {condition.name}" for condition in task.conditions)]
    own = _draw_compared(task, sample, sample.scores)
    rows: list[list[Any]] = [["run", *names]]
    rows.append(["this run", *_estimate_compared(names, own, sample)])
    for run, scores in others.items():
        drawn = _draw_compared(task, sample, scores)
        row: list[Any] = [run]
        estimates = _estimate_compared(names, drawn, sample)
        for estimate, column, own_column in zip(estimates, drawn.T, own.T, strict=True):
            difference = bootstrap.estimate_drawn(column - own_column)
            row.append(bootstrap.StepGain(estimate, difference))
        rows.append(row)
    return rows


def _estimate_compared(names: Sequence[str], drawn: np.ndarray, sample: Sample) -> list[Estimate]:
    """Return the figures of `_draw_compared`, by their names, with their intervals."""
    estimates = []
    for name, column in zip(names, drawn.T, strict=True):
        estimates.append(estimate_overall(name, column, sample.patients))
    return estimates


def _draw_compared(task: Task, sample: Sample, scores: np.ndarray) -> np.ndarray:
    """Return the overall figures and the AUC of each condition, of all draws, (1 + N_DRAWS, figures)."""
    decided = task.decide(scores)

    def draw(weights: np.ndarray) -> np.ndarray:
        columns = list(task.draw_overall(scores, sample.targets, decided, weights).T)
        for condition in task.conditions:
            truth = task.find_condition(condition, sample.targets)
            is_known = ~np.isnan(truth)
            probabilities = task.score_condition(condition, scores)[is_known]
            columns.append(
                ranking.measure_weighted_auc(
                    probabilities, truth[is_known] == 1, weights[:, is_known]
                )
            )
        return np.stack(columns, axis=1)

    return bootstrap.draw_weighted(sample.patients, draw)
