"""The images that cannot be used: CACHE/rejected.csv, a row of image, stage, reason, split each."""

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
    """Put a stage's rejected images of one split into `CACHE/rejected.csv`, missing files last.

    They replace the rows that the stage has written for this split before.
    """
    path = cache / "rejected.csv"
    before = read_rejected(cache)
    rows = [row for row in before if (row.stage, row.split) != (stage, split)]
    for image, reason in reasons.items():
        rows.append(Rejected(image=image, stage=stage, reason=reason, split=split))
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
    """Return the rejected images of a split, and why each was rejected."""
    reasons = {}
    for row in read_rejected(cache):
        if row.split == split:
            reasons[row.image] = row.reason
    return reasons


def check_rejected(cache: Path, reasons: Mapping[str, str], allow_rejected: bool) -> None:
    """Raise InputError if images were rejected and the user did not allow it."""
    if not reasons:
        return
    missing = []
    damaged = []
    for image, reason in reasons.items():
        if reason == MISSING:
            missing.append(image)
        else:
            damaged.append(image)
    parts = []
    if damaged:
        reason = reasons[damaged[0]]
        parts.append(f"{_count(damaged, 'photograph')} rejected ({damaged[0]}: {reason})")
    if missing:
        parts.append(f"{_count(missing, 'file')} missing ({missing[0]})")
    message = f"{', '.join(parts)}; see {cache / 'rejected.csv'}"
    if not allow_rejected:
        raise InputError(f"{message}; mend the files, or go on without them with --allow-rejected")
    print(message, file=sys.stderr)


def _count(images: Collection[str], noun: str) -> str:
    if len(images) == 1:
        return f"1 {noun} is"
    return f"{len(images):,d} {noun}s are"
