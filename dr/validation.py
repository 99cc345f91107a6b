"""The images that a run held out: CACHE/dr/targets_valid.csv beside their scores, so that the cache alone knows them.

Operating points are chosen on them, and an evaluation shows their figures beside those of other images.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dr.scores import match_targets, read_scores
from dr.tasks.task import Task
from dr.training import runs
from preprocess.dataset import labels
from preprocess.dataset.dataset import DataSet
from preprocess.disk import tables
from preprocess.disk.errors import InputError

TARGETS = "targets_valid.csv"  # image, patient, side, and what is true of it
SCORES = "scores_valid.csv"


class Validation(NamedTuple):
    """Images held out, n of them."""

    images: list[str]
    patients: list[str]
    scores: np.ndarray  # (n, k), of what the run ends in; blended ones are cross-fitted
    targets: np.ndarray  # (n,), of findings (n, k)


def write_targets(folder: Path, dataset: DataSet) -> bool:
    """Write what is true of the images of a run's FOLDER/scores_valid.csv; return whether there are any."""
    scores_from = folder / SCORES
    if not (scores_from.exists() and dataset.has_targets("train")):
        return False
    images = set(tables.read_table(scores_from, ["image"])["image"])
    rows = dataset.get_part("train")
    rows = rows[rows["image"].isin(images)]
    columns = dataset.question.columns
    table = rows[["image", "patient", "side", *columns]]
    tables.write_csv(
        folder / TARGETS, table.to_csv(index=False, lineterminator="\n", float_format="%g")
    )
    return True


def find_scores(cache: Path, run: str | None, task: Task, is_blended: bool = True) -> Path:
    """Return the scores of a run's validation images: the cross-fitted blend's, if it ends in one, else the nets'."""
    blended = cache / "blend" / SCORES
    if is_blended and run is None and task.has_eyes and blended.exists():
        return blended
    return runs.folder_of(cache, run) / SCORES


def read_validation(
    cache: Path, run: str | None, task: Task, is_blended: bool = True
) -> Validation:
    """Return the images that a run held out. Raises InputError, with what to do, if the cache does not know them."""
    scores_from = find_scores(cache, run, task, is_blended)
    targets_from = runs.folder_of(cache, run) / TARGETS
    for path in (scores_from, targets_from):
        if not path.exists():
            wanted = "operating points are chosen on the validation patients"
            raise InputError(
                f"{path}: no such file, and {wanted}; run python -m dr.predict, or give --operating-point"
            )
    scores = read_scores(scores_from, task)
    known = labels.read_labels(targets_from, task.question, str, known_only=not task.is_exclusive)
    targets = match_targets(
        scores.index, scores_from, known, targets_from, known_only=not task.is_exclusive
    )
    table = tables.read_table(targets_from, ["image", "patient"]).set_index("image")
    images = list(targets.index)
    return Validation(
        images=images,
        patients=table.loc[images, "patient"].tolist(),
        scores=scores.loc[images].to_numpy(),
        targets=targets.to_numpy(),
    )
