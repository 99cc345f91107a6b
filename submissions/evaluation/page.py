"""An evaluation for people: lines for the screen, rows for figures.csv, and the page, all of the same tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr.metrics.bootstrap import Estimate
from dr.tasks.task import Task
from preprocess.command import pipeline
from preprocess.disk import files
from preprocess.disk.tables import write_rows
from submissions.evaluation import charts, figures, tables
from submissions.evaluation.figures import Figures
from submissions.evaluation.subgroups import Key, Subgroups
from submissions.output import template
from submissions.output.charts import render as render_chart

TEMPLATE = Path(__file__).parent / "page.html.jinja"
MOST_REFUSED = 100  # shown on the page


class Evaluation(NamedTuple):
    """All that there is to say of a run on a sample."""

    name: str
    facts: list[list[Any]]  # what was evaluated, by what
    warnings: list[str]  # that come first
    own: Figures
    validation: Figures | None  # of the run's validation patients
    subgroups: Subgroups | None
    beside: list[list[Any]]  # other runs, see `figures.compare`
    refused: Mapping[str, str]
    decisions: Mapping[str, np.ndarray]  # further ones, see `figures.list_decisions`


def describe(task: Task, evaluation: Evaluation) -> str:
    """Return an evaluation as text."""
    lines = [f"warning: {warning}" for warning in evaluation.warnings]
    lines += [f"{name}: {tables.show(value)}" for name, value in evaluation.facts]
    shown = tables.list_tables(task, evaluation.own)
    if evaluation.subgroups:
        shown += tables.list_subgroup_tables(task, evaluation.subgroups)
    if evaluation.validation:
        shown += tables.list_tables(task, evaluation.validation)
    if evaluation.beside:
        columns, *rows = evaluation.beside
        shown.append(tables.Table("beside other runs, with paired differences", columns, rows))
    for table in shown:
        lines += ["", tables.describe_table(table)]
    lines += [
        "",
        tables.NOTE,
        task.intervals_note,
        *tables.note_unsure(evaluation.own),
        pipeline.NOTICE,
    ]
    return "\n".join(lines)


def list_rows(task: Task, evaluation: Evaluation) -> list[list[Any]]:
    """Return the rows of figures.csv."""
    rows = tables.list_csv_rows(task, evaluation.own)
    if evaluation.subgroups:
        rows += tables.list_subgroup_rows(evaluation.own.sample.title, evaluation.subgroups)
    if evaluation.validation:
        rows += tables.list_csv_rows(task, evaluation.validation)
    return rows


def render(task: Task, evaluation: Evaluation) -> str:
    """Return the page. Only the charts, drawn here, are let through as they are."""
    from markupsafe import Markup

    own = evaluation.own
    curves = {own.sample.title: figures.trace_curves(task, own)}
    if evaluation.validation:
        curves[evaluation.validation.sample.title] = figures.trace_curves(
            task, evaluation.validation
        )
    drawn: dict[str, tuple[Callable[..., None], Any]] = {}
    if any(curves.values()):
        drawn["roc"] = (charts.draw_roc, curves)
    reliability = figures.measure_reliability(task, own)
    if reliability:
        drawn["reliability"] = (charts.draw_reliability, reliability)
    forests = {}
    for number, (title, rows) in enumerate(list_forests(task, evaluation).items()):
        forests[f"forest-{number}"] = title
        drawn[f"forest-{number}"] = (charts.draw_forest, rows)
    rendered = {}
    for name, (draw, content) in drawn.items():
        rendered[name] = Markup(render_chart(name, draw, content, task))  # noqa: S704
    subgroup_tables = (
        tables.list_subgroup_tables(task, evaluation.subgroups) if evaluation.subgroups else []
    )
    content = {
        "name": evaluation.name,
        "disclaimer": pipeline.NOTICE,
        "warnings": evaluation.warnings,
        "cards": list_cards(task, own),
        "facts": evaluation.facts,
        "tables": tables.list_tables(task, own),
        "note": tables.NOTE,
        "intervals_note": task.intervals_note,
        "unsure": tables.note_unsure(own),
        "kind": task.kind,
        "target": task.target,
        "ticks": task.ticks,
        "confusions": list_confusions(task, evaluation),
        "forests": forests,
        "subgroups": subgroup_tables,
        "validation": tables.list_tables(task, evaluation.validation)
        if evaluation.validation
        else [],
        "beside": evaluation.beside,
        "refused": list(evaluation.refused.items())[:MOST_REFUSED],
        "charts": rendered,
    }
    return template.render(TEMPLATE, content)


def list_cards(task: Task, measured: Figures) -> dict[str, Estimate]:
    """Return the figures that the page begins with: the headline, and the AUC of the first conditions."""
    cards = {
        f"{task.overall_names[0]}, {task.decision_name}": measured.overall[task.decision_name][0]
    }
    for name, (of_condition, _) in list(measured.conditions.items())[:3]:
        cards[f"AUC, {name}"] = of_condition.auc
    return cards


def list_confusions(task: Task, evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Return the confusion matrix of each decision; none where outputs do not exclude each other."""
    sample = evaluation.own.sample
    matrices = []
    for name, decided in {
        task.decision_name: task.decide(sample.scores),
        **evaluation.decisions,
    }.items():
        matrix = figures.count_confusion(task, sample, decided)
        if matrix is not None:
            matrices.append({**matrix, "title": name})
    return {sample.title: matrices} if matrices else {}


def list_forests(task: Task, evaluation: Evaluation) -> dict[str, list[tuple[str, Estimate]]]:
    """Return the rows of each forest plot: the headline's, and of each condition's AUC, all images first."""
    subgroups = evaluation.subgroups
    if subgroups is None:
        return {}
    forests: dict[str, list[tuple[str, Estimate]]] = {}
    headline = task.overall_names[0]
    wanted = {headline: (Key("", "", headline), evaluation.own.overall[task.decision_name][0])}
    for name, (of_condition, _) in evaluation.own.conditions.items():
        wanted[f"AUC, {name}"] = (Key(name, "", "AUC"), of_condition.auc)
    for title, (key, whole) in wanted.items():
        if not np.isfinite(whole.value):
            continue
        rows = [("all", whole)]
        for group in subgroups.groups:
            rows.append((f"{group.column}: {group.name} ({group.images:,})", group.figures[key]))
        forests[title] = rows
    return forests


def write(folder: Path, task: Task, evaluation: Evaluation) -> Sequence[str]:
    """Write figures.csv, the page and the text of an evaluation; return the files' names."""
    write_rows(folder / "figures.csv", tables.CSV_COLUMNS, list_rows(task, evaluation))
    files.write_bytes(folder / "evaluation.html", render(task, evaluation).encode())
    files.write_bytes(folder / "summary.txt", f"{describe(task, evaluation)}\n".encode())
    return ("figures.csv", "evaluation.html", "summary.txt")
