"""The photographs that lie in some folders: image id -> path."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from preprocess.disk import tables
from preprocess.disk.errors import InputError

SUFFIXES = (".jpeg", ".jpg", ".png")  # Kaggle's files are .jpeg
FORMULA_STARTS = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula


class Listing(NamedTuple):
    """Photographs, image id -> path, in the order of images, and the files with a wrong name, with the reason."""

    paths: dict[str, Path]
    misnamed: dict[str, str]


def is_photograph(name: str) -> bool:
    """Return whether a file counts as a photograph by its name; hidden files, such as macOS's ._a.jpeg, do not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def list_files(folder: Path) -> list[Path]:
    """Return the photographs that lie right in a folder, by name; none if the folder is not there."""
    if not folder.is_dir():
        return []
    return [folder / name for name in sorted(os.listdir(folder)) if is_photograph(name)]


def list_folders(
    folders: Iterable[Path], normalize_id: Callable[[str], str], check: Callable[[str], object], wrong: str
) -> Listing:
    """Return the photographs in some folders; a folder that is not there has none.

    `normalize_id` makes the image's id of a file's name without its suffix; `check` raises InputError if no image can
    have that id, and `wrong` is the reason for people. Raises InputError if two files are the same image.
    """
    found: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for folder in folders:
        for path in list_files(folder):
            image = normalize_id(path.stem)
            try:
                check(image)
                path.name.encode()
            except (InputError, UnicodeEncodeError):
                misnamed[show_name(path.name)] = wrong
                continue
            if image in found:
                raise InputError(f"{path} and {found[image]} are both image {image}; remove or rename one")
            found[image] = path
    return Listing({image: found[image] for image in tables.sort_images(found)}, misnamed)


def show_name(name: str) -> str:
    """Return a file's name as a table may hold it."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
    shown = shown.encode(errors="backslashreplace").decode()
    return f"./{shown}" if shown.startswith(FORMULA_STARTS) else shown
