"""A folder per class, as in OCT2017: {train,val,test}/CLASS/*.jpeg; val may be missing, test may have no classes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.dataset import labels, listing
from preprocess.dataset.dataset import ACQUISITION, DataSet, Subject, make_table
from preprocess.dataset.listing import Listing
from preprocess.dataset.question import Question
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

SPLITS = {"train": "train", "val": "valid", "test": "test"}  # folder -> split
# CLASS-PATIENT-N: the patient is the group without the class, since one may stand under several.
PATIENT = re.compile(r"(?:\D+-)?(?P<patient>\d+)-\d+")
# PATIENT_left and PATIENT_right: one patient, whatever classes the two eyes stand under.
EYE = re.compile(r"(?P<patient>[^/]+?)_(?P<side>left|right)(?:_\w+)?", re.IGNORECASE)
OTHER_WORDS = {
    "val": ("valid", "validation"),
    "train": ("training",),
    "test": ("testing",),
}  # folders of other names
GROUPS, LABELS = "groups.csv", "testLabels.csv"
SAMPLE = "sampleSubmission.csv"
MISNAMED = "the file's name is not an image id"
STRAY = "lies in no class's folder"


def is_folder_of_classes(folder: Path) -> bool:
    """Return whether the training images lie in sub-folders of FOLDER/train."""
    for path in list_classes(folder / "train"):
        if listing.list_files(path) or listing.list_files(path / path.name):
            return True
    return False


def read_dataset(folder: Path) -> DataSet:
    """Return the data set of a folder. Raises InputError for classes that cannot be learned, naming the folder."""
    import pandas as pd

    question = Question("classes", _read_names(folder))
    learned = _list_part(folder, "train", "val")
    tested = _list_part(folder, "test")
    groups = _read_groups(folder, {**learned.paths, **tested.paths})
    rows = []
    for paths in (
        learned.paths,
        tested.paths,
    ):  # an image that lies in both parts has a row in each
        for image, path in paths.items():
            rows.append(_make_row(folder, image, path, groups))
    labels_from = folder / "test" if list_classes(folder / "test") else folder / LABELS
    if labels_from.is_file():
        rows = _add_labels(rows, labels_from, question, groups)
    samples = make_table(pd.DataFrame(rows), question)
    return DataSet(
        folder=folder,
        question=question,
        samples=samples,
        normalize_id=str,
        find_subject=functools.partial(find_subject, groups),
        target_sources={"train": folder / "train", "test": labels_from},
        sample_submission=folder / SAMPLE,
        read_files=[folder / GROUPS, folder / LABELS],
        unread={"train": learned.misnamed, "test": tested.misnamed},
        notes=[*_describe(samples), *_describe_others(folder)],
    )


def find_subject(groups: Mapping[str, str], image: str) -> Subject:
    """Return the patient of an image: by the groups, or by its name, else the image itself.

    Raises InputError for what is not an image id.
    """
    if not tables.is_id(image):
        raise InputError(f"image id {shorten(image)!r} is not a file name")
    if image in groups:
        return Subject(groups[image])
    eye = EYE.fullmatch(image)
    if eye:
        return Subject(eye["patient"], eye["side"].lower())
    match = PATIENT.fullmatch(image)
    return Subject(match["patient"] if match else image)


def _read_names(folder: Path) -> tuple[str, ...]:
    """Return the classes, the names of the training folders. Raises InputError if they cannot be learned."""
    _check_folders(folder)
    names: list[str] = []
    for path in list_classes(folder / "train"):
        for name in names:
            if name.casefold() == path.name.casefold():
                raise InputError(
                    f"{folder / 'train'}: {name} and {path.name}: one class or two? Merge or rename them"
                )
        names.append(path.name)
        if not tables.is_id(path.name) or path.name == "image":
            raise InputError(
                f"{folder / 'train'}: {shorten(path.name)!r} cannot be a class's name; rename the folder"
            )
        if not listing.list_files(path):
            _check_depth(path)
            raise InputError(f"{path}: a class without images; add some, or remove the folder")
    if len(names) < 2:
        raise InputError(
            f"{folder / 'train'}: {names[0]} is the only class; at least two are needed"
        )
    for path in list_classes(folder / "val") + list_classes(folder / "test"):
        if path.name not in names:
            if path.name == path.parent.name:
                raise InputError(
                    f"{path}: lies in a folder of its own name; move what is in it up to {path.parent}"
                )
            raise InputError(f"{path}: a class that {folder / 'train'} lacks ({', '.join(names)})")
    return tuple(names)


def _check_folders(folder: Path) -> None:
    """Raise InputError for folders that are called otherwise than the parts that are read."""
    for name, others in OTHER_WORDS.items():
        for other in others:
            if (folder / other).is_dir() and not (folder / name).is_dir():
                raise InputError(
                    f"{folder / other}: is not read; rename it to {name}/, or declare it in a data.toml"
                )


def _check_depth(path: Path) -> None:
    """Raise InputError if a class's photographs lie deeper than in its folder."""
    for below in list_classes(path):
        if listing.list_files(below):
            raise InputError(
                f"{below}: its photographs lie too deep; move them up to {path}, or write a data.toml"
            )


