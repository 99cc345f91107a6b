"""Draw contact sheets: photographs with the outlines of their eyes, the least certain first, in PNGs of 200 each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import outline, photograph
from preprocess.picture.encode import encode_image

COLUMNS = 16
PER_PAGE = 200  # photographs: as many as a person looks through before turning the page
LARGE_PX = 1600  # longer side of a photograph that is drawn by itself
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
) -> list[Path]:
    """Write sheets of photographs, each (image, path, row of the crop table), PER_PAGE on each; return their files.

    The first is `target`, the others are NAME-2, NAME-3 and so on beside it; a single photograph is drawn large. Raises
    InputError if there are none.
    """
    by_confidence = sorted(photographs, key=lambda entry: entry[2]["confidence"])
    if not by_confidence:
        raise InputError("no photograph was cropped: there is nothing to draw a sheet of")
    if len(by_confidence) == 1:
        _, path, row = by_confidence[0]
        _write(target, draw_outline(path, row, shape, LARGE_PX, bits))
        return [target]
    pages = []
    for start in range(0, len(by_confidence), PER_PAGE):
        page = target
        if start:
            page = target.with_stem(f"{target.stem}-{start // PER_PAGE + 1}")
        _write(page, _draw_page(by_confidence[start : start + PER_PAGE], shape, bits))
        pages.append(page)
    return pages


def _draw_page(
    shown: Sequence[tuple[str, Path, Mapping[str, Any]]], shape: str, bits: photograph.Bits | None
) -> np.ndarray:
    """Return the tiles of photographs side by side, (h, w, 3) uint8 RGB."""
    from skimage.util import montage

    tiles = np.stack([draw_tile(path, row, image, shape, bits) for image, path, row in shown])
    n_columns = min(COLUMNS, len(tiles))
    n_rows = -(-len(tiles) // n_columns)
    page: np.ndarray = montage(
        tiles, fill=(0, 0, 0), grid_shape=(n_rows, n_columns), channel_axis=-1
    )
    return page


def _write(target: Path, rgb: np.ndarray) -> None:
    files.write_bytes(target, encode_image(np.ascontiguousarray(rgb[:, :, ::-1]), ".png"))
