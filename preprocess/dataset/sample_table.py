"""samples.csv, the table of samples itself: read where a data folder holds one, and written for people to finish."""

from __future__ import annotations

import functools
import json
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.dataset import labels, listing
from preprocess.dataset.dataset import (
    ACQUISITION,
    COLUMNS,
    SPLITS,
    DataSet,
    Subject,
    make_table,
)
from preprocess.dataset.question import KINDS, RETINOPATHY, Question
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, shorten, suggest

if TYPE_CHECKING:
    import pandas as pd

NAME = "samples.csv"
QUESTION = "samples.toml"  # kind and names, written where a reader of the table alone would guess otherwise
SIDES = ("left", "right", "")
SAMPLES = ("sampleSubmission.csv", "sample_submission.csv")
MOST_LEVELS = 100  # more are no grades of one disease, but a mistake


def read_dataset(folder: Path) -> DataSet:
    """Return the data set of a folder with a samples.csv.

    The column `image` is all that it must have beside targets: `level`, from 0 on; or `class`; or else a column per
    finding: each whose cells are all 0, 1 or empty. An empty target is unknown. QUESTION beside it says the kind and
    the names where the columns alone do not. `path` is absolute or relative to the table; without it an image is the
    photograph of its name below the folder. `split` is train, valid or test: without it all is train. Without
    `patient` each image is its own, but for DICOM files, whose tags tell what no column does. Raises InputError,
    naming the row, for what cannot be used.
    """
    import pandas as pd

    path = folder / NAME
    others = [name for name in tables.list_columns(path) if name != "image"]
    table = tables.read_table(path, ["image", *others], normalize_id)
    question = read_question(path) or _find_question(path, table)
    targets = _parse_targets(path, table, question)
    texts = table.drop(columns=[name for name in targets if name in table])
    paths = _find_paths(folder, texts)
    rows = []
    for row, (fields, values) in enumerate(
        zip(texts.to_dict("records"), targets.to_dict("records"), strict=True), start=2
    ):
        image = fields["image"]
        if isinstance(paths[image], str):
            _add_shown(fields, Path(paths[image]))
        fields["split"] = fields.get("split", "").strip() or "train"
        fields["side"] = fields.get("side", "").strip().lower()
        fields["patient"] = fields.get("patient", "").strip() or image
        if fields["split"] not in SPLITS:
            near = suggest(fields["split"], SPLITS)
            raise InputError(f"{path}, row {row}: split is {shorten(fields['split'])!r}{near}")
        if fields["side"] not in SIDES:
            raise InputError(
                f"{path}, row {row}: side is {shorten(fields['side'])!r}, not left, right or empty"
            )
        rows.append(fields | values | {"path": paths[image]})
    samples = make_table(pd.DataFrame(rows), question)
    subjects = {row["image"]: Subject(row["patient"], row["side"]) for row in rows}
    notes = []
    n_alone = sum(row["patient"] == row["image"] for row in rows)
    if "patient" not in table and n_alone:
        count = f"each of {len(rows)} images counts"
        if n_alone < len(rows):
            count = f"{n_alone:,} of {len(rows):,} images count"
        notes.append(f"{NAME}: no column patient: {count} as a patient of its own")
    is_learned = samples["split"] != "test"
    n_unknown = int((is_learned & samples[question.columns].isna().all(axis=1)).sum())
    if n_unknown:
        n_learned = int(is_learned.sum())
        notes.append(
            f"{n_unknown:,} of {n_learned:,} images have no known {question.target}: left out of training"
        )
    n_held_out = int((samples["split"] == "valid").sum())
    if n_held_out:
        notes.append(f"split valid is held out as fold 0: {n_held_out} images")

    def find_subject(image: str) -> Subject:
        if image not in subjects:
            raise InputError(f"image {shorten(image)!r} is not in {path}")
        return subjects[image]

    return DataSet(
        folder=folder,
        question=question,
        samples=samples,
        normalize_id=normalize_id,
        find_subject=find_subject,
        target_sources={"train": path, "test": path},
        sample_submission=find_sample(folder),
        read_files=[path.with_name(QUESTION)],
        notes=notes,
        may_lack_targets=True,
    )


def _add_shown(fields: dict[Any, Any], path: Path) -> None:
    """Put patient, side and acquisition of a DICOM file's tags into the fields of a row whose table lacks them."""
    if {"patient", "side", ACQUISITION} <= fields.keys():
        return
    shown = listing.read_shown(path)
    if shown:
        fields.setdefault("patient", shown.patient)
        fields.setdefault("side", shown.side)
        fields.setdefault(ACQUISITION, shown.acquisition)


def find_sample(folder: Path) -> Path:
    """Return a folder's sample of a submission, by the first of SAMPLES that is there; or where it would be."""
    for name in SAMPLES:
        if (folder / name).exists():
            return folder / name
    return folder / SAMPLES[0]


