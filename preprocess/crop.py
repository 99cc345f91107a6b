"""Find the eye in every photograph: DATA/{train,test}/*.jpeg -> CACHE/crop/{train,test}.csv, an ellipse per image.

python -m preprocess.crop --data DIR --cache DIR [--method adaptive|box] [--sheet FILE.png] [--jobs N | --dask ADDRESS]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from preprocess import disc, eyes, per_image, photograph, sheet, stage
from preprocess.disc import Disc

VERSION = 1  # raise it when the same photograph gets another ellipse
DETECTION_PX = 512  # shorter side that a photograph is decoded at: what a 512 px crop needs as well
ELLIPSE = ("center_x", "center_y", "semi_axis_x", "semi_axis_y")
COLUMNS = ("image", "width", "height", *ELLIPSE, "confidence")
METHODS = ("adaptive", "box")
LEAST_SEMI_AXIS_PX = 8  # of a correction: a smaller eye shows nothing
MOST_PX = 100_000  # of a correction: no photograph is as large


def find_ellipse(rgb: np.ndarray, reduction: int, method: str) -> Disc:
    """Return the eye's disc in pixels of the photograph that `rgb` is a 1/reduction decode of.

    Raises disc.NoEye.
    """
    found = disc.find_disc(rgb) if method == "adaptive" else disc.find_box_disc(rgb)
    return found.scaled(reduction, reduction)


def measure(path: Path, method: str, correction: list[float] | None) -> dict[str, Any]:
    """Return one photograph's row of the crop table, or {'reason': why there is none}."""
    try:
        width, height = photograph.read_size(path)
        if correction:
            return make_row(width, height, Disc(*correction, confidence=1.0))
        rgb, reduction = photograph.decode(path, DETECTION_PX)
        return make_row(width, height, find_ellipse(rgb, reduction, method))
    except (photograph.UnreadablePhotograph, disc.NoEye) as error:
        return {"reason": str(error)}


def make_row(width: int, height: int, found: Disc) -> dict[str, Any]:
    """Return a row of the crop table: pixels of the photograph to 0.01, confidence to 0.0001."""
    row: dict[str, Any] = {"width": width, "height": height}
    row |= {name: round(float(getattr(found, name)), 2) for name in ELLIPSE}
    return row | {"confidence": round(float(found.confidence), 4)}


def read_corrections(cache: Path) -> dict[str, list[float]]:
    """Return the ellipses that a person put into CACHE/crop/corrections.csv: image -> (x, y, semi-axis x, semi-axis y).

    Raises InputError for wrong columns, numbers or ids.
    """
    path = cache / "crop" / "corrections.csv"
    if not path.exists():
        return {}
    table = eyes.read_table(path, ["image", *ELLIPSE])
    numbers = eyes.read_numbers(path, table, ELLIPSE)
    bad = (numbers[:, 2:] < LEAST_SEMI_AXIS_PX).any(axis=1) | (np.abs(numbers) > MOST_PX).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise stage.InputError(
            f"{path}, row {row + 2}: a semi-axis is not positive, or the ellipse too small or too large"
        )
    return dict(zip(table["image"], numbers.tolist(), strict=True))


def check_corrections(data: Path, cache: Path) -> None:
    """Raise InputError for a correction of an image that is neither in the data folder nor in the crop tables."""
    unknown = set(read_corrections(cache))
    for split in eyes.SPLITS if unknown else ():
        unknown -= set(eyes.list_images(data, split)[0])
        if stage.has_output(cache / "crop", split):
            unknown -= set(read_crops(cache, split))
    if unknown:
        path, image = cache / "crop" / "corrections.csv", min(unknown, key=eyes.order_of)
        raise stage.InputError(f"{path}: no photograph in {data} is image {image}; mend or remove the row")


def list_tasks(
    paths: dict[str, Path], method: str, corrections: dict[str, list[float]]
) -> dict[str, tuple[list, tuple]]:
    """Return what to do per image and the key that tells whether it was done: image -> (key, arguments)."""
    return {
        image: ([stage.describe_source(path), corrections.get(image)], (path, method, corrections.get(image)))
        for image, path in paths.items()
    }


def read_crops(cache: Path, split: str) -> dict[str, dict[str, Any]]:
    """Return the crop table: image -> row.

    Raises InputError if the stage has not run on the split.
    """
    return per_image.read_rows(cache / "crop", split, "preprocess.crop")


def list_cropped(data: Path, cache: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return (image, path, row of the crop table) of both splits' photographs that are in the data folder."""
    cropped = []
    for split in eyes.SPLITS:
        paths, _ = eyes.list_images(data, split)
        rows = read_crops(cache, split) if paths else {}
        cropped += [(image, paths[image], row) for image, row in rows.items()]
    return cropped


def describe_parameters(method: str) -> dict[str, Any]:
    """Return what the table depends on beside the photographs."""
    return {"version": VERSION, "method": method}


def crop(data: Path, cache: Path, method: str, workers: per_image.Workers) -> dict[str, str]:
    """Bring the crop tables of both splits up to date; return the rejected images and why."""
    if not data.is_dir():
        raise stage.InputError(f"{data}: no such folder")
    parameters = describe_parameters(method)
    corrections = read_corrections(cache)
    check_corrections(data, cache)
    outputs, reasons = stage.kept_outputs(cache / "crop", parameters), {}
    for split in eyes.SPLITS:
        paths, misnamed = eyes.list_images(data, split)
        if not paths:
            print(f"crop: {split}: no photographs in {data / split}")
            continue
        journal = per_image.Journal(cache / "crop", split, parameters)
        per_image.map_images(measure, journal, list_tasks(paths, method, corrections), workers)
        outputs[split] = journal.digest
        stage.write_table(cache / "crop" / f"{split}.csv", COLUMNS, journal.rows)
        stage.record_rejected(cache, "crop", split, misnamed | journal.reasons)
        reasons |= misnamed | journal.reasons
    if not outputs:
        raise stage.InputError(f"{data}: no photographs in {' or '.join(f'{split}/' for split in eyes.SPLITS)}")
    stage.write_manifest(cache / "crop", "crop", parameters, {}, outputs)
    return reasons


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess.crop",
        "Find the eye in every photograph. Writes CACHE/crop/train.csv and test.csv: the ellipse in pixels of the "
        "photograph, and how sure it is (0-1). A row in CACHE/crop/corrections.csv (image, center_x, center_y, "
        "semi_axis_x, semi_axis_y) wins over what is found.",
        "--data data --cache cache --jobs 4",
    )
    add_options(parser)
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the ellipses, the least sure first")
    per_image.add_image_options(parser)
    options = parser.parse_args(argv)
    with stage.locked(options.cache):
        reasons = crop(options.data, options.cache, options.method, per_image.choose_workers(options))
        if options.sheet:
            n_shown = sheet.write_sheet(options.sheet, list_cropped(options.data, options.cache))
            print(f"crop: the {n_shown} least sure ellipses -> {options.sheet}")
    stage.check_rejected(options.cache, reasons, options.allow_rejected)


def add_options(parser) -> None:
    """Add this stage's own options."""
    parser.add_argument("--method", choices=METHODS, default="adaptive", help="how the eye is found: its "
                        "round rim, or the box of all that is brighter than a threshold")  # fmt: skip


if __name__ == "__main__":
    stage.run(main)
