"""Grow the vessels of a retina: arteries and veins that leave the optic disc, arch around the macula and branch."""

from typing import NamedTuple

import numpy as np

from preprocess.synthetic.canvas import new_ink, stroke

# In units of the field's radius, 6.5 mm. Veins at the optic disc are 0.15 mm wide, arteries two thirds of that.
VEIN_WIDTH = 0.022
ARTERY_WIDTH = 0.016
FINEST_WIDTH = 0.004
FOVEA_WITHOUT_VESSELS = 0.13
PATH_STEPS = 40  # points of a drawn vessel

# Where trunks leave the optic disc and how they go on: heading at the disc, heading in the end (degrees, 0 towards the
# temple, 90 upwards), the way it takes to turn, and whether the trunk is large.
TRUNKS = (
    (108, -14, 0.36, 1.0),
    (-108, 14, 0.36, 1.0),
    (112, 150, 0.5, 0.75),
    (-112, -150, 0.5, 0.75),
    (35, -18, 0.3, 0.35),
    (-35, 18, 0.3, 0.35),
    (175, 180, 0.5, 0.4),
)


class Vessels(NamedTuple):
    """Paths (n, steps, 2) and their widths (n, steps), in units of the field's radius; width 0 where there is none."""

    veins: tuple  # large ones, the first two of which arch around the macula
    arteries: tuple
    branches: list  # of (paths, widths), the finest first


def grow_vessels(rng, anatomy, retina):
    """Grow arteries and veins from the optic disc, with two generations of branches."""
    table = np.repeat(np.array(TRUNKS), 2, axis=0)  # an artery and a vein each
    is_vein = np.arange(len(table)) % 2 == 1
    start, end = np.radians(table[:, :2] + rng.normal(0, 7, (len(table), 2))).T
    turning = (table[:, 2] * rng.uniform(0.9, 1.15, len(table)))[:, None]
    way = np.linspace(0, 1.7, PATH_STEPS)
    headings = end[:, None] + (start - end)[:, None] * np.exp(-way / turning)
    origins = anatomy.optic_disc + rng.normal(0, 0.02, (len(table), 2))
    trunks = walk(rng, origins, headings, np.full(len(table), way[1]), retina.tortuosity)
    widths = table[:, 3:] * np.where(is_vein, VEIN_WIDTH, ARTERY_WIDTH)[:, None] * (1 - 0.5 * way / way[-1])
    trunks, widths = clear_fovea(trunks, widths, anatomy)
    branches = clear_fovea(*grow_branches(rng, trunks, widths, 6, retina), anatomy)
    twigs = clear_fovea(*grow_branches(rng, *branches, 2, retina), anatomy)
    veins, arteries = ((trunks[of], widths[of]) for of in (is_vein, ~is_vein))
    return Vessels(veins, arteries, [twigs, branches])


def walk(rng, origins, headings, step, tortuosity):
    """Return paths (n, steps, 2) that follow headings (n, steps), winding about them by so many radians."""
    n, steps = headings.shape
    position = np.arange(steps) / steps
    for waves in (2.0, 5.0, 9.0):
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        headings = headings + tortuosity * rng.normal(0, 0.6, (n, 1)) * np.sin(2 * np.pi * waves * position + phase)
    moves = np.stack([np.cos(headings), -np.sin(headings)], axis=2) * step[:, None, None]
    return origins[:, None] + np.cumsum(moves, axis=1)


def grow_branches(rng, paths, widths, n_each, retina):
    """Return (paths, widths) of branches that leave the given paths, `n_each` from each, to both sides in turn."""
    parent = np.repeat(np.arange(len(paths)), n_each)
    n = len(parent)
    fork = rng.integers(3, PATH_STEPS - 2, n)
    forward = paths[parent, fork] - paths[parent, fork - 1]
    side = np.where(np.arange(n) % 2, 1.0, -1.0)
    angle = side * rng.uniform(0.4, 1.1, n)
    bend = angle[:, None] * np.linspace(1, 0.5, PATH_STEPS)  # back towards the parent's direction
    headings = np.arctan2(-forward[:, 1], forward[:, 0])[:, None] + bend
    width = widths[parent, fork] * rng.uniform(0.4, 0.7, n)
    length = rng.uniform(0.3, 1.0, n) * np.clip(width / VEIN_WIDTH, 0.12, 0.6) * 1.4
    branches = walk(rng, paths[parent, fork], headings, length / PATH_STEPS, retina.tortuosity)
    width = np.where(width > 0, np.maximum(width, FINEST_WIDTH), 0)  # no branch leaves where its parent has ended
    return branches, width[:, None] * np.linspace(1, 0.6, PATH_STEPS)


def clear_fovea(paths, widths, anatomy):
    """End paths where they reach the fovea, which is free of vessels."""
    near = np.linalg.norm(paths - anatomy.fovea, axis=2) < FOVEA_WITHOUT_VESSELS
    return paths, np.where(np.logical_or.accumulate(near, axis=1), 0, widths)


def draw_vessels(vessels, frame):
    """Return vessels as an ink layer of blood (uint8): fine ones first, veins over arteries."""
    ink = new_ink(frame)
    for paths, widths in vessels.branches:
        stroke(ink, paths, widths, 62, frame)
    paths, widths = vessels.arteries
    stroke(ink, paths, widths, 75, frame)
    stroke(ink, paths, widths * 0.3, 40, frame)  # the light reflex in the middle of an artery
    stroke(ink, *vessels.veins, 110, frame)
    return ink
