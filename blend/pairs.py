"""Both eyes of a patient: each image's own scores and the fellow eye's, their weighted mean, and cross-fitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dr.metrics.calibration import measure_log_loss
from preprocess.dataset.dataset import DataSet, Subject
from preprocess.dataset.folds import assign_folds
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

N_FOLDS = 5  # of cross-fitting
SEED = 0
OTHER_SIDE = {"left": "right", "right": "left"}
PRIOR_IMAGES = 50  # a weight fitted to 120 images is off by 0.2 either way: so many images speak for 0, own scores only


class Pairs(NamedTuple):
    """Scores of each image's own eye and of the patient's other eye, both (n, k); row i belongs to image i."""

    own: np.ndarray
    fellow: np.ndarray

    def select(self, rows: np.ndarray) -> Pairs:
        return Pairs(self.own[rows], self.fellow[rows])

    @property
    def is_pair(self) -> np.ndarray:
        """Which rows, (n,) bool, tell of a fellow: an eye without one is its own, and says nothing of its weight."""
        return (self.own != self.fellow).any(axis=1)


Fit = Callable[
    [Pairs, np.ndarray], Callable[[Pairs], np.ndarray]
]  # makes of pairs and levels a blend


def read_subjects(
    images: Sequence[str], dataset: DataSet, pairs_from: Path | None
) -> list[Subject]:
    """Return whose eyes images are, by the data set or by a table of image, group and side (left or right).

    Raises InputError, naming some or file and row, for images that neither knows.
    """
    if not pairs_from:
        try:
            return dataset.get_subjects(images)
        except InputError as error:
            raise InputError(f"{error}; --pairs-from TABLE pairs images of other names") from None
    table = tables.read_table(pairs_from, ["image", "group", "side"], dataset.normalize_id)
    sides = table["side"].str.lower()
    is_wrong = ~sides.isin(OTHER_SIDE) | (table["group"] == "")
    if is_wrong.any():
        row = int(is_wrong.argmax())
        side = shorten(table["side"][row])
        raise InputError(
            f"{pairs_from}, row {row + 2}: side {side!r} is not left or right, or the group is empty"
        )
    subjects = dict(zip(table["image"], map(Subject, table["group"], sides), strict=True))
    tables.check_same_images(
        images, [image for image in images if image in subjects], "the scores", pairs_from
    )
    return [subjects[image] for image in images]


def pair_eyes(subjects: Sequence[Subject], scores: np.ndarray) -> Pairs:
    """Pair each image with the patient's other eye, whatever the order of the rows: n subjects, (n, k) scores.

    If the other side has several pictures, the fellow is their mean; if it has none (one eye only, or the fellow was
    rejected), an image is its own fellow, even if there are further pictures of the same eye.
    """
    rows_of: dict[tuple[str, str | None], list[int]] = {}
    for row, subject in enumerate(subjects):
        rows_of.setdefault((subject.patient, subject.side), []).append(row)
    fellow = np.empty_like(scores)
    for row, subject in enumerate(subjects):
        fellow_rows = rows_of.get((subject.patient, OTHER_SIDE.get(subject.side)), [row])
        fellow[row] = scores[fellow_rows].mean(axis=0)
    return Pairs(scores, fellow)


def cross_fit(pairs: Pairs, patients: Sequence[str], levels: np.ndarray, fit: Fit) -> np.ndarray:
    """Return each image's scores, (n, k), by what was fitted without its patient; `levels` are the true ones."""
    n_folds = min(N_FOLDS, len(set(patients)))
    folds = assign_folds(patients, levels, n_folds, SEED)
    scores = np.empty_like(pairs.own)
    for fold in range(n_folds):
        is_held = folds == fold
        scores[is_held] = fit(pairs.select(~is_held), levels[~is_held])(pairs.select(is_held))
    return scores


def blend_linear(pairs: Pairs, fellow_weight: float) -> np.ndarray:
    """Return (1 − fellow_weight)·own + fellow_weight·fellow, (n, k)."""
    return (1 - fellow_weight) * pairs.own + fellow_weight * pairs.fellow


def fit_fellow_weight(pairs: Pairs, levels: np.ndarray) -> float:
    """Return the fellow's weight in 0–1: the one of lowest log loss (which is convex in it), shrunk for few images.

    Only eyes with a fellow count.
    """
    from scipy.optimize import minimize_scalar

    pairs, levels = pairs.select(pairs.is_pair), levels[pairs.is_pair]
    if not len(levels):
        return 0.0
    best = minimize_scalar(
        lambda weight: measure_log_loss(blend_linear(pairs, weight), levels), bounds=(0, 1)
    ).x
    return float(best * len(levels) / (len(levels) + PRIOR_IMAGES))
