"""Draw a contact sheet: photographs with what was found of the eye, the least sure first, in one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import outline, photograph

COLUMNS, ROWS = 16, 12  # as many as a person takes in at a glance, and enough to meet every doubtful one first
TILE_PX = 160
LINE_RGB, TEXT_RGB = (0, 255, 0), (255, 255, 0)


def draw_outline(path: Path, row: Mapping[str, Any], shape: str, side_px: int) -> np.ndarray:
    """Return a photograph with its ellipse or box, (h, w, 3) uint8 RGB, longer side `side_px`. Raises Unusable."""
    rgb, _ = photograph.decode(path, side_px)
    scale = side_px / max(row["width"], row["height"])
    size = [max(1, round(row[name] * scale)) for name in ("width", "height")]
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    found = outline.read_disc(row).scaled(scale)
    x, y, semi_x, semi_y = found.center_x, found.center_y, found.semi_axis_x, found.semi_axis_y
    if shape == "ellipse":
        return cv2.ellipse(small, ((x, y), (2 * semi_x, 2 * semi_y), 0), LINE_RGB, 1, cv2.LINE_AA)
    first, last = ((round(x + k * (semi_x - 0.5)), round(y + k * (semi_y - 0.5))) for k in (-1, 1))
    return cv2.rectangle(small, first, last, LINE_RGB)


def draw_tile(path: Path, row: Mapping[str, Any], text: str, shape: str) -> np.ndarray:
    """Return a photograph with its outline, (TILE_PX, TILE_PX, 3) uint8 RGB; the confidence stands below `text`."""
    tile, note = np.zeros((TILE_PX, TILE_PX, 3), np.uint8), f"{row['confidence']:.3f}"
    try:
        drawn = draw_outline(path, row, shape, TILE_PX)
        tile[: drawn.shape[0], : drawn.shape[1]] = drawn
    except Unusable:  # whose ellipse is a correction, made without its pixels
        note = "unreadable"
    for line, words in enumerate((text, note)):
        cv2.putText(tile, words, (3, TILE_PX - 18 + 14 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, TEXT_RGB, 1, cv2.LINE_AA)
    return tile


def write_sheet(target: Path, photographs: Sequence[tuple[str, Path, Mapping[str, Any]]], shape: str) -> int:
    """Write the sheet of (image, path, row of the crop table); return how many it shows. None is an InputError."""
    from skimage.util import montage

    doubtful = sorted(photographs, key=lambda entry: entry[2]["confidence"])[: COLUMNS * ROWS]
    if not doubtful:
        raise InputError("no photograph was cropped: there is nothing to draw a sheet of")
    tiles = np.stack([draw_tile(path, row, image, shape) for image, path, row in doubtful])
    columns = min(COLUMNS, len(tiles))
    sheet = montage(tiles, fill=(0, 0, 0), grid_shape=(-(-len(tiles) // columns), columns), channel_axis=-1)
    files.write_bytes(target, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())
    return len(doubtful)
