"""The photographs that lie in some folders, image id -> path, and what else lies there: nothing is passed over."""

import fnmatch
import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from preprocess.disk import dicom, tables
from preprocess.disk.errors import InputError, Unusable

# Kaggle's files are .jpeg. Which format a file has, its content decides.
# fmt: off
SUFFIXES = (
    ".jpeg", ".jpg", ".png", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".webp", ".dcm", ".dicom",
)
# fmt: on
NO_PHOTOGRAPH = "no photograph"  # the reason why a file is not read
UNPACKED = "__MACOSX"  # the folder that macOS packs beside what is meant
FORMULA_STARTS = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula


class Listing(NamedTuple):
    """Photographs, image id -> path, in the order of images, and the files with a wrong name, with the reason."""

    paths: dict[str, Path]
    misnamed: dict[str, str]
    others: Sequence[str] = ()  # the names of the files beside them that are no photographs


@dataclass(frozen=True)
class Tree:
    """All that lies in a folder and below it but for what is hidden, as paths relative to it with slashes, sorted."""

    folder: Path
    files: list[str]
    folders: list[str]

    @functools.cached_property
    def _files_by_name(self) -> dict[str, list[str]]:
        return _index_names(self.files)

    @functools.cached_property
    def _folders_by_name(self) -> dict[str, list[str]]:
        return _index_names(self.folders)

    def find_files(self, name: str) -> list[str]:
        """Return the files that a name means, see `_find_nearest`."""
        return _find_nearest(name, self._files_by_name)

    def find_folders(self, name: str) -> list[str]:
        """Return the folders that a name means, see `_find_nearest`. "." is the folder itself."""
        if name == ".":
            return ["."]
        return _find_nearest(name, self._folders_by_name)

    def is_photograph(self, path: str) -> bool:
        """Return whether a file counts as a photograph, see `is_photograph_at`."""
        name = path.rpartition("/")[2]  # first: a Path for each of 88,702 takes a second
        return is_photograph(name) or is_photograph_at(self.folder / path)

    def list_below(self, folder: str) -> list[str]:
        """Return the files below one of the folders."""
        if folder == ".":
            return self.files
        return [path for path in self.files if path.startswith(f"{folder}/")]


def _index_names(paths: Sequence[str]) -> dict[str, list[str]]:
    """Return paths by their last part."""
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    return by_name


def _find_nearest(name: str, by_name: dict[str, list[str]]) -> list[str]:
    """Return the paths that end as a name does, which may be a path and have * and ? in it: those least deep.

    More than one path is returned if they lie equally deep.
    """
    wanted = name.strip("/").split("/")
    last = wanted[-1]
    candidates = by_name.get(last, [])
    if set(last) & set("*?["):
        candidates = [path for match in fnmatch.filter(by_name, last) for path in by_name[match]]
    found = []
    for path in candidates:
        parts = path.split("/")
        tail = parts[-len(wanted) :]
        if len(tail) == len(wanted) and all(map(fnmatch.fnmatchcase, tail, wanted)):
            found.append(path)
    depth = min((path.count("/") for path in found), default=0)
    return sorted(path for path in found if path.count("/") == depth)


def walk(folder: Path) -> Tree:
    """Return what lies in a folder and below it."""
    names: list[str] = []
    folders: list[str] = []
    for top, below, files in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != UNPACKED)
        start = os.path.relpath(top, folder)
        prefix = "" if start == "." else f"{start}/"
        folders += [f"{prefix}{name}" for name in below]
        names += [f"{prefix}{name}" for name in files if not name.startswith(".")]
    return Tree(folder, sorted(names), sorted(folders))


