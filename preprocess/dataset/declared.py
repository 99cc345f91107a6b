"""A data set as a declaration says that it lies: tables and folders of any names -> the table of samples."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.dataset import kaggle, listing, sample_table
from preprocess.dataset.dataset import ACQUISITION, COLUMNS, DataSet, Subject, make_table
from preprocess.dataset.layouts import targets
from preprocess.dataset.layouts.declaration import Declaration, Part, simplify_cell
from preprocess.dataset.layouts.targets import Row, squeeze
from preprocess.dataset.listing import Tree
from preprocess.dataset.question import RETINOPATHY, Question
from preprocess.disk import any_table, tables
from preprocess.disk.any_table import AnyTable
from preprocess.disk.errors import InputError, shorten, suggest

SIDE_WORDS = {
    "left": "left",
    "right": "right",
    "l": "left",
    "r": "right",
    "os": "left",
    "od": "right",
}
ALONE = "each counts as a patient of its own"


@dataclass
class Source:
    """What was read for one part."""

    part: str
    table: AnyTable | None
    images: str | None  # folder of its photographs, relative to the data folder
    rows: list[Row]
    left_out: set[str] = field(default_factory=set)  # photographs of rows that `keep` leaves out
    notes: list[str] = field(default_factory=list)


def read_dataset(folder: Path, declaration: Declaration, tree: Tree | None = None) -> DataSet:
    """Return the data set of a folder by a declared layout. Raises InputError, naming file and key or row."""
    import pandas as pd

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    tree = tree or listing.walk(folder)
    sources = []
    for name, part in declaration.parts.items():
        source = _read_part(tree, declaration, name, part)
        if source:
            sources.append(source)
    if not sources:
        parts = " nor ".join(f"[{name}]" for name in declaration.parts)
        raise InputError(f"{folder}: holds nothing of layout {declaration.title}: not {parts}")
    rows = [row for source in sources for row in source.rows]
    if not rows:
        raise InputError(
            f"{folder}: no image by layout {declaration.title}: where a part has no table, "
            "its images lie in a folder per target"
        )
    _choose_side_columns(declaration, rows)
    question = Question(declaration.kind, targets.find_names(declaration, rows, RETINOPATHY.names))
    targets.parse(declaration, question.names, question.columns, rows)
    rows, n_repeated = _merge_repeated(rows, question)
    prefixed = _prefix_ids(rows)
    subjects, alone = _find_subjects(tree, declaration, rows)
    records = [_make_row(tree, declaration, question, row, subjects[row.image]) for row in rows]
    samples = make_table(pd.DataFrame(records), question)
    notes = [f"read by layout {declaration.title}"]
    if declaration.note:
        notes.append(declaration.note)
    for source in sources:
        notes += source.notes
    if n_repeated:
        notes.append(f"{n_repeated:,} further rows of images that have one already, joined to it")
    if prefixed:
        notes.append(
            f"{prefixed:,} ids stand for different images in two parts: ids begin with their part, {rows[0].image}"
        )
    notes += _describe_samples(samples, question, alone)
    notes += _describe_unread(tree, sources, rows)
    known_ids = {image: image for image in subjects}
    for row in rows:
        known_ids.setdefault(row.image.removeprefix(f"{row.part}/"), row.image)
    tables_read = [source.table.path for source in sources if source.table]
    return DataSet(
        folder=folder,
        question=question,
        samples=samples,
        normalize_id=lambda text: known_ids.get(spell_id(text), spell_id(text)),
        find_subject=_make_finder(folder, declaration, subjects),
        target_sources=_find_target_sources(tree, sources),
        sample_submission=sample_table.find_sample(folder),
        read_files=[declaration.path, *tables_read],
        notes=notes,
        may_lack_targets=True,
    )


def spell_id(text: str) -> str:
    """Return an image id of a cell, a file's name or path: without suffix; with / between folders; the side in lower
    case; letters and their accents composed.
    """
    path = listing.compose(text.strip()).replace("\\", "/").strip("/").removeprefix("./")
    return kaggle.normalize_id(listing.split_suffix(path)[0])


# --- parts ------------------------------------------------------------------------------------------------------------


def _read_part(tree: Tree, declaration: Declaration, name: str, part: Part) -> Source | None:
    """Return what is read of a part; None if a download holds nothing of it."""
    table = find_table(tree, declaration, name, part)
    images = find_images(tree, declaration, name, part)
    if part.tables and table is None and (images is None or name != "test"):
        return None
    if table is None and images is None:
        return None
    if table is None:
        assert images is not None
        if any(other.tables for other in declaration.parts.values()):
            return _list_unlabelled(tree, name, images)
        return _list_folders_of_targets(tree, declaration, name, images)
    return _read_rows(tree, declaration, name, table, images)


def find_table(tree: Tree, declaration: Declaration, name: str, part: Part) -> AnyTable | None:
    """Return a part's table: of the first file that has the columns. None if a shipped layout's is not there.

    Raises InputError, naming file and key, if there is none, if two files are meant, or columns are missing.
    """
    fault: InputError | None = None
    for wanted in part.tables:
        usable = []
        for path in tree.find_files(wanted) or tree.find_files(f"{wanted}.gz"):
            try:
                table = any_table.read_any_table(tree.folder / path, declaration.format)
                _check_columns(declaration, name, table)
            except InputError as error:
                fault = fault or error
                continue
            usable.append(table)
        if len(usable) > 1:
            both = f"{usable[0].path} or {usable[1].path}"
            raise InputError(
                f"{declaration.path}: [{name}] table: {wanted!r} is {both}; name it with its folder"
            )
        if usable:
            return usable[0]
    if fault:
        raise fault
    if part.tables and not declaration.is_shipped:
        seen = [path for path in tree.files if any_table.is_table(path)]
        raise InputError(
            f"{declaration.path}: [{name}] table: {tree.folder} has no {part.tables[0]}{suggest(part.tables[0], seen)}"
        )
    return None


def find_images(tree: Tree, declaration: Declaration, name: str, part: Part) -> str | None:
    """Return the folder of a part's photographs, relative to the data; None if a shipped layout's is not there."""
    for wanted in part.images:
        found = tree.find_folders(wanted)
        if len(found) > 1:
            raise InputError(
                f"{declaration.path}: [{name}] images: {wanted!r} is {found[0]} or {found[1]}; name it with its folder"
            )
        if found:
            return found[0]
    if declaration.is_shipped:
        return None
    near = suggest(part.images[0], tree.folders)
    raise InputError(
        f"{declaration.path}: [{name}] images: {tree.folder} has no folder {part.images[0]}{shorten(near)}"
    )


def _check_columns(declaration: Declaration, name: str, table: AnyTable) -> None:
    """Raise InputError for columns that the declaration names and a table lacks, unless it may lack them."""
    _find_columns(declaration, table, declaration.images, "image")
    is_testing = name == "test"
    if not is_testing:
        _find_columns(declaration, table, declaration.targets, "target")
    if declaration.is_shipped or is_testing:
        return
    others = {"patient": declaration.patient, "side": declaration.side, "none": declaration.none}
    for key, column in others.items():
        if column:
            _find_columns(declaration, table, (column,), key)
    for column in declaration.keep:
        _find_columns(declaration, table, (column,), "keep")


def _find_columns(
    declaration: Declaration, table: AnyTable, columns: Sequence[str], key: str
) -> list[str]:
    """Return those of the columns that a table has.

    Raises InputError, naming file and key, with near names, if one is missing, or all where a layout is a shipped one.
    """
    present = [column for column in columns if squeeze(column) in table.columns]
    missing = [column for column in columns if squeeze(column) not in table.columns]
    if missing and not (declaration.is_shipped and present):
        named = [column for column in table.columns if column]
        near = shorten(suggest(missing[0], named))
        raise InputError(
            f"{declaration.path}: {key}: {table.path} has no column {missing[0]!r}{near}"
        )
    for column in present:
        table.find(squeeze(column))  # raises if it comes twice
    return [squeeze(column) for column in present]


def _read_rows(
    tree: Tree, declaration: Declaration, name: str, table: AnyTable, images: str | None
) -> Source:
    """Return the rows of a part's table, and the photographs that they name."""
    source = Source(name, table, images, [])
    photographs = Photographs(tree, images) if images is not None else None
    named = table.named
    image_columns = _find_columns(declaration, table, declaration.images, "image")
    n_left_out = 0
    for number, cells in zip(table.numbers, table.rows, strict=True):
        texts = {column: cells[at] for column, at in named.items()}
        is_kept = all(
            simplify_cell(texts[squeeze(column)]) in wanted
            for column, wanted in declaration.keep.items()
            if squeeze(column) in texts
        )
        where = f"{table.path}, row {number}"
        for column in image_columns:
            text = texts[column]
            if not text and len(image_columns) > 1:
                continue
            image = spell_id(text)
            if not tables.is_id(image):
                raise InputError(
                    f"{where}: {column} is {shorten(text)!r}, which is not an image id"
                )
            path = photographs.find(text, where) if photographs else None
            if not is_kept:
                n_left_out += 1
                if path:
                    source.left_out.add(path)
                continue
            expected = ""
            if images is not None:
                suffix = listing.split_suffix(text)[1] or listing.SUFFIXES[0]
                expected = f"{images}/{image}{suffix}"
            target = targets.find_cells(declaration, texts)
            side = find_column_side(column) if len(image_columns) > 1 else ""
            source.rows.append(Row(image, name, where, path, expected, texts, target, side))
    if n_left_out:
        columns = ", ".join(declaration.keep)
        source.notes.append(f"{name}: {n_left_out:,} images left out by keep ({columns})")
    n_found = sum(row.path is not None for row in source.rows)
    if images is None:
        source.notes.append(
            f"{name}: no folder {' or '.join(declaration.parts[name].images)}: no photographs of it"
        )
    elif source.rows and not n_found:
        first = source.rows[0]
        raise InputError(
            f"{first.where}: no photograph below {tree.folder / images} is {shorten(first.image)}, nor any other"
        )
    return source


