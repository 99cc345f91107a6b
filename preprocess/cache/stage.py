"""A stage at work in a cache: the cache held for one process, and the time that each stage took."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from preprocess.command.pipeline import FOLDERS
from preprocess.disk import files


@contextlib.contextmanager
def working(cache: Path, name: str, folders: Sequence[Path] = ()) -> Iterator[None]:
    """Hold the cache while the stage `name` works, and keep the time it took if it has made something.

    Its manifests are in `folders`, if not in the one that FOLDERS names.
    """
    manifests = [folder / "manifest.json" for folder in folders or [cache / str(FOLDERS[name])]]
    with files.locked(cache):
        before, started = [path.exists() and path.read_bytes() for path in manifests], time.monotonic()
        yield
        if [path.exists() and path.read_bytes() for path in manifests] != before:
            with open(cache / "times.csv", "a", encoding="utf-8") as table:
                table.write(f"{name},{time.monotonic() - started:.1f}\n")


def read_times(cache: Path) -> dict[str, float]:
    """Return the seconds that each stage took when it last had work to do; a torn row is left out."""
    path = cache / "times.csv"
    rows = path.read_text(errors="replace") if path.exists() else ""
    return {name: float(elapsed_s) for name, elapsed_s in re.findall(r"^([^,]+),(\d+(?:\.\d+)?)$", rows, re.MULTILINE)}
