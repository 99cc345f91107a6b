"""Join several data sets: FOLDER... -> OUT/samples.csv, with the photographs where they are.

The column `source` names each image's data set; ids and patients begin with it, so they stay
distinct. With --folds source, dr.train and run_all.sh leave one source out per fold.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from preprocess.command import cli, process
from preprocess.dataset import readers, sample_table
from preprocess.dataset.dataset import SOURCE, DataSet, make_table
from preprocess.dataset.question import Question
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


class Wanted(NamedTuple):
    """One of the sets to join."""

    folder: Path
    layout: str | None  # a shipped layout, or a file; None: found out


def parse_source(text: str) -> Wanted:
    """Return the folder and the layout that FOLDER or FOLDER=LAYOUT means; a folder may have = in its name."""
    folder, equals, layout = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return Wanted(Path(text), None)
    if not folder or not layout:
        raise InputError(f"{text}: a set is FOLDER, or FOLDER=NAME, or FOLDER=FILE.toml")
    return Wanted(Path(folder), layout)


def name_sources(sources: Sequence[Wanted]) -> dict[str, Wanted]:
    """Return a name for each folder's set, letters, digits, - and _ of its own.

    Raises InputError if two would have one name.
    """
    named: dict[str, Wanted] = {}
    for source in sources:
        folder = source.folder
        name = re.sub(r"[^\w-]+", "-", folder.resolve().name).strip("-_")
        if not name:
            raise InputError(
                f"{folder}: its name has no letter or digit to call the source by; rename it"
            )
        if name in named:
            raise InputError(
                f"{folder} and {named[name].folder}: both sources would be called {name}; rename one"
            )
        named[name] = source
    return named


def join(datasets: Mapping[str, DataSet]) -> DataSet:
    """Return data sets, by source, as one. Raises InputError if they ask different questions."""
    import pandas as pd

    question = join_questions({name: dataset.question for name, dataset in datasets.items()})
    parts = [mark_source(name, dataset.samples) for name, dataset in datasets.items()]
    samples = make_table(pd.concat(parts, ignore_index=True), question)
    first = next(iter(datasets.values()))
    return dataclasses.replace(
        first, question=question, samples=samples, notes=(), unread={}, boxes={}
    )


def mark_source(name: str, samples: pd.DataFrame) -> pd.DataFrame:
    """Return a set's samples with the column SOURCE, and ids and patients that begin with it."""
    marked = samples.copy()
    if SOURCE in marked:
        marked = marked.rename(columns={SOURCE: f"{SOURCE} in {name}"})
    marked["image"] = f"{name}/" + marked["image"]
    marked["patient"] = f"{name}/" + marked["patient"]
    marked[SOURCE] = name
    return marked


def join_questions(questions: Mapping[str, Question]) -> Question:
    """Return the question of all sets: the same levels or classes, or the findings that any has.

    Raises InputError, naming two sets, for different ones.
    """
    first_name, first = next(iter(questions.items()))
    findings: dict[str, None] = {}
    for name, question in questions.items():
        if question.kind != first.kind:
            raise InputError(
                f"{first_name} asks {first.kind}, {name} {question.kind}: declare one of them otherwise"
            )
        findings |= dict.fromkeys(question.names)
        if question.has_many_targets:
            continue
        have_order = question.columns == ["level"]
        is_same = (
            len(question.names) == len(first.names)
            if have_order
            else set(question.names) == set(first.names)
        )
        if not is_same:
            raise InputError(
                f"{first_name} has {first.kind} {', '.join(first.names)}, {name} {', '.join(question.names)}: "
                "values in a data.toml brings both to one scale"
            )
    if first.has_many_targets:
        return Question(first.kind, tuple(findings))
    return first


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "preprocess.join", __doc__, "--out data/all data/eyepacs data/aptos data/mine=mine.toml"
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FOLDER[=LAYOUT]",
        help="data folder; behind = how it lies, if that is not to be found out: a shipped layout or a FILE.toml",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="data folder to write"
    )
    options = parser.parse_args(argv)
    named = name_sources([parse_source(text) for text in options.sources])
    datasets = {}
    for name, (folder, layout) in named.items():
        if folder.resolve() == options.out.resolve():
            raise InputError(f"--out {options.out}: is one of the sets; write to another folder")
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        dataset = readers.read_dataset(folder, layout)
        if not len(dataset.samples):
            raise InputError(
                f"{folder}: no image; python -m preprocess.describe --data {folder} says what is there"
            )
        for note in dataset.notes:
            print(f"{folder}: {note}")
        datasets[name] = dataset
    joined = join(datasets)
    path = options.out / sample_table.NAME
    sample_table.write_table(path, joined)
    for name in datasets:
        rows = joined.samples[joined.samples[SOURCE] == name]
        print(
            f"preprocess.join: {name}: {len(rows):,} images of {rows['patient'].nunique():,} patients"
        )
    print(f"preprocess.join: {len(joined.samples):,} rows -> {path}")


if __name__ == "__main__":
    process.run(main)
