"""A journal of the finished images of a stage: a line each, so that a killed run loses only the images in flight."""

import json
from collections.abc import Mapping, Sequence
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
    """The finished images of one split of a stage: `FOLDER/SPLIT.jsonl`, the parameters, then a line per image.

    Lines are appended as images finish, in any order; one torn by a kill or damaged by the disk is dropped, so that its
    image is due again. `finish` sorts them, so that the bytes do not tell how often the run was interrupted.
    """

    def __init__(self, folder: Path, split: str, parameters: Mapping[str, Any]):
        self.path = folder / f"{split}.jsonl"
        self.parameters = json.loads(json.dumps(parameters))
        self.records: dict[str, Record] = {}
        self.change: str | None = None
        self.found: dict[str, Any] = {}  # the parameters of the file that was there
        self._written: list[str] | None = None  # the images of the file's lines; None if not all lines are sound
        *lines, torn = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        if not lines:
            return
        header, *contents = map(_decode_line, lines)
        self.found = header if isinstance(header, dict) else {}
        self.change = manifest.describe_change(self.found, self.parameters)
        if self.change is None:
            sound = [line for line in contents if _is_record(line)]
            self.records = {line[0]: Record(*line[1:]) for line in sound}
            self._written = None if torn or len(sound) < len(contents) else [line[0] for line in sound]

    def find_made(self, keys: Mapping[str, list]) -> dict[str, Row]:
        """Return the rows of the images whose record was made from their key, in the keys' order."""
        found = ((image, key, self.records.get(image)) for image, key in keys.items())
        return {image: record.row for image, key, record in found if record and record.key == key}

    def append(self, image: str, key: list, row: Row) -> None:
        """Record one image's key and row, on disk before it returns."""
        written = self._write() if self._written is None else self._written
        self.records[image] = Record(json.loads(json.dumps(key)), row)
        with files.naming(self.path), open(self.path, "ab") as handle:
            handle.write(_encode_line([image, key, row]))
        written.append(image)

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
        return {image: record.row for image, record in self.records.items() if "reason" not in record.row}

    @property
    def reasons(self) -> dict[str, str]:
        """The rejected images and why."""
        return {image: record.row["reason"] for image, record in self.records.items() if "reason" in record.row}

    @property
    def digest(self) -> str:
        """The digest of what was made, whatever the files' dates."""
        lines = [json.dumps([image, row], sort_keys=True) for image, row in self.rows.items()]
        return files.hash_text("\n".join(lines))


def read_rows(folder: Path, split: str, made_by: str) -> dict[str, Row]:
    """Return the rows of an image stage's split. Raises InputError if it is not finished or not what was written."""
    digest = manifest.read_output(folder, split, made_by)
    written = manifest.read_manifest(folder)
    journal = Journal(folder, split, written["parameters"] if written else {})
    if journal.digest != digest:
        raise InputError(f"{journal.path}: not what was written; run python -m {made_by} again")
    return journal.rows


def _encode_line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _decode_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_record(line: Any) -> bool:
    """Tell whether a line of a journal is [image, key, row]."""
    kinds = (str, list, dict)
    return isinstance(line, list) and len(line) == len(kinds) and all(map(isinstance, line, kinds))
