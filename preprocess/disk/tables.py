"""CSV tables of images: read with every fault named by file and row, written whole, joined by image id."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

# An image id is a path below a split's folder without its suffix. Each part is a plain file name: no leading dot
# (hidden and temporary files), no control character, and nothing a spreadsheet takes for the start of a formula, since
# submissions are opened in one.
IMAGE_ID = re.compile(r"[^.=+@\-/\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*(/[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*)*")
EXTENSION = re.compile(r"\.(jpe?g|png|tiff?|bmp|gif)", re.IGNORECASE)  # of a picture's file, which no id has
LONGEST_ID = 200  # bytes: file systems take 255, temporary names need some


def is_id(image: str) -> bool:
    """Tell whether a text can be an image id."""
    is_short, suffix = len(image.encode(errors="replace")) <= LONGEST_ID, os.path.splitext(image)[1]
    return bool(IMAGE_ID.fullmatch(image)) and image.isprintable() and is_short and not EXTENSION.fullmatch(suffix)


def order_of(image: str) -> tuple:
    """Return the sort key of an image id: numbers by their size, before words, so that 2_left comes before 10_left."""
    parts = re.split(r"([0-9]+)", image)
    return (*((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part), image)


def sort_images(images: Iterable[str]) -> list[str]:
    """Return image ids in their order."""
    return sorted(images, key=order_of)


def read_csv(path: Path) -> list[list[str]]:
    """Return the fields of a CSV in UTF-8, with or without byte order mark, perhaps gzipped: the header, then the rows.

    Raises InputError, naming file and row, if it is no table, whose rows have as many fields as the header.
    """
    files.check_regular(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a CSV table (no UTF-8 text from byte {error.start} on)") from None
    except (csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a CSV table ({error})") from None
    while rows and not rows[-1]:  # empty lines at the end
        rows.pop()
    if not rows or not rows[0]:
        raise InputError(f"{path}: not a CSV table (no header)")
    for position, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise InputError(f"{path}, row {position + 2}: {len(row)} fields, the header has {len(rows[0])}")
    return rows


def list_columns(path: Path) -> list[str]:
    """Return the columns of a CSV that have a name, and no other the same."""
    header = read_csv(path)[0]
    return [name for name in header if name.strip() and header.count(name) == 1]


def read_table(
    path: Path, columns: Sequence[str], spell: Callable[[str], str] = str, image_column: str = "image"
) -> pd.DataFrame:
    """Return the named columns of a CSV as text, one row per image, indexed 0..n-1 in the file's order.

    Raises InputError, naming file and row, for what is no table, for columns and ids that are missing or come twice,
    and for ids that are none. `spell` makes of an image as it is written its id, see `Layout`; `image_column` is the
    file's word for the column that is returned as "image".
    """
    import pandas as pd

    header, *rows = read_csv(path)
    missing = [column for column in columns if column not in header]
    if missing:
        shown = shorten(", ".join(header))
        hint = "; separate the columns by commas" if len(header) == 1 and re.search("[;\t]", header[0]) else ""
        raise InputError(f"{path}: no column {', '.join(missing)}; its columns are {shown}{hint}")
    repeated = [column for column in columns if header.count(column) > 1]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]} comes {header.count(repeated[0])} times")
    table = pd.DataFrame({column: [row[header.index(column)] for row in rows] for column in columns}, dtype=str)
    table = table.rename(columns={image_column: "image"})
    if "image" in table:
        table["image"] = table["image"].map(spell)
    seen: set[str] = set()
    for position, image in enumerate(table.get("image", ())):
        if EXTENSION.fullmatch(suffix := os.path.splitext(image)[1]):
            where = f"{path}, row {position + 2}: image {shorten(image)}"
            raise InputError(f"{where}: drop the {suffix}: an image id is the file's name without it")
        if not is_id(image):
            raise InputError(f"{path}, row {position + 2}: {shorten(image)!r} is no image id")
        if image in seen:
            raise InputError(f"{path}, row {position + 2}: image {image} comes a second time")
        seen.add(image)
    return table


def read_numbers(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return text columns of rows of a table that `read_table` read as float64 of shape (n, len(columns)).

    Raises InputError, naming file and row, for what is no finite number.
    """
    import pandas as pd

    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row, column = (int(position[0]) for position in np.nonzero(bad))
        text = shorten(table[columns[column]].iloc[row])
        raise InputError(f"{path}, row {table.index[row] + 2}: {columns[column]} is {text!r}, not a finite number")
    return numbers


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV of a header and rows, see `write_csv`."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([columns, *rows])
    write_csv(path, lines.getvalue())


def write_csv(path: Path, text: str) -> None:
    """Write a table's text, whole or not at all, gzipped where the name ends in .gz: the same text, the same bytes."""
    files.write_bytes(path, gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


def check_same_images(expected: Iterable[str], given: Iterable[str], expected_from: object, given_from: object) -> None:
    """Raise InputError, naming some, if two sets of image ids differ."""
    expected, given = set(expected), set(given)
    for images, holder, lacker in (
        (expected - given, expected_from, given_from),
        (given - expected, given_from, expected_from),
    ):
        if images:
            named = ", ".join(sort_images(images)[:5])
            raise InputError(f"{len(images)} images of {holder} are not in {lacker}: {named}")
