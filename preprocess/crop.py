"""Find the eye in every photograph: DATA/{train,test} -> CACHE/crop/{train,test}.csv, one ellipse per image.

The table has the ellipse in pixels of the photograph and a confidence from 0 to 1. A row in
CACHE/crop/corrections.csv (image, center_x, center_y, semi_axis_x, semi_axis_y) replaces what is
found.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess import photographs
from preprocess.cache import rejected, stage
from preprocess.cache.journal import Row
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import PARTS, DataSet
from preprocess.disk.errors import InputError
from preprocess.picture import depth, outline, sheet

METHOD: dict[str, Any] = {  # of the option that says how the eye is found
    "choices": outline.METHODS,
    "help": "how the eye is found: its round rim; the box of all that is brighter than a threshold; or not at all, for "
    "pictures that are to be taken whole, padded to a square or stretched to one",
}


def list_cropped(
    dataset: DataSet, cache: Path, parts: Sequence[str] = tuple(PARTS), only: str | None = None
) -> list[tuple[str, Path, Row]]:
    """Return (image, path, row of the crop table) of all photographs of some parts, or of one image.

    Raises InputError for an image that was not cropped.
    """
    cropped = []
    for part in parts:
        paths = dataset.list_paths(part)
        rows = photographs.read_crops(cache, part) if paths else {}
        cropped += [(image, paths[image], row) for image, row in rows.items()]
    if only is None:
        return cropped
    found = [entry for entry in cropped if entry[0] == only]
    if not found:
        raise InputError(f"--sheet-image {only}: no photograph of this name was cropped")
    return found


def check_sheet(options: Namespace) -> None:
    """Raise InputError for options of a sheet that is not drawn."""
    if (options.sheet_part or options.sheet_image) and not options.sheet:
        raise InputError("--sheet-part and --sheet-image need --sheet FILE.png")


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_parser("preprocess.crop", __doc__, "--data data --cache cache --jobs 4")
    parser.add_argument("--method", **METHOD)
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help=f"draw all outlines, the least certain first: {sheet.PER_PAGE} in FILE.png, the next in FILE-2.png ...",
    )
    parser.add_argument(
        "--sheet-part", choices=PARTS, help="draw only the training or only the test photographs"
    )
    parser.add_argument(
        "--sheet-image",
        metavar="IMAGE",
        help="draw this photograph alone, as large as a screen",
    )
    parallel.add_options(parser)
    cli.add_rejected_option(parser)
    options = recipe.parse(parser, argv, "preprocess.crop", check=check_sheet)
    dataset = readers.open_dataset(options)
    photographs.check_files(dataset, options.allow_rejected)
    with stage.working(options.cache, "preprocess.crop"):
        reasons = photographs.update(
            dataset, options.cache, options.dask or options.jobs, method=options.method
        )
        if options.sheet:
            parts = [options.sheet_part] if options.sheet_part else list(PARTS)
            cropped = list_cropped(dataset, options.cache, parts, options.sheet_image)
            pages = sheet.write_sheet(
                options.sheet,
                cropped,
                outline.SHAPES[options.method],
                bits=depth.read_bits(options.cache / "crop"),
            )
            names = ", ".join(str(page) for page in pages)
            print(f"crop: {len(cropped)} outlines, the least sure first -> {names}")
    rejected.check_rejected(options.cache, reasons, options.allow_rejected)


if __name__ == "__main__":
    process.run(main)
