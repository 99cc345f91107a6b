"""The score table: a CSV of `image,p0,p1,p2,p3,p4`, one predicted distribution over the levels per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess import eyes, stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = tuple(f"p{level}" for level in range(eyes.N_LEVELS))
SUM_TOLERANCE = 1e-5  # float32 softmax is off by 1e-7, tables rounded to six decimals by 3e-6
FLOOR = 1e-6  # of a score in the log loss: one certain error does not make the mean infinite
NUMBER_FORMAT = "%.9g"  # nine significant digits tell any two float32 apart


def read_scores(path: Path) -> pd.DataFrame:
    """Return a score table, columns p0..p4 float64, indexed by image: patients by number, then left before right.

    Raises InputError, naming file and row, for missing columns, a bad or repeated image id, and scores that are no
    probabilities: not finite, negative, or not summing to 1 within `SUM_TOLERANCE`.
    """
    import pandas as pd

    table = eyes.read_table(path, ["image", *COLUMNS])
    if table.empty:
        raise InputError(f"{path}: holds no image")
    scores = eyes.read_numbers(path, table, COLUMNS)
    fault = find_fault(scores)
    if fault:
        row, reason = fault
        raise InputError(f"{path}, row {row + 2}: image {table['image'].iloc[row]}: {reason}")
    frame = pd.DataFrame(scores, index=pd.Index(table["image"], name="image"), columns=list(COLUMNS))
    return frame.loc[sorted(frame.index, key=eyes.order_of)]


def write_scores(path: Path, images: Sequence[str], scores: np.ndarray) -> None:
    """Write a score table, sorted as `read_scores` returns it, whole or not at all.

    Parameters
    ----------
    images : n image ids, in any order
    scores : (n, 5), row i belongs to images[i]

    Raises InputError, naming the image, for what `read_scores` would refuse.
    """
    import pandas as pd

    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(images), eyes.N_LEVELS):
        raise InputError(f"{path}: {len(images)} images cannot have scores of shape {scores.shape}")
    if len(set(images)) < len(images):
        raise InputError(f"{path}: an image comes a second time")
    fault = find_fault(scores)
    if fault:
        row, reason = fault
        raise InputError(f"{path}: image {images[row]}: {reason}")
    order = sorted(range(len(images)), key=lambda row: eyes.order_of(images[row]))
    frame = pd.DataFrame(scores[order], columns=list(COLUMNS))
    frame.insert(0, "image", [images[row] for row in order])
    text = frame.to_csv(index=False, float_format=NUMBER_FORMAT, lineterminator="\n")
    stage.write_bytes(path, text.encode())


def find_fault(scores: np.ndarray) -> tuple[int, str] | None:
    """Return the first row of (n, 5) scores that is no distribution, and why; None if all are."""
    finite = np.isfinite(scores).all(axis=1)
    positive = (scores >= 0).all(axis=1)
    sums = scores.sum(axis=1)
    whole = np.abs(sums - 1) <= SUM_TOLERANCE
    bad = np.flatnonzero(~(finite & positive & whole))
    if not bad.size:
        return None
    row = int(bad[0])
    if not finite[row]:
        return row, "a score is not a finite number"
    if not positive[row]:
        return row, f"a score is negative ({scores[row].min():g})"
    return row, f"the scores sum to {sums[row]:.6g}, not 1"


def measure_log_loss(scores: np.ndarray, levels: np.ndarray) -> float:
    """Return the mean of −log(score of the true level), in nats; scores (n, 5), levels (n,)."""
    return float(-np.log(np.maximum(scores[np.arange(len(levels)), levels], FLOOR)).mean())


def read_labels_of(images: pd.Index, scores_from: Path, labels_from: Path) -> np.ndarray:
    """Return the level of each image of a score table, (n,) int64, from a label table that may hold more images.

    Raises InputError, naming some, if images have no label.
    """
    labels = eyes.read_labels(labels_from)
    eyes.check_same_images(images, images.intersection(labels.index), scores_from, labels_from)
    return labels[images].to_numpy()
