"""Images of a run's training set among those that it is evaluated on, found by content: their squares' bytes.

The cache of a run keeps a checksum of each square, so that it alone is needed: the same photograph, cut in the same
way, is the same square whatever its file is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess import photographs
from preprocess.cache import manifest
from preprocess.picture import square


class Known(NamedTuple):
    """Images that a run was trained or validated on, by image: what its own cache calls them; and what was not seen."""

    images: dict[str, str]
    notes: list[str]  # on caches in which nobody could look


def find_known(folders: Sequence[Path], caches: Sequence[Path]) -> Known:
    """Return the images of squares in `folders`, test sets of caches, that lie in the training sets of `caches`."""
    tested = {square.read_making(folder): folder for folder in folders}
    images: dict[str, str] = {}
    notes: list[str] = []
    for cache in caches:
        unknown = f"{cache}: holds no training squares any more: images known from training were not looked for"
        if not (
            manifest.has_output(cache / "resize", "train")
            and manifest.read_manifest(cache / "normalize")
        ):
            notes.append(unknown)
            continue
        making = square.read_making(cache)
        cut_alike = [folder for one, folder in tested.items() if one[:2] == making[:2]]
        if not cut_alike:
            notes.append(unknown)
            continue
        learned = {}
        for image, row in photographs.read_squares(cache, "train").items():
            learned[tuple(photographs.identify_square(row))] = image
        for image, row in photographs.read_squares(cut_alike[0], "test").items():
            own_name = learned.get(tuple(photographs.identify_square(row)))
            if own_name is not None:
                images.setdefault(image, own_name)
    return Known(images, notes)
