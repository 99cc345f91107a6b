"""The one pass over all photographs: outlines, squares or both, each photograph decoded once.

Reads the photographs of a data set, writes CACHE/crop and CACHE/resize; CACHE/rejected.csv lists what cannot be used.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess.cache import journal, manifest, rejected
from preprocess.cache.journal import Journal, Row
from preprocess.command import parallel
from preprocess.dataset.dataset import PARTS, DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import cut, depth, outline
from preprocess.picture.photograph import Photograph

LEAST_SEMI_AXIS_PX = 8  # of a correction: a smaller eye shows nothing
MOST_PX = 100_000  # of a correction: no photograph is as large
BLOCK = 1024  # images whose histograms are in memory at a time: 6 MB
N_SAMPLED = 8  # photographs whose squares tell how large all are: two seconds
KNOWN_LAYOUTS = (
    "known are PATIENT_left and PATIENT_right there with trainLabels.csv, or folders of classes, train/CLASS/, or a "
    "table of findings with images*/, or a layout of preprocess/dataset/layouts: python -m preprocess.describe --draft "
    "writes one to finish by hand"
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


def iterate_histograms(cache: Path, split: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield blocks of images of a split and the histograms of their pixels inside the disc, (b, 3, 256) int64, in RGB.

    Raises InputError if every image is rejected; behind the last block, see `journal.iterate_rows`.
    """
    images: list[str] = []
    histograms: list[np.ndarray] = []
    is_empty = True
    for image, row in journal.iterate_rows(cache / "resize", split, "preprocess.resize"):
        is_empty = False
        images.append(image)
        histograms.append(cut.decode_histogram(row["histogram"]))
        if len(images) == BLOCK:
            yield images, np.stack(histograms)
            images = []
            histograms = []
    if is_empty:
        raise InputError(
            f"{cache}/resize: every image of {split} is rejected; see {cache / 'rejected.csv'}"
        )
    if images:
        yield images, np.stack(histograms)


def read_corrections(cache: Path, dataset: DataSet) -> Corrections:
    """Return the ellipses that a person put into CACHE/crop/corrections.csv.

    Raises InputError for what is no table of them, and for an image of neither the data folder nor the crop tables.
    """
    path = cache / "crop" / "corrections.csv"
    if not path.exists():
        return {}
    table = tables.read_table(path, ["image", *outline.ELLIPSE])
    numbers = tables.read_numbers(path, table, outline.ELLIPSE)
    bad = (numbers[:, 2:] < LEAST_SEMI_AXIS_PX).any(axis=1) | (np.abs(numbers) > MOST_PX).any(
        axis=1
    )
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}, row {row + 2}: a semi-axis is not positive, or the ellipse too small or too large"
        )
    unknown = set(table["image"])
    for part in PARTS:
        unknown -= set(dataset.list_paths(part))
        if unknown and manifest.has_output(cache / "crop", part):
            unknown -= set(read_crops(cache, part))
    if unknown:
        image = min(unknown, key=tables.order_of)
        raise InputError(
            f"{path}: no photograph in {dataset.folder} is image {image}; mend or remove the row"
        )
    return dict(zip(table["image"], numbers.tolist(), strict=True))