def read_question(path: Path) -> Question | None:
    """Return what QUESTION beside a table of samples says that it asks; None if there is none."""
    beside = path.with_name(QUESTION)
    if not beside.exists():
        return None
    try:
        content = tomllib.loads(beside.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{beside}: not a TOML file ({error})") from None
    kind = content.get("kind")
    names = content.get("names")
    if kind not in KINDS:
        raise InputError(f"{beside}: kind: {kind!r} is none of {', '.join(KINDS)}")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{beside}: names: {names!r} is no list of texts")
    return Question(kind, tuple(names))


def read_photographs(path: Path, is_flat: bool = False) -> dict[Path, Subject]:
    """Return the photographs that a table of samples names, with their subjects: it needs no targets for that.

    If they lie flat, each is the file of its name beside the table, whatever path the table has. Raises InputError,
    naming the row, for what cannot be used.
    """
    header = tables.read_csv(path)[0]
    columns = [name for name in header if name in COLUMNS]
    table = tables.read_table(path, columns, normalize_id)
    beside = {}
    if is_flat:
        for file in path.parent.iterdir():
            beside[listing.split_suffix(listing.compose(file.name))[0]] = file
        table = table.drop(columns="path", errors="ignore")
    paths = _find_paths(path.parent, table)
    subjects = {}
    for row, fields in enumerate(table.to_dict("records"), 2):
        image = fields["image"]
        side = fields.get("side", "").strip().lower()
        if side not in SIDES:
            raise InputError(
                f"{path}, row {row}: side is {shorten(side)!r}, not left, right or empty"
            )
        photograph = Path(str(paths[image]))
        if is_flat:
            name = image.rpartition("/")[2]
            photograph = beside.get(name, path.parent / photograph.name)
        subjects[photograph] = Subject(fields.get("patient", "").strip(), side)
    return subjects


def write_table(path: Path, dataset: DataSet) -> None:
    """Write a data set's samples as a samples.csv; photographs below its folder are named relative to it."""
    samples = dataset.samples.copy()
    if dataset.question.columns == ["level"]:
        samples["level"] = samples["level"].astype(
            "Int64"
        )  # 2, not 2.0, and nothing where it is unknown
    folder = path.resolve().parent
    samples["path"] = samples["path"].map(functools.partial(_relate, folder))
    tables.write_csv(path, samples.to_csv(index=False, lineterminator="\n", float_format="%g"))
    _write_question(path, dataset.question, samples)


def _write_question(path: Path, question: Question, samples: pd.DataFrame) -> None:
    """Write the kind and the names beside a table of samples, where its columns alone would tell others.

    A file beside another table than NAME stays if it is there.
    """
    beside = path.with_suffix(".toml")
    texts = samples.astype(object).where(samples.notna(), "").astype(str)
    try:
        is_told = _find_question(path, texts) == question
    except InputError:  # the columns tell nothing
        is_told = False
    if is_told and path.name == NAME:
        beside.unlink(missing_ok=True)
    if is_told or files.is_stdout(path) or (beside.exists() and path.name != NAME):
        return
    lines = [f"    {json.dumps(name, ensure_ascii=False)}," for name in question.names]
    text = "\n".join(
        [f"# What {path.name} asks.", f'kind = "{question.kind}"', "names = [", *lines, "]", ""]
    )
    files.write_bytes(beside, text.encode())


def normalize_id(image: str) -> str:
    """Return an image id: a file's name or path without its suffix."""
    image = listing.compose(image)
    stem, suffix = os.path.splitext(image.strip())
    return stem if tables.EXTENSION.fullmatch(suffix) else image.strip()


@functools.lru_cache(maxsize=1024)
def _resolve(folder: str) -> Path:
    """Return a folder's path without links; the photographs of a folder ask for it one after the other."""
    return Path(folder).resolve()


def _relate(beside: Path, text: object) -> object:
    """Return a path relative to a folder that it lies below, else absolute; what is no path stays."""
    if not isinstance(text, str):
        return text
    top, name = os.path.split(text)
    path = _resolve(top) / name
    return str(path.relative_to(beside)) if path.is_relative_to(beside) else str(path)


def _find_question(path: Path, table: pd.DataFrame) -> Question:
    """Return what the columns of a table ask. Raises InputError if there is no target in it."""
    if "level" in table:
        levels = {cell.strip() for cell in table["level"]}
        highest = max((int(cell) for cell in levels if cell.isdecimal()), default=0)
        if highest < len(RETINOPATHY.names) or highest >= MOST_LEVELS:
            return RETINOPATHY
        return Question("levels", tuple(f"level {level}" for level in range(highest + 1)))
    if "class" in table:
        names = sorted(set(table["class"]) - {""})
        if len(names) < 2:
            raise InputError(
                f"{path}: classes {', '.join(names) or 'none'}: at least two are needed"
            )
        return Question("classes", tuple(names))
    names = []
    for name in table:
        cells = set(table[name].str.strip())
        if name not in COLUMNS and cells <= labels.BINARY.keys() and cells & {"1", "1.0"}:
            names.append(name)
    if not names:
        raise InputError(f"{path}: no column level or class, and none of 0 and 1 for a finding")
    return Question("findings", tuple(names))


def _parse_targets(path: Path, table: pd.DataFrame, question: Question) -> pd.DataFrame:
    if question.columns == ["level"]:
        return labels.parse_levels(path, table, question.names).to_frame()
    if question.columns == ["class"]:
        return labels.parse_classes(path, table, question.names).to_frame()
    return labels.parse_findings(path, table, list(question.names))


def _find_paths(folder: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Return where the photograph of each image lies, or would lie; NaN where the table says that it has none."""
    if "path" in table:
        paths: dict[str, Any] = {}
        for image, text in zip(table["image"], table["path"], strict=True):
            paths[image] = str(folder / text) if text.strip() else np.nan
        return paths
    found = _list_photographs(folder)
    return {
        image: found.get(image, str(folder / f"{image}{listing.SUFFIXES[0]}"))
        for image in table["image"]
    }


def _list_photographs(folder: Path) -> dict[str, str]:
    """Return the photographs below a folder by their path without suffix and, where it is one file's, by their name."""
    by_path: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(top, name)
            if listing.is_photograph_at(path):
                stem = listing.split_suffix(listing.compose(name))[0]
                place = listing.compose(str(path.parent.relative_to(folder)))
                by_path[stem if place == "." else f"{place}/{stem}"] = str(path)
                by_name.setdefault(stem, []).append(str(path))
    alone = {stem: paths[0] for stem, paths in by_name.items() if len(paths) == 1}
    return alone | by_path
