"""The files of a run: epochs/0001.pt, a checkpoint, 0001.json, that epoch's figures, and history.csv, all figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr.training import checkpoint
from dr.training.checkpoint import Checkpoint
from preprocess.cache import files, manifest
from preprocess.cache.errors import InputError

COLUMNS = ("epoch", "learning_rate", "train_log_loss", "valid_log_loss", "valid_qwk")  # of history.csv


class Trained(NamedTuple):
    """A finished run of `dr.train`, as its manifest tells.

    folder : of the checkpoints
    parameters : the settings asked for
    inputs : name -> digest of what it learned from
    checkpoints : epoch -> digest, those that are kept
    """

    folder: Path
    parameters: dict[str, Any]
    inputs: dict[str, str]
    checkpoints: dict[int, str]

    @property
    def newest(self) -> int:
        """The last epoch."""
        return max(self.checkpoints)


class Voter(NamedTuple):
    """One of several nets whose scores are averaged: its part of the mean, and the views of it."""

    checkpoint: Checkpoint
    share: float
    n_views: int


def folder_of(cache: Path, run: str | None) -> Path:
    """Return the folder of a run's files: CACHE/dr, or CACHE/dr/runs/NAME for a named one."""
    return cache / "dr" / "runs" / run if run else cache / "dr"


def read_trained(cache: Path, run: str | None) -> Trained:
    """Return what `dr.train` left. Raises InputError if it is not finished."""
    folder = folder_of(cache, run) / "epochs"
    kept = manifest.read_manifest(folder)
    if kept is None or not kept["outputs"]:
        raise InputError(f"{folder}: holds no finished training; run python -m dr.train first")
    checkpoints = {int(name.removesuffix(".pt")): digest for name, digest in kept["outputs"].items()}
    return Trained(folder, kept["parameters"], kept["inputs"], checkpoints)


def read_checkpoint(trained: Trained, epoch: int) -> Checkpoint:
    """Return an epoch's checkpoint. Raises InputError if it is not the one that `dr.train` wrote."""
    path = trained.folder / f"{epoch:04}.pt"
    if files.hash_file(path) != trained.checkpoints[epoch]:
        raise InputError(f"{path}: not what python -m dr.train wrote; run it again")
    return checkpoint.read(path)


def read_averaged(cache: Path, run: str | None, share: float = 1.0) -> list[Voter]:
    """Return the nets whose scores `dr.predict` averaged last for a run; their shares sum to `share`.

    Raises InputError if it has not run, or a net is gone since.
    """
    folder = folder_of(cache, run)
    kept = manifest.read_manifest(folder)
    if kept is None:
        raise InputError(f"{folder}: holds no predictions; run python -m dr.predict first")
    parameters = kept["parameters"]
    if "average" in parameters:
        names = parameters["average"]
        return [voter for name in names for voter in read_averaged(cache, name, share / len(names))]
    trained, epochs = read_trained(cache, run), parameters["epochs"]
    gone = [epoch for epoch in epochs if epoch not in trained.checkpoints]
    if gone:
        raise InputError(f"{folder}: epoch {gone[0]} is gone since it was averaged; run python -m dr.predict again")
    return [Voter(read_checkpoint(trained, epoch), share / len(epochs), parameters["views"]) for epoch in epochs]


def read_figures(epochs: Path) -> list[dict[str, Any]]:
    """Return the figures of the finished epochs 1, 2, ... as far as they go without a gap."""
    figures: list[dict[str, Any]] = []
    while (path := epochs / f"{len(figures) + 1:04}.json").exists():
        try:
            figures.append(json.loads(path.read_text()))
        except ValueError:  # damaged: that epoch and those after it are done again
            break
    return figures


def write_history(epochs: Path, figures: Sequence[dict[str, Any]]) -> None:
    """Write history.csv, a row per epoch, beside the folder of a run's epochs."""
    lines = [",".join(COLUMNS), *(",".join(repr(row[column]) for column in COLUMNS) for row in figures)]
    files.write_bytes(epochs.parent / "history.csv", ("\n".join(lines) + "\n").encode())


def has_stalled(figures: list[dict[str, Any]], patience: int | None) -> bool:
    """Tell whether the validation log loss has not fallen for `patience` epochs."""
    losses = [row["valid_log_loss"] for row in figures]
    return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def count_finished(epochs: Path) -> int:
    """Return the newest epoch whose checkpoint is whole like all that are kept of those before it, 0 if none is."""
    finished = 0
    for figures in read_figures(epochs):
        path = epochs / f"{figures['epoch']:04}.pt"
        if path.exists() and files.hash_file(path) == figures["checkpoint"]:
            finished = figures["epoch"]
        elif path.exists() or finished:
            break
    return finished
