"""Draw a contact sheet: photographs with the outlines of their eyes, the least certain first, in one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import outline, photograph
from preprocess.picture.encode import encode_image

COLUMNS = (
    16  # with 12 rows as many as a person takes in at a glance, and enough for every doubtful one
)
ROWS = 12
TILE_PX = 160
LINE_RGB = (0, 255, 0)
TEXT_RGB = (255, 255, 0)


def draw_outline(
    path: Path,
    row: Mapping[str, Any],
    shape: str,
    side_px: int,
    bits: photograph.Bits | None = None,
) -> np.ndarray:
    """Return a photograph with its ellipse or box, (h, w, 3) uint8 RGB, longer side `side_px`.

    `bits` is the range of values of more than 8 bits. Raises Unusable if the photograph cannot be read.
    """
    rgb, _ = photograph.decode(path, side_px, bits)
    scale = side_px / max(row["width"], row["height"])
    width = max(1, round(row["width"] * scale))
    height = max(1, round(row["height"] * scale))
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    disc = outline.read_disc(row).scaled(scale)
    center = (disc.center_x, disc.center_y)
    if shape == "ellipse":
        diameters = (2 * disc.semi_axis_x, 2 * disc.semi_axis_y)
        return cv2.ellipse(small, (center, diameters, 0), LINE_RGB, 1, cv2.LINE_AA)
    reach_x = disc.semi_axis_x - 0.5
    reach_y = disc.semi_axis_y - 0.5
    upper_left = (round(disc.center_x - reach_x), round(disc.center_y - reach_y))
    lower_right = (round(disc.center_x + reach_x), round(disc.center_y + reach_y))
    return cv2.rectangle(small, upper_left, lower_right, LINE_RGB)


def draw_tile(
    path: Path, row: Mapping[str, Any], text: str, shape: str, bits: photograph.Bits | None
) -> np.ndarray:
    """Return a photograph with its outline, (TILE_PX, TILE_PX, 3) uint8 RGB; the confidence stands below `text`."""
    tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    note = f"{row['confidence']:.3f}"
    try:
        drawn = draw_outline(path, row, shape, TILE_PX, bits)
        tile[: drawn.shape[0], : drawn.shape[1]] = drawn
    except Unusable:  # its ellipse is a correction, which needs no pixels
        note = "unreadable"
    for line, y in ((text, TILE_PX - 18), (note, TILE_PX - 4)):
        cv2.putText(tile, line, (3, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, TEXT_RGB, 1, cv2.LINE_AA)
    return tile


def write_sheet(
    target: Path,
    photographs: Sequence[tuple[str, Path, Mapping[str, Any]]],
    shape: str,
    bits: photograph.Bits | None = None,
) -> int:
    """Write the sheet of photographs, each (image, path, row of the crop table); return how many it shows.

    Raises InputError if there are none.
    """
    from skimage.util import montage

    by_confidence = sorted(photographs, key=lambda entry: entry[2]["confidence"])
    shown = by_confidence[: COLUMNS * ROWS]
    if not shown:
        raise InputError("no photograph was cropped: there is nothing to draw a sheet of")
    tiles = np.stack([draw_tile(path, row, image, shape, bits) for image, path, row in shown])
    n_columns = min(COLUMNS, len(tiles))
    n_rows = -(-len(tiles) // n_columns)
    sheet = montage(tiles, fill=(0, 0, 0), grid_shape=(n_rows, n_columns), channel_axis=-1)
    files.write_bytes(target, encode_image(sheet[:, :, ::-1], ".png"))
    return len(shown)
