"""Say what becomes of every image's colours: histograms of CACHE/resize -> CACHE/normalize/{train,test}.npz.

The files hold a 3x256 lookup table per image. What `local` does beyond them is done where pixels are read.
"""

from pathlib import Path
from typing import Any

import numpy as np

from preprocess import images
from preprocess.cache import files, manifest, stage
from preprocess.cache.errors import InputError
from preprocess.picture import square
from preprocess.recipes import recipe
from preprocess.samples.layout import SPLITS

VERSION = 1  # raise it when the same histogram gives another lookup table
METHOD: dict[str, Any] = {  # of the option that says what becomes of the colours
    "choices": square.NORMALIZATIONS,
    "help": "what becomes of the colours: each channel's distribution is made flat; then the local means are taken "
    "away, too; nothing",
}


def read_luts(cache: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and their lookup tables, (n, 3, 256) uint8 RGB. Raises InputError without them."""
    path = cache / "normalize" / f"{split}.npz"
    if manifest.read_output(path.parent, path.name, "preprocess.normalize") != files.hash_file(path):
        raise InputError(f"{path}: not what was written; run python -m preprocess.normalize again")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["images"].tolist(), arrays["luts"]


def normalize(cache: Path, method: str) -> None:
    """Bring the lookup tables of both splits up to date."""
    folder, parameters = cache / "normalize", {"version": VERSION, "method": method}
    splits = [split for split in SPLITS if manifest.has_output(cache / "resize", split)]
    if not splits:
        raise InputError(f"{cache}/resize: holds no images; run python -m preprocess.resize first")
    inputs = {f"resize {split}": manifest.read_output(cache / "resize", split, "preprocess.resize") for split in splits}
    change = manifest.find_change(folder, parameters, inputs)
    if change is None:
        print("normalize: cached")
        return
    print(f"normalize: {change}")
    outputs = {}
    for split in splits:
        named, histograms = images.read_histograms(cache, split)
        path = folder / f"{split}.npz"
        luts = square.make_luts(histograms, method)
        with files.replacing(path) as partial:
            np.savez(partial, images=np.array(named, dtype=str), luts=luts, method=np.array(method))
        outputs[path.name] = files.hash_file(path)
        print(f"normalize: {split}: {len(named)} images")
    manifest.write_manifest(folder, "normalize", parameters, inputs, outputs)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser("preprocess.normalize", __doc__, "--cache cache")
    parser.add_argument("--method", **METHOD)
    options = recipe.parse(parser, argv, "preprocess.normalize")
    with stage.working(options.cache, "preprocess.normalize"):
        normalize(options.cache, options.method)


if __name__ == "__main__":
    stage.run(main)
