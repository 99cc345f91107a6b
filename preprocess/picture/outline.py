"""What a row of the crop table is: where the eye lies in a photograph, as a person can read and correct it."""

from collections.abc import Mapping, Sequence
from typing import Any

from preprocess.picture import disc
from preprocess.picture.disc import Disc
from preprocess.picture.photograph import Photograph

VERSION = 1  # raise it when the same photograph gets another row
DETECTION_PX = 512  # shorter side that a photograph is decoded at: what a 512 px square needs as well
# How the eye is found, and what of the square it fills. "whole" takes all of a picture, such as one that was cropped
# before, and keeps its aspect; "stretched" takes all of it, too, and its sides become equal.
SHAPES = {"adaptive": "ellipse", "box": "ellipse", "whole": "box", "stretched": "stretched"}
METHODS = tuple(SHAPES)
ELLIPSE = ("center_x", "center_y", "semi_axis_x", "semi_axis_y")
COLUMNS = ("image", "width", "height", *ELLIPSE, "confidence")

Row = dict[str, Any]  # COLUMNS but for the image


def measure(photograph: Photograph, method: str, correction: Sequence[float] | None = None) -> Row:
    """Return a photograph's row of the crop table: its pixels to 0.01, confidence to 0.0001. Raises Unusable.

    Of METHODS "whole" and "stretched" read the header only; a correction, ELLIPSE as a person gives it, wins.
    """
    width, height = photograph.size
    if correction:
        found = Disc(*(*correction, 1.0))
    elif SHAPES[method] != "ellipse":
        found = Disc((width - 1) / 2, (height - 1) / 2, width / 2, height / 2, confidence=1.0)
    else:
        rgb, reduction = photograph.decode(DETECTION_PX)
        found = disc.find_disc(rgb) if method == "adaptive" else disc.find_box_disc(rgb)
        found = found.scaled(reduction)
    ellipse = {name: round(float(getattr(found, name)), 2) for name in ELLIPSE}
    return {"width": width, "height": height, **ellipse, "confidence": round(float(found.confidence), 4)}


def find_diameters(disc: Disc, shape: str) -> tuple[float, float]:
    """Return how wide and how high a part of the photograph a disc's square shows, in its pixels; one of SHAPES."""
    if shape == "stretched":
        return 2 * disc.semi_axis_x, 2 * disc.semi_axis_y
    return (2 * max(disc.semi_axis_x, disc.semi_axis_y),) * 2


def read_disc(row: Mapping[str, Any]) -> Disc:
    """Return the disc that a row of the crop table tells of."""
    return Disc(*(row[name] for name in (*ELLIPSE, "confidence")))
