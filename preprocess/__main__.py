"""All of preprocessing: photographs -> ellipses, squares, lookup tables, moments, each photograph decoded once.

python -m preprocess --data DIR --cache DIR [--method adaptive|box] [--size-px 512] [--jobs N] [--allow-rejected]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocess import crop, disc, eyes, normalize, per_image, photograph, resize, stage, standardize


def crop_and_resize(
    path: Path, method: str, size_px: int, target: Path
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return one photograph's rows of both stages from one decode; no second row if it must be decoded finer."""
    try:
        width, height = photograph.read_size(path)
        rgb, reduction = photograph.decode(path, crop.DETECTION_PX)
        row = crop.make_row(width, height, crop.find_ellipse(rgb, reduction, method))
    except (photograph.UnreadablePhotograph, disc.NoEye) as error:
        return {"reason": str(error)}, None
    if photograph.choose_reduction((width, height), resize.choose_short_side(row, size_px)) != reduction:
        return row, None
    try:
        return row, resize.write_square(rgb, reduction, row, size_px, target)
    except photograph.UnreadablePhotograph as error:
        return row, {"reason": str(error)}


def decode_once(data: Path, cache: Path, split: str, method: str, size_px: int, workers: per_image.Workers) -> None:
    """Do both image stages for the photographs that the first has not seen; the stages themselves do what is left."""
    paths, _ = eyes.list_images(data, split)
    crops = per_image.Journal(cache / "crop", split, crop.describe_parameters(method))
    squares = per_image.Journal(cache / "resize", split, resize.describe_parameters(size_px))
    corrections = crop.read_corrections(cache)
    keys = {image: key for image, (key, _) in crop.list_tasks(paths, method, corrections).items()}
    due = [image for image in crops.due(keys) if image not in corrections]
    if not due:
        return
    print(f"crop and resize: {split}: {len(due)} of {len(paths)} images are due", end="")
    print(f" ({crops.change})" if crops.change else "", flush=True)
    folder = cache / "resize" / split
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {image: (paths[image], method, size_px, folder / f"{image}.png") for image in due}
    with crops.appending() as append_crop, squares.appending() as append_square:
        for image, (row, square) in per_image.map_parallel(
            crop_and_resize, tasks, workers, f"crop and resize: {split}"
        ):
            if square is not None:
                append_square(image, resize.describe_task(paths[image], row), square)
            append_crop(image, keys[image], row)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "preprocess",
        "Crop, resize, normalize and standardize: the four stages one after the other, each photograph decoded once. "
        "Photographs that cannot be used are listed in CACHE/rejected.csv with the reason.",
        "--data data --cache cache --jobs 4",
    )
    crop.add_options(parser)
    resize.add_options(parser)
    per_image.add_image_options(parser)
    options = parser.parse_args(argv)
    data, cache, workers = options.data, options.cache, per_image.choose_workers(options)
    with stage.locked(cache):
        crop.check_corrections(data, cache)
        for split in eyes.SPLITS:
            decode_once(data, cache, split, options.method, options.size_px, workers)
        reasons = crop.crop(data, cache, options.method, workers)
        reasons |= resize.resize(data, cache, options.size_px, workers)
        stage.check_rejected(cache, reasons, options.allow_rejected)
        normalize.normalize(cache)
        if stage.has_output(cache / "resize", "train"):
            standardize.standardize(cache)


if __name__ == "__main__":
    stage.run(main)
