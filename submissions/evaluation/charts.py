"""The charts of an evaluation: ROC curves with operating points, reliability of conditions, and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dr.metrics.bootstrap import Estimate
from dr.metrics.calibration import Reliability
from dr.tasks.task import Task
from submissions.evaluation.figures import Curve
from submissions.output.charts import DIAGONAL, PAGE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

PER_ROW = 2  # small charts beside one another, on a phone still legible
MARKERS = {"high sensitivity": "o", "high specificity": "s", "best F1": "^", "given": "D"}
OTHER_MARKER = "v"


def draw_roc(figure: Figure, curves: Mapping[str, Mapping[str, Curve]], task: Task) -> None:
    """Draw the ROC curves of each condition with the operating points; sample -> condition -> Curve."""
    names = list(dict.fromkeys(name for of_sample in curves.values() for name in of_sample))
    n_rows = -(-len(names) // PER_ROW)
    figure.set_figheight(0.6 + 2.4 * n_rows)
    grid = figure.subplots(n_rows, PER_ROW, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        for number, (title, of_sample) in enumerate(curves.items()):
            if name not in of_sample:
                continue
            false, true = of_sample[name].roc
            axes.plot(false, true, f"C{number}", clip_on=False, label=title)
            for point, (x, y) in of_sample[name].points.items():
                marker = MARKERS.get(point, OTHER_MARKER)
                axes.plot(
                    x,
                    y,
                    marker,
                    color=f"C{number}",
                    markeredgecolor=PAGE,
                    markersize=7,
                    clip_on=False,
                )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.set_title(name, fontsize=9)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("1 − specificity", fontsize=10)
    figure.supylabel("sensitivity", fontsize=10)
    if len(curves) > 1:
        lines: dict[str, Artist] = {}
        for axes in grid:
            handles, titles = axes.get_legend_handles_labels()
            for handle, title in zip(handles, titles, strict=True):
                lines.setdefault(title, handle)
        figure.legend(list(lines.values()), list(lines), loc="outside upper left", ncols=2)


def draw_reliability(figure: Figure, measured: Mapping[str, Reliability], task: Task) -> None:
    """Draw how often the probabilities of each condition came true, by their size; condition -> Reliability."""
    n_rows = -(-len(measured) // PER_ROW)
    figure.set_figheight(0.4 + 2.4 * n_rows)
    grid = figure.subplots(n_rows, PER_ROW, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, bins) in zip(grid, measured.items(), strict=False):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        axes.vlines(bins.predicted, bins.low, bins.high, color="C0", linewidth=2, alpha=0.4)
        axes.plot(bins.predicted, bins.observed, "oC0-", markersize=4, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.set_title(name, fontsize=9)
    for axes in grid[len(measured) :]:
        axes.set_axis_off()
    figure.supxlabel("probability", fontsize=10)
    figure.supylabel("share that had it", fontsize=10)


def draw_forest(figure: Figure, rows: Sequence[tuple[str, Estimate]], task: Task) -> None:
    """Draw a forest plot: a figure of each subgroup with its interval, one below the other; all images come first."""
    measurable = [(title, estimate) for title, estimate in rows if np.isfinite(estimate.value)]
    figure.set_figheight(0.8 + 0.4 * len(measurable))
    axes = figure.subplots()
    axes.axvline(measurable[0][1].value, **DIAGONAL)
    for height, (title, estimate) in enumerate(measurable):
        color = "C0" if height == 0 else "C1"
        axes.hlines(height + 0.15, estimate.low, estimate.high, color=color, linewidth=2, alpha=0.6)
        axes.plot(estimate.value, height + 0.15, "o", color=color, markersize=5)
        box = {"facecolor": PAGE, "edgecolor": "none", "pad": 1}
        axes.text(
            0,
            height - 0.25,
            title,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            bbox=box,
        )
    axes.set(ylim=(len(measurable) - 0.4, -0.7), yticks=[])
    axes.spines["left"].set_visible(False)
