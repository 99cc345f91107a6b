"""Tables of labels, image and level or class, or a column per finding: read with every fault named by file and row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.dataset.question import RETINOPATHY, Question
from preprocess.disk import tables
from preprocess.disk.errors import InputError, shorten, suggest

if TYPE_CHECKING:
    import pandas as pd

# What to do about an empty level or class, where the command has the option.
HINT = "; --known-only leaves such images out"
BINARY = {"": np.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}
NO_FINDING = "No Finding"  # in the place of joined findings


def read_labels(
    path: Path,
    question: Question,
    normalize_id: Callable[[str], str],
    known_only: bool = False,
    hint: str = "",
) -> Any:
    """Return the targets in a table, by image, in the images' order.

    Levels and classes are a Series, int64, findings a DataFrame, float64, a column each, NaN where unknown. A level or
    class that is empty is an error; if only the known ones are wanted, it is left out, as is an image of whose
    findings none is known. `hint` is what to do about an empty one. Raises InputError,
    naming file and row, for whatever the question cannot have.
    """
    targets: Any
    if question.kind == "levels":
        table = tables.read_table(path, ["image", "level"], normalize_id)
        targets = parse_levels(path, table, question.names)
    elif question.kind == "classes":
        table = tables.read_table(path, ["image", "class"], normalize_id)
        targets = parse_classes(path, table, question.names)
    else:
        header = tables.read_csv(path)[0]
        lacking = [name for name in question.names if name not in header]
        if lacking:
            raise InputError(f"{path}: no column {lacking[0]}")
        table = tables.read_table(path, ["image", *question.names], normalize_id)
        targets = parse_findings(path, table, list(question.names))
    targets.index = table["image"]
    targets = targets.loc[tables.sort_images(targets.index)]
    if question.has_many_targets:
        return targets[targets.notna().any(axis=1)] if known_only else targets
    if not known_only and targets.isna().any():
        row = int(targets[table["image"]].isna().argmax())
        raise InputError(f"{path}, row {row + 2}: {describe_empty(question)}{hint}")
    return number_targets(targets.dropna(), question)


def infer_question(path: Path, columns: Sequence[str]) -> Question:
    """Return what a table of labels asks, where nothing but it and the columns of its scores is at hand.

    Levels are as many as there are columns p0, p1, ...; classes are named by the columns, as are findings. Raises
    InputError if the table has no target for them.
    """
    header = tables.list_columns(path)
    names = tuple(column for column in columns if column != "image")
    if "level" in header:
        n_levels = len([name for name in names if re.fullmatch(r"p\d+", name)])
        if n_levels == len(RETINOPATHY.names):
            return RETINOPATHY
        return Question("levels", tuple(f"level {level}" for level in range(max(n_levels, 2))))
    if "class" in header:
        return Question("classes", names)
    shared = tuple(name for name in names if name in header)
    if not shared:
        raise InputError(
            f"{path}: no column level or class, and none of a finding that the scores are of"
        )
    return Question("findings", shared)


def describe_empty(question: Question) -> str:
    """Return what is wrong with an empty level or class."""
    if question.kind == "levels":
        return "level is '', not known"
    return f"class is '', none of {', '.join(question.names)}"


def number_targets(known: pd.Series, question: Question) -> pd.Series:
    """Return known levels, or classes by name, as int64: a class is its number in the question's order."""
    if question.kind == "classes":
        known = known.map({name: number for number, name in enumerate(question.names)})
    return known.astype(np.int64)


def parse_levels(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    """Return the column `level` of a text table as float64, NaN where empty. Raises InputError, naming the row."""
    import pandas as pd

    is_known = table["level"].str.strip() != ""
    known = table[is_known]
    levels = tables.read_numbers(path, known, ["level"])[:, 0]
    is_wrong = ~np.isin(levels, range(len(names)))
    if is_wrong.any():
        row = int(known.index[is_wrong][0])
        last = len(names) - 1
        allowed = f"{', '.join(str(level) for level in range(last))} or {last}"
        raise InputError(
            f"{path}, row {row + 2}: level is {shorten(table['level'][row])}, not {allowed}"
        )
    targets = pd.Series(np.nan, index=table.index, name="level")
    targets[is_known] = levels
    return targets


def parse_classes(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    """Return the column `class` of a text table, NaN where it is empty. Raises InputError, naming the row."""
    is_wrong = ~table["class"].isin([*names, ""])
    if is_wrong.any():
        row = int(is_wrong.argmax())
        value = shorten(table["class"][row])
        raise InputError(f"{path}, row {row + 2}: class is {value!r}, none of {', '.join(names)}")
    return table["class"].where(table["class"] != "")


def parse_findings(path: Path, table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return a column of 0, 1 or NaN, unknown, per finding of a text table. Raises InputError, naming the row."""
    import pandas as pd

    cells = table[names].apply(lambda column: column.str.strip())
    wrong = np.argwhere(~cells.isin(list(BINARY)).to_numpy())
    if len(wrong):
        row, column = wrong[0].tolist()
        value = shorten(cells.iloc[row, column])
        raise InputError(
            f"{path}, row {row + 2}: {names[column]} is {value!r}, not 0, 1 or nothing, which is unknown"
        )
    return pd.DataFrame(
        {name: cells[name].map(BINARY).astype(np.float64) for name in names}, index=table.index
    )


def parse_joined_findings(path: Path, cells: pd.Series, names: list[str]) -> pd.DataFrame:
    """Return a column of 0 or 1 per finding, of cells that name them, joined by |; NaN where a cell is empty.

    Raises InputError, naming the row, for what is no finding.
    """
    import pandas as pd

    cells = cells.str.strip()
    values: dict[str, np.ndarray] = {}
    for cell in cells.unique():
        values[cell] = np.full(len(names), np.nan)
        if not cell:
            continue
        found = {name.strip() for name in cell.split("|")}
        fault = _find_fault(found, names)
        if fault:
            raise InputError(f"{path}, row {int((cells == cell).argmax()) + 2}: {fault}")
        values[cell] = np.array([name in found for name in names], float)
    rows = np.array([values[cell] for cell in cells]).reshape(len(cells), len(names))
    return pd.DataFrame(rows, index=cells.index, columns=names)


def _find_fault(found: set[str], names: list[str]) -> str | None:
    """Return what is wrong with the findings that a cell names; None if nothing is."""
    wrong = sorted(found - {NO_FINDING, *names})
    if wrong:
        return f"{shorten(wrong[0])!r} is not a finding{suggest(wrong[0], (NO_FINDING, *names))}"
    if NO_FINDING in found and len(found) > 1:
        return f"{NO_FINDING} and findings"
    return None
