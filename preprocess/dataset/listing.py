"""The photographs that lie in some folders: image id -> path."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from preprocess.dataset.dataset import Listing
from preprocess.disk import tables
from preprocess.disk.errors import InputError

SUFFIXES = (".jpeg", ".jpg", ".png")  # Kaggle's files are .jpeg
FORMULA_STARTS = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula


def is_photograph(name: str) -> bool:
    """Tell by its name whether a file counts as a photograph."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def list_folders(
    folders: Iterable[Path], spell: Callable[[str], str], check: Callable[[str], object], wrong: str
) -> Listing:
    """Return the photographs in some folders; one that is not there has none.

    `spell` makes of a file's name without its suffix the image's id, for which `check` raises InputError if no image
    can have it; `wrong` says for people what is wrong then. Raises InputError if two files are the same image.
    """
    found: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for name in filter(is_photograph, sorted(os.listdir(folder))):
            path = folder / name
            image = spell(path.stem)
            try:
                check(image)
                name.encode()
            except (InputError, UnicodeEncodeError):
                misnamed[show_name(name)] = wrong
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
