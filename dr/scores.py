"""The score table: a CSV of `image` and a column per output of the task, p0 to p4 for five levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dr.task import find_fault, name_columns
from preprocess.cache import files, tables
from preprocess.cache.errors import InputError
from preprocess.samples.layout import Layout, Task

if TYPE_CHECKING:
    import pandas as pd

NUMBER_FORMAT = "%.9g"  # nine significant digits tell any two float32 apart


def read_scores(path: Path, task: Task) -> pd.DataFrame:
    """Return a score table, float64, indexed by image in their order.

    Raises InputError, naming file and row, for missing columns, a bad or repeated image id, and scores that the task
    cannot have, see `dr.task.find_fault`.
    """
    import pandas as pd

    columns = name_columns(task)
    table = tables.read_table(path, ["image", *columns])
    if table.empty:
        raise InputError(f"{path}: holds no image")
    scores = tables.read_numbers(path, table, columns)
    if fault := find_fault(scores):
        raise InputError(f"{path}, row {fault[0] + 2}: image {table['image'][fault[0]]}: {fault[1]}")
    frame = pd.DataFrame(scores, index=pd.Index(table["image"], name="image"), columns=columns)
    return frame.loc[tables.sort_images(frame.index)]


def write_scores(path: Path, images: Sequence[str], scores: np.ndarray, task: Task) -> None:
    """Write a score table, sorted as `read_scores` returns it, whole or not at all; row i belongs to images[i].

    Raises InputError, naming the image, for what `read_scores` would refuse.
    """
    import pandas as pd

    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(images), len(task.names)):
        raise InputError(f"{path}: {len(images)} images cannot have scores of shape {scores.shape}")
    if len(set(images)) < len(images):
        raise InputError(f"{path}: an image comes a second time")
    if fault := find_fault(scores):
        raise InputError(f"{path}: image {images[fault[0]]}: {fault[1]}")
    frame = pd.DataFrame(scores, pd.Index(images, name="image"), name_columns(task)).loc[tables.sort_images(images)]
    files.write_bytes(path, frame.to_csv(float_format=NUMBER_FORMAT, lineterminator="\n").encode())


def read_targets_of(images: pd.Index, scores_from: Path, labels_from: Path, layout: Layout) -> np.ndarray:
    """Return the target of each image of a score table, (n,) int64, from a label table that may hold more images.

    Raises InputError, naming some, if images have no label.
    """
    labels = layout.read_labels(labels_from)
    tables.check_same_images(images, images.intersection(labels.index), scores_from, labels_from)
    return labels[images].to_numpy()
