"""Where submissions and reports go: submissions/NAME.csv and NAME.html, none of which another cache's run overwrites.

submissions/.made_from.json remembers the cache that each file is made from.
"""

import argparse
import contextlib
import json
from pathlib import Path

from preprocess.command import pipeline
from preprocess.disk import files
from preprocess.disk.errors import InputError

FOLDER = Path("submissions") if pipeline.WRITES_HERE else Path(__file__).parents[1]
SUFFIXES = (".csv", ".html")
MADE_FROM = ".made_from.json"


def parse_name(text: str) -> str:
    """Return a name that is one plain file name; an ending that the file will have anyway is dropped."""
    for suffix in SUFFIXES:
        text = text.removesuffix(suffix)
    if not text or text.startswith(".") or Path(text).name != text:
        raise argparse.ArgumentTypeError("a plain file name is wanted")
    return text


def add_options(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add `--name`, `--out` and `--overwrite`; the file's name ends in `suffix`."""
    parser.add_argument(
        "--name", type=parse_name, default="submission", help="name of the file in submissions/"
    )
    parser.add_argument(
        "--out", type=Path, metavar=f"FILE{suffix}", help="write to this file instead"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace NAME{suffix} in submissions/ even if another cache wrote it",
    )


def find(options: argparse.Namespace, suffix: str) -> Path:
    """Return the file to write. Raises InputError for one in submissions/ that was not made from this cache."""
    if options.out:
        return options.out
    target = FOLDER / f"{options.name}{suffix}"
    cache = _read_memory().get(target.name)
    if target.exists() and not options.overwrite and cache != str(options.cache.resolve()):
        maker = (
            f"made from {cache}" if cache else f"not made from {options.cache}, as far as is known"
        )
        raise InputError(f"{target}: {maker}; --overwrite replaces it, or give another --name")
    return target


def claim(options: argparse.Namespace, target: Path) -> None:
    """Remember, before a file in submissions/ is written, that it is made from this cache."""
    if not options.out:
        files.write_json(
            FOLDER / MADE_FROM, _read_memory() | {target.name: str(options.cache.resolve())}
        )


def _read_memory() -> dict[str, object]:
    """Return what is remembered: file -> cache; nothing if it is damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        memory = json.loads((FOLDER / MADE_FROM).read_text(encoding="utf-8"))
        return memory if isinstance(memory, dict) else {}
    return {}
