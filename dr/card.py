"""The model card of an exported net, in Markdown: what a program can tell of it, and lines to fill by hand.

Its headings follow what TRIPOD+AI (Collins et al., BMJ 385, 2024), STARD-AI and CLAIM (Mongan et al., Radiology:
Artificial Intelligence 2(2), 2020) ask to be reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dr.metrics import detection
from dr.metrics.bootstrap import Estimate
from dr.metrics.operating import UNSURE, OperatingPoint
from dr.tasks.task import Task, estimate_overall
from dr.validation import Validation
from preprocess.command import pipeline
from preprocess.dataset.dataset import DataSet

BY_HAND = "(to fill by hand)"
NOT_MEASURED = "How good it is has not been measured here."
# What only people know: a heading and its questions.
OPEN_QUESTIONS = {
    "Intended use": [
        "who uses it, on whom, at which step of care",
        "what is done with a positive and a negative",
    ],
    "Population": [
        "where, when and why the photographs were taken; cameras, mydriasis",
        "age, sex, ethnicity, diabetes",
    ],
    "Reference standard": [
        "who graded, by which scale; how often two graders agree",
        "how disagreements were settled",
    ],
    "Limits": ["for whom it fails: figures of subgroups", "what was excluded, and why"],
    "Oversight": [
        "ethics approval, funding, conflicts of interest",
        "who answers for it, and how errors are reported",
    ],
}


def describe_points(
    points: Mapping[str, Sequence[OperatingPoint]],
) -> dict[str, list[dict[str, Any]]]:
    """Return operating points as plain numbers; None is the threshold of one that could not be chosen."""
    described: dict[str, list[dict[str, Any]]] = {}
    for condition, of_condition in points.items():
        described[condition] = []
        for point in of_condition:
            threshold = point.threshold if np.isfinite(point.threshold) else None
            described[condition].append(
                {
                    "name": point.name,
                    "threshold": threshold,
                    "positives": point.positives,
                    "decides": point.is_sure,
                }
            )
    return described


def write_card(
    described: Mapping[str, Any], task: Task, validation: Validation | None, dataset: DataSet | None
) -> str:
    """Return the card of what `dr.export.describe` describes, as far as validation patients and data are at hand."""
    nets = described["nets"]
    making = described["making"]
    title = ", ".join(dict.fromkeys(net["net"] for net in nets))
    parts = [
        f"# {title}: {', '.join(task.names)}",
        pipeline.NOTICE,
        f"Made by version {described['version']} of the diabetic retinopathy pipeline.",
        "\n".join(describe_net(net) for net in nets),
        f"Squares of {making['size_px']} px, crop {making['crop']}, normalize {making['normalize']}.",
        "## Intended use",
        f"For competition and research. It gives a photograph the scores of {task.kind}: {', '.join(task.titles)}.",
        list_questions("Intended use"),
        "## Population",
        describe_population(task, dataset),
        list_questions("Population"),
        "## Reference standard",
        list_questions("Reference standard"),
        "## Figures",
        describe_figures(task, validation),
        "## Operating points",
        describe_operating_points(task, validation),
        "## Limits",
        "It knows nothing of images unlike those it learned from: other cameras, other people, other diseases. How it "
        "scores them says nothing of how sure it may be. Figures of other data: python -m submissions.evaluate.",
        list_questions("Limits"),
        "## Oversight",
        list_questions("Oversight"),
    ]
    return "\n\n".join(parts) + "\n"


def describe_net(net: Mapping[str, Any]) -> str:
    """Return a line on a member of the ensemble."""
    learned = f"{net['net']}, epoch {net['epoch']}, learned from {net['n_images']} images"
    return f"- {learned}; counts {net['share']:.3g}, by {net['views']} views; checkpoint {net['checkpoint'][:16]}"


def list_questions(heading: str) -> str:
    """Return the questions of a heading as lines to fill by hand."""
    return "\n".join(f"- {question}: {BY_HAND}" for question in OPEN_QUESTIONS[heading])


def describe_population(task: Task, dataset: DataSet | None) -> str:
    """Return how many images of how many patients the data set has to learn from, and how frequent the targets are."""
    if dataset is None or not dataset.has_targets("train"):
        return "The data set that it learned from is not at hand."
    targets = dataset.get_targets("train", known_only=True)
    patients = set(dataset.get_patients(targets.index))
    shares = task.find_prior(targets.to_numpy())
    frequent = ", ".join(
        f"{title} {share:.1%}" for title, share in zip(task.titles, shares, strict=True)
    )
    labelled = f"{len(targets):,} labelled images of {len(patients):,} patients"
    name = dataset.folder.resolve().name
    return f"The data set that it was trained and validated on, {name}: {labelled}; {frequent}."


def describe_figures(task: Task, validation: Validation | None) -> str:
    """Return the task's own figures on the images held out, beside those of guesses that need no image."""
    if validation is None:
        return NOT_MEASURED
    drawn = task.draw_measures(validation.patients, validation.scores, validation.targets)
    n_images = len(validation.images)
    lines = [
        f"On {n_images} images that training did not see, with 95 % intervals of a bootstrap over patients:",
        "",
        "| figure | value | 95 % interval |",
        "|---|---|---|",
    ]
    for name, values in drawn.items():
        lines.append(list_row(name, estimate_overall(name, values, validation.patients)))
    for name, scores in task.guess(validation.targets).items():
        for figure, value in task.measure(scores, validation.targets).items():
            lines.append(f"| {figure}, {name} | {value:.4f} | |")
    return "\n".join(lines)


def list_row(name: str, estimate: Estimate) -> str:
    """Return a row of a table in Markdown."""
    if not np.isfinite(estimate.value):
        return f"| {name} | not measurable | |"
    return f"| {name} | {estimate.value:.4f} | {estimate.describe_interval()} |"


def describe_operating_points(task: Task, validation: Validation | None) -> str:
    """Return the thresholds of each condition and what they are worth, each patient judged by one of the others."""
    if validation is None:
        return NOT_MEASURED
    lines = [
        "Chosen on the images above; their rates are cross-fitted: each patient is judged by a threshold that was "
        f"chosen on other patients. Marked *: {UNSURE}.",
        "",
        "| condition | point | threshold | positives | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    thresholds = task.cross_fit_points(validation.patients, validation.scores, validation.targets)
    for condition in task.conditions:
        measured = detection.measure_condition(
            validation.patients,
            probabilities=task.score_condition(condition, validation.scores),
            truth=task.find_condition(condition, validation.targets),
            thresholds=thresholds[condition.name],
        )
        for point, rates in measured.points:
            mark = "" if point.is_sure else " *"
            cells = [show_interval(rates.sensitivity), show_interval(rates.specificity)]
            title = f"| {condition.name} | {point.name} | {point.threshold:.4g}{mark} | {point.positives} |"
            lines.append(f"{title} {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def show_interval(estimate: Estimate) -> str:
    """Return a figure with its interval."""
    if not np.isfinite(estimate.value):
        return "not measurable"
    return f"{estimate.value:.3f} ({estimate.describe_interval()})"
