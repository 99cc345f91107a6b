"""The files of a run: epochs/0001.pt, a checkpoint, 0001.json, that epoch's figures, and history.csv, all figures.

A net is trained in pending/ID and in epochs/ when it has ended; the one that was there before lies in former/ID then.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr.training import checkpoint, schedule
from dr.training.checkpoint import Checkpoint
from dr.training.settings import ORDINARY
from preprocess.cache import manifest
from preprocess.command import recipe
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

# Of history.csv, before what else the task follows on the images held out.
COLUMNS = ("epoch", "learning_rate", "train_log_loss", "valid_log_loss")


class Trained(NamedTuple):
    """A finished run of `dr.train`, as its manifest tells: the folder of the checkpoints, the settings asked for, name
    -> digest of what it learned from, and epoch -> digest of the checkpoints that are kept.
    """

    folder: Path
    parameters: dict[str, Any]
    inputs: dict[str, str]
    checkpoints: dict[int, str]


class Start(NamedTuple):
    """Where training begins: after the epochs whose figures these are; their checkpoints lie in `folder`."""

    folder: Path
    history: list[dict[str, Any]]


class Member(NamedTuple):
    """One of several nets whose scores are averaged: its part of the mean, the views of it, its file's digest."""

    checkpoint: Checkpoint
    share: float
    n_views: int
    digest: str


def folder_of(cache: Path, run: str | None) -> Path:
    """Return the folder of a run's files: CACHE/dr, CACHE/dr/runs/NAME for a named one, or another cache's, to which a
    way from CACHE leads, which has a slash.
    """
    if run and "/" in run:
        return cache / run
    return cache / "dr" / "runs" / run if run else cache / "dr"


def find_cache(folder: Path) -> Path:
    """Return the cache that a run's folder lies in."""
    return folder.parents[2] if folder.parent.name == "runs" else folder.parent


def read_mean(run: Path) -> list[str]:
    """Return the names of the runs whose mean `dr.predict` left in a run's folder; none if they are its own scores."""
    kept = manifest.read_manifest(run)
    return [name or ORDINARY for name in kept["parameters"].get("average", [])] if kept else []


def read_trained(cache: Path, run: str | None) -> Trained:
    """Return what `dr.train` left. Raises InputError if it is not finished."""
    folder = folder_of(cache, run) / "epochs"
    kept = manifest.read_manifest(folder)
    if kept is None or not kept["outputs"]:
        if names := read_mean(folder.parent):
            raise InputError(f"{folder.parent}: holds the mean of {', '.join(names)}; name one of them by --run")
        raise InputError(f"{folder}: holds no finished training; run python -m dr.train first")
    checkpoints = {int(name.removesuffix(".pt")): digest for name, digest in kept["outputs"].items()}
    return Trained(folder, kept["parameters"], kept["inputs"], checkpoints)


def read_checkpoint(trained: Trained, epoch: int) -> Checkpoint:
    """Return an epoch's checkpoint. Raises InputError if it is not the one that `dr.train` wrote."""
    path = trained.folder / f"{epoch:04}.pt"
    if files.hash_file(path) != trained.checkpoints[epoch]:
        raise InputError(f"{path}: not what python -m dr.train wrote; run it again")
    return checkpoint.read(path)


def read_averaged(cache: Path, run: str | None, share: float = 1.0) -> list[Member]:
    """Return the nets whose scores `dr.predict` averaged last for a run; their shares sum to `share`."""
    folder = folder_of(cache, run)
    if (kept := manifest.read_manifest(folder)) is None:
        raise InputError(f"{folder}: holds no predictions; run python -m dr.predict first")
    of = kept["parameters"]
    if names := of.get("average"):
        home = find_cache(folder)
        return [member for name in names for member in read_averaged(home, name, share / len(names))]
    trained, epochs = read_trained(cache, run), of["epochs"]
    if gone := [epoch for epoch in epochs if epoch not in trained.checkpoints]:
        raise InputError(f"{folder}: epoch {gone[0]} is gone since it was averaged; run python -m dr.predict again")
    equal = share / len(epochs), of["views"]
    return [Member(read_checkpoint(trained, epoch), *equal, trained.checkpoints[epoch]) for epoch in epochs]


def read_members(cache: Path, run: str | None, paths: Sequence[Path] | None, n_views: int | None) -> list[Member]:
    """Return the nets of the checkpoints that are named, which count alike, or those that `dr.predict` averaged last.
    Raises InputError if one is not there, or they have different tasks.
    """
    if paths:
        views = recipe.read_chain(recipe.BASE)[0].sections["dr.predict"]["views"]
        members = [Member(checkpoint.read(path), 1 / len(paths), views, files.hash_file(path)) for path in paths]
    else:
        members = read_averaged(cache, run)
    if len({member.checkpoint.task for member in members}) > 1:
        raise InputError("the nets answer different questions; their scores have no mean")
    return [member._replace(n_views=n_views or member.n_views) for member in members]


