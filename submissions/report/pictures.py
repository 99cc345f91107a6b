"""The report's pictures: photographs with their ellipse, squares with the net's heat, as small JPEGs for a page."""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dr.squares.source import CachedSquares, read_squares
from dr.training.checkpoint import Checkpoint
from preprocess.cache import manifest
from preprocess.cache.errors import Unusable
from preprocess.picture import sheet, square
from submissions.report import evidence
from submissions.report.evidence import Source

TILE_PX = 200  # longer side of a photograph on the crop sheet
SQUARE_PX = 256  # side of a patient's pictures
JPEG_OPTIONS = (*(cv2.IMWRITE_JPEG_QUALITY, 75), *(cv2.IMWRITE_JPEG_OPTIMIZE, 1))
HEAT_LAYERS = {"coarse": "last", "fine": "fine"}  # how the page calls the layers of dr.nets.heat


def encode_picture(rgb: np.ndarray, side_px: int) -> str:
    """Return a picture, (h, w, 3) uint8 RGB, scaled to a longer side, as the data URI of a JPEG."""
    scale = side_px / max(rgb.shape[:2])
    width, height = (max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), JPEG_OPTIONS)
    if not done:
        raise RuntimeError("OpenCV cannot encode a picture")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"


def draw_tile(image: str, path: Path, row: Mapping[str, Any], shape: str) -> dict[str, Any]:
    """Return a photograph, small, with its outline.

    It has no `uri` if it cannot be read: it was there when it was cropped, and the report lives without it.
    """
    uri = None
    with contextlib.suppress(Unusable):
        uri = encode_picture(sheet.draw_outline(path, row, shape, TILE_PX), TILE_PX)
    return {"image": image, "confidence": row["confidence"], "uri": uri}


def show_eyes(
    source: Source, split: str, images: Sequence[str], levels: np.ndarray
) -> dict[str, tuple[str, dict[str, str]]]:
    """Return pictures of eyes as data URIs: image -> (square, grain -> the same with heat), as far as they exist.

    The heat is to explain the levels (n,) of the images.
    """
    cached, level_of = select_squares(source, split, images), dict(zip(images, levels, strict=True))
    if cached is None:
        return {}
    pixels = [square.read_pixels(path, cached.making.size_px) for path in cached.paths.values()]
    net, heated = evidence.find_net(source.cache) if pixels else None, {}
    if net and net.making == cached.making:
        heated = draw_heat(net, cached, pixels, np.array([level_of[image] for image in cached.images]))
    encoded = {grain: [encode_picture(rgb, SQUARE_PX) for rgb in drawn] for grain, (_, drawn) in heated.items()}
    return {
        image: (encode_picture(rgb, SQUARE_PX), {grain: drawn[row] for grain, drawn in encoded.items()})
        for row, (image, rgb) in enumerate(zip(cached.images, pixels, strict=True))
    }


def select_squares(source: Source, split: str, images: Sequence[str]) -> CachedSquares | None:
    """Return the squares of some images, as far as they exist; None if their split has none."""
    folder = "test" if split == "test" else "train"  # the validation fold's are training photographs
    for stage, output in (("resize", folder), ("normalize", f"{folder}.npz")):
        if not manifest.has_output(source.cache / stage, output):
            return None
    cached, wanted = read_squares(source.cache, folder, source.layout), set(images)
    rows = [row for row, (image, path) in enumerate(cached.paths.items()) if image in wanted and path.is_file()]
    return cached.select(np.array(rows, int))


def map_heats(source: Source, split: str, images: Sequence[str], output: int) -> dict[str, np.ndarray]:
    """Return where the net, by an earlier convolution, sees signs of an output, image -> (size_px, size_px) float32."""
    cached, of = select_squares(source, split, images), evidence.find_net(source.cache)
    if cached is None or of is None or not cached.paths or of.making != cached.making:
        return {}
    pixels = [square.read_pixels(path, cached.making.size_px) for path in cached.paths.values()]
    heats, _ = draw_heat(of, cached, pixels, np.full(len(pixels), output))["fine"]
    return dict(zip(cached.images, heats, strict=True))


def draw_heat(
    of: Checkpoint, cached: CachedSquares, pixels: Sequence[np.ndarray], levels: np.ndarray
) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
    """Return where a net sees signs of the levels (n,): grain -> heat (n, size_px, size_px), and over n squares.

    The net sees the middle of a square; there is no heat around it.
    """
    # Torch takes a second and a half: a report on scores alone does not wait for it.
    import torch

    from dr.nets import heat
    from dr.squares import crops, store
    from dr.training.learner import load_net

    net = load_net(of)
    squares = store.load(cached, of.mean, of.std, torch.device("cpu"), "memory", Path())
    margin = (squares.size_px - net.image_px) // 2
    middle = slice(margin, margin + net.image_px)
    centers, drawn = crops.cut_centers(squares, net.image_px), {}
    for grain, layer in HEAT_LAYERS.items():
        heats = np.zeros(squares.pixels.shape[:3], np.float32)
        heats[:, middle, middle] = heat.map_heat(net, centers, levels, layer)
        drawn[grain] = heats, [heat.blend_heat(*both) for both in zip(pixels, heats, strict=True)]
    return drawn