def _list_unlabelled(tree: Tree, name: str, images: str) -> Source:
    """Return the photographs below a folder, of which no table tells anything."""
    rows = []
    paths = [path for path in tree.list_below(images) if tree.is_photograph(path)]
    for path in paths:
        image = spell_id(path.rpartition("/")[2])
        rows.append(Row(image, name, str(tree.folder / path), path, path, {}))
    _make_ids_unique(rows, images)
    return Source(name, None, images, rows)


def _list_folders_of_targets(
    tree: Tree, declaration: Declaration, name: str, images: str
) -> Source:
    """Return the photographs of a part that has a folder per target. To test by, some may lie in none of them."""
    top = find_top(tree, declaration, images)
    prefix = "" if top == "." else f"{top}/"
    rows: list[Row] = []
    source = Source(name, None, top, rows)
    for path in tree.list_below(top):
        if not tree.is_photograph(path):
            continue
        folder, slash, _ = path.removeprefix(prefix).partition("/")
        image = spell_id(path.rpartition("/")[2])
        row = Row(image, name, str(tree.folder / path), path, path, {})
        if slash:
            row.target = (folder,)
        elif name != "test":
            continue  # told of as unread
        rows.append(row)
    _make_ids_unique(rows, top)
    return source


def find_top(tree: Tree, declaration: Declaration, images: str) -> str:
    """Return the folder that the targets' folders lie in: often a folder lies in a folder of its own name."""
    known = {
        simplify_cell(name) for name in (*declaration.names, *declaration.values)
    } | declaration.unknown
    top = images
    while True:
        prefix = "" if top == "." else f"{top}/"
        below = [
            path
            for path in tree.folders
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        ]
        here = [path for path in tree.list_below(top) if "/" not in path.removeprefix(prefix)]
        if len(below) != 1 or any(map(tree.is_photograph, here)):
            return top
        name = below[0].rpartition("/")[2]
        is_doubled = name == top.rpartition("/")[2]
        if simplify_cell(name) in known or not (known or is_doubled):
            return top
        top = below[0]


