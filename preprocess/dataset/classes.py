"""A folder per class, as in OCT2017: {train,val,test}/CLASS/*.jpeg; val may be missing, test may have no classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.dataset import listing
from preprocess.dataset.dataset import Layout, Listing, Owner, Task
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

PARTS = {"train": ("train", "val"), "test": ("test",)}  # folders of a split: val is learned from in no fold but its own
# CLASS-PATIENT-N: the patient is the group without the class, since one may stand under several.
PATIENT = re.compile(r"(?:\D+-)?(?P<patient>\d+)-\d+")
GROUPS, LABELS = "groups.csv", "testLabels.csv"
MISNAMED = "the file's name is no image id"


def is_folder_of_classes(data: Path) -> bool:
    """Tell whether the training images lie in sub-folders of DATA/train."""
    return any(map(_holds_photograph, _list_classes(data / "train")))


def make_layout(data: Path) -> Layout:
    """Return the layout of a data folder. Raises InputError for classes that cannot be learned, naming the folder."""
    names = []
    for folder in _list_classes(data / "train"):
        names.append(folder.name)
        if not tables.is_id(folder.name) or folder.name == "image":
            raise InputError(f"{data / 'train'}: {shorten(folder.name)!r} cannot be a class's name; rename the folder")
        if not _holds_photograph(folder):
            raise InputError(f"{folder}: a class without images; add some, or remove the folder")
    if len(names) < 2:
        raise InputError(f"{data / 'train'}: {names[0]} is the only class; there is nothing to tell it from")
    for folder in _list_classes(data / "val") + _list_classes(data / "test"):
        if folder.name not in names:
            raise InputError(f"{folder}: a class that {data / 'train'} lacks ({', '.join(names)})")
    task, groups = Task("classes", tuple(names)), read_groups(data)
    labels = {"train": "train", "test": "test" if _list_classes(data / "test") else LABELS}
    held_out = frozenset(_list_parts(data, ("val",)).paths)
    owner_of, read = partial(find_owner, groups), partial(read_labels, task)
    return Layout(task, list_images, str, owner_of, read, labels, held_out, partial(tell, groups, held_out))


def read_groups(data: Path) -> dict[str, str]:
    """Return whom the images show by the table GROUPS, if there is one: image -> group.

    Raises InputError, naming the row, for an empty group, and for images that the data folder lacks.
    """
    if not (path := data / GROUPS).exists():
        return {}
    table = tables.read_table(path, ["image", "group"])
    groups = dict(zip(table["image"], table["group"].str.strip(), strict=True))
    there = {image for parts in PARTS.values() for image in _list_parts(data, parts).paths}
    lacking = [image for image in groups if image not in there]
    for row, (image, group) in enumerate(groups.items(), 2):
        if not group:
            raise InputError(f"{path}, row {row}: group is '': whom does the image show?")
        if image not in there:
            raise InputError(f"{path}, row {row}: {data} has no image {image} nor {len(lacking) - 1} more of these")
    return groups


def list_images(data: Path, split: str) -> Listing:
    """Return the split's images, see `Layout`. Raises InputError if two files are the same image."""
    return _list_parts(data, PARTS[split])


def find_owner(groups: Mapping[str, str], image: str) -> Owner:
    """Return whom an image shows: as `groups` says, or its name, else itself alone. Raises InputError for no id."""
    if not tables.is_id(image):
        raise InputError(f"image id {shorten(image)!r} is no file's name")
    match = PATIENT.fullmatch(image)
    return Owner(groups.get(image) or (match["patient"] if match else image))


def read_labels(task: Task, path: Path, known_only: bool = False) -> pd.Series:
    """Return the class of each image, its number in the task's order, see `Layout`.

    The path is DATA/train or DATA/test, whose sub-folders are the classes; or a table of image and class, for which
    InputError names file and row of anything else.
    """
    import pandas as pd

    if path.is_dir():
        paths = _list_parts(path.parent, PARTS[path.name]).paths
        found = pd.Series({image: of.parent.name for image, of in paths.items() if of.parent != path}, dtype=object)
    else:
        table = tables.read_table(path, ["image", "class"])
        bad = ~table["class"].isin([*task.names, *[""] * known_only])
        if bad.any():
            row, names = int(bad.argmax()), ", ".join(task.names)
            raise InputError(f"{path}, row {row + 2}: class is {shorten(table['class'][row])!r}, none of {names}")
        found = table[table["class"] != ""].set_index("image")["class"]
    numbers = found.map({name: number for number, name in enumerate(task.names)}).astype(np.int64)
    labels = pd.Series(numbers.to_numpy(), index=pd.Index(found.index, name="image"), name="class")
    return labels[tables.sort_images(labels.index)]


def tell(groups: Mapping[str, str], held_out: frozenset[str], listings: Mapping[str, Listing]) -> list[str]:
    """Return what whoever works with the folder should know, see `Layout`."""
    of = {image: find_owner(groups, image).group for split in listings.values() for image in split.paths}
    alone = sum(group == image for image, group in of.items())
    lines = []
    if alone:
        told = f"{alone} of {len(of)} images each count as a patient of their own"
        lines.append(f"{told}: no CLASS-PATIENT-N, no row of {GROUPS}")
    if held_out:
        besides = {of[image] for image in held_out} & {of[image] for image in {*listings["train"].paths} - held_out}
        lines.append(f"val/ is held out as fold 0: {len(held_out)} images")
        if besides:
            lines[-1] += f", and with them those of train/ of the same {len(besides)} patients"
    return lines


def _list_classes(folder: Path) -> list[Path]:
    """Return a folder's sub-folders, sorted; none of a folder that is not there."""
    return sorted(folder.glob("[!.]*/"))


def _holds_photograph(folder: Path) -> bool:
    return any(map(listing.is_photograph, os.listdir(folder)))


def _list_parts(data: Path, parts: tuple[str, ...]) -> Listing:
    """Return what lies in the classes' folders of some folders; of test images the class may be unknown."""
    tops = [data / part for part in parts]
    classes, check = [folder for top in tops for folder in _list_classes(top)], partial(find_owner, {})
    if parts == PARTS["test"]:
        return listing.list_folders([*tops, *classes], str, check, MISNAMED)
    listed, stray = (listing.list_folders(folders, str, check, MISNAMED) for folders in (classes, tops))
    outside = {listing.show_name(path.name): "lies in no class's folder" for path in stray.paths.values()}
    return Listing(listed.paths, listed.misnamed | stray.misnamed | outside)
