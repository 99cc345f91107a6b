"""Unpack a zip, whole or in parts (train.zip.001, train.zip.002, …), and remove each part as soon as it is done.

With --remove the disk holds no more than the photographs and one part, beside the parts still to come. The same command
goes on after a kill: what is unpacked whole is not unpacked again.
"""

import bisect
import io
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from preprocess.command import cli, process, progress
from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten

NUMBER = re.compile(r"\.(\d{3,})")  # the suffix of a part
FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class Part(NamedTuple):
    """A part of a zip, and where it lies in it."""

    path: Path
    start: int
    end: int


class JoinedParts(io.RawIOBase):
    """The parts of a zip, read as one file. Parts that are gone have their place, but no content."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = parts
        self._starts = [part.start for part in parts]
        self._position = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any position can be gone to."""
        return True

    def tell(self) -> int:
        """Return the position in the whole zip."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in the whole zip."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._parts[-1].end}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fill a buffer as far as the part at the position goes; return how many bytes that is."""
        if self._position >= self._parts[-1].end:
            return 0
        part = self._parts[bisect.bisect_right(self._starts, self._position) - 1]
        n = min(len(buffer), part.end - self._position)
        try:
            with open(part.path, "rb") as handle:
                handle.seek(self._position - part.start)
                content = handle.read(n)
        except FileNotFoundError:
            raise InputError(
                f"{part.path}: gone, and what it held is wanted; download it again"
            ) from None
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def find_parts(paths: Sequence[Path]) -> list[Part]:
    """Return the parts of a zip in their order, with those that an earlier start has removed.

    Raises InputError for parts of several zips, a part that is missing between others, and what is not there.
    """
    names = sorted({path.name for path in paths})
    folder = paths[0].parent
    if len({path.with_suffix("") if NUMBER.fullmatch(path.suffix) else path for path in paths}) > 1:
        raise InputError(f"{paths[0]} … {paths[-1]}: parts of several zips; unpack one at a time")
    sizes = {}
    note = find_note(paths[0])
    if note.exists():
        sizes = json.loads(note.read_text())
    for path in paths:
        if path.name not in sizes and not path.is_file():
            raise InputError(f"{path}: no such file")
    for name in names:
        sizes.setdefault(name, (folder / name).stat().st_size)
    parts = []
    start = 0
    for number, (name, size_bytes) in enumerate(sorted(sizes.items()), 1):
        suffix = NUMBER.fullmatch(Path(name).suffix)
        if suffix and int(suffix[1]) != number:
            missing = Path(name).with_suffix(f".{number:03}")
            raise InputError(f"{folder / missing}: missing; download it, or name it too")
        parts.append(Part(path=folder / name, start=start, end=start + size_bytes))
        start += size_bytes
    return parts


def find_note(path: Path) -> Path:
    """Return the file that says how large the parts were, when some are gone."""
    whole = path.name
    if NUMBER.fullmatch(path.suffix):
        whole = path.stem
    return path.with_name(f"{whole}.parts.json")


def find_target(name: str, out: Path) -> Path:
    """Return where a file of a zip belongs. Raises InputError for a name that leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise InputError(f"{shorten(name)!r}: a name in the zip that leads out of {out}; refused")
    return out / path


def measure_peak(
    members: Sequence[zipfile.ZipInfo], parts: Sequence[Part], is_removing: bool
) -> int:
    """Return by how many bytes the disk fills at most, beside what is on it, while files are unpacked."""
    written = 0
    peak = 0
    ends = [part.end for part in parts]
    for member in members:
        written += member.file_size
        freed = 0
        if is_removing:
            n_done = bisect.bisect_right(ends, member.header_offset)
            freed = parts[n_done - 1].end if n_done else 0
        peak = max(peak, written - freed)
    return peak


def unpack(paths: Sequence[Path], out: Path, is_removing: bool) -> str:
    """Unpack the zip of some parts; return one line on what was done.

    Raises InputError for what is no zip, a damaged file in it, and a disk without room.
    """
    parts = find_parts(paths)
    last = parts[-1].path
    try:
        archive = zipfile.ZipFile(io.BufferedReader(JoinedParts(parts)))
    except FAULTS as error:
        raise InputError(f"{last}: not the end of a zip ({error}); are all parts there?") from None
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        members.sort(key=lambda member: member.header_offset)
        due = []
        for member in members:
            target = find_target(member.filename, out)
            if not (target.is_file() and target.stat().st_size == member.file_size):
                due.append(member)
        check_room(due, parts, out, is_removing)
        if is_removing:
            files.write_json(
                find_note(last), {part.path.name: part.end - part.start for part in parts}
            )
        with progress.tracking(len(due), "unpack", unit="file") as bar:
            for member in due:
                if is_removing:
                    remove_parts(parts, member.header_offset)
                extract(archive, member, find_target(member.filename, out), last)
                bar.update(1)
    if is_removing:
        remove_parts(parts, parts[-1].end)
        find_note(last).unlink()
    removed = f", {len(parts)} parts removed" if is_removing else ""
    return f"{len(due):,} of {len(members):,} files -> {out}{removed}"


def check_room(
    due: Sequence[zipfile.ZipInfo], parts: Sequence[Part], out: Path, is_removing: bool
) -> None:
    """Raise InputError if the disk has no room for what is to be unpacked."""
    peak = measure_peak(due, parts, is_removing)
    free = files.measure_free_space(out)
    if peak > free:
        hint = "" if is_removing else ", or remove each part when it is done with --remove"
        raise InputError(
            f"{out}: {peak / 1e9:,.1f} GB to write, {free / 1e9:,.1f} GB free; make room{hint}"
        )


def extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, last: Path) -> None:
    """Write a file of a zip, whole or not at all. Raises InputError if it is damaged."""
    with files.replacing(target) as partial:
        try:
            with archive.open(member) as source, open(partial, "wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
        except FAULTS as error:
            raise InputError(
                f"{last}: {shorten(member.filename)} in it is damaged ({error}); download that part again"
            ) from None


def remove_parts(parts: Sequence[Part], position: int) -> None:
    """Remove the parts that end before a position of the zip."""
    for part in parts:
        if part.end <= position:
            part.path.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "preprocess.unpack", __doc__, "data/train.zip.0* --out data --remove"
    )
    parser.add_argument("zip", type=Path, nargs="+", help="a zip, or all its parts in their order")
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="folder that gets what the zip holds"
    )
    parser.add_argument(
        "--remove", action="store_true", help="remove each part when what it holds is unpacked"
    )
    options = parser.parse_args(argv)
    print(f"unpack: {unpack(options.zip, options.out, options.remove)}")


if __name__ == "__main__":
    process.run(main)
