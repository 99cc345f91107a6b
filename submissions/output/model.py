"""What a run is known to be worth, for those who read its grades: figures, date, operating points, a warning.

All of it is of the images that the run held out, CACHE/dr/targets_valid.csv beside their scores.
"""

import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr import validation
from dr.metrics.operating import UNSURE, OperatingPoint
from dr.tasks.task import Condition, Task
from dr.training import runs
from dr.training.runs import Member
from dr.validation import Validation
from dr.watching import outcome


class Known(NamedTuple):
    """What is known of a run, as far as its cache holds the images that it held out."""

    model: str  # which net, from how many images, its figure with an interval, its date
    condition: Condition | None  # what the task screens for, such as referable disease
    points: list[OperatingPoint]  # of that condition; none if they are not known
    warning: str  # that the net is no better than guessing, and why; empty if it is better


def read_known(cache: Path, run: str | None, members: list[Member]) -> Known:
    """Return what is known of the run of a cache, or of checkpoints alone if it holds no images held out.

    The blend counts where the run ends in one.
    """
    folder = runs.folder_of(cache, run)
    task = members[0].checkpoint.task
    trained = folder / "epochs" / "history.csv"
    date = ""
    if trained.exists():
        day = datetime.date.fromtimestamp(trained.stat().st_mtime)
        date = f"trained on {day.isoformat()}"
    held_out = (folder / validation.SCORES, folder / validation.TARGETS)
    if not all(path.exists() for path in held_out):
        return Known(describe_model(members, "", date), task.screened, points=[], warning="")
    known = validation.read_validation(cache, run, task)
    points = []
    if task.screened is not None:
        points = task.choose_points(known.scores, known.targets)[task.screened.name]
    return Known(
        model=describe_model(members, _describe_figure(task, known), date),
        condition=task.screened,
        points=points,
        warning=_judge(task, known, folder, members[0]),
    )


def know_little(members: list[Member]) -> Known:
    """Return what checkpoints say by themselves, without a cache."""
    task = members[0].checkpoint.task
    return Known(describe_model(members, "", ""), task.screened, points=[], warning="")


def describe_model(members: list[Member], figure: str, date: str) -> str:
    """Return in one line which model it is."""
    nets = ", ".join(dict.fromkeys(member.checkpoint.settings.net for member in members))
    n_images = max(member.checkpoint.n_images for member in members)
    parts = [nets]
    if len(members) > 1:
        parts[0] += f", mean of {len(members)} checkpoints"
    parts.append(f"learned from {n_images:,} images")
    return "; ".join(part for part in (*parts, figure, date) if part)


def _describe_figure(task: Task, known: Validation) -> str:
    """Return the task's first figure of the images held out, with its interval over patients."""
    n_images = len(known.images)
    decided = task.decide(known.scores)
    if len(set(known.patients)) < 2:
        return f"{n_images} image held out, so no figure"
    figure = task.measure_overall(known.patients, known.scores, known.targets, decided)[0]
    interval = f"{figure.low:.3f} to {figure.high:.3f}"
    return (
        f"{task.overall_names[0]} {figure.value:.3f} ({interval}) on {n_images:,} images held out"
    )


def _judge(task: Task, known: Validation, folder: Path, member: Member) -> str:
    """Return that the scores are no better than guesses, and why most likely; "" if they are better."""
    measured = task.measure(known.scores, known.targets)
    figures = {f"valid_{name}": value for name, value in measured.items()}
    verdicts = outcome.judge(task, figures, outcome.measure_guesses(task, known.targets))
    if not verdicts:
        return ""
    checkpoint = member.checkpoint
    history = runs.read_figures(folder / "epochs")
    reason = outcome.explain(checkpoint.settings, checkpoint.n_images, history)
    return f"No better than guessing: {'; '.join(verdicts)}; {reason}"


def screen(task: Task, known: Known, scores: np.ndarray) -> dict[str, Any] | None:
    """Return the probability of the condition screened for by scores (k,), and what each sure operating point says.

    None where the task screens for nothing.
    """
    if known.condition is None:
        return None
    probability = float(task.score_condition(known.condition, scores[None])[0])
    points = {}
    for point in known.points:
        if point.is_sure:
            points[point.name] = {
                "threshold": point.threshold,
                "is_reached": probability >= point.threshold,
            }
    return {"condition": known.condition.name, "probability": probability, "points": points}


def describe_points(known: Known) -> str:
    """Return in one line from which probability on the condition counts as present, and where that was chosen."""
    if known.condition is None:
        return ""
    name = known.condition.name
    if not known.points:
        return f"{name}: no operating points are known without the images that the run held out"
    shown = [f"{point.name} from {point.threshold:.1%}" for point in known.points if point.is_sure]
    n_positives = known.points[0].positives
    if not shown:
        return f"{name}: {n_positives} images held out have it: {UNSURE}"
    return (
        f"{name}: {', '.join(shown)}; chosen on the images held out, of which {n_positives} have it"
    )
