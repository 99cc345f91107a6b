"""The one pass over all photographs: outlines, squares or both, each photograph decoded once.

Reads the photographs of a data set, writes CACHE/crop and CACHE/resize; CACHE/rejected.csv lists what cannot be used.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.cache import journal, manifest, rejected
from preprocess.cache.journal import Journal, Row
from preprocess.command import parallel
from preprocess.dataset.dataset import PARTS, DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import cut, outline
from preprocess.picture.photograph import Photograph

LEAST_SEMI_AXIS_PX = 8  # of a correction: a smaller eye shows nothing
MOST_PX = 100_000  # of a correction: no photograph is as large
KNOWN_LAYOUTS = (
    "known are PATIENT_left and PATIENT_right there with trainLabels.csv, or folders of classes, train/CLASS/, or a "
    "table of findings with images*/"
)

Corrections = dict[str, list[float]]  # image -> ellipse: x, y, semi-axis x, semi-axis y


def read_crops(cache: Path, split: str) -> dict[str, Row]:
    """Return the crop table: image -> row. Raises InputError if the stage has not run on the split."""
    return journal.read_rows(cache / "crop", split, "preprocess.crop")


def read_squares(cache: Path, split: str) -> dict[str, Row]:
    """Return what is known of each square: image -> row. Raises InputError if the stage has not run on the split."""
    return journal.read_rows(cache / "resize", split, "preprocess.resize")


def identify_square(row: Row) -> list[int]:
    """Return what tells a square's pixels from others', of its row: the size and the checksum of its file."""
    return [row["png_bytes"], row["png_crc32"]]


def read_histograms(cache: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Return the images of a split and the histograms of their pixels inside the disc, (n, 3, 256) int64, in RGB."""
    rows = read_squares(cache, split)
    if not rows:
        raise InputError(f"{cache}/resize: every image of {split} is rejected; see {cache / 'rejected.csv'}")
    return list(rows), np.stack([cut.decode_histogram(row["histogram"]) for row in rows.values()])


def read_corrections(cache: Path, dataset: DataSet) -> Corrections:
    """Return the ellipses that a person put into CACHE/crop/corrections.csv.

    Raises InputError for what is no table of them, and for an image of neither the data folder nor the crop tables.
    """
    path = cache / "crop" / "corrections.csv"
    if not path.exists():
        return {}
    table = tables.read_table(path, ["image", *outline.ELLIPSE])
    numbers = tables.read_numbers(path, table, outline.ELLIPSE)
    bad = (numbers[:, 2:] < LEAST_SEMI_AXIS_PX).any(axis=1) | (np.abs(numbers) > MOST_PX).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{path}, row {row + 2}: a semi-axis is not positive, or the ellipse too small or too large")
    unknown = set(table["image"])
    for part in PARTS:
        unknown -= set(dataset.list_paths(part))
        if unknown and manifest.has_output(cache / "crop", part):
            unknown -= set(read_crops(cache, part))
    if unknown:
        image = min(unknown, key=tables.order_of)
        raise InputError(f"{path}: no photograph in {dataset.folder} is image {image}; mend or remove the row")
    return dict(zip(table["image"], numbers.tolist(), strict=True))


def work_on(
    path: Path, row: Row | None, method: str, correction: list[float] | None, size_px: int | None, target: Path
) -> tuple[Row, Row | None]:
    """Return one photograph's row of the crop table, found if it is not given, and that of the square put at `target`.

    Either may be {"reason": why not}. There is no second row if no size is wanted, or the first is a reason.
    """
    photograph = Photograph(path)
    try:
        row = row or outline.measure(photograph, method, correction)
    except Unusable as error:
        return {"reason": str(error)}, None
    if size_px is None:
        return row, None
    try:
        pixels, inside = cut.cut_square(photograph, row, size_px, outline.SHAPES[method])
    except Unusable as error:
        return row, {"reason": str(error)}
    png, square = cut.encode(pixels, inside)
    files.write_bytes(target, png)
    return row, square


