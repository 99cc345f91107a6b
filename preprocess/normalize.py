"""Compute a colour lookup table for each image: histograms of CACHE/resize -> CACHE/normalize/{train,test}.npz.

The files hold a 3x256 table per image. The local part of `local` is computed where pixels are read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import photographs
from preprocess.cache import manifest, stage
from preprocess.command import cli, process, progress, recipe
from preprocess.dataset.dataset import PARTS
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture import square

VERSION = 1  # raise it when the same histogram gives another lookup table
METHOD: dict[str, Any] = {  # of the option that says what becomes of the colours
    "choices": square.NORMALIZATIONS,
    "help": "what becomes of the colours: each channel's distribution is made flat; then the local means are taken "
    "away, too; nothing",
}


def read_luts(cache: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and their lookup tables, (n, 3, 256) uint8 RGB. Raises InputError without them."""
    path = cache / "normalize" / f"{split}.npz"
    if manifest.read_output(path.parent, path.name, "preprocess.normalize") != files.hash_file(
        path
    ):
        raise InputError(f"{path}: not what was written; run python -m preprocess.normalize again")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["images"].tolist(), arrays["luts"]


def make_luts(cache: Path, split: str, method: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and the lookup tables of their histograms, (n, 3, 256) uint8, made by blocks."""
    named: list[str] = []
    blocks: list[np.ndarray] = []
    with progress.waiting(f"normalize: {split}"):
        for images, histograms in photographs.iterate_histograms(cache, split):
            named += images
            blocks.append(square.make_luts(histograms, method))
    return named, np.concatenate(blocks)


def normalize(cache: Path, method: str) -> None:
    """Bring the lookup tables of both splits up to date; a split whose squares are the same keeps its own."""
    folder, parameters = cache / "normalize", {"version": VERSION, "method": method}
    splits = [split for split in PARTS if manifest.has_output(cache / "resize", split)]
    if not splits:
        raise InputError(f"{cache}/resize: holds no images; run python -m preprocess.resize first")
    inputs = {
        f"resize {split}": manifest.read_output(cache / "resize", split, "preprocess.resize")
        for split in splits
    }

    made = manifest.read_manifest(folder)

    def make() -> str:
        told = []
        for split in splits:
            if made is not None and _is_kept(folder, split, parameters, inputs, made):
                told.append(f"those of {split} are kept")
                continue
            named, luts = make_luts(cache, split, method)
            with files.replacing(folder / f"{split}.npz") as partial:
                np.savez(
                    partial, images=np.array(named, dtype=str), luts=luts, method=np.array(method)
                )
            told.append(f"{len(named)} images of {split}")
        return ", ".join(told)

    outputs = [f"{split}.npz" for split in splits]
    print(f"normalize: {manifest.renew(folder, 'normalize', parameters, inputs, outputs, make)}")


def _is_kept(
    folder: Path,
    split: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    made: Mapping[str, Any],
) -> bool:
    """Return whether a split's file is what the manifest `made` says, of the same histograms and parameters."""
    if manifest.describe_change(made["parameters"], parameters):
        return False
    key = f"resize {split}"
    if made["inputs"].get(key) != inputs[key]:
        return False
    path = folder / f"{split}.npz"
    return path.is_file() and made["outputs"].get(path.name) == files.hash_file(path)


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser("preprocess.normalize", __doc__, "--cache cache")
    parser.add_argument("--method", **METHOD)
    options = recipe.parse(parser, argv, "preprocess.normalize")
    with stage.working(options.cache, "preprocess.normalize"):
        normalize(options.cache, options.method)


if __name__ == "__main__":
    process.run(main)