def work_on(
    path: Path,
    row: Row | None,
    method: str,
    correction: list[float] | None,
    size_px: int | None,
    target: Path,
    bits: int | None = None,
) -> tuple[Row, Row | None]:
    """Return one photograph's row of the crop table, found if it is not given, and that of the square put at `target`.

    `bits` is the range of values of more than 8 bits in the data set. Either row may be {"reason": why not}. There is
    no second row if no size is wanted, or the first is a reason.
    """
    photograph = Photograph(path, bits)
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
    dataset: DataSet,
    cache: Path,
    workers: parallel.Workers,
    method: str | None = None,
    size_px: int | None = None,
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
    depths = depth.find_depths(dataset.group_paths())
    for line in depth.describe_depths(depths):
        print(f"{dataset.folder}: {line}")
    bits = depth.make_parameters(depths)
    parameters: dict[str, dict[str, Any]] = {}
    if method:
        parameters["crop"] = {"version": outline.VERSION, "method": method, **bits}
    if size_px:
        shape = outline.SHAPES[found_by]
        parameters["resize"] = {"version": cut.VERSION, "size_px": size_px, "shape": shape, **bits}
    outputs = {
        stage: manifest.kept_outputs(cache / stage, values) for stage, values in parameters.items()
    }
    reasons: dict[str, str] = {}
    updated: list[str] = []
    for part in PARTS:
        paths = dataset.list_paths(part)
        if not paths:
            print(f"{' and '.join(parameters)}: no {part} photographs in {dataset.folder}")
            continue
        updated.append(part)
        journals = {
            stage: Journal(cache / stage, part, values) for stage, values in parameters.items()
        }
        image_bits = _list_bits(dataset, part, bits.get("bits"))
        _update_part(cache, part, paths, corrections, found_by, journals, workers, image_bits)
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
        inputs = {
            f"crop {part}": manifest.read_output(cache / "crop", part, "preprocess.crop")
            for part in updated
        }
        manifest.write_manifest(
            cache / "resize", "resize", parameters["resize"], inputs, outputs["resize"]
        )
    return reasons


def check_files(dataset: DataSet, allow_rejected: bool) -> None:
    """Raise InputError for a data set without a photograph, and for photographs that are named but not there.

    Nothing is read but the folders: what is missing is told before hours of work on all others.
    """
    if not dataset.folder.is_dir():
        raise InputError(f"{dataset.folder}: no such folder")
    missing: dict[str, Path] = {}
    n_named = 0
    for part in PARTS:
        for image, path in dataset.list_paths(part).items():
            n_named += 1
            if not os.path.exists(path):
                missing[image] = path
    if missing and not allow_rejected:
        image, path = next(iter(missing.items()))
        verb = "are" if len(missing) > 1 else "is"
        raise InputError(
            f"{dataset.folder}: {len(missing):,} of {n_named:,} photographs {verb} missing, "
            f"which the tables name: {image}, {path}; add what is missing, or go on without it with --allow-rejected"
        )


def estimate_squares(dataset: DataSet, cache: Path, method: str, size_px: int) -> int:
    """Return how many bytes the squares that are still to be made will take, by a sample of the photographs.

    The sample is N_SAMPLED photographs, evenly among all, or the squares that are there; photographs that cannot be
    used tell nothing.
    """
    paths: list[Path] = []
    sizes: list[int] = []
    for part in PARTS:
        paths += dataset.list_paths(part).values()
        sizes += _list_sizes(cache / "resize" / part)
    n_due = max(0, len(paths) - len(sizes))
    if n_due and not sizes:
        for number in np.linspace(0, len(paths) - 1, min(N_SAMPLED, len(paths))).astype(int):
            photograph = Photograph(paths[number])
            with contextlib.suppress(Unusable):
                row = outline.measure(photograph, method)
                png, _ = cut.encode(
                    *cut.cut_square(photograph, row, size_px, outline.SHAPES[method])
                )
                sizes.append(len(png))
    if not sizes:
        return 0
    return int(np.mean(sizes) * n_due)


