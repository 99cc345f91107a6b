"""The report's charts: arrays in, drawn into a figure that submissions.output.charts renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dr.metrics.bootstrap import StepGain
from dr.metrics.calibration import Reliability
from dr.tasks.task import Task
from submissions.output.charts import DIAGONAL, PAGE, add_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_kappas(figure: Figure, kappas: Mapping[str, Mapping[str, StepGain]], task: Task) -> None:
    """Draw each group's kappa, or accuracy, with its interval, one step below the other; group -> step -> StepGain."""
    steps = list(dict.fromkeys(step for measured in kappas.values() for step in measured))
    figure.set_figheight(0.9 + 0.55 * len(steps))
    axes = figure.subplots()
    spread = np.linspace(-0.2, 0.2, len(kappas)) if len(kappas) > 1 else [0.0]
    for number, (offset, (group, measured)) in enumerate(zip(spread, kappas.items(), strict=True)):
        color, heights = f"C{number}", [steps.index(step) + 0.15 + offset for step in measured]
        estimates = np.array([worth.figure for worth in measured.values()])
        axes.hlines(heights, estimates[:, 1], estimates[:, 2], color=color, linewidth=2, alpha=0.6)
        axes.plot(estimates[:, 0], heights, "o", color=color, markersize=5, label=group)
    for height, step in enumerate(steps):
        box = {"facecolor": PAGE, "edgecolor": "none", "pad": 1}  # over the lines of the grid
        axes.text(
            0, height - 0.3, step, transform=axes.get_yaxis_transform(), va="center", bbox=box
        )
    axes.set(
        ylim=(len(steps) - 0.4, -0.6), yticks=[], xlabel=f"{task.headline_name}, 95 % interval"
    )
    axes.spines["left"].set_visible(False)
    add_legend(axes)


def draw_history(
    figure: Figure, histories: Mapping[str, Sequence[Mapping[str, Any]]], task: Task
) -> None:
    """Draw the training curves: log losses, kappa or accuracy, learning rate; run -> figures of each epoch."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure.set_figheight(6)
    losses, kappas, rates = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1))
    for number, (run, figures) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in figures]
        for axes, column, dashes, label in (
            (losses, "train_log_loss", (2, 1.5), "training"),
            (losses, "valid_log_loss", (), "validation"),
            (kappas, f"valid_{task.headline}", (), "validation"),
            (rates, "learning_rate", (), "learning rate"),
        ):
            values, marker = [row[column] for row in figures], "" if epochs[1:] else "o"
            axes.plot(
                epochs,
                values,
                f"C{number}",
                dashes=dashes,
                marker=marker,
                label=f"{label} {run}".rstrip(),
            )
    losses.set(ylabel="log loss", yscale="log")
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter("{x:g}")
    losses.yaxis.set_minor_locator(NullLocator())
    kappas.set(ylabel=task.headline_name)
    rates.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    rates.yaxis.set_major_formatter("{x:g}")
    rates.xaxis.get_major_locator().set_params(integer=True)
    add_legend(losses)


def draw_reliability(figure: Figure, measured: Mapping[str, Reliability], task: Task) -> None:
    """Draw how often scores of each size came true; a name of the scores -> Reliability."""
    figure.set_figheight(4.9)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    for number, (name, bins) in enumerate(measured.items()):
        axes.vlines(bins.predicted, bins.low, bins.high, color=f"C{number}", linewidth=2, alpha=0.4)
        axes.plot(
            bins.predicted, bins.observed, f"oC{number}-", markersize=4, label=name, clip_on=False
        )
    word = task.target
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel=f"score of a {word}",
        ylabel=f"share that had the {word}",
        aspect="equal",
    )
    add_legend(axes)


def draw_levels(figure: Figure, shares: Mapping[str, np.ndarray], task: Task) -> None:
    """Draw how frequent the levels are; whose -> shares (k,)."""
    axes, width = figure.subplots(), 0.8 / len(shares)
    for position, (whose, share) in enumerate(shares.items()):
        levels = np.arange(len(share)) + width * (position - (len(shares) - 1) / 2)
        axes.bar(levels, 100 * share, 0.9 * width, color=f"C{position}", label=whose)
    axes.set(xlabel=task.target, ylabel="% of the images")
    if not task.has_eyes:
        rotation = 90 if task.has_thresholds else 0  # findings are too many to stand side by side
        axes.set_xticks(range(len(task.names)), task.names, rotation=rotation)
    axes.grid(visible=False, axis="x")
    add_legend(axes)
