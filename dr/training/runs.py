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

from dr.squares.source import TrainingSet
from dr.training import checkpoint, schedule
from dr.training.checkpoint import Checkpoint
from dr.training.settings import ORDINARY, complete
from preprocess.cache import manifest
from preprocess.command import recipe
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

# Of history.csv, before what else the task follows on the images held out.
COLUMNS = ("epoch", "learning_rate", "train_log_loss", "valid_log_loss")


class Trained(NamedTuple):
    """A finished run of `dr.train`, as its manifest describes it."""

    folder: Path  # of the checkpoints
    parameters: dict[str, Any]  # the settings asked for
    inputs: dict[str, str]  # name -> digest, of what it learned from
    checkpoints: dict[int, str]  # epoch -> digest, of those that are kept


class Start(NamedTuple):
    """Where training begins: after the epochs whose figures these are; their checkpoints lie in `folder`."""

    folder: Path
    history: list[dict[str, Any]]
    is_held_out_changed: bool = False  # since then: their validation figures are others now


class Member(NamedTuple):
    """One of the nets of an ensemble, whose scores are averaged."""

    checkpoint: Checkpoint
    share: float  # its part of the mean
    n_views: int
    digest: str  # of the checkpoint's file


def folder_of(cache: Path, name: str | None) -> Path:
    """Return the folder of a run: CACHE/dr, CACHE/dr/runs/NAME for a named one.

    A name with a slash is a path from CACHE to the folder of a run, of another cache perhaps.
    """
    if not name:
        return cache / "dr"
    if "/" in name:
        return cache / name
    return cache / "dr" / "runs" / name


def _find_cache(run: Path) -> Path:
    """Return the cache that a run's folder lies in."""
    return run.parents[2] if run.parent.name == "runs" else run.parent


def read_mean(run: Path) -> list[str]:
    """Return the names of the runs whose mean `dr.predict` left in a run's folder; none if they are its own scores."""
    predicted = manifest.read_manifest(run)
    if predicted is None:
        return []
    return [name or ORDINARY for name in predicted["parameters"].get("average", [])]


def read_trained(run: Path) -> Trained:
    """Return what `dr.train` left in a run's folder. Raises InputError if it is not finished."""
    folder = run / "epochs"
    trained = manifest.read_manifest(folder)
    if trained is None or not trained["outputs"]:
        names = read_mean(run)
        if names:
            raise InputError(
                f"{run}: holds the mean of {', '.join(names)}; name one of them by --run"
            )
        missing = "dr.train"
        if (
            run.name == "dr"
        ):  # of the net without a name; the others lie in its cache, beside what they were made from
            missing = manifest.find_missing_stage(run.parent, missing)
        raise InputError(f"{folder}: holds no finished training; run python -m {missing} first")
    checkpoints = {
        int(name.removesuffix(".pt")): digest for name, digest in trained["outputs"].items()
    }
    return Trained(
        folder=folder,
        parameters=complete(trained["parameters"]),
        inputs=trained["inputs"],
        checkpoints=checkpoints,
    )


def read_checkpoint(trained: Trained, epoch: int) -> Checkpoint:
    """Return an epoch's checkpoint. Raises InputError if it is not the one that `dr.train` wrote."""
    path = trained.folder / f"{epoch:04}.pt"
    if files.hash_file(path) != trained.checkpoints[epoch]:
        raise InputError(f"{path}: not what python -m dr.train wrote; run it again")
    return checkpoint.read(path)


def read_averaged(run: Path, share: float = 1.0) -> list[Member]:
    """Return the nets whose scores `dr.predict` averaged last in a run's folder; their shares sum to `share`."""
    predicted = manifest.read_manifest(run)
    if predicted is None:
        raise InputError(f"{run}: holds no predictions; run python -m dr.predict first")
    parameters = predicted["parameters"]
    members: list[Member] = []
    names = parameters.get("average")
    if names:
        for name in names:
            members += read_averaged(folder_of(_find_cache(run), name), share / len(names))
        return members
    trained = read_trained(run)
    epochs = parameters["epochs"]
    for epoch in epochs:
        if epoch not in trained.checkpoints:
            raise InputError(
                f"{run}: epoch {epoch} is gone since it was averaged; run python -m dr.predict again"
            )
    for epoch in epochs:
        member = Member(
            checkpoint=read_checkpoint(trained, epoch),
            share=share / len(epochs),
            n_views=parameters["views"],
            digest=trained.checkpoints[epoch],
        )
        members.append(member)
    return members


def list_caches(run: Path) -> list[Path]:
    """Return the caches in which the nets of a run's folder, or of the runs that it is the mean of, were trained."""
    predicted = manifest.read_manifest(run)
    names = predicted["parameters"].get("average", []) if predicted else []
    if not names:
        return [_find_cache(run)]
    caches: dict[Path, Path] = {}
    for name in names:
        for cache in list_caches(folder_of(_find_cache(run), name)):
            caches.setdefault(cache.resolve(), cache)
    return list(caches.values())


def read_members(run: Path, paths: Sequence[Path] | None, n_views: int | None) -> list[Member]:
    """Return the nets of the checkpoints at `paths`, which count alike, or those that `dr.predict` averaged last in a
    run's folder. Raises InputError if one is not there, or they have different tasks.
    """
    members = _read_files(paths) if paths else read_averaged(run)
    if len({member.checkpoint.task for member in members}) > 1:
        raise InputError("the nets answer different questions; their scores have no mean")
    if n_views is None:
        return members
    return [member._replace(n_views=n_views) for member in members]


