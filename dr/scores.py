"""The score table: a CSV of `image` and a column per output of the task, p0 to p4 for five levels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr.metrics.operating import OperatingPoint
from dr.tasks.task import SUM_TOLERANCE, Task
from preprocess.dataset.dataset import DataSet
from preprocess.disk import tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NUMBER_FORMAT = "%.9g"  # nine significant digits tell any two float32 apart
# The option that takes scores whatever their rows sum to, and what to say where it is missing.
NORMALIZE: dict[str, Any] = {
    "action": "store_true",
    "help": "divide each row of --scores by its sum",
}
NORMALIZE_HINT = "; --normalize divides each row by its sum"
THRESHOLDS = "thresholds.csv"  # the score from which each finding counts as present
THRESHOLD_COLUMNS = [
    "finding",
    "threshold",
    "positives",
]  # the last: among the images that it was chosen on
LEAST_DECIMALS = (
    2  # of scores that count as rounded; sums of coarser ones may be off by whatever a slip makes
)


def read_scores(
    path: Path,
    task: Task,
    normalize: bool = False,
    normalize_id: Callable[[str], str] = str,
    hint: str = "",
) -> pd.DataFrame:
    """Return a score table, float64, indexed by image in their order.

    Sums that are off because the table is rounded are made 1; with `normalize` all, however far they are off. `hint`
    is what to do about any other sum. Raises InputError, naming file and row, for scores that the task cannot have.
    """
    import pandas as pd

    table = tables.read_table(path, ["image", *task.columns], normalize_id)
    if table.empty:
        raise InputError(f"{path}: holds no image")
    scores = tables.read_numbers(path, table, task.columns)
    fault = task.find_fault(scores)
    if task.is_exclusive and (normalize or fault):
        sums = scores.sum(axis=1, keepdims=True)
        tolerance = find_rounding(table[task.columns].to_numpy())
        if normalize and (sums > 0).all():
            tolerance = np.inf
        fault = task.find_fault(scores, tolerance)
        if fault is None:
            scores = scores / sums
    if fault:
        advice = hint if fault.reason.endswith("not 1") else ""
        image = table["image"][fault.row]
        raise InputError(f"{path}, row {fault.row + 2}: image {image}: {fault.reason}{advice}")
    frame = pd.DataFrame(scores, index=pd.Index(table["image"], name="image"), columns=task.columns)
    return frame.loc[tables.sort_images(frame.index)]


def find_rounding(texts: np.ndarray) -> float:
    """Return how far off 1 sums of (n, k) rounded scores may be: half of the last digit for each of a row's numbers.

    The digits are those of the number that has most: 0.5 may be short for 0.500.
    """
    most_decimals = 0
    for text in texts.ravel():
        parts = re.fullmatch(r"[^.e]*\.?(\d*)(?:e([+-]?\d+))?\s*", text, re.IGNORECASE)
        if parts:
            most_decimals = max(most_decimals, len(parts[1]) - int(parts[2] or 0))
    if most_decimals < LEAST_DECIMALS:
        return SUM_TOLERANCE
    return max(SUM_TOLERANCE, 0.5 * texts.shape[1] * 10.0**-most_decimals)


def write_scores(path: Path, images: Sequence[str], scores: np.ndarray, task: Task) -> None:
    """Write a score table, sorted; row i is of images[i]. Raises InputError for what `read_scores` would refuse."""
    import pandas as pd

    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(images), len(task.names)):
        raise InputError(f"{path}: {len(images)} images cannot have scores of shape {scores.shape}")
    if len(set(images)) < len(images):
        raise InputError(f"{path}: an image is listed twice")
    fault = task.find_fault(scores)
    if fault:
        raise InputError(f"{path}: image {images[fault.row]}: {fault.reason}")
    frame = pd.DataFrame(scores, pd.Index(images, name="image"), task.columns)
    frame = frame.loc[tables.sort_images(images)]
    tables.write_csv(path, frame.to_csv(float_format=NUMBER_FORMAT, lineterminator="\n"))


def write_thresholds(path: Path, points: Sequence[OperatingPoint]) -> None:
    """Write the threshold of each finding, by name; empty if it could not be chosen."""
    rows = []
    for point in points:
        text = "" if np.isnan(point.threshold) else NUMBER_FORMAT % point.threshold
        rows.append([point.name, text, point.positives])
    tables.write_rows(path, THRESHOLD_COLUMNS, rows)


def read_thresholds(path: Path, task: Task) -> list[OperatingPoint] | None:
    """Return the point from which each finding counts as present, under the finding's name; None without the table."""
    if not path.exists():
        return None
    header, *rows = tables.read_csv(path)
    if header != THRESHOLD_COLUMNS or [row[0] for row in rows] != list(task.names):
        raise InputError(
            f"{path}: not the thresholds of {', '.join(task.names)}; run python -m dr.predict again"
        )
    points = []
    for name, threshold, positives in rows:
        points.append(OperatingPoint(name, float(threshold or "nan"), int(positives)))
    return points


def read_targets_of(
    images: pd.Index,
    scores_from: Path,
    labels_from: Path,
    dataset: DataSet,
    known_only: bool = False,
) -> Any:
    """Return the targets that a table of labels has for the images of scores, see `match_targets`."""
    return match_targets(
        images, scores_from, dataset.read_labels(labels_from, known_only), labels_from, known_only
    )


def match_targets(
    images: pd.Index, scores_from: Path, targets: Any, targets_from: Path, known_only: bool = False
) -> Any:
    """Return the target of each image of a table, by image, from targets that may be of more images.

    If only the known ones are wanted, images without a target are left out, unless all would be. Raises InputError,
    naming some, for images without a target.
    """
    known = images[images.isin(targets.index)]
    if not (known_only and len(known)):
        tables.check_same_images(images, known, scores_from, targets_from)
    return targets.loc[known]
