"""Photographs as they come, without a data set: which files they are, and whose eye each of them shows."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess.dataset import kaggle, listing, sample_table
from preprocess.dataset.dataset import Subject
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten
from preprocess.disk.files import show_path

NOBODY = Subject("")  # what is known of an eye if neither name nor option says more


class Listed(NamedTuple):
    """Photographs with their subjects, patient by patient, and the files that cannot be paired, with the reason."""

    subjects: dict[Path, Subject]
    misnamed: dict[str, str]
    unread: Sequence[
        str
    ] = ()  # lines on the files beside them that are not read, by suffix and reason


class SidedFile(NamedTuple):
    """A file, and the side that an option says it shows, or ""."""

    path: Path
    side: str


def list_eyes(
    photographs: Sequence[Path],
    left: Path | None,
    right: Path | None,
    patient: str | None,
    is_uploaded: bool = False,
) -> Listed:
    """Return whose eye each photograph shows: of files and folders with any names, or of a patient's left and right.

    A folder's, or a table's, samples.csv tells more than names do; else PATIENT_left and PATIENT_right do, and an eye
    of another name is nobody's and has no fellow. Of uploaded files such a table names those beside it, by their names
    alone. Raises InputError for what contradicts itself, and if there is no photograph.
    """
    sided = [SidedFile(path, side) for path, side in ((left, "left"), (right, "right")) if path]
    if sided and photographs:
        raise InputError(
            "--left and --right are instead of photographs without them, not beside them"
        )
    if sided:
        for file in sided:
            if file.path.is_dir():
                raise InputError(f"{file.path}: a folder; --left and --right take a file")
        return Listed(find_subjects(sided, patient), {})
    if patient is not None:
        return Listed(find_subjects(_take_pair(photographs), patient), {})
    subjects: dict[Path, Subject] = {}
    unread: list[str] = []
    for path in photographs:
        if photographs.count(path) > 1:
            raise InputError(f"{show_path(path)}: given twice")
        table = path / sample_table.NAME if path.is_dir() else path
        if table.name.endswith(".csv") and table.is_file():
            subjects |= sample_table.read_photographs(table, is_uploaded)
        elif path.is_dir():
            found = list_folder(path)
            unread += found.unread
            subjects |= found.subjects
        else:
            subjects[path] = read_name(path)
    if not subjects:
        raise InputError(_describe_none(photographs))
    return Listed(dict(sorted(subjects.items(), key=_order_of)), {}, unread)


def _order_of(item: tuple[Path, Subject]) -> tuple:
    """Return the sort key of a photograph: patient by patient, left first; nobody's by its name."""
    path, subject = item
    return tables.order_of(subject.patient or path.name), subject.side


def _take_pair(photographs: Sequence[Path]) -> list[SidedFile]:
    """Return the one or two photographs of a patient that an option names."""
    if any(path.is_dir() for path in photographs):
        raise InputError("--patient: of a folder the names of the files tell whose eyes they show")
    if len(photographs) > 2:
        raise InputError(
            f"--patient: {len(photographs)} photographs; give the patient's one or two"
        )
    return [SidedFile(path, "") for path in photographs]


def list_folder(folder: Path) -> Listed:
    """Return the photographs in a folder and below it, as far as their names tell with whose eyes."""
    tree = listing.walk(folder)
    subjects: dict[Path, Subject] = {}
    path_of: dict[str, Path] = {}
    reasons = []
    for name in tree.files:
        path = folder / name
        if listing.is_photograph_at(path):
            image = listing.split_suffix(name)[0]
            other = path_of.setdefault(image, path)
            if other != path:
                raise InputError(f"{path} and {other} are both image {image}; remove or rename one")
            subjects[path] = read_name(path)
        else:
            reasons.append((name, listing.NO_PHOTOGRAPH))
    unread = [f"{show_path(folder)}: {listing.describe_unread(reasons)}"] if reasons else []
    return Listed(subjects, {}, unread)


def _describe_none(photographs: Sequence[Path]) -> str:
    suffixes = ", ".join(listing.SUFFIXES)
    if len(photographs) == 1:
        return f"{photographs[0]}: holds no photographs ({suffixes})"
    return f"no photographs: give some, or a folder that holds them ({suffixes})"


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
            raise InputError(
                f"{show_path(path)}: the {named.side} eye by its name, given as the {side} one"
            )
        if patient and named.patient not in ("", patient):
            raise InputError(
                f"{show_path(path)}: of patient {named.patient} by its name, of {patient} by --patient"
            )
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
    patients = list(
        dict.fromkeys(subject.patient for subject in subjects.values() if subject.patient)
    )
    if len(patients) > 1:
        raise InputError(
            f"{both}: of two patients, {' and '.join(patients)}; grade them alone, or a folder of all"
        )
    sides = {subject.side for subject in subjects.values()}
    if len(sides) == 1:
        raise InputError(
            f"{both}: both are the {sides.pop()} eye; grade them alone, or a folder of all"
        )
    patient = patients[0] if patients else ""
    paired = {path: Subject(patient, subject.side) for path, subject in subjects.items()}
    return dict(sorted(paired.items(), key=lambda item: item[1].side))


def list_images(paths: Sequence[Path], is_uploaded: bool = False) -> Listed:
    """Return images that are of no eyes, each its own subject: files, those below folders, and those of a samples.csv.

    Raises InputError if there are none.
    """
    listed = list_eyes(paths, None, None, None, is_uploaded)
    return listed._replace(subjects={path: Subject(str(path)) for path in sorted(listed.subjects)})
