"""A journal of a stage's finished images, a line each: a killed run loses only the images in flight."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preprocess.cache import manifest
from preprocess.disk import files
from preprocess.disk.errors import InputError

Row = dict[str, Any]  # what a stage makes of one image, or {"reason": why not}


class Record(NamedTuple):
    """What a stage knows of one image: the key it was made from and the row it made."""

    key: list
    row: Row


class Journal:
    """The finished images of one split of a stage: `FOLDER/SPLIT.jsonl`.

    The file holds the parameters, then a line per image. Lines are appended as images finish, in any
    order; one torn by a kill or damaged by the disk is dropped, so that its image is due again.
    `finish` sorts them, so that the bytes do not depend on how often the run was interrupted.
    """

    def __init__(self, folder: Path, split: str, parameters: Mapping[str, Any]):
        self.path = folder / f"{split}.jsonl"
        self.parameters = json.loads(json.dumps(parameters))
        self.records: dict[str, Record] = {}
        self.change: str | None = None
        self.found: dict[str, Any] = {}  # the parameters of the file that was there
        # The images of the file's lines; None if the file is absent, of other parameters, or damaged.
        self._written: list[str] | None = None
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        *lines, torn = self.path.read_bytes().split(b"\n")
        if not lines:
            return
        header = _decode_line(lines[0])
        if isinstance(header, dict):
            self.found = header
        self.change = manifest.describe_change(self.found, self.parameters)
        if self.change is not None:
            return
        written = []
        for line in lines[1:]:
            content = _decode_line(line)
            if _is_record(content):
                image, key, row = content
                self.records[image] = Record(key, row)
                written.append(image)
        is_whole = not torn and len(written) == len(lines) - 1
        if is_whole:
            self._written = written

    def find_made(self, keys: Mapping[str, list]) -> dict[str, Row]:
        """Return the rows of the images whose record was made from their key, in the keys' order."""
        rows = {}
        for image, key in keys.items():
            record = self.records.get(image)
            if record and record.key == key:
                rows[image] = record.row
        return rows

    def append(self, image: str, key: list, row: Row) -> None:
        """Record one image's key and row, on disk before it returns."""
        written = self._written
        if written is None:
            written = self._write()
        self.records[image] = Record(json.loads(json.dumps(key)), row)
        with files.naming(self.path), open(self.path, "ab") as handle:
            handle.write(_encode_line([image, key, row]))
        written.append(image)

    def absorb(self, other: "Journal") -> None:
        """Take the records of another journal of the same parameters, on disk before it returns."""
        self.records |= other.records
        self._write()

    def finish(self, images: Sequence[str]) -> list[str]:
        """Keep the records of `images` only, in that order, and return the images that were dropped."""
        kept = {image: self.records[image] for image in images}
        dropped = [image for image in self.records if image not in kept]
        self.records = kept
        if self._written != list(kept):
            self._write()
        return dropped

    def _write(self) -> list[str]:
        with files.replacing(self.path) as partial, open(partial, "wb") as handle:
            handle.write(_encode_line(self.parameters))
            for image, (key, row) in self.records.items():
                handle.write(_encode_line([image, key, row]))
        self._written = list(self.records)
        return self._written

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of the images that were not rejected."""
        rows = {}
        for image, record in self.records.items():
            if "reason" not in record.row:
                rows[image] = record.row
        return rows

    @property
    def reasons(self) -> dict[str, str]:
        """The rejected images and why."""
        reasons = {}
        for image, record in self.records.items():
            if "reason" in record.row:
                reasons[image] = record.row["reason"]
        return reasons

    @property
    def digest(self) -> str:
        """The digest of what was made, whatever the files' dates."""
        lines = [json.dumps([image, row], sort_keys=True) for image, row in self.rows.items()]
        return files.hash_text("\n".join(lines))


def read_rows(folder: Path, split: str, made_by: str) -> dict[str, Row]:
    """Return the rows of an image stage's split.

    Raises InputError if the split is not finished or the file is not what was written.
    """
    digest = manifest.read_output(folder, split, made_by)
    written = manifest.read_manifest(folder)
    parameters = {}
    if written is not None:
        parameters = written["parameters"]
    journal = Journal(folder, split, parameters)
    if journal.digest != digest:
        raise InputError(f"{journal.path}: not what was written; run python -m {made_by} again")
    return journal.rows


def iterate_rows(folder: Path, split: str, made_by: str) -> Iterator[tuple[str, Row]]:
    """Yield what `read_rows` returns, one image and row at a time, whatever the number of images.

    Raises InputError if the split is not finished, and behind the last row if the file is not what was
    written: what was made of the rows must not be kept then.
    """
    digest = manifest.read_output(folder, split, made_by)
    path = folder / f"{split}.jsonl"
    hashed = hashlib.sha256()
    separator = b""
    for line in _iterate_lines(path):
        content = _decode_line(line)
        if not _is_record(content):
            continue
        image, _, row = content
        if "reason" in row:
            continue
        hashed.update(separator)
        hashed.update(json.dumps([image, row], sort_keys=True).encode())
        separator = b"\n"
        yield image, row
    if hashed.hexdigest() != digest:
        raise InputError(f"{path}: not what was written; run python -m {made_by} again")


def _iterate_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; none if it is not there."""
    if path.exists():
        with open(path, "rb") as handle:
            yield from handle


def _encode_line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _decode_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_record(line: Any) -> bool:
    """Return whether a line of a journal is [image, key, row]."""
    if not isinstance(line, list) or len(line) != 3:
        return False
    image, key, row = line
    return isinstance(image, str) and isinstance(key, list) and isinstance(row, dict)
