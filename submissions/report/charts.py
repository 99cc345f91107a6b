"""The report's charts: arrays in, inline SVG out, coloured by the page's own style so that they suit dark and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dr.metrics.bootstrap import StepGain
from dr.metrics.calibration import Reliability
from dr.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_IN = (4.6, 3.6)  # so narrow that text of 10 points is still legible when the page is as wide as a phone
# Colours that nothing else uses, and what the page puts in their place.
INK, GRID, PAGE = "#010101", "#020202", "#070707"
SERIES = ("#030303", "#040404", "#050505", "#060606")  # Matplotlib's C0 to C3; C4 is the first one again
STYLED = {INK: "currentColor", GRID: "var(--line)", PAGE: "var(--page)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)
}
ROC_COLUMNS = 3
DIAGONAL: dict[str, Any] = {"color": INK, "linewidth": 0.8, "dashes": (4, 3), "alpha": 0.6}
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "report",  # the same chart has the same ids
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), GRID),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.linewidth": 0.6,
    "axes.prop_cycle": f"cycler(color={list(SERIES)})",
}


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
        axes.text(0, height - 0.3, step, transform=axes.get_yaxis_transform(), va="center", bbox=box)
    axes.set(ylim=(len(steps) - 0.4, -0.6), yticks=[], xlabel=f"{task.headline_name}, 95 % interval")
    axes.spines["left"].set_visible(False)
    _add_legend(axes)


def draw_history(figure: Figure, histories: Mapping[str, Sequence[Mapping[str, Any]]], task: Task) -> None:
    """Draw the training curves: log losses above, kappa or accuracy below; run -> figures of each epoch."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure.set_figheight(4.4)
    losses, kappas = figure.subplots(2, 1, sharex=True)
    for number, (run, figures) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in figures]
        for axes, column, dashes, label in (
            (losses, "train_log_loss", (2, 1.5), "training"),
            (losses, "valid_log_loss", (), "validation"),
            (kappas, f"valid_{task.headline}", (), "validation"),
        ):
            values, marker = [row[column] for row in figures], "" if epochs[1:] else "o"
            axes.plot(epochs, values, f"C{number}", dashes=dashes, marker=marker, label=f"{label} {run}".rstrip())
    losses.set(ylabel="log loss", yscale="log")
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter("{x:g}")
    losses.yaxis.set_minor_locator(NullLocator())
    kappas.set(ylabel=task.headline_name, xlabel="epoch")
    kappas.xaxis.get_major_locator().set_params(integer=True)
    _add_legend(losses)


def draw_reliability(figure: Figure, measured: Mapping[str, Reliability], task: Task) -> None:
    """Draw how often scores of each size came true; a name of the scores -> Reliability."""
    figure.set_figheight(4.9)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    for number, (name, bins) in enumerate(measured.items()):
        axes.vlines(bins.predicted, bins.low, bins.high, color=f"C{number}", linewidth=2, alpha=0.4)
        axes.plot(bins.predicted, bins.observed, f"oC{number}-", markersize=4, label=name, clip_on=False)
    word = task.target
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"score of a {word}", ylabel=f"share that had the {word}", aspect="equal")
    _add_legend(axes)


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
    _add_legend(axes)


def draw_roc(figure: Figure, curves: Mapping[str, np.ndarray], task: Task) -> None:
    """Draw the ROC curve of each finding, beside one another; finding -> shares of the false and the true, (2, n)."""
    n_rows = -(-len(curves) // ROC_COLUMNS)
    figure.set_figheight(0.4 + 1.7 * n_rows)
    axes_of = figure.subplots(n_rows, ROC_COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, (false, true)) in zip(axes_of, curves.items(), strict=False):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        axes.plot(false, true, "C0", clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.set_title(name, fontsize=9)
    for axes in axes_of[len(curves) :]:
        axes.set_axis_off()


def _add_legend(axes: Axes) -> None:
    around = {"borderaxespad": 0.2, "handlelength": 1.4, "columnspacing": 1.2}
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, **around)


def render(name: str, draw: Callable[..., None], content: Any, task: Task) -> str:
    """Return a chart as an <svg> element for the inside of a page.

    Its ids begin with its name, its colours and font are the page's; it refers to nothing outside.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(dict(mpl.rcParamsDefault, **STYLE)):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, content, task)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    svg = re.sub(r'\bid="', f'id="{name}-', svg[svg.index("<svg") :].strip())
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # as older Matplotlib puts size and family
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for color, styled in STYLED.items():
        svg = svg.replace(color, styled)
    return svg
