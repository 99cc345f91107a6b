"""CSV tables of images: read, with each fault named by file and row; written whole; joined by id."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd

# An image id is a path below a split's folder without its suffix. Each part is a plain file name: no
# leading dot (hidden and temporary files), no control character, and nothing that a spreadsheet takes
# for the start of a formula, since submissions are opened in one.
IMAGE_ID = re.compile(
    r"[^.=+@\-/\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*(/[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*)*"
)
# Of a picture's file, which no id has.
EXTENSION = re.compile(r"\.(jpe?g|jpe|jfif|png|tiff?|bmp|gif|p[gp]m|webp|dcm|dicom)", re.IGNORECASE)
LONGEST_ID = 200  # bytes: file systems take 255, temporary names need some


def is_id(image: str) -> bool:
    """Return whether a text can be an image id."""
    if not IMAGE_ID.fullmatch(image) or not image.isprintable():
        return False
    if len(image.encode(errors="replace")) > LONGEST_ID:
        return False
    suffix = os.path.splitext(image)[1]
    return not EXTENSION.fullmatch(suffix)


def order_of(image: str) -> tuple:
    """Return the sort key of an image id: 2_left comes before 10_left.

    Numbers are ordered by their size, and before words.
    """
    key: list[Any] = []
    for part in re.split(r"([0-9]+)", image):
        if part.isdecimal():
            key.append((False, int(part), part))
        elif part:
            key.append((True, 0, part))
    return tuple(key), image


def sort_images(images: Iterable[str]) -> list[str]:
    """Return image ids in their order."""
    return sorted(images, key=order_of)


def read_csv(path: Path) -> list[list[str]]:
    """Return the fields of a CSV: the header, then the rows.

    It is in UTF-8, with or without a byte order mark, and gzipped where its name ends in .gz. Raises
    InputError, naming file and row, if it is no table or a row is not as long as the header.
    """
    files.check_regular(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        message = (
            f"{path}, row {number}: not a CSV table (no UTF-8 text from byte {error.start} on)"
        )
        raise InputError(message) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a CSV table ({error})") from None
    reader = csv.reader(text, skipinitialspace=True, strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not a CSV table ({error})") from None
    while rows and not rows[-1]:  # empty lines at the end
        rows.pop()
    if not rows or not rows[0]:
        raise InputError(f"{path}: not a CSV table (no header)")
    header = rows[0]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(
                f"{path}, row {number}: {len(row)} fields, the header has {len(header)}"
            )
    return rows


def list_columns(path: Path) -> list[str]:
    """Return the columns of a CSV that have a name, and no other the same."""
    header = read_csv(path)[0]
    return [name for name in header if name.strip() and header.count(name) == 1]


def read_table(
    path: Path,
    columns: Sequence[str],
    spell: Callable[[str], str] = str,
    image_column: str = "image",
) -> pd.DataFrame:
    """Return the named columns of a CSV as text, one row per image, indexed 0..n-1 as in the file.

    `spell` turns an image as it is written into its id, see `Layout`; `image_column` is the file's
    word for the column that is returned as "image". Raises InputError, naming file and row, for what
    is no table, for columns and ids that are missing or come twice, and for ids that are invalid.
    """
    import pandas as pd

    header, *rows = read_csv(path)
    _check_columns(path, header, columns)
    texts = {}
    for column in columns:
        position = header.index(column)
        texts[column] = [row[position] for row in rows]
    table = pd.DataFrame(texts, dtype=str)
    table = table.rename(columns={image_column: "image"})
    if "image" in table:
        # macOS takes letters and their accents apart (NFD); an id has them together (NFC).
        table["image"] = [spell(unicodedata.normalize("NFC", image)) for image in table["image"]]
        _check_images(path, table["image"])
    return table


def _check_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Raise InputError for columns that are missing in a table or come twice."""
    missing = [column for column in columns if column not in header]
    if missing:
        message = (
            f"{path}: no column {', '.join(missing)}; its columns are {shorten(', '.join(header))}"
        )
        if len(header) == 1 and re.search("[;\t]", header[0]):
            message += "; separate the columns by commas"
        raise InputError(message)
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{path}: column {column} comes {header.count(column)} times")


def _check_images(path: Path, images: Iterable[str]) -> None:
    """Raise InputError for ids of a table that are invalid or come twice."""
    seen: set[str] = set()
    for row, image in enumerate(images, 2):  # the header is row 1
        suffix = os.path.splitext(image)[1]
        if EXTENSION.fullmatch(suffix):
            raise InputError(
                f"{path}, row {row}: image {shorten(image)}: "
                f"drop the {suffix}: an image id is the file's name without it"
            )
        if not is_id(image):
            raise InputError(f"{path}, row {row}: {shorten(image)!r} is not an image id")
        if image in seen:
            raise InputError(f"{path}, row {row}: image {image} is listed twice")
        seen.add(image)


def read_numbers(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return text columns of a table, or of some of its rows, as float64 of shape (n, len(columns)).

    `read_table` has read it from `path`. Raises InputError, naming file and row, for what is no
    finite number.
    """
    import pandas as pd

    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, position = bad[0]
        column = columns[position]
        text = shorten(table[column].iloc[row])
        raise InputError(
            f"{path}, row {table.index[row] + 2}: {column} is {text!r}, not a finite number"
        )
    return numbers


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV of a header and rows, see `write_csv`."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([columns, *rows])
    write_csv(path, lines.getvalue())


def write_csv(path: Path, text: str) -> None:
    """Write a table's text, whole or not at all, gzipped where the name ends in .gz.

    The same text gives the same bytes.
    """
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    files.write_bytes(path, content)


def check_same_images(
    expected: Iterable[str], given: Iterable[str], expected_from: object, given_from: object
) -> None:
    """Raise InputError, naming some, if two sets of image ids differ."""
    expected = set(expected)
    given = set(given)
    _check_none_left(expected - given, holder=expected_from, lacker=given_from)
    _check_none_left(given - expected, holder=given_from, lacker=expected_from)


def _check_none_left(images: set[str], holder: object, lacker: object) -> None:
    if images:
        named = ", ".join(sort_images(images)[:5])
        raise InputError(f"{len(images)} images of {holder} are not in {lacker}: {named}")
