"""The score table: a CSV of `image` and a column per output of the task, p0 to p4 for five levels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr.tasks.task import SUM_TOLERANCE, find_fault, name_columns
from preprocess.dataset.dataset import Layout, Task
from preprocess.disk import tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NUMBER_FORMAT = "%.9g"  # nine significant digits tell any two float32 apart
# Of the option that takes scores whatever their rows sum to, and what to say where it is missing.
NORMALIZE: dict[str, Any] = {"action": "store_true", "help": "divide each row of --scores by its sum"}
NORMALIZE_HINT = "; --normalize divides each row by its sum"
THRESHOLDS = "thresholds.csv"  # finding, from which score on it is believed
LEAST_DECIMALS = 2  # of scores that count as rounded; sums of coarser ones may be off by whatever a slip makes


def read_scores(
    path: Path, task: Task, normalize: bool = False, spell: Callable[[str], str] = str, hint: str = ""
) -> pd.DataFrame:
    """Return a score table, float64, indexed by image in their order; `spell`, see `Layout`.

    Sums that are off because the table is rounded are made 1; with `normalize` all, however far they are off; `hint` is
    what to do about another one. Raises InputError, naming file and row, for scores that the task cannot have.
    """
    import pandas as pd

    columns = name_columns(task)
    table = tables.read_table(path, ["image", *columns], spell)
    if table.empty:
        raise InputError(f"{path}: holds no image")
    scores = tables.read_numbers(path, table, columns)
    sums = scores.sum(axis=1, keepdims=True)
    if task.kind == "findings":
        normalize = False  # nothing is said of their sum
    if normalize or find_fault(scores, kind=task.kind):
        tolerance = np.inf if normalize and (sums > 0).all() else find_rounding(table[columns].to_numpy())
        if fault := find_fault(scores, tolerance, task.kind):
            advice = hint if fault[1].endswith("not 1") else ""
            raise InputError(f"{path}, row {fault[0] + 2}: image {table['image'][fault[0]]}: {fault[1]}{advice}")
        scores = scores / sums
    frame = pd.DataFrame(scores, index=pd.Index(table["image"], name="image"), columns=columns)
    return frame.loc[tables.sort_images(frame.index)]


def find_rounding(texts: np.ndarray) -> float:
    """Return how far off 1 sums of (n, k) rounded scores may be: half of the last digit for each of a row's numbers.

    The digits are those of the number that has most: 0.5 may be short for 0.500.
    """
    parts = [re.fullmatch(r"[^.e]*\.?(\d*)(?:e([+-]?\d+))?\s*", text, re.IGNORECASE) for text in texts.ravel()]
    decimals = max(len(part[1]) - int(part[2] or 0) if part else 0 for part in parts)
    return max(SUM_TOLERANCE, 0.5 * texts.shape[1] * 10.0**-decimals if decimals >= LEAST_DECIMALS else 0)


def write_scores(path: Path, images: Sequence[str], scores: np.ndarray, task: Task) -> None:
    """Write a score table, sorted; row i is of images[i]. Raises InputError for what `read_scores` would refuse."""
    import pandas as pd

    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(images), len(task.names)):
        raise InputError(f"{path}: {len(images)} images cannot have scores of shape {scores.shape}")
    if len(set(images)) < len(images):
        raise InputError(f"{path}: an image comes a second time")
    if fault := find_fault(scores, kind=task.kind):
        raise InputError(f"{path}: image {images[fault[0]]}: {fault[1]}")
    frame = pd.DataFrame(scores, pd.Index(images, name="image"), name_columns(task)).loc[tables.sort_images(images)]
    tables.write_csv(path, frame.to_csv(float_format=NUMBER_FORMAT, lineterminator="\n"))


def read_thresholds(path: Path, task: Task) -> np.ndarray | None:
    """Return from which score on each finding is believed, (k,), NaN if that is not known; None without the table."""
    if not path.exists():
        return None
    rows = tables.read_csv(path)
    if rows[0] != ["finding", "threshold"] or [row[0] for row in rows[1:]] != list(task.names):
        raise InputError(f"{path}: not the thresholds of {', '.join(task.names)}; run python -m dr.predict again")
    return np.array([float(row[1] or "nan") for row in rows[1:]])


def read_targets_of(
    images: pd.Index, scores_from: Path, labels_from: Path, layout: Layout, known_only: bool = False
) -> Any:
    """Return the target of each image of a table, indexed by image, from labels that may be of more, see `Layout`; of
    those that have one, if only the known ones are wanted. Raises InputError, naming some, for images without.
    """
    labels = layout.read_labels(labels_from, known_only)
    known = images[images.isin(labels.index)]
    if not (known_only and len(known)):
        tables.check_same_images(images, known, scores_from, labels_from)
    return labels.loc[known]