def is_photograph(name: str) -> bool:
    """Return whether a file counts as a photograph by its name; hidden files, such as macOS's ._a.jpeg, do not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def is_photograph_at(path: Path) -> bool:
    """Return whether a file counts as a photograph: by its name, or as a DICOM file, whose names often end in none."""
    if is_photograph(path.name):
        return True
    has_suffix = re.search(r"\.[A-Za-z]\w{0,5}$", path.name)
    return not path.name.startswith(".") and not has_suffix and dicom.has_mark(path)


def read_shown(path: Path) -> dicom.Shown | None:
    """Return whom a DICOM file shows by its tags; None for any other file, and where the tags cannot be read.

    Files with the suffix of another format are not opened for that.
    """
    suffix = split_suffix(path.name)[1]
    if suffix not in ("", ".dcm", ".dicom") or not dicom.has_mark(path):
        return None
    try:
        return dicom.read_shown(path)
    except Unusable:  # the stage that reads its pixels says why
        return None


def compose(name: str) -> str:
    """Return a name as tables write it: macOS takes letters and their accents apart (NFD), tables do not (NFC)."""
    return unicodedata.normalize("NFC", name)


def split_suffix(name: str) -> tuple[str, str]:
    """Return a name without the suffix of a photograph, and that suffix in lower case, or ""."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in SUFFIXES:
        return stem, suffix.lower()
    return name, ""


def describe_unread(reasons: Sequence[tuple[str, str]]) -> str:
    """Return how many files were not read, by suffix and reason, of (name, reason)."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, reason in reasons:
        suffix = os.path.splitext(name)[1].lower() or "without a suffix"
        counts[show_name(suffix), reason] += 1
    texts = [f"{n:,} {suffix} ({reason})" for (suffix, reason), n in counts.most_common()]
    noun = "file" if len(reasons) == 1 else "files"
    return f"{len(reasons):,} {noun} not read: {', '.join(texts)}"


def describe_others(folder: Path, names: Sequence[str]) -> list[str]:
    """Return a note on the files beside photographs that are none, if there are some."""
    if not names:
        return []
    return [f"{folder.name}: {describe_unread([(name, NO_PHOTOGRAPH) for name in names])}"]


def list_files(folder: Path) -> list[Path]:
    """Return the photographs that lie right in a folder, by name; none if the folder is not there."""
    return list(iterate_files(folder))


def iterate_files(folder: Path) -> Iterator[Path]:
    """Yield the photographs that lie right in a folder, by name; none if the folder is not there."""
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        # A name that says it is looked at first: paths take longer to make, at 100,000 files seconds.
        if is_photograph(name) or is_photograph_at(folder / name):
            yield folder / name


def list_others(folder: Path) -> list[str]:
    """Return the names of the files that lie right in a folder and are no photographs, but for hidden ones."""
    if not folder.is_dir():
        return []
    names = []
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") or is_photograph(name):
            continue
        path = folder / name
        if not is_photograph_at(path) and path.is_file():
            names.append(name)
    return names


def list_folders(
    folders: Iterable[Path],
    normalize_id: Callable[[str], str],
    check: Callable[[str], object],
    wrong: str,
) -> Listing:
    """Return the photographs in some folders; a folder that is not there has none.

    `normalize_id` makes the image's id of a file's name without its suffix; `check` raises InputError if no image can
    have that id, and `wrong` is the reason for people. Raises InputError if two files are the same image.
    """
    found: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    others: list[str] = []
    for folder in folders:
        others += list_others(folder)
        for path in list_files(folder):
            image = normalize_id(compose(split_suffix(path.name)[0]))
            try:
                check(image)
                path.name.encode()
            except (InputError, UnicodeEncodeError):
                misnamed[show_name(path.name)] = wrong
                continue
            if image in found:
                raise InputError(
                    f"{path} and {found[image]} are both image {image}; remove or rename one"
                )
            found[image] = path
    return Listing({image: found[image] for image in tables.sort_images(found)}, misnamed, others)


def show_name(name: str) -> str:
    """Return a file's name as a table may hold it."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
    shown = shown.encode(errors="backslashreplace").decode()
    return f"./{shown}" if shown.startswith(FORMULA_STARTS) else shown
