"""The report's charts: arrays in, inline SVG out, coloured by the page's own style so that they suit dark and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess import eyes
from submissions.measures import Kappa, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 4.6  # so narrow that text of FONT_PT is still legible when the page is as wide as a phone
FONT_PT = 10
# Colours that nothing else uses, and what the page puts in their place.
INK, GRID, PAGE = "#010101", "#020202", "#070707"
SERIES = ("#030303", "#040404", "#050505", "#060606")
STYLED = {INK: "currentColor", GRID: "var(--line)", PAGE: "var(--page)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)
}
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "report",  # the same chart has the same ids
    "font.size": FONT_PT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def draw_kappas(kappas: Mapping[str, Mapping[str, Kappa]]) -> str:
    """Return a chart of each group's kappa with its interval, one step below the other; group -> step -> Kappa."""
    steps = list(dict.fromkeys(step for measured in kappas.values() for step in measured))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        spread = np.linspace(-0.2, 0.2, len(kappas)) if len(kappas) > 1 else [0.0]
        for color, offset, (group, measured) in zip(_colors(kappas), spread, kappas.items(), strict=True):
            places = [steps.index(step) + 0.15 + offset for step in measured]
            estimates = np.array([kappa.kappa for kappa in measured.values()])
            axes.hlines(places, estimates[:, 1], estimates[:, 2], color=color, linewidth=2, alpha=0.6)
            axes.plot(estimates[:, 0], places, "o", color=color, markersize=5, label=group)
        for place, step in enumerate(steps):
            box = {"facecolor": PAGE, "edgecolor": "none", "pad": 1}  # over the lines of the grid
            axes.text(0, place - 0.3, step, transform=axes.get_yaxis_transform(), va="center", bbox=box)
        axes.set(ylim=(len(steps) - 0.4, -0.6), yticks=[], xlabel="quadratic weighted kappa, 95 % interval")
        axes.spines["left"].set_visible(False)
        _add_legend(axes)

    return _render(draw, 0.9 + 0.55 * len(steps), "kappas")


def draw_history(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the training curves: log losses above, validation kappa below; run -> figures of each epoch."""
    from matplotlib.ticker import LogLocator, NullLocator

    def draw(figure: Figure) -> None:
        losses, kappas = figure.subplots(2, 1, sharex=True)
        for position, (run, figures) in enumerate(histories.items()):
            suffix, color = f" {run}" if run else "", SERIES[position % len(SERIES)]
            epochs = [row["epoch"] for row in figures]
            for axes, column, dashes, label in (
                (losses, "train_log_loss", (2, 1.5), "training"),
                (losses, "valid_log_loss", (), "validation"),
                (kappas, "valid_qwk", (), "validation"),
            ):
                values = [row[column] for row in figures]
                axes.plot(
                    epochs, values, color=color, dashes=dashes, marker="" if epochs[1:] else "o", label=label + suffix
                )
        losses.set(ylabel="log loss", yscale="log")
        losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_major_formatter("{x:g}")
        losses.yaxis.set_minor_locator(NullLocator())
        kappas.set(ylabel="kappa", xlabel="epoch")
        kappas.xaxis.get_major_locator().set_params(integer=True)
        _add_legend(losses)

    return _render(draw, 4.4, "history")


def draw_reliability(measured: Mapping[str, Reliability]) -> str:
    """Return a chart of how often scores of each size came true; a name of the scores -> Reliability."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 3), alpha=0.6)
        for color, (name, bins) in zip(_colors(measured), measured.items(), strict=True):
            axes.vlines(bins.predicted, bins.low, bins.high, color=color, linewidth=2, alpha=0.4)
            axes.plot(bins.predicted, bins.observed, "o-", color=color, markersize=4, label=name, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score of a level", ylabel="share that had the level", aspect="equal")
        _add_legend(axes)

    return _render(draw, 4.9, "reliability")


def draw_levels(shares: Mapping[str, np.ndarray]) -> str:
    """Return a chart of how frequent the levels are; whose -> shares (5,)."""

    def draw(figure: Figure) -> None:
        axes, levels = figure.subplots(), np.arange(eyes.N_LEVELS)
        width = 0.8 / len(shares)
        for position, (color, (whose, share)) in enumerate(zip(_colors(shares), shares.items(), strict=True)):
            axes.bar(
                levels + width * (position - (len(shares) - 1) / 2), 100 * share, 0.9 * width, color=color, label=whose
            )
        axes.set(xlabel="level", ylabel="% of the images")
        axes.grid(visible=False, axis="x")
        _add_legend(axes)

    return _render(draw, 3.6, "levels")


def _colors(series: Mapping) -> Sequence[str]:
    """Return a colour per series; the fifth has the first one's again."""
    return [SERIES[position % len(SERIES)] for position in range(len(series))]


def _add_legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.4, columnspacing=1.2
    )


def _render(draw, height_in: float, name: str) -> str:
    """Return what `draw` puts on a figure, as an <svg> element for the inside of a page."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return _inline(content.getvalue(), name)


def _inline(document: str, name: str) -> str:
    """Return a drawing as part of a page: ids of its own, the page's colours, no size, no outside names."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # as older Matplotlib puts size and family
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for color, styled in STYLED.items():
        svg = svg.replace(color, styled)
    return svg