def _make_ids_unique(rows: Sequence[Row], images: str) -> None:
    """Give images their path below a folder as id, if two files there have one name."""
    if len({row.image for row in rows}) == len(rows):
        return
    for row in rows:
        assert row.path is not None
        row.image = spell_id(row.path.removeprefix(f"{images}/"))
    seen: dict[str, Row] = {}
    for row in rows:
        other = seen.setdefault(row.image, row)
        if other is not row:
            raise InputError(
                f"{row.where} and {other.where} are both image {row.image}; remove or rename one"
            )


class Photographs:
    """The photographs below a folder, found by what a table writes: a name or a path, with or without suffix."""

    def __init__(self, tree: Tree, images: str):
        self.tree = tree
        self.by_name: dict[str, list[str]] = {}
        for path in tree.list_below(images):
            if tree.is_photograph(path):
                name = spell_id(path.rpartition("/")[2])
                self.by_name.setdefault(name, []).append(path)

    def find(self, text: str, where: str) -> str | None:
        """Return the path of a photograph, None if there is none. Raises InputError if two files may be meant."""
        candidates = self.list_candidates(text)
        if len(candidates) > 1:
            raise InputError(
                f"{where}: {shorten(text)!r} is {candidates[0]} or {candidates[1]} of {self.tree.folder}; "
                "name the folder in images, or remove one"
            )
        return candidates[0] if candidates else None

    def list_candidates(self, text: str) -> list[str]:
        """Return the paths of the photographs that a name or path may mean: those that share most of it."""
        names = spell_id(text).split("/")
        candidates = self.by_name.get(names[-1], [])
        if len(candidates) < 2:
            return candidates
        if len(names) > 1:
            shared = [_count_shared(spell_id(path).split("/"), names) for path in candidates]
            candidates = [
                path for path, n in zip(candidates, shared, strict=True) if n == max(shared)
            ]
        suffix = listing.split_suffix(text.strip())[1]
        same = [path for path in candidates if path.lower().endswith(suffix)]
        return same or candidates


