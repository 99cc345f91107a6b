"""Score a data set's photographs by a finished run: squares as the stages make them, scores as submissions.grade does.

Everything is kept in CACHE/evaluations/NAME, by image: after a kill the same command goes on, and ends in the same
bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend.mlp import apply_blend
from blend.pairs import pair_eyes
from dr.squares import source
from dr.squares.source import CachedSquares
from dr.tasks.kinds import check_question
from dr.tasks.task import Task
from dr.training import runs
from preprocess import normalize, photographs
from preprocess.cache import rejected
from preprocess.cache.journal import Journal
from preprocess.command import progress
from preprocess.command.parallel import Workers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError
from preprocess.picture import outline, square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making, Square
from submissions import ensemble as ensembles
from submissions.ensemble import Ensemble, Eye

VERSION = 1  # raise it when the same squares and nets give other scores
PART = "test"  # of the data set that holds the chosen images alone


class Road(NamedTuple):
    """The squares of a making: their folder, which is a cache of its own, and what lies in it."""

    folder: Path
    squares: CachedSquares
    rows: dict[str, int]  # image -> position in `squares`
    discs: dict[str, Disc]
    keys: dict[str, list]  # image -> what tells its square's bytes


class Scored(NamedTuple):
    """The images of a data set that could be scored, n of them, and those that could not, with the reason."""

    images: list[str]
    scores: np.ndarray  # (n, k), blended where the run has a blend
    distances: np.ndarray  # (n,) from what the nets learned from, 1 is the limit; NaN where unknown
    refused: dict[str, str]


def choose_images(dataset: DataSet, part: str, task: Task) -> DataSet:
    """Return a data set of the labelled photographs of a part alone: "test", "train" or "all", all as its test set.

    Raises InputError for a question that the task does not answer, and if there is no such photograph.
    """
    check_question(task, dataset.question, dataset.folder)
    samples = dataset.samples
    for name in task.question.columns:
        if name not in samples:
            samples = samples.assign(**{name: np.nan})  # a finding that nobody here has looked for
    is_labelled = samples[task.question.columns].notna().any(axis=1)
    is_chosen = is_labelled & samples["path"].notna()
    if part != "all":
        is_chosen &= (samples["split"] == "test") == (part == "test")
    chosen = samples[is_chosen]
    if chosen.empty:
        raise InputError(
            f"{dataset.folder}: no photograph of part {part} whose {task.target} is known"
        )
    repeated = chosen["image"][chosen["image"].duplicated()]
    if len(repeated):
        raise InputError(
            f"{dataset.folder}: image {repeated.iloc[0]} is both in training and test; give --part"
        )
    chosen = chosen.assign(split=PART).reset_index(drop=True)
    return dataclasses.replace(dataset, question=task.question, samples=chosen, unread={})


def has_labelled_test(dataset: DataSet) -> bool:
    """Return whether a data set has test photographs whose truth is known."""
    tested = dataset.get_part("test")
    is_labelled = tested[dataset.question.columns].notna().any(axis=1)
    return bool((is_labelled & tested["path"].notna()).any())


def make_squares(dataset: DataSet, folder: Path, making: Making, workers: Workers) -> Road:
    """Bring the squares of a data set's photographs up to date, by the stages, and return them."""
    place = folder / "squares" / f"{making.crop}-{making.size_px}-{making.normalize}"
    photographs.update(dataset, place, workers, method=making.crop, size_px=making.size_px)
    normalize.normalize(place, making.normalize)
    squares = source.read_squares(place, PART, dataset)
    crops = photographs.read_crops(place, PART)
    cut = photographs.read_squares(place, PART)
    return Road(
        folder=place,
        squares=squares,
        rows={image: row for row, image in enumerate(squares.images)},
        discs={image: outline.read_disc(crops[image]) for image in squares.images},
        keys={image: photographs.identify_square(cut[image]) for image in squares.images},
    )


def read_square(road: Road, image: str) -> Square:
    """Return a square as `preprocess.picture.square.make_square` makes it of the photograph."""
    making = road.squares.making
    pixels = square.read_pixels(road.squares.paths[image], making.size_px)
    pixels, lut = square.finish(pixels, road.squares.luts[road.rows[image]], making.normalize)
    return Square(pixels=pixels, lut=lut, disc=road.discs[image])


def score(
    ensemble: Ensemble, dataset: DataSet, roads: Mapping[Making, Road], folder: Path
) -> Scored:
    """Return the scores of all images that have squares; those that are known from before are read.

    Images are scored in parts that divide no patient; a part with an image that is due is scored whole, so that its
    scores do not depend on how often the work was interrupted.
    """
    refused: dict[str, str] = {}
    for road in roads.values():
        refused |= rejected.read_reasons(road.folder, PART)
    listed = [
        image
        for image in dataset.list_paths(PART)
        if all(image in road.rows for road in roads.values())
    ]
    subjects = dict(zip(listed, dataset.get_subjects(listed), strict=True))
    order = sorted(
        listed, key=lambda image: (tables.order_of(subjects[image].patient), tables.order_of(image))
    )
    members = [[member.digest, member.share, member.n_views] for member in ensemble.members]
    journal = Journal(folder, "scores", {"version": VERSION, "members": members})
    parts = list(ensembles.split_patients({Path(image): subjects[image] for image in order}))
    due = []
    for part in parts:
        images = [str(path) for path in part]
        key = _key_part(images, ensemble, dataset, roads)
        if len(journal.find_made({image: key for image in images})) < len(images):
            due.append((images, key))
    n_due = sum(len(images) for images, _ in due)
    print(
        f"scores: {n_due} of {len(order)} images are due"
        if n_due
        else f"scores: all {len(order)} images are cached"
    )
    n_views = sum(member.n_views for member in ensemble.members)
    with progress.tracking(n_due * n_views, "scoring") as bar:
        for images, key in due:
            eyes = []
            squares = []
            for image in images:
                squares_of_image = {
                    making: read_square(road, image) for making, road in roads.items()
                }
                distance = ensembles.measure_distance(ensemble.members, squares_of_image)
                eyes.append(Eye(Path(image), subjects[image], None, distance))
                squares.append(squares_of_image)
            scores = ensembles.score_eyes(ensemble, eyes, squares, bar)
            for eye, row in zip(eyes, scores, strict=True):
                journal.append(
                    str(eye.path), key, {"scores": row.tolist(), "distance": eye.distance}
                )
    journal.finish(order)
    rows = journal.rows
    net_scores = np.array([rows[image]["scores"] for image in listed])
    if ensemble.blend is not None:
        net_scores = apply_blend(
            ensemble.blend, pair_eyes([subjects[image] for image in listed], net_scores)
        )
    distances = np.array(
        [rows[image]["distance"] for image in listed], np.float64
    )  # None becomes NaN
    return Scored(listed, net_scores, distances, refused)


def _key_part(
    images: Sequence[str], ensemble: Ensemble, dataset: DataSet, roads: Mapping[Making, Road]
) -> list:
    """Return what the scores of a part of images depend on, beside the nets."""
    content = []
    for image, subject in zip(images, dataset.get_subjects(images), strict=True):
        squares = [road.keys[image] for road in roads.values()]
        content.append([image, *subject, squares])
    return [files.hash_text(json.dumps(content))]


def list_makings(ensemble: Ensemble) -> list[Making]:
    """Return how the squares of an ensemble's members are made, each way once."""
    return list(dict.fromkeys(member.checkpoint.making for member in ensemble.members))


def list_caches(cache: Path, run: str | None) -> list[Path]:
    """Return the caches in which a run's members were trained."""
    return runs.list_caches(runs.folder_of(cache, run))
