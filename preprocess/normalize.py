"""Flatten every image's channels: histograms of CACHE/resize -> CACHE/normalize/{train,test}.npz, 3x256 lookup tables.

python -m preprocess.normalize --data DIR --cache DIR
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess import eyes, resize, stage

PARAMETERS = {"version": 1}  # raise the version when the same histogram gives another table


def flatten_distribution(histograms: np.ndarray) -> np.ndarray:
    """Return the lookup tables that spread each channel's values evenly over 0-255.

    A value goes to the share of pixels below it plus half the share at it, times 255: the mid-rank, which sends a
    channel of one value to the middle and needs no special case. Black stays black: outside the disc and the
    photograph a square is 0, however many pixels inside are 0 too.

    Parameters
    ----------
    histograms : (n, 3, 256) counts of the pixels inside the disc

    Returns
    -------
    (n, 3, 256) uint8, ascending along the last axis

    Raises
    ------
    ValueError : a histogram is empty
    """
    totals = histograms.sum(axis=-1, keepdims=True)
    if (totals == 0).any():
        raise ValueError("an empty histogram has no distribution")
    mid_ranks = (histograms.cumsum(axis=-1) - histograms / 2) / totals
    luts = np.rint(255 * mid_ranks).astype(np.uint8)
    luts[..., 0] = 0
    return luts


def read_tables(cache: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and their lookup tables, (n, 3, 256) uint8, channels in RGB.

    Raises InputError if the stage has not run on the split.
    """
    path = cache / "normalize" / f"{split}.npz"
    if stage.hash_file(path) != stage.read_output(path.parent, path.name, "preprocess.normalize"):
        raise stage.InputError(f"{path}: not what was written; run python -m preprocess.normalize again")
    with np.load(path, allow_pickle=False) as tables:
        return tables["images"].tolist(), tables["luts"]


def normalize(cache: Path) -> None:
    """Bring the lookup tables of both splits up to date."""
    folder = cache / "normalize"
    splits = [split for split in eyes.SPLITS if stage.has_output(cache / "resize", split)]
    if not splits:
        raise stage.InputError(f"{cache}/resize: holds no images; run python -m preprocess.resize first")
    inputs = {f"resize {split}": stage.read_output(cache / "resize", split, "preprocess.resize") for split in splits}
    change = stage.find_change(folder, PARAMETERS, inputs)
    if change is None:
        print("normalize: cached")
        return
    print(f"normalize: {change}")
    outputs = {f"{split}.npz": write_tables(cache, split) for split in splits}
    stage.write_manifest(folder, "normalize", PARAMETERS, inputs, outputs)


def write_tables(cache: Path, split: str) -> str:
    """Write one split's lookup tables and return the file's digest."""
    images, histograms = resize.read_histograms(cache, split)
    path = cache / "normalize" / f"{split}.npz"
    with stage.replacing(path) as partial:
        np.savez(partial, images=np.array(images, dtype=str), luts=flatten_distribution(histograms))
    print(f"normalize: {split}: {len(images)} images")
    return stage.hash_file(path)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess.normalize",
        "Make the lookup table of every image that flattens the distribution of its three channels. Reads the "
        "histograms of preprocess.resize, no pixel. Writes CACHE/normalize/train.npz and test.npz.",
        "--cache cache",
    )
    options = parser.parse_args(argv)
    with stage.locked(options.cache):
        normalize(options.cache)


if __name__ == "__main__":
    stage.run(main)
