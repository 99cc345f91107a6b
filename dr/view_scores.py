"""The scores of the views that a run's nets see: CACHE/dr/views/{valid,test}_EPOCH.jsonl, a row per image.

A row is kept as soon as its batch is scored, and is right as long as its square, its lookup table and the size of its
batch are the same: one changed photograph is scored alone, and a killed command goes on where it stopped. Under
torchrun the processes share the batches that are due; the first one gathers their rows.
"""

from __future__ import annotations

import argparse
import base64
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr.machine import device, shares, workers
from dr.squares import batches, store
from dr.squares.batches import Batch
from dr.squares.source import CachedSquares
from dr.training import views
from dr.training.runs import Trained
from preprocess import photographs
from preprocess.cache.journal import Journal, Row

VERSION = 3  # raise it when the same checkpoint and square give other scores
PARTS = {"valid": "train", "test": "test"}  # the part of the cache whose squares a split has


class Plan(NamedTuple):
    """What is to be scored of the images of a split, and what the rows hang on."""

    journals: dict[int, dict[str, Any]]  # epoch -> parameters of its journal
    keys: dict[str, list]  # image -> what its row was made from
    due: dict[int, list[Batch]]  # epoch -> batches, of epochs that lack rows


def score_split(
    options: argparse.Namespace,
    trained: Trained,
    name: str,
    squares: CachedSquares,
    epochs: Sequence[int],
    precision: str,
) -> np.ndarray | None:
    """Return the scores of the squares of a split, (n_epochs, n_views, n, k), in the first process; else None.

    `precision` is that of the nets.
    """
    folder = trained.folder.parent / "views"
    plan = _make_plan(options, trained, name, squares, epochs, precision)
    if plan.due:
        _score_due(options, trained, name, squares, plan, folder)
    workers.meet()
    if workers.rank() > 0:
        return None
    scores = []
    for epoch in epochs:
        journal = shares.gather(folder, _name_journal(name, epoch), plan.journals[epoch])
        journal.finish(squares.images)
        scores.append(_decode_rows(journal.rows, squares.images, options.views))
    for path in folder.glob("*.npz"):
        path.unlink()  # of a version that kept all images of an epoch in one
    return np.stack(scores)


def read_views(path: Path, images: Sequence[str]) -> np.ndarray:
    """Return the scores of some images in a journal of this module, (n_views, n, k)."""
    parameters = Journal(path.parent, path.stem, {}).found
    journal = Journal(path.parent, path.stem, parameters)
    return _decode_rows(journal.rows, images, parameters["views"])


def _name_journal(name: str, epoch: int) -> str:
    return f"{name}_{epoch:04}"


def _make_plan(
    options: argparse.Namespace,
    trained: Trained,
    name: str,
    squares: CachedSquares,
    epochs: Sequence[int],
    precision: str,
) -> Plan:
    """Return which batches are due of which epochs."""
    folder = trained.folder.parent / "views"
    used_precision = views.find_precision(precision, device.choose_device(options.device))
    eyes = store.number_eyes(squares.subjects)
    ordered = batches.order_groups(np.arange(len(eyes)), eyes)
    whole = batches.split_by_group(ordered, eyes, options.batch_size)
    together = np.arange(len(eyes))
    if trained.parameters["pairs"]:
        together = eyes // 2
    keys = _make_keys(options.cache, name, squares, whole, eyes, trained.parameters["pairs"])
    journals: dict[int, dict[str, Any]] = {}
    due: dict[int, list[Batch]] = {}
    for epoch in epochs:
        journals[epoch] = {
            "version": VERSION,
            "views": options.views,
            "checkpoint": trained.checkpoints[epoch],
            "precision": used_precision,
            "making": squares.making.describe(),
        }
        journal = shares.open_journal(folder, _name_journal(name, epoch), journals[epoch])
        made = journal.find_made(keys)
        is_due = np.array([image not in made for image in squares.images])
        if is_due.any():
            due[epoch] = batches.plan_batches(whole, together, is_due)
    return Plan(journals, keys, due)


def _make_keys(
    cache: Path,
    name: str,
    squares: CachedSquares,
    whole: Sequence[np.ndarray],
    eyes: np.ndarray,
    is_paired: bool,
) -> dict[str, list]:
    """Return what the scores of each image are made from, beside the net.

    That is its square, its lookup table and the size of its batch; if a net sees pairs, its side and its group's, too.
    """
    rows = photographs.read_squares(cache, PARTS[name])
    images = squares.images
    contents = []
    for image, lut in zip(images, squares.luts, strict=True):
        contents.append([*photographs.identify_square(rows[image]), zlib.crc32(lut.tobytes())])
    keys = {}
    for batch in whole:
        groups = eyes[batch] // 2
        for position in batch:
            key = [contents[position], len(batch)]
            if is_paired:
                members = batch[groups == eyes[position] // 2]
                sides = [[int(eyes[member] % 2), contents[member]] for member in members]
                key += [int(eyes[position] % 2), sides]
            keys[images[position]] = key
    return keys


def _score_due(
    options: argparse.Namespace,
    trained: Trained,
    name: str,
    squares: CachedSquares,
    plan: Plan,
    folder: Path,
) -> None:
    """Score this process's share of the batches that are due; each image's row is kept at once."""
    own: dict[int, list[Batch]] = {}
    for epoch, planned in plan.due.items():
        n_images = sum(len(batch.positions) for batch in planned)
        print(
            f"dr.predict: {name}: epoch {epoch}, {options.views} views of {n_images} images",
            flush=True,
        )
        share = workers.take_part(planned)
        if share:
            own[epoch] = share
    if not own:
        return
    images = squares.images
    file = options.cache / "dr" / "pixels" / f"{squares.part}.npy"
    is_whole = set(images) == {
        images[row] for planned in own.values() for batch in planned for row in batch.positions
    }
    is_own_file = not is_whole and not store.holds(file, squares)
    if is_own_file:
        file = file.with_stem(f"{squares.part}_{workers.rank()}")
    written = {
        epoch: shares.open_share(folder, _name_journal(name, epoch), plan.journals[epoch])
        for epoch in own
    }
    for scored in views.score_epochs(options, trained, squares, own, file):
        for number, position in enumerate(scored.positions):
            image = images[position]
            row = {"scores": _encode(scored.scores[:, number])}
            written[scored.epoch].append(image, plan.keys[image], row)
    if is_own_file:  # nobody will ask for just these pixels again
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)


def _encode(scores: np.ndarray) -> str:
    """Return scores, (n_views, k), as a text that has all their bits."""
    return base64.b64encode(scores.astype("<f8").tobytes()).decode()


def _decode_rows(rows: Mapping[str, Row], images: Sequence[str], n_views: int) -> np.ndarray:
    """Return the scores of images, (n_views, n, k) float64."""
    decoded = []
    for image in images:
        content = base64.b64decode(rows[image]["scores"])
        decoded.append(np.frombuffer(content, "<f8").reshape(n_views, -1))
    return np.stack(decoded, axis=1)
