"""Which reader a data folder wants."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess.samples.layout import Layout
from preprocess.samples.retina import RETINA


def find_layout(data: Path) -> Layout:  # noqa: ARG001  one layout is known as yet
    """Return how a data folder is laid out."""
    return RETINA


def find_groups(layout: Layout, images: Iterable[str]) -> np.ndarray:
    """Return the group of each image, an array of str."""
    return np.array([layout.find_owner(image).group for image in images], dtype=object)
