"""Draw a contact sheet: photographs with the ellipse that was found, the least sure first, in one PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess import photograph, stage
from preprocess.disc import Disc

COLUMNS, ROWS = 16, 12  # as many as a person takes in at a glance, and enough to meet every doubtful one first
TILE_PX = 160
LINE_RGB, TEXT_RGB = (0, 255, 0), (255, 255, 0)


def draw_tile(path: Path, row: Mapping[str, Any], text: str) -> np.ndarray:
    """Return a photograph with its ellipse, (TILE_PX, TILE_PX, 3) uint8 RGB; the confidence stands below the text.

    Of a photograph that cannot be read there is the text only: its ellipse is a correction, made without its pixels.
    """
    try:
        rgb, reduction = photograph.decode(path, TILE_PX)
    except photograph.UnreadablePhotograph:
        return write_lines(np.zeros((TILE_PX, TILE_PX, 3), np.uint8), (text, "unreadable"))
    full = Disc(row["center_x"], row["center_y"], row["semi_axis_x"], row["semi_axis_y"], row["confidence"])
    scale = TILE_PX / max(rgb.shape[:2])
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    found = full.scaled(scale / reduction, scale / reduction)
    fraction = 16  # of a pixel: OpenCV takes integers with 4 fractional bits
    center = (round(found.center_x * fraction), round(found.center_y * fraction))
    axes = (round(found.semi_axis_x * fraction), round(found.semi_axis_y * fraction))
    cv2.ellipse(tile, center, axes, 0, 0, 360, LINE_RGB, 1, cv2.LINE_AA, shift=4)
    return write_lines(tile, (text, f"{row['confidence']:.3f}"))


def write_lines(tile: np.ndarray, lines: tuple[str, str]) -> np.ndarray:
    """Write two lines at the bottom of a tile, in place, and return it."""
    for line, words in enumerate(lines):
        cv2.putText(tile, words, (3, TILE_PX - 18 + 14 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, TEXT_RGB, 1, cv2.LINE_AA)
    return tile


def write_sheet(target: Path, photographs: list[tuple[str, Path, Mapping[str, Any]]]) -> int:
    """Write the sheet of (image, path, row of the crop table), least confidence first; return how many it shows.

    Raises InputError if there is none.
    """
    doubtful = sorted(photographs, key=lambda entry: entry[2]["confidence"])[: COLUMNS * ROWS]
    if not doubtful:
        raise stage.InputError("no photograph was cropped: there is nothing to draw a sheet of")
    tiles = [draw_tile(path, row, image) for image, path, row in doubtful]
    columns = min(COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])
    done, png = cv2.imencode(".png", sheet[:, :, ::-1])
    if not done:
        raise RuntimeError(f"{target}: OpenCV cannot encode the sheet")
    stage.write_bytes(target, png.tobytes())
    return len(doubtful)
