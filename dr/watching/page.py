"""The page that follows a training: figures of its epochs -> one HTML file that loads itself again while it runs."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from preprocess.command import pipeline

TEMPLATE = Path(__file__).with_name("progress.html")
RELOAD_S = 10
WIDTH, HEIGHT = 520, 230  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 26  # room around the lines
N_TICKS = 5


class Content(NamedTuple):
    """What the page shows."""

    title: str
    facts: dict[str, str]
    history: Sequence[Mapping[str, Any]]  # figures of each epoch
    headline: str  # the task's own figure, and its name
    headline_name: str
    guessed: Mapping[str, float]  # what needs no image reaches
    has_ended: bool
    warning: str  # why the net is most likely no better than guessing; empty if it is better


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    values: list[float]  # one per epoch
    look: str  # its class in the page's style


def render(content: Content) -> str:
    """Return the page."""
    history = content.history
    n_epochs = len(history)
    headline = f"valid_{content.headline}"
    losses = [
        Line("training", [row["train_log_loss"] for row in history], "train"),
        Line("validation", [row["valid_log_loss"] for row in history], "valid"),
        Line("guessing", [content.guessed["log_loss"]] * n_epochs, "guess"),
    ]
    figures = [
        Line("validation", [row[headline] for row in history], "valid"),
        Line("guessing", [content.guessed[content.headline]] * n_epochs, "guess"),
    ]
    rates = [Line("learning rate", [row["learning_rate"] for row in history], "valid")]
    charts = [
        _draw_figure("Log loss", losses),
        _draw_figure(f"{content.headline_name}, images held out", figures),
        _draw_figure("Learning rate", rates),
    ]
    facts = []
    for name, value in content.facts.items():
        facts.append(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>")
    reload = f'<meta http-equiv="refresh" content="{RELOAD_S}">'
    warning = ""
    if content.has_ended:
        reload = ""
    if content.warning:
        text = html.escape(content.warning)
        warning = f'<p class="warning"><strong>No better than guessing:</strong> {text}.</p>'
    state = "Training has ended" if content.has_ended else "Training"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        reload=reload,
        title=html.escape(f"{state}: {content.title}"),
        warning=warning,
        facts="".join(facts),
        charts="".join(charts),
        notice=html.escape(pipeline.NOTICE),
    )


def _draw_figure(title: str, lines: Sequence[Line]) -> str:
    """Return a chart with its title and legend."""
    keys = []
    if len(lines) > 1:
        for line in lines:
            keys.append(f'<span class="key {line.look}"></span>{html.escape(line.name)}')
    legend = " ".join(keys)
    caption = f"<figcaption><b>{html.escape(title)}</b> <span>{legend}</span></figcaption>"
    return f"<figure>{caption}{draw_chart(title, lines)}</figure>"


def draw_chart(title: str, lines: Sequence[Line]) -> str:
    """Return lines over epochs, counted from 1, as an SVG element; values that are not finite are left out."""
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    ticks = choose_ticks(min(finite, default=0.0), max(finite, default=1.0))
    low = ticks[0]
    high = ticks[-1]
    n_epochs = max(len(line.values) for line in lines)

    def place_x(epoch: float) -> float:
        share = (epoch - 1) / max(1, n_epochs - 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def place_y(value: float) -> float:
        share = (value - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        y = place_y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for epoch in sorted({1, round((n_epochs + 1) / 2), n_epochs}):
        x = place_x(epoch)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{epoch}</text>')
    for line in lines:
        points = []
        for epoch, value in enumerate(line.values, 1):
            if math.isfinite(value):
                points.append(f"{place_x(epoch):.1f},{place_y(value):.1f}")
        parts.append(f'<polyline class="{line.look}" points="{" ".join(points)}"/>')
        if len(points) == 1:
            left, top = points[0].split(",")
            parts.append(f'<circle class="{line.look}" cx="{left}" cy="{top}" r="3"/>')
    label = html.escape(f"{title} of each epoch")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def choose_ticks(low: float, high: float) -> list[float]:
    """Return round numbers, at most about N_TICKS, from one not above `low` to one not below `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / (N_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
