"""Both eyes of a patient: turns a score table into each image's own scores and those of the fellow eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from preprocess import eyes


class Pairs(NamedTuple):
    """Scores of each image's own eye and of the patient's other eye, both (n, 5); row i belongs to image i."""

    own: np.ndarray
    fellow: np.ndarray

    def select(self, rows: np.ndarray) -> Pairs:
        """Return the pairs of some rows."""
        return Pairs(self.own[rows], self.fellow[rows])


def pair_eyes(images: Sequence[str], scores: np.ndarray) -> Pairs:
    """Pair each image with the patient's other eye, by patient id, whatever the order of the rows.

    Parameters
    ----------
    images : n image ids
    scores : (n, 5), row i belongs to images[i]

    If the other side has several pictures, the fellow is their mean; if it has none (one eye only, or the fellow was
    rejected), an image is its own fellow, even if there are further pictures of the same eye.
    """
    shown = [eyes.parse_image_id(image) for image in images]
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row, eye in enumerate(shown):
        rows_of.setdefault((eye.patient, eye.side), []).append(row)
    fellow = np.empty_like(scores)
    for row, eye in enumerate(shown):
        other = "left" if eye.side == "right" else "right"
        fellow[row] = scores[rows_of.get((eye.patient, other), [row])].mean(axis=0)
    return Pairs(scores, fellow)
