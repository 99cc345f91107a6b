"""For whom a run fails: the figures of subgroups, by columns of the sample table, and the largest gaps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dr.metrics import bootstrap, detection, operating
from dr.metrics.bootstrap import Estimate
from dr.metrics.operating import LEAST_POSITIVES
from dr.tasks.task import Task, estimate_overall
from preprocess.disk.errors import InputError
from submissions.evaluation.figures import Points, Sample

if TYPE_CHECKING:
    import pandas as pd

QUARTERS = (0.25, 0.5, 0.75)
MOST_GROUPS = (
    20  # of a column of words; one of more values, as a name for each image, makes no subgroups
)
RATES = ("sensitivity", "specificity")  # told of each group, at each operating point
UNKNOWN = "unknown"  # the group of images whose cell is empty
LEAST_IMAGES = 10  # of a group that a gap is told of, and as many with and without a condition


class Subgroup(NamedTuple):
    """The images of a group, and its figures: `Key` -> Estimate."""

    column: str
    name: str
    images: int
    patients: int
    positives: dict[str, int]  # condition -> how many have it
    figures: dict[Key, Estimate]


class Key(NamedTuple):
    """A figure: of a condition, or "" of all; at an operating point, or ""; and its name."""

    condition: str
    point: str
    name: str


class Gap(NamedTuple):
    """The two groups of a column that a figure tells farthest apart, and by how much."""

    column: str
    key: Key
    lowest: str
    highest: str
    gap: Estimate


class Subgroups(NamedTuple):
    """All groups, and the largest gap of each figure of each column."""

    groups: list[Subgroup]
    gaps: list[Gap]


def group_rows(column: str, cells: pd.Series) -> dict[str, np.ndarray]:
    """Return the rows of each group, (n,) bool: of words a group each, of more than four numbers their quartiles.

    Raises InputError for a column of too many words.
    """
    import pandas as pd

    texts = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
    is_known = (texts != "").to_numpy()
    numbers = pd.to_numeric(texts.where(is_known), errors="coerce").to_numpy(np.float64)
    values = sorted(set(texts[is_known]))
    groups: dict[str, np.ndarray] = {}
    if len(values) > len(QUARTERS) + 1 and np.isfinite(numbers[is_known]).all():
        groups = _cut_quartiles(numbers)
    else:
        if len(values) > MOST_GROUPS:
            raise InputError(
                f"--by {column}: {len(values)} different words, more than {MOST_GROUPS}: no subgroups"
            )
        for value in values:
            groups[value] = (texts == value).to_numpy()
    if not is_known.all():
        groups[UNKNOWN] = ~is_known
    return groups


def _cut_quartiles(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows of each quarter of numbers (n,); NaN is in none."""
    bounds = np.unique(np.quantile(numbers[np.isfinite(numbers)], QUARTERS))
    quarter = np.searchsorted(
        bounds, numbers, side="left"
    )  # a bound belongs to the quarter below it
    groups = {}
    for position in range(len(bounds) + 1):
        is_here = (quarter == position) & np.isfinite(numbers)
        if position == 0:
            name = f"up to {bounds[0]:g}"
        elif position == len(bounds):
            name = f"above {bounds[-1]:g}"
        else:
            name = f"{bounds[position - 1]:g} to {bounds[position]:g}"
        if is_here.any():
            groups[name] = is_here
    return groups


def measure_subgroups(
    task: Task, sample: Sample, points: Points, columns: Mapping[str, Mapping[str, np.ndarray]]
) -> Subgroups:
    """Return the figures of each group of each column, see `group_rows`, and the largest gaps.

    All intervals rest on the same draws of all patients, so that gaps are taken draw by draw.
    """
    groups: list[Subgroup] = []
    gaps: list[Gap] = []
    for column, rows_of in columns.items():
        drawn_of: dict[str, dict[Key, np.ndarray]] = {}
        of_column = []
        for name, is_here in rows_of.items():
            drawn = draw_group(task, sample, points, is_here)
            drawn_of[name] = drawn
            estimates = estimate_group(task, sample, points, is_here, drawn)
            of_column.append(describe_group(task, sample, column, name, is_here, estimates))
        groups += of_column
        gaps += find_gaps(column, of_column, drawn_of)
    return Subgroups(groups, gaps)


