"""Find the eye in every photograph: DATA/{train,test} -> CACHE/crop/{train,test}.csv, one ellipse per image.

The table has the ellipse in pixels of the photograph and a confidence from 0 to 1. A row in
CACHE/crop/corrections.csv (image, center_x, center_y, semi_axis_x, semi_axis_y) replaces what is
found.
"""

from pathlib import Path
from typing import Any

from preprocess import photographs
from preprocess.cache import rejected, stage
from preprocess.cache.journal import Row
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import PARTS, DataSet
from preprocess.picture import depth, outline, sheet

METHOD: dict[str, Any] = {  # of the option that says how the eye is found
    "choices": outline.METHODS,
    "help": "how the eye is found: its round rim; the box of all that is brighter than a threshold; or not at all, for "
    "pictures that are to be taken whole, padded to a square or stretched to one",
}


def list_cropped(dataset: DataSet, cache: Path) -> list[tuple[str, Path, Row]]:
    """Return (image, path, row of the crop table) of all photographs that are in the data set."""
    cropped = []
    for part in PARTS:
        paths = dataset.list_paths(part)
        rows = photographs.read_crops(cache, part) if paths else {}
        cropped += [(image, paths[image], row) for image, row in rows.items()]
    return cropped


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser("preprocess.crop", __doc__, "--data data --cache cache --jobs 4")
    parser.add_argument("--method", **METHOD)
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="draw the ellipses, the least certain first"
    )
    parallel.add_options(parser)
    cli.add_rejected_option(parser)
    options = recipe.parse(parser, argv, "preprocess.crop")
    dataset = readers.open_dataset(options)
    photographs.check_files(dataset, options.allow_rejected)
    with stage.working(options.cache, "preprocess.crop"):
        reasons = photographs.update(
            dataset, options.cache, options.dask or options.jobs, method=options.method
        )
        if options.sheet:
            cropped = list_cropped(dataset, options.cache)
            n_shown = sheet.write_sheet(
                options.sheet,
                cropped,
                outline.SHAPES[options.method],
                bits=depth.read_bits(options.cache / "crop"),
            )
            print(f"crop: the {n_shown} least sure ellipses -> {options.sheet}")
    rejected.check_rejected(options.cache, reasons, options.allow_rejected)


if __name__ == "__main__":
    process.run(main)
