"""Place and draw the lesions of diabetic retinopathy that an eye of each level has; no file."""

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.random import Generator

from preprocess.synthetic.canvas import SUBPIXEL_BITS, Frame, fill_spot, find_limits, stroke, to_ink
from preprocess.synthetic.vessels import PATH_STEPS, VEIN_WIDTH, Anatomy, Vessels, walk

OUTLINE_POINTS = 24  # corners of a drawn spot
OFF_OPTIC_DISC = 0.21  # from its centre; its radius is 0.14
TANGLE_PATHS = 28
TANGLE_WIDTH = 0.005


class Inks(NamedTuple):
    """Ink layers of the retina."""

    blood: np.ndarray
    bright: np.ndarray
    soft: np.ndarray


# Per kind (smallest, largest) radius, for an exudate, a beading and a neovascularization of the whole cluster; then the
# number that the clinical scale sees in an eye of each level, as (fewest, most). Source: Wilkinson et al. 2003,
# "Proposed international clinical diabetic retinopathy and diabetic macular edema disease severity scales",
# Ophthalmology 110(9).
# fmt: off
LESIONS = {
    "microaneurysm": ((0.008, 0.0125), (0, 0), (6, 14), (12, 24), (14, 30), (10, 24)),
    "hemorrhage": ((0.014, 0.038), (0, 0), (0, 0), (6, 14), (44, 76), (8, 40)),
    "exudate": ((0.05, 0.12), (0, 0), (0, 0), (1, 4), (0, 4), (0, 4)),
    "cotton_wool": ((0.03, 0.06), (0, 0), (0, 0), (0, 0), (1, 4), (0, 3)),
    "venous_beading": ((0.15, 0.2), (0, 0), (0, 0), (0, 0), (2, 4), (0, 2)),
    "neovascularization": ((0.12, 0.22), (0, 0), (0, 0), (0, 0), (0, 0), (2, 4)),
    "preretinal_hemorrhage": ((0.14, 0.26), (0, 0), (0, 0), (0, 0), (0, 0), (0, 1)),
}
# fmt: on


def place_lesions(
    rng: Generator, level: int, anatomy: Anatomy, vessels: Vessels, frame: Frame
) -> pd.DataFrame:
    """Choose the lesions of an eye of this level: kind, x, y, radius in units of the field's radius."""
    rows = []
    for kind, (radius_range, *counts) in LESIONS.items():
        smallest, largest = radius_range
        fewest, most = counts[level]
        n = int(rng.integers(fewest, most + 1))
        places = place_in_quadrants(rng, n, anatomy, frame)
        if kind == "neovascularization" and n and rng.random() < 0.5:
            places[0] = anatomy.optic_disc  # one at the disc, the others elsewhere
        if kind == "preretinal_hemorrhage":
            places[:, 1] = np.abs(places[:, 1])  # blood sinks
        if kind == "venous_beading":
            places = move_to_veins(places, vessels, frame)
        radii = smallest * (largest / smallest) ** rng.uniform(0, 1, n)  # most are small
        for (x, y), radius in zip(places, radii, strict=True):
            rows.append((kind, x, y, radius))
    return pd.DataFrame(rows, columns=["kind", "x", "y", "radius"])


def place_in_quadrants(rng: Generator, n: int, anatomy: Anatomy, frame: Frame) -> np.ndarray:
    """Return (n, 2) places that visit the four quadrants in turn, in the picture and off the optic disc."""
    first = rng.integers(4)
    quadrants = (first + np.arange(n)) % 4
    angles = (quadrants + rng.uniform(0.08, 0.92, n)) * np.pi / 2
    distances = 0.8 * np.sqrt(rng.uniform(0.06, 1, n))
    places = np.stack([distances * np.cos(angles), distances * np.sin(angles)], axis=1)
    top, bottom = find_limits(frame)
    places[:, 1] *= np.where(places[:, 1] < 0, min(1.0, -top), min(1.0, bottom))
    offset = places - anatomy.optic_disc
    away = np.linalg.norm(offset, axis=1, keepdims=True)
    return anatomy.optic_disc + offset * np.maximum(1, OFF_OPTIC_DISC / away)


def move_to_veins(places: np.ndarray, vessels: Vessels, frame: Frame) -> np.ndarray:
    """Return places (n, 2) moved to the nearest visible point of the two temporal veins, away from their ends."""
    points = vessels.veins.paths[:2, 8:28].reshape(-1, 2)
    top, bottom = find_limits(frame)
    is_in_picture = (points[:, 1] > top) & (points[:, 1] < bottom)
    is_in_field = np.linalg.norm(points, axis=1) < 0.9
    points = points[is_in_picture & is_in_field]
    nearest = np.linalg.norm(places[:, None] - points, axis=2).argmin(axis=1)
    return points[nearest]


def draw_lesions(
    rng: Generator,
    lesions: pd.DataFrame,
    inks: Inks,
    anatomy: Anatomy,
    vessels: Vessels,
    frame: Frame,
) -> None:
    """Draw lesions into the ink layers, the large ones first."""
    largest_first = lesions.sort_values("radius", ascending=False, kind="stable")
    for kind, x, y, radius in largest_first.itertuples(index=False):
        place = np.array([x, y])
        if kind == "microaneurysm":
            fill_spot(inks.blood, place, radius, value=int(rng.integers(130, 190)), frame=frame)
        elif kind == "hemorrhage":
            draw_hemorrhage(rng, inks.blood, place, radius, anatomy=anatomy, frame=frame)
        elif kind == "exudate":
            draw_exudate(rng, inks.bright, place, radius, frame=frame)
        elif kind == "cotton_wool":
            fill_blots(
                rng,
                inks.soft,
                place[None],
                radii=np.array([radius]),
                value_range=(150, 220),
                frame=frame,
            )
        elif kind == "venous_beading":
            draw_beads(rng, inks.blood, place, radius, vessels=vessels, frame=frame)
        elif kind == "neovascularization":
            draw_tangle(rng, inks.blood, place, radius, frame=frame)
        elif kind == "preretinal_hemorrhage":
            draw_boat(rng, inks.blood, place, radius, frame=frame)


