"""How training went: each epoch's figures -> history.csv and history.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess import stage

COLUMNS = ("epoch", "learning_rate", "train_log_loss", "valid_log_loss", "valid_qwk")


def describe_epoch(figures: dict[str, Any]) -> str:
    """Return an epoch's figures as one line."""
    return (
        f"epoch {figures['epoch']}: learning rate {figures['learning_rate']:.4g}, log loss train "
        f"{figures['train_log_loss']:.4f} valid {figures['valid_log_loss']:.4f}, QWK valid {figures['valid_qwk']:.4f}"
    )


def write_table(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write history.csv, a row per epoch."""
    lines = [",".join(COLUMNS), *(",".join(repr(figures[column]) for column in COLUMNS) for figures in history)]
    stage.write_bytes(path, ("\n".join(lines) + "\n").encode())


def write_picture(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write history.png: both log losses, and the QWK, over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, agreement = figure.subplots(1, 2)
    epochs = [figures["epoch"] for figures in history]
    for axes, column, label in (
        (losses, "train_log_loss", "training, augmented, with dropout"),
        (losses, "valid_log_loss", "validation, centre crop"),
        (agreement, "valid_qwk", "validation, likeliest level"),
    ):
        axes.plot(epochs, [figures[column] for figures in history], label=label)
    losses.set(xlabel="epoch", ylabel="log loss")
    agreement.set(xlabel="epoch", ylabel="quadratic weighted kappa")
    for axes in (losses, agreement):
        axes.legend()
        axes.grid(alpha=0.3)
    with stage.replacing(path) as partial:
        figure.savefig(partial, dpi=100)
