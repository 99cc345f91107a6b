"""Figures as tables: the same rows for the screen, for the page and for figures.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dr.metrics.bootstrap import Estimate, StepGain
from dr.metrics.detection import ConditionFigures
from dr.metrics.operating import UNSURE, OperatingPoint, Rates
from dr.tasks.task import Task
from submissions.evaluation.figures import Figures
from submissions.evaluation.subgroups import Key, Subgroups

CSV_COLUMNS = (
    "sample", "column", "group", "about", "point", "threshold", "chosen_on", "figure", "value", "low", "high", "draws",
    "images", "positives", "interval",
)  # fmt: skip
ALL = "all"  # what a figure is about that is of no output and no condition
NOTE = (
    "95 % intervals are of a bootstrap over patients; of shares of 0 or 1, where no draw differs, "
    "those of Clopper and Pearson with patients as units, marked exact. Fewer than 1,000 draws: the "
    "others lack what the figure needs, such as a level or a class, and are left out; no interval: "
    "of a single patient, or no draw can be measured. Guessing: the Brier score of the share of "
    "positives for all images; the share is the precision and the positive predictive value of "
    "guessing, and its AUC is 0.5. slope: of the calibration, 1 is ideal; off by: how far "
    "probabilities lie from how often they come true. Log loss: a score counts as at least 1e-6."
)


class Table(NamedTuple):
    """A table for people: cells are texts, numbers, Estimates and StepGains, the first one of a row its title."""

    title: str
    columns: list[str]
    rows: list[list[Any]]


def list_tables(task: Task, figures: Figures) -> list[Table]:
    """Return the tables of a sample: of all outputs, of each, of the conditions, and of their operating points."""
    sample = figures.sample
    counted = f"{len(sample.images):,} images of {len(set(sample.patients)):,} patients"
    rows = [
        [name, *estimates] for name, estimates in {**figures.overall, **figures.guessed}.items()
    ]
    tables = [Table(f"{sample.title}: {counted}", ["", *task.overall_names], rows)]
    each: list[list[Any]] = []
    for (name, record), share in zip(
        figures.each.items(), task.find_prior(sample.targets), strict=True
    ):
        each.append([name, *record, float(share)])
    tables.append(
        Table(f"each {task.target}", [task.target, *task.each_names, "share, guessing"], each)
    )
    tables.append(make_conditions_table(figures))
    tables += make_points_table(figures)
    return tables


def make_conditions_table(figures: Figures) -> Table:
    """Return how well each condition is detected."""
    rows: list[list[Any]] = []
    for name, (measured, _) in figures.conditions.items():
        guessed = float("nan")
        if measured.images:
            share = measured.positives / measured.images
            guessed = share * (1 - share)
        rows.append(
            [
                name,
                measured.images,
                measured.positives,
                measured.auc,
                measured.brier,
                guessed,
                measured.slope,
                measured.off_by,
            ]
        )
    columns = [
        "condition",
        "images",
        "positives",
        "AUC",
        "Brier",
        "Brier, guessing",
        "slope",
        "off by",
    ]
    return Table("conditions", columns, rows)


def make_points_table(figures: Figures) -> list[Table]:
    """Return what the operating points are worth, in one table or, without points, none."""
    rows: list[list[Any]] = []
    for name, (measured, points) in figures.conditions.items():
        for point, rates in points:
            title = f"{name}, {point.name}"
            share = measured.positives / measured.images if measured.images else float("nan")
            rows.append([title, show_threshold(point), describe_origin(point), *rates, share])
    if not rows:
        return []
    columns = [
        "operating point", "threshold", "chosen on", "sensitivity", "specificity", "positive predictive value",
        "negative predictive value", "share, guessing",
    ]  # fmt: skip
    return [Table("operating points", columns, rows)]


def show_threshold(point: OperatingPoint) -> str:
    """Return a threshold as a text."""
    return f"{point.threshold:.4g}" if np.isfinite(point.threshold) else "none"


def describe_origin(point: OperatingPoint) -> str:
    """Return what a threshold was chosen on, and marks one that decides nothing."""
    if point.positives is None:
        return "given"
    mark = "" if point.is_sure else " (too few)"
    return f"{point.positives} positives{mark}"


def note_unsure(figures: Figures) -> list[str]:
    """Return a note if a point of the table is marked."""
    for _, points in figures.conditions.values():
        if any(not point.is_sure for point, _ in points):
            return [f"too few: {UNSURE}"]
    return []


def list_subgroup_tables(task: Task, subgroups: Subgroups) -> list[Table]:
    """Return a table of each column's groups, and one of the largest gaps."""
    tables = []
    for column in dict.fromkeys(group.column for group in subgroups.groups):
        groups = [group for group in subgroups.groups if group.column == column]
        rows: list[list[Any]] = []
        for group in groups:
            overall = [group.figures[Key("", "", name)] for name in task.overall_names]
            rows.append([group.name, group.images, group.patients, *overall])
        tables.append(
            Table(f"by {column}", [column, "images", "patients", *task.overall_names], rows)
        )
        for condition in task.conditions:
            keys = [key for key in groups[0].figures if key.condition == condition.name]
            rows = []
            for group in groups:
                figures = [group.figures[key] for key in keys]
                rows.append([group.name, group.images, group.positives[condition.name], *figures])
            names = [", ".join(filter(None, (key.name, key.point))) for key in keys]
            tables.append(
                Table(
                    f"{condition.name} by {column}", [column, "images", "positives", *names], rows
                )
            )
    gaps = []
    for gap in subgroups.gaps:
        title = ", ".join(
            filter(None, (gap.column, gap.key.condition, gap.key.name, gap.key.point))
        )
        gaps.append([title, gap.lowest, gap.highest, gap.gap])
    if gaps:
        tables.append(Table("largest gaps", ["figure", "lowest", "highest", "gap"], gaps))
    return tables


