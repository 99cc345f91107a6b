"""Which reader a data folder wants."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess.dataset import classes, findings
from preprocess.dataset.dataset import Layout
from preprocess.dataset.kaggle import LABELS, RETINA, list_images


def find_layout(data: Path) -> Layout:
    """Return how a data folder is laid out: as Kaggle's if it has its labels or retinas or is nothing else."""
    if (data / LABELS["train"]).exists():
        return RETINA
    if findings.find_table(data):
        return findings.make_layout(data)
    if classes.is_folder_of_classes(data) and not list_images(data, "train").paths:
        return classes.make_layout(data)
    return RETINA


def find_groups(layout: Layout, images: Iterable[str]) -> np.ndarray:
    """Return the group of each image, an array of str."""
    return np.array([layout.find_owner(image).group for image in images], dtype=object)
