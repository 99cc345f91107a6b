"""The images that cannot be used, and why: CACHE/rejected.csv, a row of image, stage, reason, split for each."""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from preprocess.disk import tables
from preprocess.disk.errors import InputError

MISSING = "no such file"  # the reason of an image that a table names and no file holds


class Rejected(NamedTuple):
    """A row of the table."""

    image: str
    stage: str
    reason: str
    split: str


def record_rejected(cache: Path, stage: str, split: str, reasons: Mapping[str, str]) -> None:
    """Put a stage's rejected images of one split into `CACHE/rejected.csv`, in place of those before; missing last."""
    path, before = cache / "rejected.csv", read_rejected(cache)
    rows = [row for row in before if (row.stage, row.split) != (stage, split)]
    rows += [Rejected(image, stage, reason, split) for image, reason in reasons.items()]
    rows.sort(key=lambda row: (row.reason == MISSING, row.split, row.stage, row.image))
    if not path.exists() or rows != before:
        tables.write_rows(path, Rejected._fields, rows)


def read_rejected(cache: Path) -> list[Rejected]:
    """Return the rows of `CACHE/rejected.csv`; none if there is no such file."""
    path = cache / "rejected.csv"
    if not path.exists():
        return []
    try:
        header, *rows = tables.read_csv(path)
        if header != list(Rejected._fields):
            raise InputError(f"{path}: damaged")
    except InputError as error:
        raise InputError(f"{error}; remove it and run python -m preprocess again") from None
    return [Rejected(*row) for row in rows]


def read_reasons(cache: Path, split: str) -> dict[str, str]:
    """Return the rejected images of a split and why."""
    return {row.image: row.reason for row in read_rejected(cache) if row.split == split}


def check_rejected(cache: Path, reasons: Mapping[str, str], allow_rejected: bool) -> None:
    """Raise InputError if images were rejected and the user did not allow it."""
    missing = [image for image, reason in reasons.items() if reason == MISSING]
    damaged = [image for image, reason in reasons.items() if reason != MISSING]
    parts = []
    if damaged:
        parts.append(f"{_count(damaged, 'photograph')} rejected ({damaged[0]}: {reasons[damaged[0]]})")
    if missing:
        parts.append(f"{_count(missing, 'file')} missing ({missing[0]})")
    told = f"{', '.join(parts)}; see {cache / 'rejected.csv'}"
    if parts and not allow_rejected:
        raise InputError(f"{told}; mend the files, or go on without them with --allow-rejected")
    if parts:
        print(told, file=sys.stderr)


def _count(images: Collection[str], noun: str) -> str:
    return f"{len(images):,d} {noun}{'s are' if len(images) > 1 else ' is'}"