def show(cell: object) -> str:
    """Return a cell as a text."""
    if isinstance(cell, StepGain):
        if cell.gain is None:
            return show(cell.figure)
        return f"{show(cell.figure)} {cell.gain.value:+.4f} ({cell.gain.describe_interval('+.3f')})"
    if isinstance(cell, Estimate):
        if not np.isfinite(cell.value):
            return "not measurable"
        return f"{cell.value:.4f} ({cell.describe_interval()})"
    if isinstance(cell, float):
        return f"{cell:.4f}" if np.isfinite(cell) else "not measurable"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def describe_table(table: Table) -> str:
    """Return a table as lines of text, its first column to the left, the others to the right."""
    texts = [table.columns, *([show(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(table.columns))]
    lines = [table.title]
    for first, *others in texts:
        cells = [f"{first:<{widths[0]}}"]
        cells += [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def list_csv_rows(task: Task, figures: Figures) -> list[list[Any]]:
    """Return the rows of figures.csv for a sample: a row per figure."""
    rows: list[list[Any]] = []
    title = figures.sample.title
    n = len(figures.sample.images)

    def add(
        about: str, figure: str, cell: Any, images: int, positives: Any = "", point: Any = None
    ) -> None:
        place = ["", "", ""]
        if point is not None:
            place = [
                point.name,
                point.threshold,
                "given" if point.positives is None else point.positives,
            ]
        rows.append(
            [
                title,
                "",
                "",
                about,
                *place,
                figure,
                *_split(cell),
                images,
                positives,
                _name_interval(cell),
            ]
        )

    for decision, estimates in {**figures.overall, **figures.guessed}.items():
        for name, estimate in zip(task.overall_names, estimates, strict=True):
            add(ALL, f"{name}, {decision}", estimate, n)
    for output, record in figures.each.items():
        for name, cell in zip(task.each_names, record, strict=True):
            add(f"{task.target} {output}", name, cell, n)
    for condition, (measured, points) in figures.conditions.items():
        counts = (measured.images, measured.positives)
        for name in ConditionFigures._fields[2:]:
            add(condition, name, getattr(measured, name), *counts)
        for point, rates in points:
            for name in Rates._fields:
                add(condition, name, getattr(rates, name), *counts, point)
    return rows


def list_subgroup_rows(title: str, subgroups: Subgroups) -> list[list[Any]]:
    """Return the rows of figures.csv for subgroups and the gaps between them."""
    rows: list[list[Any]] = []
    for group in subgroups.groups:
        for key, estimate in group.figures.items():
            positives = group.positives.get(key.condition, "")
            place = [title, group.column, group.name, key.condition or ALL, key.point, "", ""]
            rows.append(
                [*place, key.name, *_split(estimate), group.images, positives, estimate.kind]
            )
    for gap in subgroups.gaps:
        place = [
            title,
            gap.column,
            f"{gap.highest} - {gap.lowest}",
            gap.key.condition or ALL,
            gap.key.point,
            "",
            "",
        ]
        rows.append(
            [*place, f"largest gap, {gap.key.name}", *_split(gap.gap), "", "", gap.gap.kind]
        )
    return rows


def _name_interval(cell: Any) -> str:
    """Return what an interval is of; empty where a value has none."""
    return cell.kind if isinstance(cell, Estimate) else ""


def _split(cell: Any) -> Sequence[Any]:
    """Return a value, the ends of its interval and the number of draws; a count has none."""
    return cell[:4] if isinstance(cell, Estimate) else (cell, "", "", "")
