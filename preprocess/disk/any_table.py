"""Tables as others write them, CSV, semicolons, tabs, blanks, gzip, BOM, CRLF or .xlsx -> cells of text."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten, suggest
from preprocess.disk.libraries import import_libraries

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")  # of files that may be tables, perhaps with .gz behind
REQUIREMENTS = Path(__file__).parents[1] / "table-requirements.txt"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"  # how such files begin; an .xlsx is a zip
BLANKS = " "  # the separator of columns that are any number of blanks apart
SEPARATORS = (",", ";", "\t", "|")
N_LOOKED_AT = 50  # lines that the separator is guessed from
# Encodings to try: UTF-8 with or without a byte order mark, and what Windows writes in the west, which takes any byte.
ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


class Format(NamedTuple):
    """What a declaration says of a table; what it does not say is guessed."""

    columns: tuple[str, ...] = ()  # names for a table without a header
    separator: str | None = None  # BLANKS: any number of them
    encoding: str | None = None


class AnyTable(NamedTuple):
    """A table: the names of its columns, and its rows, all cells as text without blanks around them."""

    path: Path
    columns: list[str]  # in the file's order; "" for a column without a name
    rows: list[list[str]]  # each as long as the columns
    numbers: list[int]  # of the rows in the file, from 1

    def find(self, column: str) -> int:
        """Return a column's position. Raises InputError, with near names, if there is none, or two have the name."""
        positions = [position for position, name in enumerate(self.columns) if name == column]
        if not positions:
            near = suggest(column, [name for name in self.columns if name])
            raise InputError(f"{self.path}: no column {column!r}{shorten(near)}")
        if len(positions) > 1:
            raise InputError(f"{self.path}: column {column!r} comes {len(positions)} times")
        return positions[0]

    @property
    def named(self) -> dict[str, int]:
        """The columns that have a name, and no other the same: name -> position."""
        return {
            name: at
            for at, name in enumerate(self.columns)
            if name and self.columns.count(name) == 1
        }


def is_table(name: str) -> bool:
    """Return whether a file may be a table by its name."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_any_table(path: Path, how: Format | None = None, most_rows: int | None = None) -> AnyTable:
    """Return a table, whatever of the usual ways it was written in; at most so many rows of it.

    Empty lines are left out, and empty cells beyond the header. Raises InputError, naming file and row, for what is no
    table and for rows that are not as long as the header.
    """
    how = how or Format()
    files.check_regular(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: not a table ({error})") from None
    if content.startswith(ZIP):
        lines = _read_sheet(path, content, most_rows)
    else:
        text = _decode(path, content, how.encoding)
        lines = _split_lines(path, text, how, most_rows)
    if not lines:
        raise InputError(f"{path}: an empty table")
    if how.columns:
        return _make_table(path, [name.strip() for name in how.columns], lines)
    _, header = lines[0]
    return _make_table(path, header, lines[1:])


def _decode(path: Path, content: bytes, encoding: str | None) -> str:
    if encoding is None and content.startswith(WIDE_MARKS):
        encoding = "utf-16"
    wanted = (encoding,) if encoding else ENCODINGS
    for name in wanted:
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
        except LookupError:
            raise InputError(
                f"{path}: encoding {encoding!r} is unknown; use utf-8, cp1252 or utf-16"
            ) from None
    raise InputError(
        f"{path}: cannot be read as {encoding}; without the key encoding it is guessed"
    )


def _split_lines(
    path: Path, text: str, how: Format, most_rows: int | None
) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each line that is not empty."""
    if "\0" in text:
        raise InputError(f"{path}: not a table (it holds bytes that are no text)")
    separator = how.separator or _guess_separator(text)
    lines: list[tuple[int, list[str]]] = []
    if separator == BLANKS:
        # A file's name may have blanks in it; what stands behind it has none.
        most_cuts = len(how.columns) - 1 if how.columns else -1
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                lines.append((number, line.strip().rsplit(None, most_cuts)))
            if most_rows is not None and len(lines) > most_rows:
                break
        return lines
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
            if most_rows is not None and len(lines) > most_rows:
                break
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a table ({error})") from None
    return lines


def _guess_separator(text: str) -> str:
    """Return the separator that divides the first lines into most columns, as many in each."""
    lines = [line for line in text[: 2**20].splitlines() if line.strip()][:N_LOOKED_AT]
    best = ","
    most = 1
    for separator in SEPARATORS:
        widths = {len(cells) for cells in csv.reader(lines, delimiter=separator)}
        if len(widths) == 1 and min(widths) > most:
            best = separator
            most = min(widths)
    if most == 1 and lines:
        for (
            separator
        ) in SEPARATORS:  # rows of different lengths: their fault is named when they are read
            if separator in lines[0]:
                return separator
        widths = {len(line.split()) for line in lines}
        if len(widths) == 1 and min(widths) > 1:
            return BLANKS
    return best


def _read_sheet(path: Path, content: bytes, most_rows: int | None) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each row of an .xlsx file's first sheet that is a table, not a remark."""
    (openpyxl,) = import_libraries(REQUIREMENTS, "openpyxl")
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except (zipfile.BadZipFile, LookupError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not a table that Excel could read ({type(error).__name__})"
        ) from None
    lines: list[tuple[int, list[str]]] = []
    for sheet in book.worksheets:
        rows = _read_rows(sheet, most_rows)
        is_table = len(rows) > 1 and any(len(list(filter(None, cells))) > 1 for _, cells in rows)
        if is_table or not lines:
            lines = rows
        if is_table:
            break
    book.close()
    if lines:  # Excel keeps empty columns behind the last
        width = max(len(cells) for _, cells in lines)
        lines = [(number, cells + [""] * (width - len(cells))) for number, cells in lines]
    return lines


def _read_rows(sheet: Any, most_rows: int | None) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each row of a sheet that is not empty."""
    lines = []
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_write_cell(value) for value in values]
        if any(cells):
            lines.append((number, cells))
        if most_rows is not None and len(lines) > most_rows:
            break
    return lines


def _write_cell(value: object) -> str:
    """Return a cell of a sheet as text: 2 for 2.0, nothing for an empty one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _make_table(
    path: Path, columns: Sequence[str], lines: Sequence[tuple[int, list[str]]]
) -> AnyTable:
    rows = []
    numbers = []
    for number, cells in lines:
        if len(cells) > len(columns) and not any(cells[len(columns) :]):
            cells = cells[: len(columns)]
        if len(cells) != len(columns):
            raise InputError(
                f"{path}, row {number}: {len(cells)} fields for {len(columns)} columns"
            )
        rows.append(cells)
        numbers.append(number)
    named = [re.sub(r"\s+", " ", name.strip()) for name in columns]
    return AnyTable(path, named, rows, numbers)
