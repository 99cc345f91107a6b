"""A table of findings, ChestX-ray14's Data_Entry_2017.csv or findings.csv; pictures in DATA/images*/ or below it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from preprocess.dataset import labels, listing
from preprocess.dataset.dataset import ACQUISITION, DataSet, Subject, make_table
from preprocess.dataset.listing import Listing
from preprocess.dataset.question import Question
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("findings.csv", "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
LISTS = {"train": "train_val_list.txt", "valid": "val_list.txt", "test": "test_list.txt"}
# ChestX-ray14's fourteen, in the order of the article: X. Wang et al., "ChestX-ray8", CVPR 2017, and its later edition.
NAMES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
IMAGE, PATIENT, FINDINGS = (
    "Image Index",
    "Patient ID",
    "Finding Labels",
)  # columns of a table of joined findings
GROUP = "group"  # the patient in a table with a column of 0, 1 or nothing per finding
BOXES = "BBox_List_2017.csv"
BOX_NAMES = {"Infiltrate": "Infiltration"}  # what that table calls a finding -> its name
MISNAMED = "the table of findings lacks it"


class Table(NamedTuple):
    """What a table of findings says, a row per image."""

    patients: dict[str, str]  # image -> patient
    targets: pd.DataFrame  # 1, 0, or NaN where it is unknown, a column per finding
    others: pd.DataFrame  # all other columns, as text


class Division(NamedTuple):
    """The images to test by, and those held out for validation."""

    test: frozenset[str]
    valid: frozenset[str]


def find_table(folder: Path) -> Path | None:
    """Return a folder's table of findings, the first of TABLES, perhaps gzipped; None if it has none."""
    for name in TABLES:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def read_dataset(folder: Path) -> DataSet:
    """Return the data set of a folder with a table; findings that no image has are left out of its question.

    Raises InputError for a table that cannot be used, and for lists that divide a patient.
    """
    path = find_table(folder)
    assert path is not None, folder
    table = read_table(path)
    is_present = (table.targets == 1).any()
    if not is_present.any():
        raise InputError(f"{path}: no image has any finding; there is nothing to learn")
    question = Question("findings", tuple(table.targets.columns[is_present]))
    division = _read_division(folder, path, table.patients)
    notes = []
    if not is_present.all():
        notes.append(
            f"{path.name}: nobody has {', '.join(table.targets.columns[~is_present])}: left out"
        )
    if division.valid:
        notes.append(f"{LISTS['valid']} is held out as fold 0: {len(division.valid)} images")
    listed = _list_photographs(folder, table.patients)
    if listed.others:
        notes += listing.describe_others(_list_folders(folder)[0], listed.others)
    return DataSet(
        folder=folder,
        question=question,
        samples=make_table(_join_samples(folder, table, division, listed.paths), question),
        normalize_id=normalize_id,
        find_subject=functools.partial(find_subject, table.patients),
        target_sources={"train": path, "test": path},
        sample_submission=folder / "sampleSubmission.csv",
        unread={"train": listed.misnamed, "test": {}},
        boxes=read_boxes(folder),
        read_files=[folder / BOXES, *(find_list(folder, part) for part in LISTS)],
        notes=notes,
    )


def normalize_id(image: str) -> str:
    """Return an image id: the file's name without its suffix."""
    stem, suffix = os.path.splitext(image)
    return stem if tables.EXTENSION.fullmatch(suffix) else image


def find_subject(patients: Mapping[str, str], image: str) -> Subject:
    """Return the patient of an image. Raises InputError for one that the table lacks."""
    if image not in patients:
        raise InputError(f"image {shorten(image)!r} is not in the table of findings")
    return Subject(patients[image])


def read_table(path: Path) -> Table:
    """Return a table of findings. Raises InputError, naming file and row, for what is unknown and missing patients."""
    header = tables.read_csv(path)[0]
    if FINDINGS in header:
        more = [
            name for name in tables.list_columns(path) if name not in (IMAGE, PATIENT, FINDINGS)
        ]
        table = tables.read_table(path, [IMAGE, PATIENT, FINDINGS, *more], normalize_id, IMAGE)
        targets = labels.parse_joined_findings(path, table[FINDINGS], list(NAMES))
        patient_column = PATIENT
    else:
        names = [name for name in header if name not in ("image", GROUP)]
        table = tables.read_table(path, ["image", GROUP, *names], normalize_id)
        if not names:
            raise InputError(f"{path}: no column with a finding")
        if not all(name.strip() for name in names):
            raise InputError(f"{path}: a column has no name")
        targets = labels.parse_findings(path, table, names)
        patient_column = GROUP
    patients = table[patient_column].str.strip()
    if (patients == "").any():
        row = int((patients == "").argmax())
        raise InputError(
            f"{path}, row {row + 2}: {patient_column} is ''; every image needs a patient"
        )
    others = table.drop(columns=[patient_column, *targets.columns], errors="ignore").set_index(
        "image"
    )
    return Table(
        patients=dict(zip(table["image"], patients, strict=True)),
        targets=targets.set_index(table["image"]),
        others=others.drop(columns=FINDINGS, errors="ignore"),
    )


