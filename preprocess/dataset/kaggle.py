"""Kaggle's retina folder: {train,test}/PATIENT_{left,right}.jpeg, trainLabels.csv, sampleSubmission.csv."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.dataset import listing
from preprocess.dataset.dataset import Layout, Listing, Owner, Task
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

# A second picture of an eye carries a repeat: 10_left_b.
IMAGE_ID = re.compile(r"(?P<patient>[^/]+?)_(?P<side>left|right)(?:_\w+)?")
SIDE = re.compile(r"(?<=_)(left|right)(?=_|$)", re.IGNORECASE)
LABELS = {"train": "trainLabels.csv", "test": "testLabels.csv"}
# The clinical scale: Wilkinson et al., Ophthalmology 110(9), 2003.
TASK = Task("levels", ("no retinopathy", "mild", "moderate", "severe", "proliferative"))


def spell(image: str) -> str:
    """Return an image id as all tables are joined by it: 10_right for 10_RIGHT."""
    return SIDE.sub(lambda side: side[0].lower(), image)


def find_owner(image: str) -> Owner:
    """Return whose eye an image id such as `10_left` or `10_LEFT_repeat` names. Raises InputError for any other."""
    match = IMAGE_ID.fullmatch(spell(image))
    if not match or not tables.is_id(image):
        raise InputError(f"image id {shorten(image)!r} is not of the form PATIENT_left or PATIENT_right")
    return Owner(match["patient"], match["side"])


def list_images(data: Path, split: str) -> Listing:
    """Return the split's photographs, see `Layout`. Raises InputError if two files are the same image."""
    listed = list_folder(data / split)
    found = dict(listed.paths)
    table = data / (LABELS["train"] if split == "train" else RETINA.sample)
    if found and table.exists():
        for image in tables.read_table(table, ["image"], spell)["image"]:
            find_owner(image)
            found.setdefault(image, data / split / f"{image}{listing.SUFFIXES[0]}")
    return Listing({image: found[image] for image in tables.sort_images(found)}, listed.misnamed)


def list_folder(folder: Path) -> Listing:
    """Return the photographs in a folder. Raises InputError if two files are the same image."""
    return listing.list_folders([folder], spell, find_owner, "the file's name is not PATIENT_left or PATIENT_right")


def read_labels(path: Path, known_only: bool = False) -> pd.Series:
    """Return the level 0-4 of each image, see `Layout`. Raises InputError, naming file and row, for anything else."""
    import pandas as pd

    table = tables.read_table(path, ["image", "level"], spell)
    empty = table["level"].str.strip() == ""
    if empty.any() and not known_only:
        hint = "(blend.train and kappa.score leave such images out with --known-only)"
        raise InputError(f"{path}, row {int(empty.argmax()) + 2}: level is '', not known {hint}")
    table = table[~empty]
    levels = tables.read_numbers(path, table, ["level"])[:, 0]
    known = range(len(TASK.names))
    bad = ~np.isin(levels, known)
    if bad.any():
        row = int(table.index[bad][0])
        named = f"{', '.join(map(str, known[:-1]))} or {known[-1]}"
        raise InputError(f"{path}, row {row + 2}: level is {shorten(table['level'][row])}, not {named}")
    labels = pd.Series(levels.astype(np.int64), index=pd.Index(table["image"], name="image"), name="level")
    return labels[tables.sort_images(labels.index)]


RETINA = Layout(TASK, list_images, spell, find_owner, read_labels, LABELS)
