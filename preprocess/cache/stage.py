"""A stage at work in a cache: the cache held for one process, and the time that each stage took."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from preprocess.command.pipeline import FOLDERS
from preprocess.disk import files

ROW = re.compile(r"(?P<stage>[^,]+),(?P<elapsed_s>\d+\.\d)")


@contextlib.contextmanager
def working(
    cache: Path, name: str, folders: Sequence[Path] = (), times_in: Path | None = None
) -> Iterator[None]:
    """Hold the cache while the stage `name` works, and keep the time it took if it made something.

    Its manifests are in `folders`, if not in the one that FOLDERS names; the time goes to times.csv in the cache, or in
    another folder, such as that of a run with a name.
    """
    folders = folders or [cache / str(FOLDERS[name])]
    with files.locked(cache):
        before = _read_manifests(folders)
        started = time.monotonic()
        yield
        if _read_manifests(folders) != before:
            elapsed_s = time.monotonic() - started
            path = (times_in or cache) / "times.csv"
            with files.naming(path), open(path, "a", encoding="utf-8") as table:
                table.write(f"{name},{elapsed_s:.1f}\n")


def _read_manifests(folders: Sequence[Path]) -> list[bytes]:
    """Return the bytes of each folder's manifest; none where there is no such file."""
    contents = []
    for folder in folders:
        path = folder / "manifest.json"
        contents.append(path.read_bytes() if path.exists() else b"")
    return contents


def read_times(folder: Path) -> dict[str, float]:
    """Return the seconds that each stage took when it last had work to do, in a cache or a run with a name.

    A row torn by a kill is left out.
    """
    path = folder / "times.csv"
    if not path.exists():
        return {}
    times = {}
    for line in path.read_text(errors="replace").splitlines():
        row = ROW.fullmatch(line)
        if row:
            times[row["stage"]] = float(row["elapsed_s"])
    return times
