"""Grow the vessels of a retina: arteries and veins that leave the optic disc, arch around the macula and branch."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from preprocess.synthetic.canvas import Frame, new_ink, stroke

# In units of the field's radius, 6.5 mm. Veins at the optic disc are 0.15 mm wide, arteries two thirds of that.
VEIN_WIDTH = 0.022
ARTERY_WIDTH = 0.016
FINEST_WIDTH = 0.004
FOVEA_WITHOUT_VESSELS = 0.13
PATH_STEPS = 40  # points of a drawn vessel

# How trunks leave the optic disc and go on: heading at the disc, heading in the end (degrees, 0 towards the temple, 90
# upwards), the length of the way on which they turn, and their width as a share of the largest.
TRUNKS = (
    (108, -14, 0.36, 1.0),
    (-108, 14, 0.36, 1.0),
    (112, 150, 0.5, 0.75),
    (-112, -150, 0.5, 0.75),
    (35, -18, 0.3, 0.35),
    (-35, 18, 0.3, 0.35),
    (175, 180, 0.5, 0.4),
)


class Anatomy(NamedTuple):
    """Where the parts of a retina lie, in units of the field's radius."""

    optic_disc: np.ndarray  # (2,) its centre
    fovea: np.ndarray  # (2,)


class Bundle(NamedTuple):
    """Vessels of one kind, in units of the field's radius; the width is 0 where there is none."""

    paths: np.ndarray  # (n, steps, 2)
    widths: np.ndarray  # (n, steps)


class Vessels(NamedTuple):
    """All vessels of a retina."""

    veins: Bundle  # large ones, the first two of which arch around the macula
    arteries: Bundle
    branches: list[Bundle]  # the finest first


def grow_vessels(rng: Generator, anatomy: Anatomy, tortuosity: float) -> Vessels:
    """Grow arteries and veins from the optic disc, with two generations of branches."""
    table = np.repeat(np.array(TRUNKS), 2, axis=0)  # an artery and a vein each
    n = len(table)
    is_vein = np.arange(n) % 2 == 1
    start, end = np.radians(table[:, :2] + rng.normal(0, 7, (n, 2))).T
    turning = (table[:, 2] * rng.uniform(0.9, 1.15, n))[:, None]
    way = np.linspace(0, 1.7, PATH_STEPS)
    headings = end[:, None] + (start - end)[:, None] * np.exp(-way / turning)
    origins = anatomy.optic_disc + rng.normal(0, 0.02, (n, 2))
    paths = walk(rng, origins, headings, step=np.full(n, way[1]), tortuosity=tortuosity)
    largest = np.where(is_vein, VEIN_WIDTH, ARTERY_WIDTH)
    widths = table[:, 3:] * largest[:, None] * (1 - 0.5 * way / way[-1])
    trunks = clear_fovea(Bundle(paths=paths, widths=widths), anatomy)
    branches = clear_fovea(grow_branches(rng, trunks, 6, tortuosity), anatomy)
    twigs = clear_fovea(grow_branches(rng, branches, 2, tortuosity), anatomy)
    return Vessels(
        veins=Bundle(paths=trunks.paths[is_vein], widths=trunks.widths[is_vein]),
        arteries=Bundle(paths=trunks.paths[~is_vein], widths=trunks.widths[~is_vein]),
        branches=[twigs, branches],
    )


def walk(
    rng: Generator, origins: np.ndarray, headings: np.ndarray, step: np.ndarray, tortuosity: float
) -> np.ndarray:
    """Return paths (n, steps, 2) from origins (n, 2) that follow headings (n, steps), with a step length (n,) each.

    They wind about their headings by about `tortuosity` radians.
    """
    n, n_steps = headings.shape
    position = np.arange(n_steps) / n_steps
    for waves in (2.0, 5.0, 9.0):
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        swing = tortuosity * rng.normal(0, 0.6, (n, 1))
        headings = headings + swing * np.sin(2 * np.pi * waves * position + phase)
    moves = np.stack([np.cos(headings), -np.sin(headings)], axis=2) * step[:, None, None]
    return origins[:, None] + np.cumsum(moves, axis=1)


def grow_branches(rng: Generator, parents: Bundle, n_each: int, tortuosity: float) -> Bundle:
    """Return the branches that leave the parents' paths, `n_each` from each, to both sides in turn."""
    parent = np.repeat(np.arange(len(parents.paths)), n_each)
    n = len(parent)
    fork = rng.integers(3, PATH_STEPS - 2, n)
    origins = parents.paths[parent, fork]
    forward = origins - parents.paths[parent, fork - 1]
    side = np.where(np.arange(n) % 2, 1.0, -1.0)
    angle = side * rng.uniform(0.4, 1.1, n)
    bend = angle[:, None] * np.linspace(1, 0.5, PATH_STEPS)  # back towards the parent's direction
    headings = np.arctan2(-forward[:, 1], forward[:, 0])[:, None] + bend
    width = parents.widths[parent, fork] * rng.uniform(0.4, 0.7, n)
    length = rng.uniform(0.3, 1.0, n) * np.clip(width / VEIN_WIDTH, 0.12, 0.6) * 1.4
    paths = walk(rng, origins, headings, step=length / PATH_STEPS, tortuosity=tortuosity)
    width = np.where(
        width > 0, np.maximum(width, FINEST_WIDTH), 0
    )  # no branch leaves where its parent has ended
    return Bundle(paths=paths, widths=width[:, None] * np.linspace(1, 0.6, PATH_STEPS))


def clear_fovea(vessels: Bundle, anatomy: Anatomy) -> Bundle:
    """End vessels where they reach the fovea, which is free of them."""
    is_near = np.linalg.norm(vessels.paths - anatomy.fovea, axis=2) < FOVEA_WITHOUT_VESSELS
    has_ended = np.logical_or.accumulate(is_near, axis=1)
    return vessels._replace(widths=np.where(has_ended, 0, vessels.widths))


def draw_vessels(vessels: Vessels, frame: Frame) -> np.ndarray:
    """Return vessels as an ink layer of blood (uint8): fine ones first, veins over arteries."""
    ink = new_ink(frame)
    for branches in vessels.branches:
        stroke(ink, branches.paths, branches.widths, value=62, frame=frame)
    arteries = vessels.arteries
    stroke(ink, arteries.paths, arteries.widths, value=75, frame=frame)
    stroke(
        ink, arteries.paths, arteries.widths * 0.3, value=40, frame=frame
    )  # the light reflex in their middle
    stroke(ink, vessels.veins.paths, vessels.veins.widths, value=110, frame=frame)
    return ink