def _count_shared(path: Sequence[str], wanted: Sequence[str]) -> int:
    """Return how many names at the end of two paths are the same."""
    n = 0
    for one, other in zip(reversed(path), reversed(wanted), strict=False):
        if one != other:
            break
        n += 1
    return n


# --- images -----------------------------------------------------------------------------------------------------------


def _merge_repeated(rows: Sequence[Row], question: Question) -> tuple[list[Row], int]:
    """Return one row of each image of a part, and how many were joined to another: some tables have one per box.

    Of findings an image has those that any of its rows tells. Raises InputError for rows that contradict each other.
    """
    kept: dict[tuple[str, str], Row] = {}
    n_repeated = 0
    for row in rows:
        first = kept.setdefault((row.part, row.image), row)
        if first is row:
            continue
        n_repeated += 1
        if first.path != row.path:
            raise InputError(
                f"{row.where} and {first.where}: {row.image} is {row.path} and {first.path}"
            )
        if question.has_many_targets:
            first.values = {
                name: np.fmax(first.values[name], row.values[name]) for name in first.values
            }
        elif first.values != row.values and not _are_unknown(first.values, row.values):
            told = " and ".join(
                shorten(str(list(values.values())[0])) for values in (first.values, row.values)
            )
            raise InputError(
                f"{row.where}: {row.image} is {told}; {first.where} says the first; "
                "keep = { COLUMN = ['CELL'] } would take one grader's rows"
            )
    return list(kept.values()), n_repeated


def _are_unknown(*records: Mapping[str, Any]) -> bool:
    return all(
        isinstance(value, float) and np.isnan(value)
        for record in records
        for value in record.values()
    )