def _list_sizes(folder: Path) -> list[int]:
    """Return the bytes of each file in a folder; none if it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.stat().st_size for entry in entries if entry.is_file()]


def _list_bits(dataset: DataSet, part: str, bits: int | Mapping[str, int] | None) -> dict[str, int]:
    """Return by how many bits the values of each image of a part are scaled, of those with a rule."""
    image_bits = {}
    for image, name in dataset.get_sources(part).items():
        rule = bits.get(name) if isinstance(bits, Mapping) else bits
        if rule is not None:
            image_bits[image] = rule
    return image_bits


class _Due(NamedTuple):
    """What is known of the crops of a part, and the images that each journal lacks."""

    rows: dict[str, Row]  # image -> row of the crop table
    images: dict[str, list[str]]  # stage -> images


def _find_due(
    cache: Path, part: str, keys: Mapping[str, list], journals: Mapping[str, Journal]
) -> _Due:
    """Return what is due, and print how much it is.

    Rows are made from the keys, [version of the file, correction]. Raises InputError if squares alone are wanted, and
    the crop table is of other photographs.
    """
    crops = journals.get("crop")
    squares = journals.get("resize")
    due: dict[str, list[str]] = {}
    if crops:
        rows = crops.find_made(keys)
        due["crop"] = [image for image in keys if image not in rows]
        _print_due("crop", part, len(keys), due["crop"], crops.change)
    else:
        rows = read_crops(cache, part)
        known = rows.keys() & keys.keys()
        tables.check_same_images(
            rows, known, cache / "crop" / f"{part}.csv", f"the {part} photographs"
        )
    if squares:
        _forget_lost_squares(cache, part, squares)
        wanted = [
            image for image in (keys if crops else rows) if "reason" not in rows.get(image, {})
        ]
        square_keys = {
            image: _describe_square(keys[image], rows[image]) for image in wanted if image in rows
        }
        made = squares.find_made(square_keys)
        due["resize"] = [image for image in wanted if image not in made]
        _print_due("resize", part, len(wanted), due["resize"], squares.change)
    return _Due(rows, due)


def _print_due(
    stage: str, part: str, n_wanted: int, images: Sequence[str], change: str | None
) -> None:
    """Print how many images of a part a stage has to work on, and what has changed."""
    state = f"all {n_wanted} images are cached"
    if images:
        state = f"{len(images)} of {n_wanted} images are due"
    if change:
        state += f" ({change})"
    print(f"{stage}: {part}: {state}", flush=True)


def _forget_lost_squares(cache: Path, part: str, squares: Journal) -> None:
    """Forget the squares whose PNG is gone or has another size than was written."""
    for image, row in squares.rows.items():
        n_bytes, _ = files.describe_source(cache / "resize" / part / f"{image}.png")
        if n_bytes != row["png_bytes"]:
            del squares.records[image]


def _describe_square(key: Sequence, row: Row) -> list:
    """Return the key of the square of an image: the file's version, as its own key has it, and the ellipse."""
    return [key[0], [row[name] for name in outline.ELLIPSE]]


def _update_part(
    cache: Path,
    part: str,
    paths: Mapping[str, Path],
    corrections: Corrections,
    method: str,
    journals: Mapping[str, Journal],
    workers: parallel.Workers,
    image_bits: Mapping[str, int],
) -> None:
    """Work on the images of a part that are due, keep the others, drop those that are gone."""
    crops = journals.get("crop")
    squares = journals.get("resize")
    folder = cache / "resize" / part
    keys = {
        image: [files.describe_source(path), corrections.get(image)]
        for image, path in paths.items()
    }
    due = _find_due(cache, part, keys, journals)
    size_px = squares.parameters["size_px"] if squares else None
    orders = {}
    for image in itertools.chain(*due.images.values()):
        row = due.rows.get(image)
        target = folder / f"{image}.png"
        correction = corrections.get(image)
        bits = image_bits.get(image)
        orders[image] = (paths[image], row, method, correction, size_px, target, bits)
    title = f"{' and '.join(due.images)}: {part}"
    for image, (row, square) in parallel.map_parallel(work_on, orders, workers, title):
        if crops and image not in due.rows:
            crops.append(image, keys[image], row)
        if squares and square is not None:
            squares.append(image, _describe_square(keys[image], row), square)
    rows = due.rows
    if crops:
        crops.finish(list(paths))
        rows = crops.rows
        _write_crops(cache / "crop" / f"{part}.csv", rows)
    if squares:
        dropped = squares.finish([image for image in paths if image in rows])
        for image in [*dropped, *squares.reasons]:
            (folder / f"{image}.png").unlink(missing_ok=True)


def _write_crops(path: Path, rows: Mapping[str, Row]) -> None:
    """Write the crop table, as a person can read and correct it."""
    lines = []
    for image, row in rows.items():
        lines.append([image, *(row[name] for name in outline.COLUMNS[1:])])
    tables.write_rows(path, outline.COLUMNS, lines)
