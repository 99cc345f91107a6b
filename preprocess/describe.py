"""Describe a data folder as every stage reads it: DATA -> counts and five rows, printed; optionally samples.csv.

The table has a row per image: image, path, split, patient, side, the target, and all other columns
of the source. A folder that holds such a samples.csv is read from it, so it can be edited by hand.
If no layout fits, the command lists the tables and folders that it found and prints a data.toml to
finish, which --draft writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.command import cli, process
from preprocess.dataset import listing, readers, recognise, sample_table
from preprocess.dataset.dataset import COLUMNS, SPLITS, DataSet
from preprocess.dataset.layouts import declaration as layouts
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture import depth

if TYPE_CHECKING:
    import pandas as pd

N_ROWS = 5  # shown of the table


def describe(dataset: DataSet) -> list[str]:
    """Return lines for people: what is asked, how much there is of each split, what is not read, and some rows."""
    question = dataset.question
    lines = [f"{question.kind}: {', '.join(question.names)}"]
    lines += dataset.notes
    if not len(dataset.samples):
        return [*lines, "no image"]
    for split in SPLITS:
        rows = dataset.samples[dataset.samples["split"] == split]
        if len(rows):
            lines.append(f"{split}: {describe_split(dataset, rows)}")
    lines += describe_unread(dataset)
    lines += depth.describe_depths(depth.find_depths(dataset.group_paths()))
    shown = dataset.samples[[*COLUMNS, *question.columns]].head(N_ROWS)
    if question.columns == ["level"]:
        shown = shown.astype({"level": "Int64"})  # 2, not 2.0
    return [*lines, *shown.to_string(index=False).splitlines()]


def describe_split(dataset: DataSet, rows: pd.DataFrame) -> str:
    """Return how many images, photographs, patients, sides and targets the rows of a split have."""
    n_photographs = int(rows["path"].notna().sum())
    parts = [f"{len(rows):,} images of {rows['patient'].nunique():,} patients"]
    if n_photographs < len(rows):
        parts.append(f"{len(rows) - n_photographs:,} without a photograph")
    n_sides = Counter(side for side in rows["side"] if side)
    if n_sides:
        parts.append(", ".join(f"{n_sides[side]:,} {side}" for side in ("left", "right")))
    parts.append(count_targets(dataset, rows))
    is_unknown = rows[dataset.question.columns].isna()
    n_unknown = int(is_unknown.all(axis=1).sum())
    if n_unknown:
        parts.append(f"{n_unknown:,} unknown")
    n_cells = int(is_unknown.to_numpy().sum())
    if dataset.question.has_many_targets and n_cells:
        parts.append(f"{n_cells:,} of {is_unknown.size:,} findings unknown")
    return "; ".join(parts)


def count_targets(dataset: DataSet, rows: pd.DataFrame) -> str:
    """Return how many rows have each level or class, or each finding."""
    question = dataset.question
    if question.has_many_targets:
        counts = {name: int((rows[name] == 1).sum()) for name in question.names}
    else:
        (column,) = question.columns
        keys = range(len(question.names)) if column == "level" else question.names
        counts = {f"{column} {key}": int((rows[column] == key).sum()) for key in keys}
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def describe_unread(dataset: DataSet) -> list[str]:
    """Return a line for each reason why files beside the photographs are not read."""
    files_by_reason: dict[str, list[str]] = {}
    for unread in dataset.unread.values():
        for name, reason in unread.items():
            files_by_reason.setdefault(reason, []).append(name)
    return [
        f"{len(names):,} files not read ({names[0]}): {reason}"
        for reason, names in files_by_reason.items()
    ]


def describe_unknown(folder: Path, draft: str) -> list[str]:
    """Return lines on a folder that no layout fits: what lies in it, and the draft of a declaration."""
    tree = listing.walk(folder)
    lines = [
        f"fits no layout: not {', '.join(layouts.list_shipped())}; nor Kaggle's, folders of classes, findings.csv"
    ]
    lines += recognise.describe_tree(tree)
    lines.append(f"a {layouts.NAME} to finish by hand (--draft writes it):")
    return lines + [f"  {line}" for line in draft.splitlines()]


def find_draft(folder: Path, layout: str | None) -> str:
    """Return the text of a data.toml to finish: that of the layout that is named or fits, or else a guess."""
    if layout:
        return layouts.find(layout).path.read_text(encoding="utf-8")
    fits = recognise.find_fits(listing.walk(folder))
    if len(fits) == 1:
        return fits[0].declaration.path.read_text(encoding="utf-8")
    return recognise.draft(listing.walk(folder))


def write_draft(path: Path, text: str) -> None:
    """Write the draft of a declaration. Raises InputError if there is such a file, which a person may have finished."""
    if path.exists():
        raise InputError(f"{path}: is there already; remove it, or give --draft another FILE.toml")
    files.write_bytes(path, text.encode())


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser("preprocess.describe", __doc__, "--data data --out samples.csv")
    cli.add_data_options(parser, "the data folder")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.csv", help="write the table of samples to this file"
    )
    parser.add_argument(
        "--draft",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE.toml",
        help=f"write a declaration to finish by hand (DATA/{layouts.NAME})",
    )
    options = parser.parse_args(argv)
    if options.draft == Path():  # without a name
        options.draft = options.data / layouts.NAME
    if not options.data.is_dir():
        raise InputError(f"{options.data}: no such folder")
    if options.draft:
        draft = find_draft(options.data, options.layout)
        lines = recognise.describe_tree(listing.walk(options.data))
        write_draft(options.draft, draft)
        print(f"{options.data}:")
        for line in lines:
            print(f"  {line}")
        print(f"preprocess.describe: a declaration to finish by hand -> {options.draft}")
        return
    dataset = readers.read_dataset(options.data, options.layout)
    if options.out and options.out.resolve() != (options.data / sample_table.NAME).resolve():
        dataset.check_out(options.out)
    stream = files.summary_stream(options.out)
    print(f"{options.data}:", file=stream)
    if not len(dataset.samples):
        for line in describe_unknown(options.data, recognise.draft(listing.walk(options.data))):
            print(f"  {line}", file=stream)
        if options.out:
            raise InputError(
                f"{options.out}: no image to list; --draft writes a {layouts.NAME} to finish by hand"
            )
        return
    for line in describe(dataset):
        print(f"  {line}", file=stream)
    if options.out:
        sample_table.write_table(options.out, dataset)
        print(f"preprocess.describe: {len(dataset.samples):,} rows -> {options.out}", file=stream)


if __name__ == "__main__":
    process.run(main)