def _prefix_ids(rows: Sequence[Row]) -> int:
    """Give all ids their part as prefix, if two parts use one for different pictures; return how many ids they share.

    Raises InputError if one picture lies in two parts, or stands for two images.
    """
    part_of_path: dict[str, Row] = {}
    for row in rows:
        if row.path is not None:
            other = part_of_path.setdefault(row.path, row)
            if other.part == row.part and other.image != row.image:
                raise InputError(
                    f"{row.where}: {row.image} is {row.path}, which is {other.image} in {other.where}; "
                    "images may have to name the folder above"
                )
            if other.part != row.part:
                raise InputError(
                    f"{row.where}: {row.path} is in [{row.part}] and, {other.where}, in [{other.part}]; "
                    "no image may be in both"
                )
    counts = Counter(row.image for row in rows)
    n_shared = sum(n > 1 for n in counts.values())
    if n_shared:
        for row in rows:
            row.image = f"{row.part}/{row.image}"
    return n_shared


def _find_subjects(
    tree: Tree, declaration: Declaration, rows: Sequence[Row]
) -> tuple[dict[str, Subject], list[str]]:
    """Return the subject of each image, and the images of which nothing tells a patient."""
    subjects = {}
    alone = []
    knows_patient = bool(declaration.patient or declaration.patient_from)
    knows_side = bool(declaration.side or declaration.side_from)
    for row in rows:
        told = listing.compose(row.path or row.expected or row.image)
        patient = row.cells.get(squeeze(declaration.patient), "") if declaration.patient else ""
        if declaration.patient_from:
            match = declaration.patient_from.search(told)
            patient = match[1] if match and match[1] else ""
        side = _find_side(declaration, row, told)
        shown = None
        if row.path and not (knows_patient and knows_side):
            shown = listing.read_shown(tree.folder / row.path)
        if shown and not knows_patient:
            patient = shown.patient
        if shown and not knows_side:
            side = shown.side
        if shown and ACQUISITION not in row.cells:
            row.cells = {**row.cells, ACQUISITION: shown.acquisition}
        if not patient:
            alone.append(row.image)
        subjects[row.image] = Subject(patient or row.image, side)
    return subjects, alone


def _choose_side_columns(declaration: Declaration, rows: Sequence[Row]) -> None:
    """Leave of several target columns that are named after sides, such as left_eye_level, a row its own side's."""
    sided: dict[str, list[int]] = {"left": [], "right": []}
    for at, column in enumerate(declaration.targets):
        side = find_column_side(column)
        if side:
            sided[side].append(at)
    if declaration.kind == "findings" or not (sided["left"] and sided["right"]):
        return
    for row in rows:
        side = _find_side(declaration, row, listing.compose(row.path or row.expected or row.image))
        if side and row.target is not None:
            row.target = tuple(
                cell if at in sided[side] else "" for at, cell in enumerate(row.target)
            )


def _find_side(declaration: Declaration, row: Row, told: str) -> str:
    """Return the side that a row tells, else that of the column which names its photograph, or "".

    Raises InputError, with the key to mend, for an unknown word.
    """
    text = ""
    if declaration.side:
        text = row.cells.get(squeeze(declaration.side), "")
    elif declaration.side_from:
        match = declaration.side_from.search(told)
        text = match[1] if match and match[1] else ""
    cell = simplify_cell(text)
    if not cell:
        return row.side
    side = declaration.sides.get(cell) or SIDE_WORDS.get(cell)
    if side is None:
        known = {**SIDE_WORDS, **declaration.sides}
        raise InputError(
            f"{row.where}: side is {shorten(text)!r}{suggest(cell, known)}; "
            f'{declaration.path}: sides = {{ {text!r} = "left" }} would say which it is'
        )
    return side


def find_column_side(column: str) -> str:
    """Return the side that a column is named after, such as left_eye_level or OD grade; or ""."""
    words = re.split(r"[^a-z]+", column.casefold())
    found = {SIDE_WORDS[word] for word in words if word in SIDE_WORDS}
    return found.pop() if len(found) == 1 else ""


