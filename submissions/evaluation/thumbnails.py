"""Small copies of squares, by which the same picture is found though it was scaled, compressed or named anew.

A copy is the green channel at 32 × 32 px less its surroundings, which leaves vessels and lesions; two are compared by
their correlation. Of 413 photographs of IDRiD, 778 and 3,974 of EyePACS no two pictures of different eyes reach 0.95,
and copies of half or a third of the size, or of JPEG quality 30, stay above 0.98 (tests/benchmarks/RESULTS.md).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from preprocess import photographs
from preprocess.command import parallel
from preprocess.command.parallel import Workers
from preprocess.disk import files
from preprocess.picture import square

VERSION = 1  # raise it when the same squares give other copies
SIDE_PX = 32
SURROUNDINGS_PX = 3.0  # standard deviation of the blur that is taken away
RADIUS = 0.42  # of the circle that is compared, as a share of the side: the rim shows the crop, not the eye
LEAST_CORRELATION = 0.96
LEAST_CONTRAST = 1e-3  # of what is left, 0-255; a picture without any is like no other
ROWS_AT_ONCE = 1024


def shrink(path: Path, size_px: int) -> np.ndarray:
    """Return a square's green channel at SIDE_PX, uint8."""
    green = np.ascontiguousarray(square.read_pixels(path, size_px)[..., 1])
    return cv2.resize(green, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)


def read(cache: Path, part: str, keep_in: Path, workers: Workers) -> dict[str, np.ndarray]:
    """Return the small copy of each square of a cache's part, by image; made once and kept in a folder."""
    rows = photographs.read_squares(cache, part)
    size_px = square.read_making(cache).size_px
    content = [VERSION, [[image, *photographs.identify_square(row)] for image, row in rows.items()]]
    path = keep_in / f"{files.hash_text(json.dumps(content))[:16]}.npy"
    if path.exists():
        return dict(zip(rows, np.load(path), strict=True))
    tasks = {image: (cache / "resize" / part / f"{image}.png", size_px) for image in rows}
    made = dict(parallel.map_parallel(shrink, tasks, workers, f"small copies, {part}"))
    copies = {image: made[image] for image in rows}
    keep_in.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial, open(partial, "wb") as file:
        stacked = np.array(list(copies.values()), np.uint8)
        np.save(file, stacked.reshape(-1, SIDE_PX, SIDE_PX))
    return copies


def normalize(copies: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return small copies as rows of length 1, (n, pixels) float32, whose products are correlations.

    The row of a picture without details is 0.
    """
    middle = (SIDE_PX - 1) / 2
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    is_inside = (y - middle) ** 2 + (x - middle) ** 2 < (RADIUS * SIDE_PX) ** 2
    rows = np.zeros((len(copies), int(is_inside.sum())), np.float32)
    for row, copy in zip(rows, copies.values(), strict=True):
        pixels = copy.astype(np.float32)
        details = (pixels - cv2.GaussianBlur(pixels, (0, 0), SURROUNDINGS_PX))[is_inside]
        details -= details.mean()
        if details.std() > LEAST_CONTRAST:
            row[:] = details / np.linalg.norm(details)
    return rows


def find_alike(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs of rows, see `normalize`, of the same picture, the most alike of each row first."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        correlations = rows[start : start + ROWS_AT_ONCE] @ others.T
        pairs = np.argwhere(correlations >= LEAST_CORRELATION)
        order = np.lexsort((-correlations[tuple(pairs.T)], pairs[:, 0]))
        for row, other in pairs[order].tolist():
            yield start + row, other
