"""Measure the channels of the normalized training set: histograms and lookup tables -> CACHE/standardize/moments.csv.

python -m preprocess.standardize --data DIR --cache DIR

The table has the pixel count and each channel's sum and sum of squares per training image, so that whoever trains on
some of the patients pools exactly theirs into six numbers: mean 0 and standard deviation 1 leak nothing of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocess import eyes, normalize, resize, stage

PARAMETERS = {"version": 1}
COLUMNS = ("pixels", *(f"{moment}_{channel}" for moment in ("sum", "squares") for channel in "rgb"))


def measure_moments(histograms: np.ndarray, luts: np.ndarray) -> np.ndarray:
    """Return each image's pixel count, channel sums and channel sums of squares after its lookup table.

    Parameters
    ----------
    histograms : (n, 3, 256) counts
    luts : (n, 3, 256) values 0-255

    Returns
    -------
    (n, 7) int64, columns as in COLUMNS
    """
    values = luts.astype(np.int64)
    sums = (histograms * values).sum(axis=-1)
    squares = (histograms * values**2).sum(axis=-1)
    return np.concatenate([histograms[:, 0].sum(axis=-1, keepdims=True), sums, squares], axis=1)


def pool_moments(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel over all pixels of some images, two float64 of shape (3,).

    Raises ValueError if a channel does not vary.
    """
    total = moments.sum(axis=0)
    mean = total[1:4] / total[0]
    variance = total[4:7] / total[0] - mean**2
    if not (variance > 1e-9).all():
        raise ValueError("a channel without variance cannot be standardized")
    return mean, np.sqrt(variance)


def read_channels(cache: Path, images: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels' mean and standard deviation (0-255, RGB) over the given training images.

    Raises InputError if the stage has not run, an image is not in its table, or a channel does not vary.
    """
    stage.read_output(cache / "standardize", "moments.csv", "preprocess.standardize")
    path = cache / "standardize" / "moments.csv"
    table = eyes.read_table(path, ["image", *COLUMNS])
    eyes.check_same_images(images, set(images) & set(table["image"]), "the training set", path)
    moments = eyes.read_numbers(path, table, COLUMNS)[table["image"].isin(list(images))]
    try:
        return pool_moments(moments)
    except ValueError as error:
        raise stage.InputError(f"{path}: {error}") from None


def standardize(cache: Path) -> None:
    """Bring the table of moments up to date."""
    folder = cache / "standardize"
    inputs = {
        "resize train": stage.read_output(cache / "resize", "train", "preprocess.resize"),
        "normalize train": stage.read_output(cache / "normalize", "train.npz", "preprocess.normalize"),
    }
    change = stage.find_change(folder, PARAMETERS, inputs)
    if change is None:
        print("standardize: cached")
        return
    print(f"standardize: {change}")
    images, histograms = resize.read_histograms(cache, "train")
    tabled, luts = normalize.read_tables(cache, "train")
    order = {image: position for position, image in enumerate(tabled)}
    moments = measure_moments(histograms, luts[[order[image] for image in images]])
    rows = {image: dict(zip(COLUMNS, row, strict=True)) for image, row in zip(images, moments.tolist(), strict=True)}
    stage.write_table(folder / "moments.csv", ("image", *COLUMNS), rows)
    outputs = {"moments.csv": stage.hash_file(folder / "moments.csv")}
    stage.write_manifest(folder, "standardize", PARAMETERS, inputs, outputs)
    mean, std = read_channels(cache, images)
    print(
        f"standardize: mean {np.round(mean, 2).tolist()}, standard deviation {np.round(std, 2).tolist()} (RGB, 0-255)"
    )


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess.standardize",
        "Measure mean and standard deviation of the normalized training set's channels. Reads histograms and lookup "
        "tables, no pixel. Writes CACHE/standardize/moments.csv, a row per training image.",
        "--cache cache",
    )
    options = parser.parse_args(argv)
    with stage.locked(options.cache):
        standardize(options.cache)


if __name__ == "__main__":
    stage.run(main)
