"""The report's pictures: photographs with their ellipse, squares with the net's heat, as small JPEGs for a page."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr.squares.source import CachedSquares, read_squares
from preprocess.cache import manifest
from preprocess.dataset.dataset import PARTS
from preprocess.disk.errors import Unusable
from preprocess.picture import photograph, sheet, square
from preprocess.picture.square import Making
from submissions.output.pictures import encode_picture
from submissions.report import evidence
from submissions.report.evidence import Source

TILE_PX = 200  # longer side of a photograph on the crop sheet
SQUARE_PX = 256  # side of a patient's pictures

# What is asked of each image: a layer of dr.nets.heat, and the output of each image to explain by it.
Questions = Sequence[tuple[str, np.ndarray]]


class Seen(NamedTuple):
    """Squares of a cache, and where the net sees signs of what was asked; no heat without a net that knows them."""

    images: list[str]
    making: Making  # how the squares were made
    squares: list[np.ndarray]  # (size_px, size_px, 3) uint8 RGB
    heats: list[np.ndarray]  # for each question, (n, size_px, size_px) float32, 0-1
    heated: list[list[np.ndarray]]  # the same over the squares


def draw_tile(
    image: str, path: Path, row: Mapping[str, Any], shape: str, bits: photograph.Bits | None
) -> dict[str, Any]:
    """Return a photograph, small, with its outline.

    It has no `uri` if it cannot be read: it was there when it was cropped, and the report lives without it.
    """
    uri = None
    with contextlib.suppress(Unusable):
        uri = encode_picture(sheet.draw_outline(path, row, shape, TILE_PX, bits), TILE_PX)
    return {"image": image, "confidence": row["confidence"], "uri": uri}


def show_images(
    source: Source, split: str, images: Sequence[str], questions: Questions
) -> dict[str, list[str]]:
    """Return the square of each image, and the same with the heat of each question, as far as they exist."""
    seen = see(source, split, images, questions)
    if seen is None:
        return {}
    drawn = [seen.squares, *seen.heated]
    shown = {}
    for row, image in enumerate(seen.images):
        shown[image] = [encode_picture(pictures[row], SQUARE_PX) for pictures in drawn]
    return shown


def find_part(split: str) -> str:
    """Return the part of the cache that a split's squares lie in: the validation fold's are training photographs."""
    return next(part for part, splits in PARTS.items() if split in splits)


def see(source: Source, split: str, images: Sequence[str], questions: Questions) -> Seen | None:
    """Return where the net sees signs of what is asked, in those of the images that have squares; None without any."""
    part = find_part(split)
    for stage, output in (("resize", part), ("normalize", f"{part}.npz")):
        if not manifest.has_output(source.cache / stage, output):
            return None
    cached = read_squares(source.cache, part, source.dataset)
    rows = [
        row
        for row, (image, path) in enumerate(cached.paths.items())
        if image in set(images) and path.is_file()
    ]
    cached = cached.select(np.array(rows, int))
    squares = [square.read_pixels(path, cached.making.size_px) for path in cached.paths.values()]
    seen = Seen(
        images=list(cached.images), making=cached.making, squares=squares, heats=[], heated=[]
    )
    if squares:
        positions = [list(images).index(image) for image in seen.images]
        add_heat(
            source, cached, seen, [(layer, outputs[positions]) for layer, outputs in questions]
        )
    return seen


def add_heat(source: Source, cached: CachedSquares, seen: Seen, questions: Questions) -> None:
    """Add the heat of each question, if there is a net that was trained on such squares."""
    checkpoint = evidence.find_net(source.cache)
    if checkpoint is None or checkpoint.making != cached.making:
        return
    # Imported late: a report on scores alone does not wait for torch.
    from dr import look
    from dr.nets import heat
    from dr.training.learner import load_net

    net = load_net(checkpoint)
    loaded = look.load_squares(cached, checkpoint)
    for layer, outputs in questions:
        heats = look.map_whole_squares(net, loaded, look.Asked(layer, outputs))
        seen.heats.append(heats)
        blended = [
            heat.blend_heat(pixels, heat_map)
            for pixels, heat_map in zip(seen.squares, heats, strict=True)
        ]
        seen.heated.append(blended)
