"""The targets of rows that a declared layout was read by: cells of any kind -> levels, classes, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preprocess.dataset.layouts.declaration import Declaration, simplify_cell
from preprocess.disk.errors import InputError, shorten, suggest

BINARY = {"0": 0.0, "1": 1.0, "": np.nan}  # cells of a finding, as they are compared
NO_FINDING = "no finding"  # in the place of joined findings
MOST_LEVELS = 100  # more are no grades of one disease, but another column


@dataclass
class Row:
    """One image of a part, as the source tells of it."""

    image: str  # its id; prefixed later where another part has it too
    part: str
    where: str  # file and row, for people
    path: str | None  # of its photograph, relative to the data folder; None if there is none
    expected: str  # where it would be; "" if the folder is not there either
    cells: Mapping[str, str]  # column -> text, of the columns that have a name
    target: tuple[str, ...] | None = None  # the cells of the target; None where nothing tells it
    side: str = ""  # of the column that names the photograph, where several do
    values: Mapping[str, Any] = field(
        default_factory=dict
    )  # column of the sample table -> what is true


def squeeze(column: str) -> str:
    """Return a column's name as tables are read: without blanks around it, and one between words."""
    return " ".join(column.split())


def find_names(
    declaration: Declaration, rows: Sequence[Row], scale: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of the levels, classes or findings: as declared, or else as the rows have them.

    Levels without names are numbered, and called by the clinical scale if there are as many of them. Raises
    InputError, naming file and key, if there are fewer than two.
    """
    path = declaration.path
    if declaration.kind == "findings":
        return _find_findings(declaration, rows)
    if declaration.names:
        return declaration.names
    cells = {simplify_cell(_choose(declaration, row)) for row in rows if row.target is not None}
    cells -= declaration.unknown | {""}
    if declaration.kind == "classes":
        originals = {_choose(declaration, row).strip() for row in rows if row.target is not None}
        words = {
            declaration.values.get(simplify_cell(text), text)
            for text in originals
            if simplify_cell(text) in cells
        }
        if len(words) < 2:
            raise InputError(
                f"{path}: target: {', '.join(sorted(words)) or 'nothing'}: no classes to tell apart"
            )
        return tuple(sorted(words))
    numbers = []
    for cell in sorted(cells):
        level = declaration.values.get(cell, cell)
        if not level.isdecimal() or int(level) >= MOST_LEVELS:
            raise InputError(
                f"{path}: names is missing: {shorten(cell)!r} is a level, too; list all in their order, "
                "or say by values which number each word is"
            )
        numbers.append(int(level))
    n_levels = max(numbers, default=0) + 1
    if n_levels < 2:
        raise InputError(
            f"{path}: target: all levels are {', '.join(sorted(cells)) or 'unknown'}: nothing to tell apart"
        )
    if n_levels == len(scale):
        return tuple(scale)
    return tuple(f"level {level}" for level in range(n_levels))


def _find_findings(declaration: Declaration, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of the findings: names, or the columns, or all columns of 0 and 1 that no other key names."""
    if declaration.joined:
        return declaration.names
    columns = _list_finding_columns(declaration, rows)
    if not declaration.names:
        return tuple(columns)
    if len(declaration.names) != len(columns):
        raise InputError(
            f"{declaration.path}: names: {len(declaration.names)} names for {len(columns)} columns of findings"
        )
    return declaration.names


def _list_finding_columns(declaration: Declaration, rows: Sequence[Row]) -> list[str]:
    learned = [row for row in rows if row.part != "test" and row.cells] or list(rows)
    present = learned[0].cells
    if declaration.targets:
        return [squeeze(column) for column in declaration.targets if squeeze(column) in present]
    used = {squeeze(column) for column in (*declaration.images, *declaration.keep)}
    used |= {squeeze(declaration.patient), squeeze(declaration.side), squeeze(declaration.none)}
    columns = []
    for column in present:
        cells = {simplify_cell(row.cells.get(column, "")) for row in learned}
        allowed = BINARY.keys() | declaration.unknown | declaration.values.keys()
        if column not in used and cells <= allowed and "1" in cells:
            columns.append(column)
    if not columns:
        raise InputError(
            f"{declaration.path}: target is missing: {learned[0].where} has no column of 0 and 1"
        )
    return columns


def find_cells(declaration: Declaration, cells: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the cells of the target's columns in a row; None if the table has none of them."""
    columns = [squeeze(column) for column in declaration.targets]
    if not any(column in cells for column in columns):
        return None
    return tuple(cells.get(column, "") for column in columns)


def parse(
    declaration: Declaration, names: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Put the values of the target's columns into the rows: NaN where a target is unknown.

    Raises InputError, naming the row, for a cell that is no level, class or finding, with what would be right.
    """
    if declaration.kind == "findings":
        if declaration.joined:
            _parse_joined(declaration, names, rows)
        else:
            _parse_findings(declaration, names, rows)
        return
    (column,) = columns
    known: dict[str, Any] = {}
    for row in rows:
        if row.target is None:
            row.values = {column: np.nan}
            continue
        cell = _choose(declaration, row)
        if cell not in known:
            known[cell] = _parse_one(declaration, names, cell, row)
        row.values = {column: known[cell]}


def _choose(declaration: Declaration, row: Row) -> str:
    """Return the cell that holds a row's level or class, of several columns the one that is filled.

    Where columns are named after sides and the row has one, its own counts. Of a column per class it is the name of the
    one with a 1. Raises InputError for a row in which several are filled.
    """
    assert row.target is not None
    if len(row.target) == 1:
        return row.target[0]
    if declaration.kind == "classes" and all(simplify_cell(cell) in BINARY for cell in row.target):
        names = declaration.names or declaration.targets
        chosen = [
            name for name, cell in zip(names, row.target, strict=True) if simplify_cell(cell) == "1"
        ]
        if len(chosen) > 1:
            raise InputError(
                f"{row.where}: {' and '.join(chosen)}: an image has one class; kind findings takes several"
            )
        return chosen[0] if chosen else ""
    filled = {}
    for column, cell in zip(declaration.targets, row.target, strict=True):
        if cell:
            filled[column] = cell
    if len({simplify_cell(cell) for cell in filled.values()}) > 1:
        raise InputError(f"{row.where}: {' and '.join(filled)} differ; only one can be true")
    return next(iter(filled.values()), "")


def _parse_one(declaration: Declaration, names: Sequence[str], text: str, row: Row) -> Any:
    """Return a level's number or a class's name; NaN if it is unknown."""
    cell = simplify_cell(text)
    if not cell or cell in declaration.unknown:
        return np.nan
    by_word = {simplify_cell(name): name for name in names}
    if declaration.values and cell not in declaration.values and cell not in by_word:
        known = suggest(cell, declaration.values)
        raise InputError(
            f"{row.where}: {_call(declaration)} is {shorten(text)!r}{known}; {declaration.path}: values lacks it"
        )
    value = declaration.values.get(cell, cell)
    if declaration.kind == "levels":
        if value.isdecimal() and int(value) < len(names):
            return int(value)
        if simplify_cell(value) in by_word:
            return list(names).index(by_word[simplify_cell(value)])
        last = len(names) - 1
        raise InputError(
            f"{row.where}: {_call(declaration)} is {shorten(text)!r}, not a level from 0 to {last}"
            f"{suggest(cell, by_word)}; {declaration.path}: values says which number a word is, unknown what is unknown"
        )
    if value in names:
        return value
    if simplify_cell(value) in by_word:
        return by_word[simplify_cell(value)]
    raise InputError(
        f"{row.where}: {_call(declaration)} is {shorten(text)!r}, no class{suggest(value, names)}"
    )


def _call(declaration: Declaration) -> str:
    """Return what holds the target, for people."""
    return " or ".join(declaration.targets) or "the folder"


def _parse_findings(declaration: Declaration, names: Sequence[str], rows: Sequence[Row]) -> None:
    meant: dict[str, float] = dict(BINARY)
    meant |= {cell: float(value) for cell, value in declaration.values.items()}
    meant |= dict.fromkeys(declaration.unknown, np.nan)
    columns = _list_finding_columns(declaration, rows)
    none = squeeze(declaration.none)
    for row in rows:
        values = {}
        has_none = bool(none) and simplify_cell(row.cells.get(none, "")) == "1"
        for name, column in zip(names, columns, strict=True):
            cell = simplify_cell(row.cells.get(column, ""))
            if cell not in meant:
                raise InputError(
                    f"{row.where}: {column} is {shorten(cell)!r}, not 0, 1 or nothing, which is unknown; "
                    f"{declaration.path}: values or unknown may say what it means"
                )
            values[name] = meant[cell]
            if has_none and not cell:
                values[name] = 0.0
        row.values = values


def _parse_joined(declaration: Declaration, names: Sequence[str], rows: Sequence[Row]) -> None:
    by_word = {simplify_cell(name): name for name in names}
    for row in rows:
        text = row.target[0] if row.target else ""
        cell = simplify_cell(text)
        if row.target is None or not cell or cell in declaration.unknown:
            row.values = dict.fromkeys(names, np.nan)
            continue
        found = set()
        for word in text.split(declaration.joined):
            part = simplify_cell(word)
            part = simplify_cell(declaration.values.get(part, part))
            if part == NO_FINDING or part == simplify_cell(declaration.none) and part:
                continue
            if part not in by_word:
                raise InputError(
                    f"{row.where}: {shorten(word)!r} is not a finding{suggest(part, by_word)}"
                )
            found.add(by_word[part])
        row.values = {name: float(name in found) for name in names}