def _make_row(
    tree: Tree, declaration: Declaration, question: Question, row: Row, subject: Subject
) -> dict[str, Any]:
    """Return a row of the table of samples."""
    used = {
        squeeze(column)
        for column in (
            *declaration.images,
            *declaration.targets,
            declaration.patient,
            declaration.side,
        )
    }
    used |= {*COLUMNS, *question.columns}
    record: dict[str, Any] = {
        column: cell for column, cell in row.cells.items() if column not in used
    }
    record |= row.values
    record |= {
        "image": row.image,
        "split": row.part,
        "patient": subject.patient,
        "side": subject.side,
    }
    if row.path is not None:
        record["path"] = os.path.join(tree.folder, row.path)
    elif row.expected:
        record["path"] = os.path.join(tree.folder, row.expected)
    return record


def _make_finder(
    folder: Path, declaration: Declaration, subjects: Mapping[str, Subject]
) -> Callable[[str], Subject]:
    def find_subject(image: str) -> Subject:
        if image not in subjects:
            raise InputError(
                f"image {shorten(image)!r} is not in {folder} by layout {declaration.title}"
            )
        return subjects[image]

    return find_subject


def _find_target_sources(tree: Tree, sources: Iterable[Source]) -> dict[str, Path]:
    """Return where the targets of the parts stand: train's stand for those of valid as well."""
    found: dict[str, Path] = {}
    for source in sources:
        part = "test" if source.part == "test" else "train"
        path = source.table.path if source.table else tree.folder / (source.images or ".")
        found.setdefault(part, path)
    for part in ("train", "test"):
        found.setdefault(part, tree.folder)
    return found


# --- notes ------------------------------------------------------------------------------------------------------------


def _describe_samples(samples: Any, question: Question, alone: Sequence[str]) -> list[str]:
    """Return notes on unknown targets, patients, and what is held out."""
    notes = []
    is_unknown = samples[question.columns].isna().all(axis=1)
    learned = samples["split"] != "test"
    n_unknown = int((is_unknown & learned).sum())
    if n_unknown:
        notes.append(
            f"{n_unknown:,} of {int(learned.sum()):,} images have no known {question.target}: left out of training"
        )
    if alone:
        notes.append(
            f"{len(alone):,} of {len(samples):,} images: nothing tells their patient, {ALONE}"
        )
    patients = {
        split: set(samples.loc[samples["split"] == split, "patient"])
        for split in ("train", "valid", "test")
    }
    for one, other in (("train", "test"), ("valid", "test"), ("train", "valid")):
        shared = patients[one] & patients[other]
        if shared:
            notes.append(f"{len(shared):,} patients are in {one} and {other}")
    n_held_out = int((samples["split"] == "valid").sum())
    if n_held_out:
        notes.append(f"[valid] is held out as fold 0: {n_held_out:,} images")
    return notes


def _describe_unread(tree: Tree, sources: Sequence[Source], rows: Sequence[Row]) -> list[str]:
    """Return a note for each folder of photographs on the files in it that are not read, by suffix and reason."""
    read = {row.path for row in rows}
    for source in sources:
        read |= source.left_out
        if source.table:
            read.add(str(source.table.path.relative_to(tree.folder)))
    notes = []
    folders = dict.fromkeys(source.images for source in sources if source.images is not None)
    for folder in folders:
        reasons = []
        for path in tree.list_below(folder):
            if path in read:
                continue
            read.add(path)  # told of once, though folders may lie in each other
            reason = listing.NO_PHOTOGRAPH
            if tree.is_photograph(path):
                has_table = any(source.table for source in sources if source.images == folder)
                reason = (
                    "no row of the table names it" if has_table else "lies in no folder of a target"
                )
            reasons.append((path, reason))
        if reasons:
            title = tree.folder.name if folder == "." else folder
            notes.append(f"{title}: {listing.describe_unread(reasons)}")
    return notes
