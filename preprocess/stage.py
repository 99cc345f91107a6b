"""The cache contract every stage keeps: options, atomic writes, locks, manifests, rejected images, one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import gzip
import hashlib
import io
import json
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from preprocess import interrupt
from preprocess.interrupt import EXIT_INTERRUPTED, PARTIAL

LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "simplejpeg", "pillow", "pandas", "torch")
SHOWN_CHARACTERS = 100  # of a file's content in a message: a hostile table may have a million columns
NOTICE = "For competition and research: not a medical device, no diagnosis."  # beside all that grades an eye
EXIT_INPUT = 2  # the input must be mended
LOCK_VARIABLE = "CACHE_LOCK_DESCRIPTOR"  # where run_all.sh says under which number it has CACHE/.lock open, locked


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line: file, row, what is wrong, what to do."""


# --- command line ---------------------------------------------------------------------------------------------------


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values; what happens without an option that has none, its help tells."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_value = action.default is not None and action.default is not False
        return super()._get_help_string(action) if has_value else action.help


def make_bare_parser(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser without options, whose help ends with an example."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"example: python -m {module} {example}",
        formatter_class=HelpFormatter,
    )


def make_parser(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the two options all stages share, `--data` and `--cache`."""
    parser = make_bare_parser(module, description, example)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder in Kaggle's layout")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder that keeps what the stages make")
    return parser


def add_rejected_option(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-rejected`."""
    parser.add_argument(
        "--allow-rejected", action="store_true", help="go on although some photographs are listed in rejected.csv"
    )


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; end with one line and status 2 on bad input or an unusable disk, 130 on Ctrl-C."""
    with interrupt.answered():
        try:
            main()
        except InputError as error:
            fail(str(error), EXIT_INPUT)
        except OSError as error:
            fail(f"{error.filename or 'input or output'}: {error.strerror or error}", EXIT_INPUT)
        except KeyboardInterrupt:  # in a thread that was there before SIGINT was blocked: a caller's
            fail(interrupt.MESSAGE, EXIT_INTERRUPTED)


def fail(message: str, status: int) -> None:
    """Print one line to stderr and exit."""
    with interrupt.undisturbed():
        print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)


# --- files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; put it in `path`'s place if the block succeeds.

    Raises InputError if `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{PARTIAL}{os.getpid()}-{hash_text(path.name)[:12]}{path.suffix}"
    with interrupt.begun(path.parent / name) as partial, naming(path, partial):
        yield partial
        os.replace(partial, path)


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


def write_table(path: Path, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a CSV whose first column is the image id."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"image": image} | row for image, row in rows.items())
    write_bytes(path, lines.getvalue().encode())


def read_csv(path: Path) -> list[list[str]]:
    """Return the fields of a CSV in UTF-8, with or without byte order mark, perhaps gzipped: the header, then the rows.

    Raises InputError, naming file and row, if it is no table: as many fields in every row as in the header.
    """
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


def shorten(text: str) -> str:
    """Return a text from a file as a message may show it: one line, printable, not too long."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def remove_partials(folder: Path) -> None:
    """Remove what a killed run left half-written in `folder`. Call it only with the cache locked."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PARTIAL):
                os.unlink(entry.path)


@contextlib.contextmanager
def locked(folder: Path, tree: Path | None = None) -> Iterator[None]:
    """Hold a cache for this process; the kernel lets go of it even if the process is killed.

    Parameters
    ----------
    folder : what is held; its file .lock names the holder
    tree : the folder that workers write below, if it is another one

    Raises InputError if another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle, interrupt.holding(tree or folder):
        if not _is_held_by_script(handle.fileno()):
            take_lock(handle.fileno(), folder, os.getpid())
        yield


def _is_held_by_script(descriptor: int) -> bool:
    """Tell whether the script that started this process holds the lock file that is open under `descriptor`."""
    inherited = os.environ.get(LOCK_VARIABLE, "")
    if not inherited.isdecimal():
        return False
    try:
        if not os.path.samestat(os.fstat(int(inherited)), os.fstat(descriptor)):
            return False
        fcntl.flock(int(inherited), fcntl.LOCK_EX | fcntl.LOCK_NB)  # changes nothing if the script holds it
    except OSError:
        return False
    return True


def take_lock(descriptor: int, cache: Path, pid: int) -> None:
    """Lock the file that is open under `descriptor`, and note in it that process `pid` holds the cache.

    Raises InputError, with what the holder noted, if another run holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 300, 0).decode(errors="replace").strip() or "it has just begun"
        raise InputError(
            f"{cache}: another run is using this cache ({holder}); wait for it or give another --cache"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {pid} on {socket.gethostname()}\n".encode(), 0)


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


# --- manifests: is what lies here made from what is there? ----------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return `folder/manifest.json`, or None if there is none or it is no manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    complete = isinstance(manifest, dict) and all(
        isinstance(manifest.get(key), dict) for key in ("parameters", "inputs", "outputs")
    )
    return manifest if complete else None


def write_manifest(
    folder: Path, stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Write `folder/manifest.json`, a stage's last act: inputs and outputs map a name to the digest of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    versions = {name: version for name in LIBRARIES if (version := _find_version(name))}
    content = {"stage": stage, "parameters": parameters, "inputs": inputs, "outputs": outputs, "versions": versions}
    write_json(folder / "manifest.json", content)


def _find_version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def read_output(folder: Path, name: str, made_by: str) -> str:
    """Return the digest of one output of the stage in `folder`.

    Raises InputError, naming the command that makes it, if it is not there.
    """
    manifest = read_manifest(folder)
    if manifest is None or name not in manifest["outputs"]:
        raise InputError(f"{folder}: holds no {name}; run python -m {made_by} first")
    return manifest["outputs"][name]


def kept_outputs(folder: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs that the stage in `folder` made with these parameters: one split's run keeps the other's."""
    manifest = read_manifest(folder)
    same = manifest is not None and describe_change(manifest["parameters"], parameters) is None
    return dict(manifest["outputs"]) if same else {}


def has_output(folder: Path, name: str) -> bool:
    """Tell whether the stage in `folder` has finished the output `name`."""
    manifest = read_manifest(folder)
    return manifest is not None and name in manifest["outputs"]


def find_change(folder: Path, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str | None:
    """Return why the files in `folder` must be made (again), or None if they are what a new run would make.

    Outputs whose name is a file's are compared with the digest that was recorded when they were written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return "not made yet"
    change = describe_change(manifest["parameters"], parameters) or describe_change(manifest["inputs"], inputs)
    if change:
        return change
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if hash_file(path) != digest:
            return f"{name} is not what was written"
    return None


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Name the keys that differ, with short values; None if none does."""
    new = json.loads(json.dumps(new))  # as it would come back from a file: tuples are lists
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return ", ".join(_describe_key(key, old.get(key), new.get(key)) for key in changed) or None


def _describe_key(key: str, old: Any, new: Any) -> str:
    is_digest = any(isinstance(value, str) and len(value) == 64 for value in (old, new))
    return f"{key} changed" if is_digest else f"{key} changed from {old} to {new}"


# --- rejected images ------------------------------------------------------------------------------------------------


def record_rejected(cache: Path, stage: str, split: str, reasons: Mapping[str, str]) -> None:
    """Put a stage's rejected images of one split into `CACHE/rejected.csv`, in place of what it said before."""
    import pandas as pd

    path = cache / "rejected.csv"
    rejected = read_rejected(cache)
    others = rejected[(rejected["stage"] != stage) | (rejected["split"] != split)]
    own = pd.DataFrame(
        [(image, stage, reason, split) for image, reason in reasons.items()], columns=rejected.columns, dtype=str
    )
    table = pd.concat([others, own]).sort_values(["split", "stage", "image"])
    content = table.to_csv(index=False, lineterminator="\n").encode()
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def read_rejected(cache: Path):
    """Return `CACHE/rejected.csv` as a table of image, stage, reason, split; an empty one if there is none."""
    import pandas as pd

    path, columns = cache / "rejected.csv", ["image", "stage", "reason", "split"]
    if not path.exists():
        return pd.DataFrame(columns=columns, dtype=str)
    try:
        header, *rows = read_csv(path)
    except InputError as error:
        raise InputError(f"{error}; remove it and run python -m preprocess again") from None
    if header != columns:
        raise InputError(f"{path}: damaged; remove it and run python -m preprocess again")
    return pd.DataFrame(rows, columns=columns, dtype=str)


def check_rejected(cache: Path, reasons: Mapping[str, str], allow_rejected: bool) -> None:
    """Raise InputError if images were rejected and the user did not allow it."""
    if not reasons:
        return
    image, reason = next(iter(reasons.items()))
    counted = f"{len(reasons)} photograph{'s are' if len(reasons) > 1 else ' is'} rejected ({image}: {reason})"
    where = f"see {cache / 'rejected.csv'}"
    if not allow_rejected:
        raise InputError(f"{counted}; {where}; mend the files, or go on without them with --allow-rejected")
    print(f"{counted}; {where}", file=sys.stderr)
