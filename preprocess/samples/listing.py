"""The photographs that lie in one folder: image id -> path."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from preprocess.cache import tables
from preprocess.cache.errors import InputError
from preprocess.samples.layout import Listing

SUFFIXES = (".jpeg", ".jpg", ".png")  # Kaggle's files are .jpeg
FORMULA_STARTS = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula


def list_folder(folder: Path, spell: Callable[[str], str], check: Callable[[str], object], wrong: str) -> Listing:
    """Return the photographs in a folder. Raises InputError if two files are the same image.

    Parameters
    ----------
    spell : a file's name without its suffix -> the image's id
    check : raises InputError for an id that no image can have
    wrong : what is wrong then, for people
    """
    found: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        image = spell(path.stem)
        try:
            check(image)
            path.name.encode()
        except (InputError, UnicodeEncodeError):
            misnamed[show_name(path.name)] = wrong
            continue
        if image in found:
            raise InputError(f"{path} and {found[image].name} are both image {image}; remove one")
        found[image] = path
    return Listing({image: found[image] for image in tables.sort_images(found)}, misnamed)


def join(listings: Iterable[Listing]) -> Listing:
    """Return what lies in several folders. Raises InputError if two files are the same image."""
    paths: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for listed in listings:
        for image in listed.paths.keys() & paths.keys():
            raise InputError(f"{listed.paths[image]} and {paths[image]} are both image {image}; remove or rename one")
        paths |= listed.paths
        misnamed |= listed.misnamed
    return Listing({image: paths[image] for image in tables.sort_images(paths)}, misnamed)


def show_name(name: str) -> str:
    """Return a file's name as a table may hold it."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
    shown = shown.encode(errors="backslashreplace").decode()
    return f"./{shown}" if shown.startswith(FORMULA_STARTS) else shown