def _read_files(paths: Sequence[Path]) -> list[Member]:
    """Return the nets of some checkpoints alone: they count alike, each with as many views as the article has."""
    article = recipe.read_chain(recipe.BASE)[0]
    n_views = article.sections["dr.predict"]["views"]
    members = []
    for path in paths:
        member = Member(
            checkpoint=checkpoint.read(path),
            share=1 / len(paths),
            n_views=n_views,
            digest=files.hash_file(path),
        )
        members.append(member)
    return members


def describe_member(member: Member) -> dict[str, Any]:
    """Return which net counts for how much, and what it was trained on and for."""
    net = member.checkpoint
    return {
        "checkpoint": member.digest,
        "net": net.settings.net,
        "epoch": net.epoch,
        "share": member.share,
        "views": member.n_views,
        "n_images": net.n_images,
        "task": net.task.describe(),
        "making": net.making.describe(),
    }


def identify(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the ID of a net: a digest of its settings and of what it is learned from."""
    return files.hash_text(json.dumps([settings, inputs], sort_keys=True))[:12]


def adopt_inputs(folders: Sequence[Path], training_set: TrainingSet, n_folds: int | str) -> None:
    """Give the manifests of nets that an earlier version trained on these squares their inputs by part.

    That version kept one digest of all squares. `n_folds` is that of the nets in question.
    """
    for folder in folders:
        kept = manifest.read_manifest(folder)
        if kept is None or kept["inputs"] != training_set.digests:
            continue
        parameters = complete(kept["parameters"])
        if parameters["folds"] == n_folds:
            parts = training_set.digest_parts(n_folds, parameters["fold"])
            files.write_json(folder / "manifest.json", kept | {"inputs": parts})


def is_finished(epochs: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Tell whether a folder holds all that training with these settings from these inputs would leave."""
    trained = manifest.read_manifest(epochs)
    if trained is None or not (epochs / "history.csv").exists():
        return False
    newest = max(trained["outputs"], default="")
    if newest != f"{len(read_figures(epochs)):04}.pt":
        return False
    return manifest.find_change(epochs, settings, inputs, complete) is None


def begin(
    pending: Path, start: Start, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> None:
    """Make the folder in which a net is trained hold the epochs that are done, by hard links, and no others.

    Epochs that are to be measured anew are none of them.
    """
    n_done = 0 if start.is_held_out_changed else len(start.history)
    if start.folder == pending:
        for path, epoch in _list_epochs(pending):
            if epoch > n_done:
                path.unlink()
    else:
        shutil.rmtree(pending, ignore_errors=True)  # of an earlier start that came less far
        pending.mkdir(parents=True)
        for path, epoch in _list_epochs(start.folder):
            if epoch <= n_done:
                _link(path, pending / path.name)
    manifest.write_manifest(pending, "dr.train", settings, inputs, outputs={})


def _link(path: Path, link: Path) -> None:
    """Make a hard link to a file, or a copy where the file system has no links."""
    try:
        os.link(path, link)
    except OSError:
        shutil.copy2(path, link)


def _list_epochs(folder: Path) -> list[tuple[Path, int]]:
    """Return the checkpoints and figures that lie in a folder, and of which epoch they are."""
    return [
        (path, int(path.stem)) for path in sorted(folder.glob("[0-9]*.*")) if path.stem.isdigit()
    ]


def put_in_use(run: Path, new: Path, is_overwriting: bool) -> None:
    """Make the finished net of a folder the run's, and say where the one before lies now.

    By renames: after a kill between them both lie where `dr.train` looks for them.
    """
    epochs = run / "epochs"
    former = run / "former"
    old: Path | None = None
    if epochs.exists():
        trained = manifest.read_manifest(epochs)
        old = former / (
            identify(trained["parameters"], trained["inputs"]) if trained else "unknown"
        )
        if old.name == new.name:  # the same net, damaged
            shutil.rmtree(epochs)
        else:
            # What lies there is the same as the net in use, or that one would not have been trained again.
            shutil.rmtree(old, ignore_errors=True)
            former.mkdir(exist_ok=True)
            epochs.rename(old)
    new.rename(epochs)
    shutil.rmtree(former / new.name, ignore_errors=True)
    if old and is_overwriting:
        shutil.rmtree(old, ignore_errors=True)
    for folder in (former, run / "pending"):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()
    if old and old.exists():
        print(f"dr.train: the net before lies in {old}; its settings bring it back at once")


def find_pace(epochs: Path) -> float | None:
    """Return the seconds that an epoch of a run took, the median; None if nobody can tell."""
    written_s = [path.stat().st_mtime for path in sorted(epochs.glob("[0-9]*.json"))]
    if len(written_s) < 2:
        return None
    pace_s = float(np.median(np.diff(written_s)))
    return pace_s or None  # 0 after a copy that gave all files one time


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
    others = sorted(
        name for name in figures[0] if name.startswith("valid_") and name not in COLUMNS
    )
    columns = [*COLUMNS, *others]
    rows = ([row[column] for column in columns] for row in figures)
    tables.write_rows(epochs / "history.csv", columns, rows)
    return figures


def count_finished(epochs: Path) -> int:
    """Return the last epoch before the first damaged or missing checkpoint; 0 if there is none.

    A checkpoint that was not to be kept is not missing; its epoch counts if a later one's checkpoint is whole.
    """
    trained = manifest.read_manifest(epochs)
    listed = trained["outputs"] if trained else {}
    n_finished = 0
    for figures in read_figures(epochs):
        path = epochs / f"{figures['epoch']:04}.pt"
        if not path.exists():
            if path.name in listed:
                break
        elif files.hash_file(path) == figures["checkpoint"]:
            n_finished = figures["epoch"]
        else:
            break
    return n_finished
