"""The report's pictures: photographs with their ellipse, squares with the net's heat, as small JPEGs for a page."""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from dr.squares.source import read_squares
from preprocess.cache import manifest
from preprocess.disk.errors import Unusable
from preprocess.picture import sheet, square
from preprocess.picture.encode import encode_image
from preprocess.picture.square import Making
from submissions.report import evidence
from submissions.report.evidence import Source

TILE_PX = 200  # longer side of a photograph on the crop sheet
SQUARE_PX = 256  # side of a patient's pictures
JPEG_OPTIONS = (*(cv2.IMWRITE_JPEG_QUALITY, 75), *(cv2.IMWRITE_JPEG_OPTIMIZE, 1))

Asked = Sequence[tuple[str, np.ndarray]]  # a layer of dr.nets.heat, and the output of each image to explain by it


class Seen(NamedTuple):
    """Squares of a cache, and where the net sees signs of what was asked; no heat without a net that knows them."""

    images: list[str]
    making: Making  # how the squares were made
    squares: list[np.ndarray]  # (size_px, size_px, 3) uint8 RGB
    heats: list[np.ndarray]  # of each that was asked, (n, size_px, size_px) float32, 0-1
    heated: list[list[np.ndarray]]  # the same over the squares


def encode_picture(rgb: np.ndarray, side_px: int) -> str:
    """Return a picture, (h, w, 3) uint8 RGB, scaled to a longer side, as the data URI of a JPEG."""
    scale = side_px / max(rgb.shape[:2])
    width, height = (max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return encode(np.ascontiguousarray(small[..., ::-1]), "jpeg", JPEG_OPTIONS)


def encode(bgr: np.ndarray, kind: str, options: Sequence[int]) -> str:
    """Return a picture, (h, w, 3 or 4) uint8 BGR or BGRA, as a data URI."""
    content = encode_image(bgr, f".{kind}", options)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def draw_tile(image: str, path: Path, row: Mapping[str, Any], shape: str) -> dict[str, Any]:
    """Return a photograph, small, with its outline.

    It has no `uri` if it cannot be read: it was there when it was cropped, and the report lives without it.
    """
    uri = None
    with contextlib.suppress(Unusable):
        uri = encode_picture(sheet.draw_outline(path, row, shape, TILE_PX), TILE_PX)
    return {"image": image, "confidence": row["confidence"], "uri": uri}


def show_images(source: Source, split: str, images: Sequence[str], asked: Asked) -> dict[str, list[str]]:
    """Return the square of each image, and the same with the heat of each that is asked, as far as they exist."""
    if not (seen := look(source, split, images, asked)):
        return {}
    drawn = [seen.squares, *seen.heated]
    return {image: [encode_picture(of[row], SQUARE_PX) for of in drawn] for row, image in enumerate(seen.images)}


def look(source: Source, split: str, images: Sequence[str], asked: Asked) -> Seen | None:
    """Return where the net sees signs of what is asked, in those of the images that have squares; None without any."""
    folder = "test" if split == "test" else "train"  # the validation fold's are training photographs
    for stage, output in (("resize", folder), ("normalize", f"{folder}.npz")):
        if not manifest.has_output(source.cache / stage, output):
            return None
    cached, position = read_squares(source.cache, folder, source.layout), {image: at for at, image in enumerate(images)}
    rows = [row for row, (image, path) in enumerate(cached.paths.items()) if image in position and path.is_file()]
    cached = cached.select(np.array(rows, int))
    squares = [square.read_pixels(path, cached.making.size_px) for path in cached.paths.values()]
    seen, of = Seen(list(cached.images), cached.making, squares, [], []), evidence.find_net(source.cache)
    if not squares or of is None or of.making != cached.making:
        return seen
    # Torch takes a second and a half: a report on scores alone does not wait for it.
    import torch

    from dr.nets import heat
    from dr.squares import crops, store
    from dr.training.learner import load_net

    net = load_net(of)
    loaded = store.load(cached, of.mean, of.std, torch.device("cpu"), "memory", Path())
    margin = (loaded.size_px - net.image_px) // 2
    middle = slice(margin, margin + net.image_px)  # all that the net sees: there is no heat around it
    centers, at = crops.cut_centers(loaded, net.image_px), [position[image] for image in seen.images]
    for layer, outputs in asked:
        heats = np.zeros(loaded.pixels.shape[:3], np.float32)
        heats[:, middle, middle] = heat.map_heat(net, centers, outputs[at], layer)
        seen.heats.append(heats)
        seen.heated.append([heat.blend_heat(*both) for both in zip(squares, heats, strict=True)])
    return seen
