"""Charts for a page: a drawing in, inline SVG out, coloured by the page's own style so that it suits dark and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dr.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN = (
    4.6,
    3.6,
)  # so narrow that text of 10 points is still legible when the page is as wide as a phone
# Colours that nothing else uses, and what the page puts in their place.
INK, GRID, PAGE = "#010101", "#020202", "#070707"
SERIES = (
    "#030303",
    "#040404",
    "#050505",
    "#060606",
)  # Matplotlib's C0 to C3; C4 is the first one again
STYLED = {INK: "currentColor", GRID: "var(--line)", PAGE: "var(--page)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)
}
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


def add_legend(axes: Axes) -> None:
    """Put a legend above the axes."""
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
        figure.savefig(
            file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = file.getvalue()
    svg = re.sub(r'\bid="', f'id="{name}-', svg[svg.index("<svg") :].strip())
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(
        r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg
    )  # as older Matplotlib puts size and family
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for color, styled in STYLED.items():
        svg = svg.replace(color, styled)
    return svg
