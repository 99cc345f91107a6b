"""Files of a cache: written whole or not at all, hashed, and held by one process at a time."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from preprocess.disk.errors import InputError

LOCKS_REFUSED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of file systems without locks
PARTIAL = ".partial-"  # prefix of every temporary file: a name no image id may have


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path with `path`'s suffix; put it in `path`'s place if the block succeeds.

    A link stays, and its target is replaced; a pipe, a device or the standard output stays and gets
    the content. Raises InputError if `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if is_stdout(path) or (path.exists() and not path.is_file()):
        with tempfile.TemporaryDirectory() as folder, naming(path):
            partial = Path(folder, path.name)
            yield partial
            with _open_stream(path) as stream:
                stream.write(partial.read_bytes())
        return
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{hash_text(path.name)[:12]}{path.suffix}"
    try:
        with naming(path, partial):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _open_stream(path: Path) -> BinaryIO:
    """Open a pipe, a device or the standard output for writing."""
    if is_stdout(path):
        return open(os.dup(sys.stdout.fileno()), "wb")
    return open(path, "wb")


def is_stdout(path: Path) -> bool:
    """Return whether a path is where this process prints: /dev/stdout, or the file behind it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such path, or nothing that has a number
        return False


def summary_stream(out: Path | None) -> TextIO:
    """Return the stream for status messages: stderr if `out` is stdout, else stdout."""
    if out and is_stdout(out):
        return sys.stderr
    return sys.stdout


def check_out(out: Path | None, *sources: Path | None) -> None:
    """Raise InputError if the file to write is one of those that are read."""
    if out is None or not out.exists():
        return
    for source in sources:
        if source is not None and source.exists() and out.samefile(source):
            raise InputError(
                f"{out}: is also an input and would be overwritten; give another --out"
            )


def show_path(path: Path) -> str:
    """Return a path as it can be printed, whatever bytes the file system holds."""
    return os.fsencode(path).decode(errors="backslashreplace")


def check_regular(path: Path) -> None:
    """Raise InputError for a named pipe or a device, which may never begin or never end.

    A shell's <(…) is welcome.
    """
    target = Path(os.path.realpath(path))  # for <(…) a name that is no path
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: not a regular file")


@contextlib.contextmanager
def naming(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Have an OSError of the block name `path` if it names no file or the temporary one.

    An error of a full disk names none.
    """
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
    text = json.dumps(content, indent=2, sort_keys=True)
    write_bytes(path, f"{text}\n".encode())


def remove_partials(folder: Path) -> None:
    """Remove what a killed run left half-written below `folder`. The cache must be locked."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    check_regular(path)
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def describe_source(path: Path) -> list[Any]:
    """Return the size in bytes and the time in ns of a file, to tell its versions apart unread."""
    try:
        status = path.stat()
    except OSError as error:
        return [error.strerror, 0]
    return [status.st_size, status.st_mtime_ns]


def measure_free_space(folder: Path) -> int:
    """Return how many bytes are free where a folder lies, or will lie, as far as this user may write them."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, as long as it lives.

    Raises InputError if another process holds it, and names that process. Where the file system
    refuses locks, as Lustre and NFS may, a file stands in for one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle, naming(folder / ".lock"):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.pread(handle.fileno(), 300, 0)
            raise InputError(_describe_holder(folder, content)) from None
        except OSError as error:
            if error.errno not in LOCKS_REFUSED:
                raise
            with _holding_file(folder):
                yield
            return
        handle.truncate(0)
        handle.write(f"{_name_process()}\n")
        handle.flush()
        yield


def _name_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _describe_holder(folder: Path, content: bytes) -> str:
    holder = content.decode(errors="replace").strip() or "it has just begun"
    return (
        f"{folder}: another run is using this cache ({holder}); wait for it or give another --cache"
    )


@contextlib.contextmanager
def _holding_file(folder: Path) -> Iterator[None]:
    """Hold a folder by a file that only one process can make; it is gone in the end, unless this process is killed.

    Raises InputError if the file is there, unless it is of a process of this machine that is no more.
    """
    path = folder / ".held"
    _remove_abandoned(path)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        message = _describe_holder(folder, path.read_bytes())
        raise InputError(f"{message}; if that run is over, remove {path}") from None
    print(f"{folder}: its file system has no locks; {path.name} is used instead", file=sys.stderr)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{_name_process()}\n")
        yield
    finally:
        path.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the file of a process of this machine that ended without removing it."""
    try:
        content = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    words = content.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdecimal():
        return
    try:
        os.kill(int(words[1]), 0)  # asks only whether it is there
    except ProcessLookupError:
        path.unlink(missing_ok=True)
    except PermissionError:  # another user's
        return
