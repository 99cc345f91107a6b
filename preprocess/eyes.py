"""Images, eyes and patients: reads Kaggle's folders and label CSVs, tells whose eye an image is, makes folds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from preprocess import stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    import pandas as pd

N_LEVELS = 5  # 0 no retinopathy, 1 mild, 2 moderate, 3 severe, 4 proliferative
SPLITS = ("train", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")  # Kaggle's files are .jpeg
# A patient's name is a plain file name: no path, no leading dot (hidden and temporary files), no control character, and
# nothing a spreadsheet takes for the start of a formula, since submissions are opened in one.
IMAGE_ID = re.compile(
    r"(?P<patient>[^.=+@\-/\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*?)_(?P<side>left|right)(?:_(?P<repeat>\w+))?"
)
LONGEST_ID = 200  # bytes: file systems take 255, temporary names need some
FORMULA_STARTS = ("=", "+", "-", "@")


class Eye(NamedTuple):
    """Whose eye an image shows. A second picture of an eye carries a repeat: 10_left_b."""

    patient: str
    side: str
    repeat: str = ""


def parse_image_id(image: str) -> Eye:
    """Return the eye that an image id such as `10_left` names.

    Raises InputError if the id is not PATIENT_left or PATIENT_right (or PATIENT_left_REPEAT), or no plain file name.
    """
    match = IMAGE_ID.fullmatch(image)
    if not match or not image.isprintable() or len(image.encode()) > LONGEST_ID:
        raise InputError(f"image id {stage.shorten(image)!r} is not of the form PATIENT_left or PATIENT_right")
    return Eye(match["patient"], match["side"], match["repeat"] or "")


def order_of(image: str) -> tuple:
    """Return the sort key of an image id: patients by number, then left before right."""
    patient, side, repeat = parse_image_id(image)
    number = int(patient) if patient.isascii() and patient.isdigit() else -1
    return (number < 0, number, patient, side, repeat)


def patients_of(images: Iterable[str]) -> np.ndarray:
    """Return the patient of each image, an array of str."""
    return np.array([parse_image_id(image).patient for image in images], dtype=object)


# --- folders --------------------------------------------------------------------------------------------------------


def list_images(data: Path, split: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the split's photographs, image id -> path in the order of patients, and the files with a wrong name.

    A photograph that `trainLabels.csv` or `sampleSubmission.csv` names is in the list even if its file is missing, so
    that the stage that wants to read it finds out. A missing or empty folder gives an empty list.

    Returns
    -------
    paths : dict of image id -> path
    misnamed : dict of file name -> reason
    """
    folder = data / split
    found: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        _sort_in(folder / name, found, misnamed)
    if found:
        for image in _named_images(data, split):
            found.setdefault(image, folder / f"{image}{SUFFIXES[0]}")
    return {image: found[image] for image in sorted(found, key=order_of)}, misnamed


def _sort_in(path: Path, found: dict[str, Path], misnamed: dict[str, str]) -> None:
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return
    try:
        parse_image_id(path.stem)
        path.name.encode()
    except (InputError, UnicodeEncodeError):
        shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in path.name)
        shown = shown.encode(errors="backslashreplace").decode()
        shown = f"./{shown}" if shown.startswith(FORMULA_STARTS) else shown
        misnamed[shown] = "the file's name is not PATIENT_left or PATIENT_right"
        return
    if path.stem in found:
        raise InputError(f"{path} and {found[path.stem].name} are both image {path.stem}; remove one")
    found[path.stem] = path


def _named_images(data: Path, split: str) -> list[str]:
    path = data / ("trainLabels.csv" if split == "train" else "sampleSubmission.csv")
    return list(read_table(path, ["image"])["image"]) if path.exists() else []


