"""Which reader a data folder wants."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess.samples import folders
from preprocess.samples.layout import Layout
from preprocess.samples.retina import LABELS, RETINA, list_images


def find_layout(data: Path) -> Layout:
    """Return how a data folder is laid out: by classes if train/ has folders of them and no retinas, else Kaggle's.

    Raises InputError for folders of classes that cannot be learned.
    """
    if not folders.is_folder_of_classes(data) or (data / LABELS["train"]).exists() or list_images(data, "train").paths:
        return RETINA
    return folders.make_layout(data)


def find_groups(layout: Layout, images: Iterable[str]) -> np.ndarray:
    """Return the group of each image, an array of str."""
    return np.array([layout.find_owner(image).group for image in images], dtype=object)
