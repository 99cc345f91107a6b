"""Kaggle's retina folder: {train,test}/PATIENT_{left,right}.jpeg, trainLabels.csv, sampleSubmission.csv."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.dataset import labels, listing
from preprocess.dataset.dataset import DataSet, Subject, make_table
from preprocess.dataset.listing import Listing
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

# A second picture of an eye carries a repeat: 10_left_b.
IMAGE_ID = re.compile(r"(?P<patient>[^/]+?)_(?P<side>left|right)(?:_\w+)?")
SIDE = re.compile(r"(?<=_)(left|right)(?=_|$)", re.IGNORECASE)
LABELS = {"train": "trainLabels.csv", "test": "testLabels.csv"}
SAMPLE = "sampleSubmission.csv"
MISNAMED = "the file's name is not PATIENT_left or PATIENT_right"


def read_dataset(folder: Path) -> DataSet:
    """Return the data set of a folder; that of an empty or missing one has no samples."""
    import pandas as pd

    rows = []
    unread = {}
    notes = []
    for part in LABELS:
        listed = list_folder(folder / part)
        notes += listing.describe_others(folder / part, listed.others)
        if not listed.paths and list_folder(folder / part / part).paths:
            raise InputError(
                f"{folder / part / part}: lies in a folder of its own name; move what is in it up to {folder / part}"
            )
        unread[part] = listed.misnamed
        rows += _list_rows(folder, part, listed.paths)
    return DataSet(
        folder=folder,
        question=RETINOPATHY,
        samples=make_table(pd.DataFrame(rows), RETINOPATHY),
        normalize_id=normalize_id,
        find_subject=find_subject,
        target_sources={part: folder / name for part, name in LABELS.items()},
        sample_submission=folder / SAMPLE,
        unread=unread,
        notes=notes,
    )


def normalize_id(image: str) -> str:
    """Return an image id as all tables are joined by it: 10_right for 10_RIGHT."""
    return SIDE.sub(lambda side: side[0].lower(), image)


def find_subject(image: str) -> Subject:
    """Return whose eye an image id such as `10_left` or `10_LEFT_repeat` names. Raises InputError for any other."""
    match = IMAGE_ID.fullmatch(normalize_id(image))
    if not match or not tables.is_id(image):
        raise InputError(
            f"image id {shorten(image)!r} is not of the form PATIENT_left or PATIENT_right"
        )
    return Subject(match["patient"], match["side"])


def read_labels(path: Path, known_only: bool = False, hint: str = "") -> pd.Series:
    """Return the level of each image in a table of image and level, see `labels.read_labels`."""
    return labels.read_labels(path, RETINOPATHY, normalize_id, known_only, hint)


def has_photographs(folder: Path) -> bool:
    """Return whether a folder's train/ or test/ holds photographs of left and right eyes."""
    for part in LABELS:
        for path in listing.iterate_files(folder / part):
            image = normalize_id(listing.compose(listing.split_suffix(path.name)[0]))
            if IMAGE_ID.fullmatch(image) and tables.is_id(image):
                return True
    return False


def list_folder(folder: Path) -> Listing:
    """Return the photographs in a folder. Raises InputError if two files are the same image."""
    return listing.list_folders([folder], normalize_id, find_subject, MISNAMED)


def _list_rows(folder: Path, part: str, paths: dict[str, Path]) -> list[dict[str, Any]]:
    """Return the rows of a part: its photographs, and the images that its tables name.

    Photographs that are missing beside others get the path that they would have: training images that have a label,
    and test images that the sample submission lists.
    """
    labelled = _read_labels(folder / LABELS[part])
    expected = set(labelled) if part == "train" else _list_submitted(folder / SAMPLE)
    rows = []
    for image in dict.fromkeys([*paths, *expected, *labelled]):
        subject = _find_listed_subject(image, [folder / LABELS[part], folder / SAMPLE])
        path = paths.get(image)
        if path is None and paths and image in expected:
            path = folder / part / f"{image}{listing.SUFFIXES[0]}"
        row = {"image": image, "split": part, "patient": subject.patient, "side": subject.side}
        if path is not None:
            row["path"] = str(path)
        rows.append(row | labelled.get(image, {}))
    return rows


def _read_labels(path: Path) -> dict[Any, dict[Any, Any]]:
    """Return the level and all other columns of each image of a table of labels; nothing if there is no table."""
    if not path.exists():
        return {}
    others = [name for name in tables.list_columns(path) if name not in ("image", "level")]
    table = tables.read_table(path, ["image", "level", *others], normalize_id)
    table["level"] = labels.parse_levels(path, table, RETINOPATHY.names)
    return table.set_index("image").to_dict("index")


def _list_submitted(path: Path) -> set[str]:
    """Return the images of a sample submission; none if there is no such table."""
    if not path.exists():
        return set()
    images = tables.read_table(path, ["image"], normalize_id)["image"]
    return set(images)


def _find_listed_subject(image: str, sources: Iterable[Path]) -> Subject:
    """Return whose eye an image of some tables shows. Raises InputError, naming the row, if it is none."""
    try:
        return find_subject(image)
    except InputError as error:
        for path in sources:
            if not path.exists():
                continue
            images = tables.read_table(path, ["image"], normalize_id)["image"]
            for row, listed in enumerate(images, 2):  # the header is row 1
                if listed == image:
                    raise InputError(f"{path}, row {row}: {error}") from None
        raise