# --- tables ---------------------------------------------------------------------------------------------------------


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the named columns of a CSV as text, one row per image, indexed 0..n-1 in the file's order.

    Raises InputError, naming file and row, for an unreadable file, columns that are missing or come twice, rows that
    have more or fewer fields than the header, ids that are no image id and ids that come twice. Further columns are
    left out.
    """
    import pandas as pd

    header, *rows = stage.read_csv(path)
    _check_columns(path, header, columns)
    table = pd.DataFrame({column: [row[header.index(column)] for row in rows] for column in columns}, dtype=str)
    if "image" in columns:
        _check_images(path, table["image"])
    return table


def _check_columns(path: Path, header: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        shown = stage.shorten(", ".join(header))
        hint = "; separate the columns by commas" if len(header) == 1 and re.search("[;\t]", header[0]) else ""
        raise InputError(f"{path}: no column {', '.join(missing)}; its columns are {shown}{hint}")
    repeated = [column for column in columns if header.count(column) > 1]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]} comes {header.count(repeated[0])} times")


def _check_images(path: Path, images: pd.Series) -> None:
    for position, image in enumerate(images):
        try:
            parse_image_id(image)
        except InputError as error:
            raise InputError(f"{path}, row {position + 2}: {error}") from None
    if images.duplicated().any():
        position = int(np.flatnonzero(images.duplicated())[0])
        raise InputError(f"{path}, row {position + 2}: image {images[position]} comes a second time")


def read_numbers(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return text columns of a table read from `path` as float64 of shape (n, len(columns)).

    Raises InputError, naming file and row, for what is no finite number.
    """
    import pandas as pd

    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row, column = (int(position[0]) for position in np.nonzero(bad))
        text = stage.shorten(table[columns[column]].iloc[row])
        raise InputError(f"{path}, row {row + 2}: {columns[column]} is {text!r}, not a finite number")
    return numbers


def read_labels(path: Path) -> pd.Series:
    """Return the level 0-4 of each image, int64, indexed by image in the order of patients.

    Raises InputError, naming file and row, for anything else.
    """
    import pandas as pd

    table = read_table(path, ["image", "level"])
    levels = read_numbers(path, table, ["level"])[:, 0]
    bad = ~np.isin(levels, range(N_LEVELS))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}, row {row + 2}: level is {stage.shorten(table['level'].iloc[row])}, not 0, 1, 2, 3 or 4"
        )
    labels = pd.Series(levels.astype(np.int64), index=pd.Index(table["image"], name="image"), name="level")
    return labels[sorted(labels.index, key=order_of)]


def check_same_images(expected: Iterable[str], given: Iterable[str], expected_from: object, given_from: object) -> None:
    """Raise InputError, naming some, if two sets of image ids differ."""
    expected, given = set(expected), set(given)
    for images, holder, lacker in (
        (expected - given, expected_from, given_from),
        (given - expected, given_from, expected_from),
    ):
        if images:
            named = ", ".join(sorted(images, key=order_of)[:5])
            raise InputError(f"{len(images)} images of {holder} are not in {lacker}: {named}")


# --- folds ----------------------------------------------------------------------------------------------------------


def assign_folds(images: Sequence[str], levels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold 0..n_folds-1 of each image: both eyes of a patient in one, the levels spread evenly.

    Parameters
    ----------
    images : n image ids, in any order: the folds do not depend on it
    levels : (n,) int; a patient counts by the worse eye
    seed : which of the many such divisions
    """
    worst: dict[str, int] = {}
    for patient, level in zip(patients_of(images), levels, strict=True):
        worst[patient] = max(worst.get(patient, 0), int(level))
    if n_folds < 2 or len(worst) < n_folds:
        raise InputError(f"{len(worst)} patients cannot be divided into {n_folds} folds")
    patients = np.array(sorted(worst), dtype=object)
    shuffled = np.random.default_rng(seed).permutation(patients)
    by_level = sorted(shuffled, key=worst.__getitem__)  # stable: random within a level
    fold_of = {patient: position % n_folds for position, patient in enumerate(by_level)}
    return np.array([fold_of[patient] for patient in patients_of(images)])