def _describe_others(folder: Path) -> list[str]:
    """Return notes on the files in the folders that are no photographs."""
    notes = []
    for top in SPLITS:
        names = listing.list_others(folder / top)
        for path in list_classes(folder / top):
            names += listing.list_others(path)
        notes += listing.describe_others(folder / top, names)
    return notes


def _read_groups(folder: Path, paths: Mapping[str, Path]) -> dict[str, str]:
    """Return the patient of each image in the table GROUPS; nothing if there is no table.

    Raises InputError, naming the row, for an empty group, and for images that the data folder lacks.
    """
    path = folder / GROUPS
    if not path.exists():
        return {}
    table = tables.read_table(path, ["image", "group"])
    groups = dict(zip(table["image"], table["group"].str.strip(), strict=True))
    lacking = [image for image in groups if image not in paths]
    for row, (image, group) in enumerate(groups.items(), 2):
        if not group:
            raise InputError(f"{path}, row {row}: group is ''; every image needs a patient")
        if image not in paths:
            raise InputError(
                f"{path}, row {row}: {folder} has no image {image} nor {len(lacking) - 1} more of these"
            )
    return groups


def _make_row(folder: Path, image: str, path: Path, groups: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of a photograph, which lies in a class's folder or, for testing, beside those."""
    top, *below = path.relative_to(folder).parts
    row = {
        "image": image,
        "path": str(path),
        "split": SPLITS[top],
        "patient": find_subject(groups, image).patient,
        "side": find_subject({}, image).side,
    }
    shown = listing.read_shown(path)
    if shown:  # its tags tell more than its name, which is often a number
        if shown.patient and image not in groups:
            row["patient"] = shown.patient
        row["side"] = shown.side or row["side"]
        row[ACQUISITION] = shown.acquisition
    if len(below) > 1:
        row["class"] = below[0]
    return row


def _add_labels(
    rows: list[dict[str, Any]], path: Path, question: Question, groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows with the classes that a table tells of the test images, and a row for each other image of it."""
    table = tables.read_table(path, ["image", "class"])
    classes = labels.parse_classes(path, table, question.names)
    known = dict(zip(table["image"], classes, strict=True))
    labelled = []
    for row in rows:
        if row["split"] == "test" and row["image"] in known:
            row = row | {"class": known.pop(row["image"])}
        labelled.append(row)
    for image, name in known.items():
        patient = find_subject(groups, image).patient
        labelled.append(
            {"image": image, "split": "test", "patient": patient, "side": "", "class": name}
        )
    return labelled


def _describe(samples: Any) -> list[str]:
    """Return notes on images without a patient, and on those held out."""
    photographed = samples[samples["path"].notna()]
    n_alone = int((photographed["patient"] == photographed["image"]).sum())
    notes = []
    if n_alone:
        count = f"{n_alone} of {len(photographed)} images each count as a patient of their own"
        notes.append(f"{count}: no CLASS-PATIENT-N, no row of {GROUPS}")
    held_out = samples[samples["split"] == "valid"]
    if len(held_out):
        learned = samples[samples["split"] == "train"]
        shared = set(held_out["patient"]) & set(learned["patient"])
        note = f"val/ is held out as fold 0: {len(held_out)} images"
        if shared:
            note += f", and with them those of train/ of the same {len(shared)} patients"
        notes.append(note)
    return notes


def list_classes(folder: Path) -> list[Path]:
    """Return a folder's sub-folders, sorted; none if the folder is not there."""
    return sorted(folder.glob("[!.]*/"))


def _list_part(folder: Path, *names: str) -> Listing:
    """Return the photographs in the classes' folders below some folders; a test image may lie in no class's folder."""
    tops = [folder / name for name in names]
    classes = [path for top in tops for path in list_classes(top)]
    check = functools.partial(find_subject, {})
    if names == ("test",):
        return listing.list_folders([*tops, *classes], str, check, MISNAMED)
    listed = listing.list_folders(classes, str, check, MISNAMED)
    stray = listing.list_folders(tops, str, check, MISNAMED)
    outside = {listing.show_name(path.name): STRAY for path in stray.paths.values()}
    return Listing(listed.paths, listed.misnamed | stray.misnamed | outside)