def update(
    dataset: DataSet, cache: Path, workers: parallel.Workers, method: str | None = None, size_px: int | None = None
) -> dict[str, str]:
    """Bring outlines, squares or both of all photographs up to date; return the rejected images and why.

    Without a method the eyes are where the outlines that are there say; without a size no squares are made.
    """
    if not dataset.folder.is_dir():
        raise InputError(f"{dataset.folder}: no such folder")
    for note in dataset.notes:
        print(f"{dataset.folder}: {note}")
    corrections = read_corrections(cache, dataset) if method else {}
    found_by = method or manifest.read_parameter(cache / "crop", "method", "preprocess.crop")
    parameters: dict[str, dict[str, Any]] = {}
    if method:
        parameters["crop"] = {"version": outline.VERSION, "method": method}
    if size_px:
        parameters["resize"] = {"version": cut.VERSION, "size_px": size_px, "shape": outline.SHAPES[found_by]}
    outputs = {stage: manifest.kept_outputs(cache / stage, values) for stage, values in parameters.items()}
    reasons: dict[str, str] = {}
    updated: list[str] = []
    for part in PARTS:
        paths = dataset.list_paths(part)
        if not paths:
            print(f"{' and '.join(parameters)}: no {part} photographs in {dataset.folder}")
            continue
        updated.append(part)
        journals = {stage: Journal(cache / stage, part, values) for stage, values in parameters.items()}
        _update_part(cache, part, paths, corrections, found_by, journals, workers)
        for stage, finished in journals.items():
            unread = dataset.unread.get(part, {}) if stage == "crop" else {}
            unusable = {**unread, **finished.reasons}
            rejected.record_rejected(cache, stage, part, unusable)
            reasons |= unusable
            outputs[stage][part] = finished.digest
    if not any(outputs.values()):
        folders = " or ".join(f"{part}/" for part in PARTS)
        raise InputError(f"{dataset.folder}: no photographs in {folders}; {KNOWN_LAYOUTS}")
    if "crop" in parameters:  # first: the squares were made from it
        manifest.write_manifest(cache / "crop", "crop", parameters["crop"], {}, outputs["crop"])
    if "resize" in parameters:
        inputs = {f"crop {part}": manifest.read_output(cache / "crop", part, "preprocess.crop") for part in updated}
        manifest.write_manifest(cache / "resize", "resize", parameters["resize"], inputs, outputs["resize"])
    return reasons


def _find_due(
    cache: Path, split: str, keys: Mapping[str, list], journals: Mapping[str, Journal]
) -> tuple[dict[str, Row], dict[str, list[str]]]:
    """Return the known rows of the crop table, and the images that each journal lacks, which are told of.

    Rows are made from the keys, [version of the file, correction]. Raises InputError if squares alone are wanted, and
    the crop table is of other photographs.
    """
    crops, squares = journals.get("crop"), journals.get("resize")
    rows = crops.find_made(keys) if crops else read_crops(cache, split)
    if not crops:
        known = rows.keys() & keys.keys()
        tables.check_same_images(rows, known, cache / "crop" / f"{split}.csv", f"the {split} photographs")
    wanted, made = {"crop": list(keys)}, {"crop": rows}
    if squares:
        for image, row in squares.rows.items():  # whose PNG is gone or has another size than was written
            if files.describe_source(cache / "resize" / split / f"{image}.png")[0] != row["png_bytes"]:
                del squares.records[image]
        wanted["resize"] = [image for image in (keys if crops else rows) if "reason" not in rows.get(image, {})]
        cropped = [image for image in wanted["resize"] if image in rows]
        made["resize"] = squares.find_made({image: _describe_square(keys[image], rows[image]) for image in cropped})
    due = {name: [image for image in wanted[name] if image not in made[name]] for name in journals}
    for name, images in due.items():
        n, change = len(wanted[name]), journals[name].change
        state = f"{len(images)} of {n} images are due" if images else f"all {n} images are cached"
        print(f"{name}: {split}: {state}" + (f" ({change})" if change else ""), flush=True)
    return rows, due


def _describe_square(key: Sequence, row: Row) -> list:
    """Return the key of the square of an image: the file's version, as its own key has it, and the ellipse."""
    return [key[0], [row[name] for name in outline.ELLIPSE]]


def _update_part(
    cache: Path, split: str, paths: Mapping[str, Path], corrections: Corrections, method: str,
    journals: Mapping[str, Journal], workers: parallel.Workers,
) -> None:  # fmt: skip
    """Work on the images of a split that are due, keep the others, drop those that are gone."""
    crops, squares, folder = journals.get("crop"), journals.get("resize"), cache / "resize" / split
    keys = {image: [files.describe_source(path), corrections.get(image)] for image, path in paths.items()}
    rows, due = _find_due(cache, split, keys, journals)
    size_px = squares.parameters["size_px"] if squares else None
    orders = {
        image: (paths[image], rows.get(image), method, corrections.get(image), size_px, folder / f"{image}.png")
        for image in itertools.chain(*due.values())
    }
    title = f"{' and '.join(due)}: {split}"
    for image, (row, square) in parallel.map_parallel(work_on, orders, workers, title):
        if crops and image not in rows:
            crops.append(image, keys[image], row)
        if squares and square is not None:
            squares.append(image, _describe_square(keys[image], row), square)
    if crops:
        crops.finish(list(paths))
        rows = crops.rows
        lines = ([image, *(row[name] for name in outline.COLUMNS[1:])] for image, row in rows.items())
        tables.write_rows(cache / "crop" / f"{split}.csv", outline.COLUMNS, lines)
    if squares:
        dropped = squares.finish([image for image in paths if image in rows])
        for image in [*dropped, *squares.reasons]:
            (folder / f"{image}.png").unlink(missing_ok=True)
