"""Run all of preprocessing: photographs -> ellipses, squares, lookup tables, moments; each photograph is decoded once.

Photographs are JPEG (.jpeg .jpg .jpe .jfif), PNG (.png), TIFF (.tif .tiff), BMP (.bmp), PPM (.ppm
.pgm), WebP (.webp) or DICOM (.dcm .dicom). Those that cannot be used are listed in
CACHE/rejected.csv with the reason.
"""

from argparse import Namespace

from preprocess import crop, normalize, photographs, resize, standardize
from preprocess.cache import manifest, rejected, stage
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet

STAGES = ("preprocess.crop", "preprocess.resize", "preprocess.normalize")  # that have options
RENAMED = {"preprocess.crop.method": "crop", "preprocess.normalize.method": "normalize"}


def check_data(options: Namespace, dataset: DataSet) -> None:
    """Raise InputError for photographs that are named but not there."""
    photographs.check_files(dataset, options.allow_rejected)


def estimate_space(options: Namespace, dataset: DataSet) -> dict[str, int]:
    """Return how many bytes will be written, by what they are."""
    squares = photographs.estimate_squares(dataset, options.cache, options.crop, options.size_px)
    return {"squares": squares}


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser("preprocess", __doc__, "--data data --cache cache --jobs 4")
    parser.add_argument("--crop", **crop.METHOD)
    parser.add_argument("--size-px", **resize.SIZE)
    parser.add_argument("--normalize", **normalize.METHOD)
    parallel.add_options(parser)
    cli.add_rejected_option(parser)
    options = recipe.parse(parser, argv, *STAGES, renamed=RENAMED)
    dataset = readers.open_dataset(options)
    check_data(options, dataset)
    for line in recipe.describe_few(options.recipe, len(dataset.list_paths("train"))):
        print(f"preprocess: {line}")
    cache = options.cache
    with stage.working(
        cache,
        "preprocess",
        [cache / name for name in ("crop", "resize", "normalize", "standardize")],
    ):
        workers = options.dask or options.jobs
        reasons = photographs.update(
            dataset, cache, workers, method=options.crop, size_px=options.size_px
        )
        rejected.check_rejected(cache, reasons, options.allow_rejected)
        normalize.normalize(cache, options.normalize)
        if manifest.has_output(cache / "resize", "train"):
            standardize.standardize(cache)


if __name__ == "__main__":
    process.run(main)
