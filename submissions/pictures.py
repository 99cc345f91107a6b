"""The report's pictures: photographs with their ellipse, squares with the net's heat, as small JPEGs for a page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from dr import inputs
from dr.predict import Trained, read_checkpoint
from preprocess import photograph
from preprocess.crop import ELLIPSE
from preprocess.stage import InputError

TILE_PX = 200  # longer side of a photograph on the crop sheet
SQUARE_PX = 256  # side of a patient's pictures
JPEG_OPTIONS = (*(cv2.IMWRITE_JPEG_QUALITY, 75), *(cv2.IMWRITE_JPEG_OPTIMIZE, 1))
HEAT_LAYERS = ("last", "fine")  # of dr.gradcam.map_heat


class Tile(NamedTuple):
    """A photograph of the crop sheet: a data URI, its size, and the ellipse in its pixels; no URI if unreadable."""

    image: str
    confidence: float
    uri: str | None
    size: tuple[int, int]
    ellipse: tuple[float, ...]  # center x, y, semi-axes x, y


def encode_picture(rgb: np.ndarray) -> str:
    """Return a picture, (h, w, 3) uint8 RGB, as the data URI of a JPEG."""
    done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), JPEG_OPTIONS)
    if not done:
        raise RuntimeError("OpenCV cannot encode a picture")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def shrink(rgb: np.ndarray, side_px: int) -> np.ndarray:
    """Return a picture scaled so that its longer side is `side_px`."""
    scale = side_px / max(rgb.shape[:2])
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def draw_tile(image: str, path: Path, row: Mapping[str, Any]) -> Tile:
    """Return a photograph and the ellipse of its row of the crop table, small."""
    try:
        rgb, _ = photograph.decode(path, TILE_PX)
    except photograph.UnreadablePhotograph:  # it was there when it was cropped; the report lives without it
        return Tile(image, row["confidence"], None, (TILE_PX, TILE_PX), ())
    small = shrink(rgb, TILE_PX)
    height, width = small.shape[:2]
    ellipse = tuple(round(row[name] * width / row["width"], 1) for name in ELLIPSE)
    return Tile(image, row["confidence"], encode_picture(small), (width, height), ellipse)


def name_source(split: str) -> str:
    """Return the folder that the squares of a split come from: the validation fold's are training photographs."""
    return "test" if split == "test" else "train"


def list_squares(data: Path, cache: Path, split: str, images: Sequence[str], net: Trained | None) -> dict[str, Path]:
    """Return the squares of some images that exist, image -> path: the cache's, or the ready-made ones of the data."""
    source = name_source(split)
    if net and net.parameters["ready_made"]:
        paths = inputs.list_photographs(data, cache, source, is_ready_made=True)
    else:
        paths = {image: cache / "resize" / source / f"{image}.png" for image in images}
    return {image: paths[image] for image in images if image in paths and paths[image].is_file()}


def read_squares(paths: Mapping[str, Path]) -> np.ndarray:
    """Return squares, (n, size_px, size_px, 3) uint8 RGB. Raises InputError for an unreadable or an odd one."""
    squares = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths.values()]
    for path, square in zip(paths.values(), squares, strict=True):
        if square is None or square.shape != (len(squares[0]), len(squares[0]), 3):
            raise InputError(f"{path}: no square as wide as the others; run python -m preprocess.resize again")
    return np.stack(squares)[..., ::-1]


def find_heat(cache: Path, split: str, net: Trained, paths: Mapping[str, Path], levels: np.ndarray) -> np.ndarray:
    """Return where the newest net sees signs of the levels, HEAT_LAYERS apart: (2, n, size_px, size_px) float32, 0-1.

    Parameters
    ----------
    paths : the squares of n images
    levels : (n,) to explain

    The net sees the middle of a square; there is no heat around it.
    """
    import torch

    from dr import checkpoint, dataset, gradcam, prepare

    content = read_checkpoint(net, max(net.checkpoints))
    model = checkpoint.make_net(content)
    luts = inputs.read_luts(cache, name_source(split), list(paths), net.parameters["ready_made"])
    is_local = content["settings"].get("local_contrast", False)  # older checkpoints do not know of it
    pixels, luts = dataset.load_squares(dict(paths), luts, is_local, torch.device("cpu"), "memory", Path(), "")
    channels = [np.array(content[name]) for name in ("mean", "std")]
    photographs = dataset.make_photographs(list(paths), pixels, luts, *channels)
    heats = np.zeros((len(HEAT_LAYERS), *pixels.shape[:3]), np.float32)
    start = (photographs.size_px - model.image_px) // 2
    middle = slice(start, start + model.image_px)
    batch = prepare.cut_centers(photographs, model.image_px)
    for heat, layer in zip(heats, HEAT_LAYERS, strict=True):
        heat[:, middle, middle] = gradcam.map_heat(model, batch, levels, layer)
    return heats


def encode_heat(square: np.ndarray, heat: np.ndarray) -> str:
    """Return a square with its heat laid over it, as a data URI."""
    from dr import gradcam

    return encode_picture(shrink(gradcam.blend_heat(square, heat), SQUARE_PX))