def draw_group(
    task: Task, sample: Sample, points: Points, is_here: np.ndarray
) -> dict[Key, np.ndarray]:
    """Return each figure of a group, (1 + N_DRAWS,), NaN in draws without any of its images."""
    keys = list_keys(task, points)
    rows = np.flatnonzero(is_here)
    scores = sample.scores[rows]
    targets = sample.targets[rows]
    decided = task.decide(scores)

    def draw(weights: np.ndarray) -> np.ndarray:
        weights_here = weights[:, rows]
        figures = np.full((len(weights), len(keys)), np.nan)
        is_drawn = weights_here.any(axis=1)
        if not is_drawn.any():
            return figures
        drawn = weights_here[is_drawn]
        columns = list(task.draw_overall(scores, targets, decided, drawn).T)
        for condition in task.conditions:
            probabilities = task.score_condition(condition, scores)
            truth = task.find_condition(condition, targets)
            thresholds = []
            for point, applied in points.get(condition.name, ()):
                here = applied[rows] if isinstance(applied, np.ndarray) else applied
                thresholds.append(detection.Thresholds(point, here))
            of_condition = detection.draw_condition(probabilities, truth, thresholds, drawn)
            columns.append(of_condition.detection.auc)
            for rates in of_condition.rates.values():
                columns += [rates.sensitivity, rates.specificity]
        figures[is_drawn] = np.stack(columns, axis=1)
        return figures

    drawn = bootstrap.draw_weighted(sample.patients, draw)
    return dict(zip(keys, drawn.T, strict=True))


def estimate_group(
    task: Task,
    sample: Sample,
    points: Points,
    is_here: np.ndarray,
    drawn: Mapping[Key, np.ndarray],
) -> dict[Key, Estimate]:
    """Return the figures of a group, see `draw_group`, with their intervals."""
    rows = np.flatnonzero(is_here)
    patients = [sample.patients[row] for row in rows]
    estimates = {}
    for key, values in drawn.items():
        estimates[key] = estimate_overall(key.name, values, patients)
    for condition in task.conditions:
        probabilities = task.score_condition(condition, sample.scores[rows])
        truth = task.find_condition(condition, sample.targets[rows])
        is_known = ~np.isnan(truth)
        known_patients = np.asarray(patients)[is_known]
        for point, applied in points.get(condition.name, ()):
            thresholds = np.broadcast_to(applied, len(sample.targets))[rows][is_known]
            counted = operating.list_counted(
                probabilities[is_known], truth[is_known] == 1, thresholds
            )
            for name in RATES:
                key = Key(condition.name, point.name, name)
                n_patients = bootstrap.count_groups(known_patients, getattr(counted, name))
                estimates[key] = bootstrap.estimate_share(drawn[key], n_patients)
    return estimates


def list_keys(task: Task, points: Points) -> list[Key]:
    """Return the figures that are told of each group, in their order."""
    keys = [Key("", "", name) for name in task.overall_names]
    for condition in task.conditions:
        keys.append(Key(condition.name, "", "AUC"))
        for point, _ in points.get(condition.name, ()):
            for name in RATES:
                keys.append(Key(condition.name, point.name, name))
    return keys


def describe_group(
    task: Task,
    sample: Sample,
    column: str,
    name: str,
    is_here: np.ndarray,
    figures: dict[Key, Estimate],
) -> Subgroup:
    """Return a group's counts beside its figures."""
    patients = {patient for patient, is_in in zip(sample.patients, is_here, strict=True) if is_in}
    positives = {}
    for condition in task.conditions:
        positives[condition.name] = int(
            (task.find_condition(condition, sample.targets)[is_here] == 1).sum()
        )
    return Subgroup(column, name, int(is_here.sum()), len(patients), positives, figures)


def find_gaps(
    column: str, groups: Sequence[Subgroup], drawn_of: Mapping[str, Mapping[Key, np.ndarray]]
) -> list[Gap]:
    """Return the largest gap of each figure, between groups that are large enough for one."""
    gaps = []
    for key in groups[0].figures:
        compared = [group for group in groups if _is_large_enough(group, key)]
        compared = [group for group in compared if np.isfinite(group.figures[key].value)]
        if len(compared) < 2:
            continue
        lowest = min(compared, key=lambda group: group.figures[key].value)
        highest = max(compared, key=lambda group: group.figures[key].value)
        if lowest is highest:  # all are the same
            highest = compared[1] if lowest is compared[0] else compared[0]
        drawn = drawn_of[highest.name][key] - drawn_of[lowest.name][key]
        gaps.append(Gap(column, key, lowest.name, highest.name, bootstrap.estimate_drawn(drawn)))
    return gaps


def _is_large_enough(group: Subgroup, key: Key) -> bool:
    """Return whether a group has images enough, and with and without the condition where a figure is of one."""
    if not key.condition:
        return group.images >= LEAST_IMAGES
    positives = group.positives[key.condition]
    return min(positives, group.images - positives) >= LEAST_POSITIVES