def _read_division(folder: Path, path: Path, patients: Mapping[str, str]) -> Division:
    """Return the division that the lists make. Raises InputError for lists that are wrong."""
    lists = {part: read_list(find_list(folder, part)) for part in LISTS}
    _check_known(folder, "valid", lists["valid"] or [], path, patients)
    if (
        lists["train"] is None
    ):  # else the table may be a part of what the lists name, such as a part of ChestX-ray14
        _check_known(folder, "test", lists["test"] or [], path, patients)
    test = frozenset(lists["test"] or ()) & patients.keys()
    valid = frozenset(lists["valid"] or ()) - test
    others = patients.keys() - test
    divided = {patients[image] for image in test} & {patients[image] for image in others}
    if divided:
        patient = min(divided, key=tables.order_of)
        raise InputError(f"{folder / LISTS['test']}: divides patient {patient}; list all or none")
    if lists["train"] is not None:
        in_none = others - set(lists["train"]) - valid
        if in_none:
            raise InputError(
                f"{path}: image {min(in_none)} is in neither {LISTS['train']} nor {LISTS['test']}"
            )
    return Division(test, valid)


def _check_known(
    folder: Path, part: str, listed: list[str], path: Path, patients: Mapping[str, str]
) -> None:
    """Raise InputError, naming the first, if a list names images that the table lacks."""
    unknown = [(row, image) for row, image in enumerate(listed, 1) if image not in patients]
    if unknown:
        row, image = unknown[0]
        lacks = f"{path.name} has no image {image} nor {len(unknown) - 1} more of these"
        raise InputError(f"{find_list(folder, part)}, row {row}: {lacks}")


def _list_photographs(folder: Path, patients: Mapping[str, str]) -> Listing:
    """Return the photographs of a folder; those that the table lacks are misnamed."""
    check = functools.partial(find_subject, patients)
    return listing.list_folders(_list_folders(folder), str, check, MISNAMED)


def _list_folders(folder: Path) -> list[Path]:
    """Return where pictures lie: in the folders whose names begin with "images", and in images/ below those."""
    tops = [path for path in sorted(folder.glob("images*")) if path.is_dir()]
    return [path for top in tops for path in (top, top / "images")]


def _join_samples(
    folder: Path, table: Table, division: Division, paths: Mapping[str, Path]
) -> pd.DataFrame:
    """Return a row for each image of the table; if there are photographs, a missing one has the path it would have."""
    import pandas as pd

    samples = pd.concat([table.targets, table.others], axis=1)
    images = list(samples.index)
    samples.insert(0, "image", images)
    samples["patient"] = [table.patients[image] for image in images]
    sides: dict[str, str] = {}
    acquisitions: dict[str, str] = {}
    for image, path in paths.items():
        shown = listing.read_shown(path)
        if shown:  # the table tells the patient, the tags of a DICOM file the rest
            sides[image] = shown.side
            acquisitions[image] = shown.acquisition
    samples["side"] = [sides.get(image, "") for image in images]
    if acquisitions and ACQUISITION not in samples:
        samples[ACQUISITION] = [acquisitions.get(image, "") for image in images]
    samples["split"] = "train"
    samples.loc[samples.index.isin(division.valid), "split"] = "valid"
    samples.loc[samples.index.isin(division.test), "split"] = "test"
    if paths:
        missing_in = _list_folders(folder)[0]
        samples["path"] = [str(paths.get(image, missing_in / f"{image}.png")) for image in images]
    return samples.reset_index(drop=True)


def find_list(folder: Path, part: str) -> Path:
    """Return where the list of a part's images lies beside the table, perhaps gzipped, or would lie."""
    plain = folder / LISTS[part]
    zipped = plain.with_name(f"{plain.name}.gz")
    return zipped if zipped.exists() and not plain.exists() else plain


def read_list(path: Path) -> list[str] | None:
    """Return the images that a list names, a line each; None if there is none."""
    return [normalize_id(row[0]) for row in tables.read_csv(path)] if path.exists() else None


def read_boxes(folder: Path) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    """Return what the table BOXES marks, if there is one: image -> finding -> boxes (left, top, width, height), px."""
    path = folder / BOXES
    boxes: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    if not path.exists():
        return boxes
    for row, fields in enumerate(tables.read_csv(path)[1:], 2):
        try:
            image, name, *numbers = fields
            left, top, width, height = map(float, numbers[:4])
        except ValueError:
            raise InputError(f"{path}, row {row}: no box of four numbers") from None
        finding = BOX_NAMES.get(name, name)
        boxes.setdefault(normalize_id(image), {}).setdefault(finding, []).append(
            (left, top, width, height)
        )
    return boxes
