"""Photographs as they come, without a data set: which files they are, and whose eye each of them shows."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess.dataset import kaggle, listing
from preprocess.dataset.dataset import Subject
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten
from preprocess.disk.files import show_path

NOBODY = Subject("")  # what is known of an eye if neither name nor option says more


class Listed(NamedTuple):
    """Photographs with their subjects, patient by patient, and the files that cannot be paired, with the reason."""

    subjects: dict[Path, Subject]
    misnamed: dict[str, str]


class SidedFile(NamedTuple):
    """A file, and the side that an option says it shows, or ""."""

    path: Path
    side: str


def list_eyes(photographs: Sequence[Path], left: Path | None, right: Path | None, patient: str | None) -> Listed:
    """Return whose eye each photograph shows: one folder, or one file or two, perhaps named as the left or right one.

    Raises InputError for anything else.
    """
    sided = [SidedFile(path, side) for path, side in ((left, "left"), (right, "right")) if path]
    if sided and photographs:
        raise InputError("--left and --right are instead of photographs without them, not beside them")
    if not sided:
        sided = [SidedFile(path, "") for path in photographs]
    folders = [file.path for file in sided if file.path.is_dir()]
    if folders and len(sided) > 1:
        raise InputError(
            f"{folders[0]}: a folder is graded alone; give one folder, or the two photographs of a patient"
        )
    if folders:
        if patient is not None:
            raise InputError("--patient: of a folder the names of the files tell whose eyes they show")
        return list_folder_of_eyes(folders[0])
    if not 1 <= len(sided) <= 2:
        count = len(sided) or "no"
        raise InputError(f"{count} photographs: give a patient's one or two, or the folder that holds those of many")
    return Listed(find_subjects(sided, patient), {})


def list_folder_of_eyes(folder: Path) -> Listed:
    """Return the photographs in a folder, whose names say whose eyes they show. Raises InputError if there are none."""
    paths, misnamed, _ = kaggle.list_folder(folder)
    if not paths and not misnamed:
        raise InputError(f"{folder}: holds no photographs ({', '.join(listing.SUFFIXES)})")
    subjects = {path: kaggle.find_subject(image) for image, path in paths.items()}
    return Listed(subjects, {show_path(folder / name): reason for name, reason in misnamed.items()})


def find_subjects(files: Sequence[SidedFile], patient: str | None) -> dict[Path, Subject]:
    """Return whose eye each of a patient's photographs shows, the left one first: by its name, or as options say.

    One or two are given. Names that are not PATIENT_left or PATIENT_right say nothing; what nobody says is "".
    Raises InputError for what contradicts itself, and for two photographs of which one may show either eye.
    """
    if patient is not None and not tables.is_id(patient):
        raise InputError(f"--patient {shorten(patient)!r}: not a name that an image id may have")
    subjects = {}
    for path, side in files:
        named = read_name(path)
        if side and named.side not in ("", side):
            raise InputError(f"{show_path(path)}: the {named.side} eye by its name, given as the {side} one")
        if patient and named.patient not in ("", patient):
            raise InputError(f"{show_path(path)}: of patient {named.patient} by its name, of {patient} by --patient")
        subjects[path] = Subject(patient or named.patient, side or named.side)
    if len(files) == 1:
        return subjects
    if files[0].path.resolve() == files[1].path.resolve():
        both = " and ".join(show_path(file.path) for file in files)
        raise InputError(f"{both}: one file given twice; give the left eye and the right one")
    return pair_files(subjects)


def read_name(path: Path) -> Subject:
    """Return whose eye a file's name says it shows; nobody's if it is another kind of name."""
    with contextlib.suppress(InputError):
        return kaggle.find_subject(path.stem)
    return NOBODY


def pair_files(subjects: dict[Path, Subject]) -> dict[Path, Subject]:
    """Return the two photographs of a patient, left eye first. Raises InputError if they are not of both eyes."""
    both = " and ".join(show_path(path) for path in subjects)
    for path, subject in subjects.items():
        if not subject.side:
            raise InputError(
                f"{show_path(path)}: which eye is it? Its name does not say; give --left FILE --right FILE"
            )
    patients = list(dict.fromkeys(subject.patient for subject in subjects.values() if subject.patient))
    if len(patients) > 1:
        raise InputError(f"{both}: of two patients, {' and '.join(patients)}; grade them alone, or a folder of all")
    sides = {subject.side for subject in subjects.values()}
    if len(sides) == 1:
        raise InputError(f"{both}: both are the {sides.pop()} eye; grade them alone, or a folder of all")
    patient = patients[0] if patients else ""
    paired = {path: Subject(patient, subject.side) for path, subject in subjects.items()}
    return dict(sorted(paired.items(), key=lambda item: item[1].side))


def list_images(paths: Sequence[Path]) -> Listed:
    """Return images that are of no eyes, each its own subject: files, and those in folders.

    Raises InputError if there are none.
    """
    found: list[Path] = []
    for path in paths:
        found += listing.list_files(path) if path.is_dir() else [path]
    if not found:
        raise InputError(f"no photographs: give some, or a folder that holds them ({', '.join(listing.SUFFIXES)})")
    return Listed({path: Subject(str(path)) for path in found}, {})