def describe_member(member: Member) -> dict[str, Any]:
    """Return which net counts for how much, and what it was trained on and for."""
    of = member.checkpoint
    return {
        "checkpoint": member.digest, "net": of.settings.net, "epoch": of.epoch, "share": member.share,
        "views": member.n_views, "n_images": of.n_images, "task": of.task._asdict(), "making": of.making._asdict(),
    }  # fmt: skip


def identify(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the ID of a net: a digest of its settings and of what it is learned from."""
    return files.hash_text(json.dumps([settings, inputs], sort_keys=True))[:12]


def is_finished(epochs: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Tell whether a folder holds all that training with these settings from these inputs would leave."""
    kept = manifest.read_manifest(epochs)
    has_all = kept and max(kept["outputs"], default="") == f"{len(read_figures(epochs)):04}.pt"
    return bool(
        has_all and (epochs / "history.csv").exists() and manifest.find_change(epochs, settings, inputs) is None
    )


def begin(pending: Path, start: Start, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Make the folder in which a net is trained hold the epochs that are done, by hard links, and no others."""
    if start.folder != pending:
        shutil.rmtree(pending, ignore_errors=True)  # of an earlier start that came less far
        pending.mkdir(parents=True)
    for path, epoch in _list_epochs(start.folder):
        if start.folder == pending and epoch > len(start.history):
            path.unlink()
        elif start.folder != pending and epoch <= len(start.history):
            try:
                os.link(path, pending / path.name)
            except OSError:  # a file system that knows none
                shutil.copy2(path, pending / path.name)
    manifest.write_manifest(pending, "dr.train", settings, inputs, outputs={})


def _list_epochs(folder: Path) -> list[tuple[Path, int]]:
    """Return the checkpoints and figures that lie in a folder, and of which epoch they are."""
    return [(path, int(path.stem)) for path in sorted(folder.glob("[0-9]*.*")) if path.stem.isdigit()]


def put_in_use(run: Path, new: Path, is_overwriting: bool) -> None:
    """Make the finished net of a folder the run's, and say where the one before lies now.

    By renames: after a kill between them both lie where `dr.train` looks for them.
    """
    epochs, former, old = run / "epochs", run / "former", None
    if epochs.exists():
        kept = manifest.read_manifest(epochs)
        old = former / (identify(kept["parameters"], kept["inputs"]) if kept else "unknown")
        if old.name == new.name:  # the same net, damaged
            shutil.rmtree(epochs)
        else:
            # What lies there is the same as the net in use, or that one would not have been trained again.
            shutil.rmtree(old, ignore_errors=True)
            former.mkdir(exist_ok=True)
            epochs.rename(old)
    new.rename(epochs)
    for gone in [former / new.name, *([old] if old and is_overwriting else [])]:
        shutil.rmtree(gone, ignore_errors=True)
    for folder in (former, run / "pending"):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()
    if old and old.exists():
        print(f"dr.train: the net before lies in {old}; its settings bring it back at once")


def find_pace(epochs: Path) -> float | None:
    """Return the seconds that an epoch of a run took, the median; None if nobody can tell."""
    written = [path.stat().st_mtime for path in sorted(epochs.glob("[0-9]*.json"))]
    return float(np.median(np.diff(written))) or None if len(written) > 1 else None


def read_figures(epochs: Path) -> list[dict[str, Any]]:
    """Return the figures of the finished epochs 1, 2, ... as far as they go without a gap."""
    figures: list[dict[str, Any]] = []
    while (path := epochs / f"{len(figures) + 1:04}.json").exists():
        try:
            figures.append(json.loads(path.read_text()))
        except ValueError:  # damaged: that epoch and those after it are done again
            break
    return figures


def keep_best(epochs: Path, headline: str, n_newest: int) -> list[dict[str, Any]]:
    """Remove the checkpoints but the newest and the best by log loss and by the `headline` figure, and write
    history.csv, a row per epoch; return the figures.
    """
    figures = read_figures(epochs)
    kept = schedule.find_kept(figures, headline, n_newest)
    for path, epoch in _list_epochs(epochs):
        if path.suffix == ".pt" and epoch not in kept:
            path.unlink()
    others = sorted(name for name in figures[0] if name.startswith("valid_") and name not in COLUMNS)
    columns = (*COLUMNS, *others)
    tables.write_rows(epochs / "history.csv", columns, ([row[column] for column in columns] for row in figures))
    return figures


def count_finished(epochs: Path) -> int:
    """Return the newest epoch whose checkpoint is whole like all that are kept of those before it, 0 if none is."""
    kept = manifest.read_manifest(epochs)
    finished, listed = 0, kept["outputs"] if kept else {}
    for figures in read_figures(epochs):
        path = epochs / f"{figures['epoch']:04}.pt"
        if path.exists() and files.hash_file(path) == figures["checkpoint"]:
            finished = figures["epoch"]
        elif path.exists() or path.name in listed:
            break
    return finished
