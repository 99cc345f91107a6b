"""Lesions of diabetic retinopathy: which an eye of each level has, where, and what they look like."""

import cv2
import numpy as np
import pandas as pd

from preprocess.synthetic.canvas import SUBPIXEL_BITS, fill_spot, find_limits, stroke, to_ink
from preprocess.synthetic.vessels import PATH_STEPS, VEIN_WIDTH, walk

OUTLINE_POINTS = 24  # corners of a drawn spot
OFF_OPTIC_DISC = 0.21  # from its centre; its radius is 0.14
TANGLE_PATHS = 28
TANGLE_WIDTH = 0.005

# Radii of each kind, for an exudate, a beading and a neovascularization of the whole cluster; and what the clinical
# scale sees in an eye of each level, as (fewest, most). Source: Wilkinson et al. 2003, "Proposed international clinical
# diabetic retinopathy and diabetic macular edema disease severity scales", Ophthalmology 110(9).
LESIONS = {
    "microaneurysm": ((0.008, 0.0125), (0, 0), (6, 14), (12, 24), (14, 30), (10, 24)),
    "hemorrhage": ((0.014, 0.038), (0, 0), (0, 0), (6, 14), (44, 76), (8, 40)),
    "exudate": ((0.05, 0.12), (0, 0), (0, 0), (1, 4), (0, 4), (0, 4)),
    "cotton_wool": ((0.03, 0.06), (0, 0), (0, 0), (0, 0), (1, 4), (0, 3)),
    "venous_beading": ((0.15, 0.2), (0, 0), (0, 0), (0, 0), (2, 4), (0, 2)),
    "neovascularization": ((0.12, 0.22), (0, 0), (0, 0), (0, 0), (0, 0), (2, 4)),
    "preretinal_hemorrhage": ((0.14, 0.26), (0, 0), (0, 0), (0, 0), (0, 0), (0, 1)),
}


def place_lesions(rng, level, anatomy, vessels, frame):
    """Choose the lesions of an eye of this level: kind, x, y, radius in units of the field's radius."""
    rows = []
    for kind, ((smallest, largest), *counts) in LESIONS.items():
        fewest, most = counts[level]
        n = int(rng.integers(fewest, most + 1))
        places = place_in_quadrants(rng, n, anatomy, frame)
        if kind == "neovascularization" and n and rng.random() < 0.5:
            places[0] = anatomy.optic_disc  # one at the disc, the others elsewhere
        if kind == "preretinal_hemorrhage":
            places[:, 1] = np.abs(places[:, 1])  # it sinks
        if kind == "venous_beading":
            places = move_to_veins(places, vessels, frame)
        radii = smallest * (largest / smallest) ** rng.uniform(0, 1, n)  # the small ones are the many
        rows += [(kind, x, y, radius) for (x, y), radius in zip(places, radii, strict=True)]
    return pd.DataFrame(rows, columns=["kind", "x", "y", "radius"])


def place_in_quadrants(rng, n, anatomy, frame):
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


def move_to_veins(places, vessels, frame):
    """Return places (n, 2) moved to the nearest visible point of the two temporal veins, away from their ends."""
    points = vessels.veins[0][:2, 8:28].reshape(-1, 2)
    top, bottom = find_limits(frame)
    points = points[(points[:, 1] > top) & (points[:, 1] < bottom) & (np.linalg.norm(points, axis=1) < 0.9)]
    nearest = np.linalg.norm(places[:, None] - points, axis=2).argmin(axis=1)
    return points[nearest]


def draw_lesions(rng, lesions, layers, anatomy, vessels, frame):
    """Draw lesions into the ink layers (blood, bright, soft), the large ones first."""
    blood, bright, soft = layers
    for kind, x, y, radius in lesions.sort_values("radius", ascending=False, kind="stable").itertuples(index=False):
        place = np.array([x, y])
        if kind == "microaneurysm":
            fill_spot(blood, place, radius, int(rng.integers(130, 190)), frame)
        elif kind == "hemorrhage":
            draw_hemorrhage(rng, blood, place, radius, anatomy, frame)
        elif kind == "exudate":
            draw_exudate(rng, bright, place, radius, frame)
        elif kind == "cotton_wool":
            fill_blots(rng, soft, place[None], np.array([radius]), (150, 220), frame)
        elif kind == "venous_beading":
            draw_beads(rng, blood, place, radius, vessels, frame)
        elif kind == "neovascularization":
            draw_tangle(rng, blood, place, radius, frame)
        elif kind == "preretinal_hemorrhage":
            draw_boat(rng, blood, place, radius, frame)


