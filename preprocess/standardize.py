"""Measure the channels of the normalized training images: histograms, lookup tables -> CACHE/standardize/moments.csv.

The table has the number of pixels and each channel's sum and sum of squares per training image. A
model that trains on some of the patients takes mean and standard deviation from these patients
alone. Pixels are read only if the normalization is local.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from preprocess import normalize, photographs
from preprocess.cache import manifest, stage
from preprocess.command import cli, process, progress, recipe, resources
from preprocess.disk import tables
from preprocess.disk.errors import InputError
from preprocess.picture import cut, square

PARAMETERS = {"version": 1}
COLUMNS = ("pixels", *(f"{moment}_{channel}" for moment in ("sum", "squares") for channel in "rgb"))


def measure_moments(histograms: np.ndarray, luts: np.ndarray) -> np.ndarray:
    """Return the COLUMNS of images, (n, 7) int64, of their histograms and lookup tables, (n, 3, 256) each."""
    values = luts.astype(np.int64)
    sums = (histograms * values).sum(axis=-1)
    squares = (histograms * values**2).sum(axis=-1)
    return np.concatenate([histograms[:, 0].sum(axis=-1, keepdims=True), sums, squares], axis=1)


def read_channels(cache: Path, wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels' mean and standard deviation (0-255, RGB) over all pixels of the given training images.

    Raises InputError if the stage has not run, an image is not in its table, or a channel does not vary.
    """
    manifest.read_output(cache / "standardize", "moments.csv", "preprocess.standardize")
    path = cache / "standardize" / "moments.csv"
    table = tables.read_table(path, ["image", *COLUMNS])
    tables.check_same_images(wanted, set(wanted) & set(table["image"]), "the training set", path)
    return pool_moments(
        tables.read_numbers(path, table, COLUMNS)[table["image"].isin(list(wanted))], path
    )


def pool_moments(moments: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels' mean and standard deviation of moments (n, 7). Raises InputError, naming the path, of 0."""
    total = moments.sum(axis=0)
    mean = total[1:4] / total[0]
    variance = total[4:7] / total[0] - mean**2
    if not (variance > 1e-9).all():
        raise InputError(f"{path}: a channel without variance cannot be standardized")
    return mean, np.sqrt(variance)


def measure_blocks(cache: Path) -> tuple[list[str], np.ndarray]:
    """Return the training images and their COLUMNS, (n, 7) int64, measured by blocks."""
    known, luts = normalize.read_luts(cache, "train")
    making = square.read_making(cache)
    named: list[str] = []
    moments: list[np.ndarray] = []
    with progress.tracking(len(known), "standardize") as bar:
        for images, histograms in photographs.iterate_histograms(cache, "train"):
            block = slice(len(named), len(named) + len(images))
            named += images
            if known[block] != images:  # they have one order
                tables.check_same_images(named, known, cache / "resize", cache / "normalize")
            block_luts = luts[block]
            if making.normalize == "local":
                histograms = count_finished(cache, images, block_luts, making, bar)
                block_luts = square.leave_luts(block_luts, making.normalize)
            else:
                bar.update(len(images))
            moments.append(measure_moments(histograms, block_luts))
    tables.check_same_images(named, known, cache / "resize", cache / "normalize")
    return named, np.concatenate(moments)


def count_finished(
    cache: Path,
    named: Sequence[str],
    luts: np.ndarray,
    making: square.Making,
    bar: progress.Bar,
) -> np.ndarray:
    """Return the histograms (n, 3, 256) of all pixels of the training squares `named` as the net is given them."""

    def count(image: str, lut: np.ndarray) -> np.ndarray:
        pixels = square.read_pixels(cache / "resize" / "train" / f"{image}.png", making.size_px)
        return cut.count_pixels(square.finish(pixels, lut, making.normalize)[0])

    histograms = []
    with ThreadPoolExecutor(resources.count_processors()) as pool:
        for histogram in pool.map(count, named, luts):
            histograms.append(histogram)
            bar.update(1)
    return np.stack(histograms)


def standardize(cache: Path) -> None:
    """Bring the table of moments up to date."""
    folder = cache / "standardize"
    inputs = {
        "resize train": manifest.read_output(cache / "resize", "train", "preprocess.resize"),
        "normalize train": manifest.read_output(
            cache / "normalize", "train.npz", "preprocess.normalize"
        ),
    }

    def make() -> str:
        named, moments = measure_blocks(cache)
        rows = ([image, *row] for image, row in zip(named, moments.tolist(), strict=True))
        tables.write_rows(folder / "moments.csv", ("image", *COLUMNS), rows)
        mean, std = pool_moments(moments, folder / "moments.csv")
        return f"mean {mean.round(2).tolist()}, standard deviation {std.round(2).tolist()} (RGB, 0-255)"

    print(
        f"standardize: {manifest.renew(folder, 'standardize', PARAMETERS, inputs, ['moments.csv'], make)}"
    )


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser("preprocess.standardize", __doc__, "--cache cache")
    options = recipe.parse(parser, argv, "preprocess.standardize")
    with stage.working(options.cache, "preprocess.standardize"):
        standardize(options.cache)


if __name__ == "__main__":
    process.run(main)
