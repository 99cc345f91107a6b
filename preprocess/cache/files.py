"""Files of a cache: written whole or not at all, hashed, and held by one process at a time."""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preprocess.cache.errors import InputError

PARTIAL = ".partial-"  # prefix of every temporary file: a name no image id may have


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; put it in `path`'s place if the block succeeds.

    Raises InputError if `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{hash_text(path.name)[:12]}{path.suffix}"
    try:
        with naming(path, partial):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Have an OSError of the block name `path` if it names no file (a full disk) or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in {None, str(partial)}:
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, keys sorted, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def remove_partials(folder: Path) -> None:
    """Remove what a killed run left half-written below `folder`. Call it only with the cache locked."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(PARTIAL):
                os.unlink(os.path.join(parent, name))


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def describe_source(path: Path) -> list:
    """Return what tells one version of a file from another without reading it: size in bytes and time in ns."""
    try:
        status = path.stat()
    except OSError as error:
        return [error.strerror, 0]
    return [status.st_size, status.st_mtime_ns]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the kernel lets go of it even if the process is killed.

    Raises InputError, with what the holder noted in the file .lock, if another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle.fileno(), 300, 0).decode(errors="replace").strip() or "it has just begun"
            raise InputError(
                f"{folder}: another run is using this cache ({holder}); wait for it or give another --cache"
            ) from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        yield