def fill_blots(rng, ink, places, radii, values, frame):
    """Fill smooth, irregular outlines of radii (n,) around places (n, 2)."""
    for place, outline in zip(places, make_outlines(rng, len(places)) * radii[:, None, None], strict=True):
        cv2.fillPoly(ink, [to_ink(place + outline, frame)], int(rng.integers(*values)), cv2.LINE_AA, SUBPIXEL_BITS)


def make_outlines(rng, n):
    """Return n closed outlines (n, points, 2) about the origin, of radius 1 more or less: a circle with three dents."""
    angles = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    radii = np.ones((n, OUTLINE_POINTS))
    for waves in (2, 3, 5):
        radii += rng.normal(0, 0.08, (n, 1)) * np.cos(waves * angles + rng.uniform(0, 2 * np.pi, (n, 1)))
    return np.clip(radii, 0.5, 1.5)[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def draw_hemorrhage(rng, blood, place, radius, anatomy, frame):
    """Draw blood in the retina: a dot or blot, or a flame drawn out along the nerve fibres; densest in the middle."""
    outline = make_outlines(rng, 1)[0] * radius
    if rng.random() < 0.25:
        along = (place - anatomy.optic_disc) / (np.linalg.norm(place - anatomy.optic_disc) + 1e-9)
        across = along[::-1] * [-1, 1]
        outline = 1.6 * outline[:, :1] * along + 0.55 * outline[:, 1:] * across
    density = rng.uniform(130, 205)
    for size, share in ((1, 0.75), (0.75, 0.9), (0.5, 1)):
        points = to_ink(place + size * outline, frame)
        cv2.fillPoly(blood, [points], round(density * share), cv2.LINE_AA, SUBPIXEL_BITS)


def draw_exudate(rng, bright, place, radius, frame):
    """Draw a cluster of hard exudates: a heap, or a ring around a leaking vessel."""
    n = int(rng.integers(10, 34))
    angles = rng.uniform(0, 2 * np.pi, n)
    distances = radius * (rng.normal(0.75, 0.12, n) if rng.random() < 0.35 else rng.uniform(0, 1, n))
    places = place + np.stack([distances * np.cos(angles), distances * np.sin(angles)], axis=1)
    fill_blots(rng, bright, places, rng.uniform(0.005, 0.015, n), (130, 225), frame)


def draw_beads(rng, blood, place, radius, vessels, frame):
    """Let the veins near a place swell and shrink like a string of beads."""
    paths = vessels.veins[0][:2]
    for point in paths[np.linalg.norm(paths - place, axis=2) < radius]:
        fill_spot(blood, point, VEIN_WIDTH * rng.uniform(0.55, 0.85), 115, frame)


def draw_tangle(rng, blood, place, radius, frame):
    """Draw new vessels: fine, curled, growing out from a place into a lacy fan."""
    n = TANGLE_PATHS
    headings = rng.uniform(-np.pi, np.pi, (n, 1)) + np.cumsum(rng.normal(0, 0.45, (n, PATH_STEPS)), axis=1)
    origins = place + rng.normal(0, 0.25 * radius, (n, 2))
    paths = walk(rng, origins, headings, np.full(n, 2.4 * radius / PATH_STEPS), 0.5)
    away = np.linalg.norm(paths - place, axis=2)
    stroke(blood, paths, np.where(away < radius, TANGLE_WIDTH, 0), 130, frame)


def draw_boat(rng, blood, place, radius, frame):
    """Draw a preretinal hemorrhage: blood that has sunk, flat on top like a boat."""
    outline = make_outlines(rng, 1)[0] * radius * [1, rng.uniform(0.7, 1.2)]
    outline[:, 1] = np.maximum(outline[:, 1], 0.1 * rng.uniform(-radius, radius))
    cv2.fillPoly(blood, [to_ink(place + outline, frame)], 235, cv2.LINE_AA, SUBPIXEL_BITS)