def fill_outline(ink: np.ndarray, outline: np.ndarray, value: int, frame: Frame) -> None:
    """Fill a closed outline (points, 2) in an ink layer."""
    cv2.fillPoly(ink, [to_ink(outline, frame)], value, cv2.LINE_AA, SUBPIXEL_BITS)


def fill_blots(
    rng: Generator,
    ink: np.ndarray,
    places: np.ndarray,
    radii: np.ndarray,
    value_range: tuple[int, int],
    frame: Frame,
) -> None:
    """Fill smooth, irregular outlines of radii (n,) around places (n, 2) with values of a range."""
    outlines = make_outlines(rng, len(places)) * radii[:, None, None]
    lowest, highest = value_range
    for place, outline in zip(places, outlines, strict=True):
        fill_outline(ink, place + outline, int(rng.integers(lowest, highest)), frame)


def make_outlines(rng: Generator, n: int) -> np.ndarray:
    """Return n closed outlines (n, points, 2) about the origin: circles of radius 1 with two, three and five waves."""
    angles = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    radii = np.ones((n, OUTLINE_POINTS))
    for waves in (2, 3, 5):
        height = rng.normal(0, 0.08, (n, 1))
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        radii += height * np.cos(waves * angles + phase)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.clip(radii, 0.5, 1.5)[..., None] * circle


def draw_hemorrhage(
    rng: Generator,
    blood: np.ndarray,
    place: np.ndarray,
    radius: float,
    anatomy: Anatomy,
    frame: Frame,
) -> None:
    """Draw blood in the retina: a dot or blot, or a flame drawn out along the nerve fibres; densest in the middle."""
    outline = make_outlines(rng, 1)[0] * radius
    if rng.random() < 0.25:
        offset = place - anatomy.optic_disc
        along = offset / (np.linalg.norm(offset) + 1e-9)
        across = along[::-1] * [-1, 1]
        outline = 1.6 * outline[:, :1] * along + 0.55 * outline[:, 1:] * across
    density = rng.uniform(130, 205)
    for size, share in ((1, 0.75), (0.75, 0.9), (0.5, 1)):
        fill_outline(blood, place + size * outline, round(density * share), frame)


def draw_exudate(
    rng: Generator, bright: np.ndarray, place: np.ndarray, radius: float, frame: Frame
) -> None:
    """Draw a cluster of hard exudates: a heap, or a ring around a leaking vessel."""
    n = int(rng.integers(10, 34))
    angles = rng.uniform(0, 2 * np.pi, n)
    is_ring = rng.random() < 0.35
    shares = rng.normal(0.75, 0.12, n) if is_ring else rng.uniform(0, 1, n)
    distances = radius * shares
    places = place + np.stack([distances * np.cos(angles), distances * np.sin(angles)], axis=1)
    radii = rng.uniform(0.005, 0.015, n)
    fill_blots(rng, bright, places, radii=radii, value_range=(130, 225), frame=frame)


def draw_beads(
    rng: Generator,
    blood: np.ndarray,
    place: np.ndarray,
    radius: float,
    vessels: Vessels,
    frame: Frame,
) -> None:
    """Make the veins near a place swell and shrink like a string of beads."""
    paths = vessels.veins.paths[:2]
    is_near = np.linalg.norm(paths - place, axis=2) < radius
    for point in paths[is_near]:
        fill_spot(blood, point, VEIN_WIDTH * rng.uniform(0.55, 0.85), value=115, frame=frame)


def draw_tangle(
    rng: Generator, blood: np.ndarray, place: np.ndarray, radius: float, frame: Frame
) -> None:
    """Draw new vessels: fine, curled, growing out from a place into a lacy fan."""
    start = rng.uniform(-np.pi, np.pi, (TANGLE_PATHS, 1))
    turns = rng.normal(0, 0.45, (TANGLE_PATHS, PATH_STEPS))
    headings = start + np.cumsum(turns, axis=1)
    origins = place + rng.normal(0, 0.25 * radius, (TANGLE_PATHS, 2))
    step = np.full(TANGLE_PATHS, 2.4 * radius / PATH_STEPS)
    paths = walk(rng, origins, headings, step=step, tortuosity=0.5)
    away = np.linalg.norm(paths - place, axis=2)
    widths = np.where(away < radius, TANGLE_WIDTH, 0)
    stroke(blood, paths, widths, value=130, frame=frame)


def draw_boat(
    rng: Generator, blood: np.ndarray, place: np.ndarray, radius: float, frame: Frame
) -> None:
    """Draw a preretinal hemorrhage: blood that has sunk, flat on top like a boat."""
    outline = make_outlines(rng, 1)[0] * radius * [1, rng.uniform(0.7, 1.2)]
    flat_top = 0.1 * rng.uniform(-radius, radius)
    outline[:, 1] = np.maximum(outline[:, 1], flat_top)
    fill_outline(blood, place + outline, 235, frame)
