"""Images of a run's training set among those that it is evaluated on, and images that show one picture twice.

They are found by content, whatever their files are called: the same photograph, cut in the same way, has the same
square, of which the cache keeps a checksum; one that was scaled or compressed again has nearly the same, which small
copies tell (`thumbnails`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess import photographs
from preprocess.cache import manifest
from preprocess.command.parallel import Workers
from preprocess.picture import square
from submissions.evaluation import thumbnails


class Known(NamedTuple):
    """Images that a run was trained or validated on, by image: what its own cache calls them; and what was not seen."""

    images: dict[str, str]
    near: list[str]  # those of them that are nearly the same picture, not to the last pixel
    notes: list[str]  # on caches in which nobody could look


def find_known(
    folders: Sequence[Path], caches: Sequence[Path], keep_in: Path, workers: Workers
) -> Known:
    """Return the images of squares in `folders`, test sets of caches, that lie in the training sets of `caches`.

    Small copies of the squares are kept in the folder `keep_in`.
    """
    tested = {square.read_making(folder): folder for folder in folders}
    images: dict[str, str] = {}
    near: list[str] = []
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
        for image, cut in photographs.read_squares(cache, "train").items():
            learned[tuple(photographs.identify_square(cut))] = image
        for image, cut in photographs.read_squares(cut_alike[0], "test").items():
            own_name = learned.get(tuple(photographs.identify_square(cut)))
            if own_name is not None:
                images.setdefault(image, own_name)
        copies = thumbnails.read(cut_alike[0], "test", keep_in, workers)
        learned_copies = thumbnails.read(cache, "train", keep_in, workers)
        names = list(copies)
        learned_names = list(learned_copies)
        pairs = thumbnails.find_alike(
            thumbnails.normalize(copies), thumbnails.normalize(learned_copies)
        )
        for row, learned_row in pairs:
            if names[row] not in images:
                images[names[row]] = learned_names[learned_row]
                near.append(names[row])
    return Known(images, near, notes)


def find_repeated(
    folder: Path, images: Sequence[str], keep_in: Path, workers: Workers
) -> list[tuple[str, str]]:
    """Return the pairs among some images of a test set's squares that show the same picture."""
    copies = thumbnails.read(folder, "test", keep_in, workers)
    chosen = {image: copies[image] for image in images}
    rows = thumbnails.normalize(chosen)
    pairs = []
    for row, other in thumbnails.find_alike(rows, rows):
        if row < other:
            pairs.append((images[row], images[other]))
    return pairs


def describe_known(known: Known, n_images: int, is_dropped: bool, n_named: int) -> str:
    """Return a warning that images were learned from, some of them by name."""
    named = ", ".join(
        f"{image} is {own_name}" for image, own_name in list(known.images.items())[:n_named]
    )
    count = f"{len(known.images)} of {n_images} images are of the run's training set ({named})"
    if known.near:
        some = ", ".join(f"{image} is {known.images[image]}" for image in known.near[:n_named])
        count += f", {len(known.near)} of them scaled or compressed again ({some})"
    advice = "they are left out" if is_dropped else "--drop-known leaves them out"
    return f"{count}; {advice}"


def describe_repeated(
    pairs: Sequence[tuple[str, str]], are_other: Mapping[tuple[str, str], bool], n_named: int
) -> str:
    """Return a warning that images show the same picture; `are_other` tells which pairs have different targets."""
    different = [pair for pair in pairs if are_other[pair]]
    ordered = dict.fromkeys([*different, *pairs])
    named = ", ".join(f"{one} and {other}" for one, other in list(ordered)[:n_named])
    text = f"{len(pairs)} pairs of images show the same picture, {len(different)} of them with different targets"
    return f"{text} ({named}); all are kept"
