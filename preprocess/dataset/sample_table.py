"""samples.csv, the table of samples itself: read where a data folder holds one, and written for people to finish."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.dataset import labels, listing
from preprocess.dataset.dataset import COLUMNS, SPLITS, DataSet, Subject, make_table
from preprocess.dataset.question import RETINOPATHY, Question
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten, suggest

if TYPE_CHECKING:
    import pandas as pd

NAME = "samples.csv"
SIDES = ("left", "right", "")


def read_dataset(folder: Path) -> DataSet:
    """Return the data set of a folder with a samples.csv.

    The column `image` is all that it must have beside targets: `level`, 0 to 4; or `class`; or else a column per
    finding: each whose cells are all 0, 1 or empty. `path` is absolute or relative to the table; without it an image
    is the photograph of its name below the folder. `split` is train, valid or test: without it all is train. Without
    `patient` each image is its own. Raises InputError, naming the row, for what cannot be used.
    """
    import pandas as pd

    path = folder / NAME
    header = tables.read_csv(path)[0]
    columns = [name for name in header if name.strip()]
    table = tables.read_table(path, columns, normalize_id)
    question = _find_question(path, table)
    targets = _parse_targets(path, table, question)
    texts = table.drop(columns=[name for name in targets if name in table])
    paths = _find_paths(folder, texts)
    rows = []
    for row, (fields, values) in enumerate(
        zip(texts.to_dict("records"), targets.to_dict("records"), strict=True), start=2
    ):
        image = fields["image"]
        fields["split"] = fields.get("split", "").strip() or "train"
        fields["side"] = fields.get("side", "").strip().lower()
        fields["patient"] = fields.get("patient", "").strip() or image
        if fields["split"] not in SPLITS:
            near = suggest(fields["split"], SPLITS)
            raise InputError(f"{path}, row {row}: split is {shorten(fields['split'])!r}{near}")
        if fields["side"] not in SIDES:
            raise InputError(f"{path}, row {row}: side is {shorten(fields['side'])!r}, not left, right or empty")
        rows.append(fields | values | {"path": paths[image]})
    samples = make_table(pd.DataFrame(rows), question)
    subjects = {row["image"]: Subject(row["patient"], row["side"]) for row in rows}
    notes = []
    if "patient" not in table:
        notes.append(f"{NAME}: no column patient: each of {len(rows)} images counts as a patient of its own")
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
        sample_submission=folder / "sampleSubmission.csv",
        notes=notes,
    )


def write_table(path: Path, dataset: DataSet) -> None:
    """Write a data set's samples as a samples.csv; photographs below its folder are named relative to it."""
    samples = dataset.samples.copy()
    if dataset.question.columns == ["level"]:
        samples["level"] = samples["level"].astype("Int64")  # 2, not 2.0, and nothing where it is unknown
    beside = path.resolve().parent
    samples["path"] = samples["path"].map(functools.partial(_relate, beside))
    tables.write_csv(path, samples.to_csv(index=False, lineterminator="\n", float_format="%g"))


def normalize_id(image: str) -> str:
    """Return an image id: a file's name or path without its suffix."""
    stem, suffix = os.path.splitext(image.strip())
    return stem if tables.EXTENSION.fullmatch(suffix) else image.strip()


def _relate(beside: Path, text: object) -> object:
    """Return a path relative to a folder that it lies below, else absolute; what is no path stays."""
    if not isinstance(text, str):
        return text
    path = Path(text).resolve()
    return str(path.relative_to(beside)) if path.is_relative_to(beside) else str(path)


def _find_question(path: Path, table: pd.DataFrame) -> Question:
    """Return what the columns of a table ask. Raises InputError if there is no target in it."""
    if "level" in table:
        return RETINOPATHY
    if "class" in table:
        names = sorted(set(table["class"]) - {""})
        if len(names) < 2:
            raise InputError(f"{path}: classes {', '.join(names) or 'none'}: there is nothing to tell apart")
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
    return {image: found.get(image, str(folder / f"{image}{listing.SUFFIXES[0]}")) for image in table["image"]}


def _list_photographs(folder: Path) -> dict[str, str]:
    """Return the photographs below a folder by their path without suffix and, where it is one file's, by their name."""
    by_path: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if listing.is_photograph(name):
                path = Path(top, name)
                by_path[str(path.relative_to(folder).with_suffix(""))] = str(path)
                by_name.setdefault(path.stem, []).append(str(path))
    alone = {stem: paths[0] for stem, paths in by_name.items() if len(paths) == 1}
    return alone | by_path
