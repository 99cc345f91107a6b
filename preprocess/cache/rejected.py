"""The images that cannot be used, and why: CACHE/rejected.csv, a row of image, stage, reason, split for each."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.cache import files, tables
from preprocess.cache.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MISSING = "no such file"  # the reason of an image that a table names and no file holds
COLUMNS = ["image", "stage", "reason", "split"]


def record_rejected(cache: Path, stage: str, split: str, reasons: Mapping[str, str]) -> None:
    """Put a stage's rejected images of one split into `CACHE/rejected.csv`, in place of what it said before.

    What is only missing stands last: of a download that is not over, there may be thousands.
    """
    import pandas as pd

    path = cache / "rejected.csv"
    rejected = read_rejected(cache)
    others = rejected[(rejected["stage"] != stage) | (rejected["split"] != split)]
    own = pd.DataFrame([(image, stage, reason, split) for image, reason in reasons.items()], columns=COLUMNS, dtype=str)
    table = pd.concat([others, own])
    table = table.assign(last=table["reason"] == MISSING).sort_values(["last", "split", "stage", "image"])[COLUMNS]
    content = table.to_csv(index=False, lineterminator="\n").encode()
    if not path.exists() or path.read_bytes() != content:
        files.write_bytes(path, content)


def read_rejected(cache: Path) -> pd.DataFrame:
    """Return `CACHE/rejected.csv` as a table of text; an empty one if there is none."""
    import pandas as pd

    path = cache / "rejected.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    try:
        header, *rows = tables.read_csv(path)
    except InputError as error:
        raise InputError(f"{error}; remove it and run python -m preprocess again") from None
    if header != COLUMNS:
        raise InputError(f"{path}: damaged; remove it and run python -m preprocess again")
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str)


def read_reasons(cache: Path, split: str) -> dict[str, str]:
    """Return the rejected images of a split and why."""
    rejected = read_rejected(cache)
    rejected = rejected[rejected["split"] == split]
    return dict(zip(rejected["image"], rejected["reason"], strict=True))


def check_rejected(cache: Path, reasons: Mapping[str, str], allow_rejected: bool) -> None:
    """Raise InputError if images were rejected and the user did not allow it."""
    if not reasons:
        return
    missing = [image for image, reason in reasons.items() if reason == MISSING]
    damaged = {image: reason for image, reason in reasons.items() if reason != MISSING}
    parts = []
    if damaged:
        image, reason = next(iter(damaged.items()))
        parts.append(f"{_count(damaged, 'photograph')} rejected ({image}: {reason})")
    if missing:
        parts.append(f"{_count(missing, 'file')} missing ({missing[0]})")
    counted = ", ".join(parts)
    where = f"see {cache / 'rejected.csv'}"
    if not allow_rejected:
        raise InputError(f"{counted}; {where}; mend the files, or go on without them with --allow-rejected")
    print(f"{counted}; {where}", file=sys.stderr)


def _count(images: Collection[str], noun: str) -> str:
    return f"{len(images):,d} {noun}{'s are' if len(images) > 1 else ' is'}"
