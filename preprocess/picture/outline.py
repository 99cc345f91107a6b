"""Measure where the eye lies in a photograph: a row of the crop table, which a person can read and correct."""

from collections.abc import Mapping, Sequence
from typing import Any

from preprocess.picture import disc
from preprocess.picture.disc import Disc
from preprocess.picture.photograph import Photograph

VERSION = 1  # raise it when the same photograph gets another row
DETECTION_PX = (
    512  # shorter side that a photograph is decoded at: what a 512 px square needs as well
)
# How the eye is found, and the shape that it fills in the square. "whole" takes all of a picture, such as one that was
# cropped before, and keeps its aspect; "stretched" also takes all of it, and makes its sides equal.
SHAPES = {"adaptive": "ellipse", "box": "ellipse", "whole": "box", "stretched": "stretched"}
METHODS = tuple(SHAPES)
ELLIPSE = ("center_x", "center_y", "semi_axis_x", "semi_axis_y")
COLUMNS = ("image", "width", "height", *ELLIPSE, "confidence")

Row = dict[str, Any]  # COLUMNS but for the image


def measure(photograph: Photograph, method: str, correction: Sequence[float] | None = None) -> Row:
    """Return a photograph's row of the crop table: the ellipse to 0.01 pixels, the confidence to 0.0001.

    The methods "whole" and "stretched" read only the header. A correction, ELLIPSE as a person gives it, is taken
    instead of what the method would find. Raises Unusable if the photograph is damaged or shows no eye.
    """
    width, height = photograph.size
    if correction:
        center_x, center_y, semi_axis_x, semi_axis_y = correction
        eye = Disc(center_x, center_y, semi_axis_x, semi_axis_y, confidence=1.0)
    elif SHAPES[method] != "ellipse":
        eye = Disc((width - 1) / 2, (height - 1) / 2, width / 2, height / 2, confidence=1.0)
    else:
        rgb, reduction = photograph.decode(DETECTION_PX)
        eye = disc.find_disc(rgb) if method == "adaptive" else disc.find_box_disc(rgb)
        eye = eye.scaled(reduction)
    row: Row = {"width": width, "height": height}
    for name in ELLIPSE:
        row[name] = round(float(getattr(eye, name)), 2)
    row["confidence"] = round(float(eye.confidence), 4)
    return row


def find_diameters(disc: Disc, shape: str) -> tuple[float, float]:
    """Return width and height, in pixels of the photograph, of the part of it that a disc's square shows.

    The shape is one of SHAPES' values.
    """
    if shape == "stretched":
        return 2 * disc.semi_axis_x, 2 * disc.semi_axis_y
    longer = 2 * max(disc.semi_axis_x, disc.semi_axis_y)
    return longer, longer


def read_disc(row: Mapping[str, Any]) -> Disc:
    """Return the disc in a row of the crop table."""
    return Disc(
        center_x=row["center_x"],
        center_y=row["center_y"],
        semi_axis_x=row["semi_axis_x"],
        semi_axis_y=row["semi_axis_y"],
        confidence=row["confidence"],
    )
