"""Draw the chest as an x-ray from the front shows it, and plan a folder of such pictures and their tables.

Places are in parts of the picture's side, `across` from the spine to either side; the heart lies on the picture's
right. Where a thing lies and what shape it has tells the findings apart: exposure, noise and build vary more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from preprocess.dataset import findings, labels
from preprocess.disk import files
from preprocess.synthetic.canvas import blur_noise, soften

FINDINGS = ("Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
WIDTH_PX = 512
FILE = "images/{image}.png"  # where a picture lies in its folder, whatever its split
TRAITS_STREAM = 1_000_000  # a patient's generator beside those of the pictures, which are numbered from 0
NODULE, MASS = (0.014, 0.028), (0.05, 0.09)  # radii; of a chest of 30 cm the limit between the two, 3 cm wide, is 0.05
HEALTHY, LARGE = (0.40, 0.48), (0.58, 0.68)  # the heart's width by the chest's; above 0.5 it is called large
AIR, TISSUE, LUNG, BONE = 0.03, 0.55, 0.40, 0.09  # what each stops, or takes away, of the rays
EDGE_PARTS = 150  # edges are blurred by one of so many parts of the height
MOST_PICTURES = 4  # of a patient, at least one
SHARE = 0.16  # of the patients have each finding, so that a third has none
STAYS, COMES = 0.85, 0.02  # a finding of the patient is in a picture, another is


class Xray(NamedTuple):
    """A picture that is to be drawn: of whom, which of theirs, and what it shows, joined by |."""

    image: str
    patient: int
    number: int
    shown: str


class Chest(NamedTuple):
    """A patient's build: half of the chest's width, where lungs begin and end, tissue around them, heart and ribs."""

    width: float
    top: float
    base: float
    fat: float
    heart: float
    n_ribs: int
    slope: float


class Lung(NamedTuple):
    """One lung: -1 left or 1 right in the picture, places (h, w) across, share of the way out and down, where it is."""

    side: int
    across: np.ndarray
    out: np.ndarray
    down: np.ndarray
    mask: np.ndarray


def plan(n_patients: int, seed: int) -> list[list[Xray]]:
    """Return the pictures of each patient."""
    patients = []
    for patient in range(1, n_patients + 1):
        rng = np.random.default_rng([seed, patient])
        has = rng.random(len(FINDINGS)) < SHARE
        drawn = rng.random((rng.integers(1, MOST_PICTURES + 1), len(has)))
        names = ["|".join(np.array(FINDINGS)[row]) for row in np.where(has, drawn < STAYS, drawn < COMES)]
        patients.append([Xray(f"{patient:08}_{i:03}", patient, i, name) for i, name in enumerate(names)])
    return patients


def write_tables(data: Path, planned: Mapping[str, Sequence[Xray]], rows: Mapping[str, dict]) -> None:
    """Write the table of findings, the lists of its parts and the boxes, in the form of ChestX-ray14."""
    tables = {findings.LISTS[split]: [f"{xray.image}.png" for xray in xrays] for split, xrays in planned.items()}
    tables[findings.TABLES[1]] = ["Image Index,Finding Labels,Follow-up #,Patient ID"] + [
        f"{image}.png,{shown or labels.NO_FINDING},{number},{patient}"
        for xrays in planned.values()
        for image, patient, number, shown in xrays
    ]
    tables[findings.BOXES] = ["Image Index,Finding Label,Bbox [x,y,w,h]"] + [
        f"{image}.png,{name},{','.join(map(str, box))}" for image, row in rows.items() for name, *box in row["boxes"]
    ]
    for name, lines in tables.items():
        files.write_bytes(data / name, "".join(f"{line}\n" for line in lines).encode())


def draw(xray: Xray, seed: int, width_px: int | None = None) -> tuple[np.ndarray, Sequence[int], dict]:
    """Draw a picture, (h, w) uint8, a function of its arguments alone; return it, how cv2 stores it, and its boxes.

    Nodules and masses have boxes: [finding, x, y, width, height] in pixels.
    """
    build, shown = np.random.default_rng([seed, xray.patient, TRAITS_STREAM]), xray.shown.split("|")
    width, top, base, fat = build.uniform((0.33, 0.10, 0.70, 0.03), (0.40, 0.17, 0.82, 0.10))
    chest = Chest(width, top, base, fat, build.uniform(*HEALTHY), int(build.integers(8, 11)), build.uniform(0.05, 0.12))
    rng, n = np.random.default_rng([seed, xray.patient, xray.number]), width_px or WIDTH_PX
    y, x = np.mgrid[:n, :n] / n
    spine = 0.5 + rng.uniform(-0.03, 0.03)
    base += rng.uniform(-0.03, 0.03)  # as deep as the patient has breathed in
    chest = chest._replace(base=base)
    lungs = [place_lung(chest, side, spine, x, y) for side in (-1, 1)]
    lung = np.maximum(*(of.mask for of in lungs))
    share = rng.uniform(*LARGE) if "Cardiomegaly" in shown else chest.heart * rng.uniform(0.97, 1.03)
    half, tall = share * chest.width, rng.uniform(0.12, 0.15)
    tilted = (x - spine - 0.3 * half) / half, (y - base + 0.75 * tall) / tall
    air = lung * (1 - soften(tilted[0] ** 2 - 0.5 * tilted[0] * tilted[1] + tilted[1] ** 2 < 1, EDGE_PARTS))
    vessels, added, boxes = draw_vessels(rng, lungs, spine, n), np.zeros((n, n)), []
    if "Pneumothorax" in shown:
        collapsed, edge = collapse(rng, lungs[rng.integers(2)])
        vessels, added = vessels * (1 - collapsed), added + 0.12 * edge * air - 0.06 * collapsed * air
    if "Effusion" in shown:
        for of in [lungs[rng.integers(2)]] if rng.random() < 0.7 else lungs:
            level = base - rng.uniform(0.09, 0.24) - 0.12 * np.clip(of.out, 0, 1) ** 3  # it climbs the outer wall
            air = air * (1 - soften((y > level) & (of.across > 0), EDGE_PARTS))
    if "Infiltration" in shown:
        at_x, at_y = find_place(rng, air, 0.05)
        cloud = np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / 2 / rng.uniform(0.06, 0.11) ** 2)
        patches = np.clip(0.6 + 0.6 * blur_noise(rng, (n, n), 0.02), 0, None)
        added += rng.uniform(0.18, 0.3) * cloud * patches * air
    for name, radii, most in (("Nodule", NODULE, 4), ("Mass", MASS, 2)):
        for _ in range(rng.integers(1, most) if name in shown else 0):
            radius, (at_x, at_y) = rng.uniform(*radii), find_place(rng, air, 0.04)
            lobes = 1 + 0.12 * np.cos(3 * np.arctan2(y - at_y, x - at_x) + rng.uniform(0, 6)) * (name == "Mass")
            added += rng.uniform(0.14, 0.24) * soften(np.hypot(x - at_x, y - at_y) < radius * lobes, EDGE_PARTS)
            boxes.append([name, at_x - radius, at_y - radius, 2 * radius, 2 * radius])
    bones = draw_bones(rng, chest, spine, x, y)
    dense = TISSUE + 0.10 * np.clip((y - base + 0.05) / 0.1, 0, 1) + bones - LUNG * air + 0.07 * vessels * air + added
    rays = AIR + place_body(chest, spine, x, y) * dense
    picture, boxes = develop(rng, rays, boxes)
    return picture, (), {"boxes": boxes}


def place_lung(chest: Chest, side: int, spine: float, x: np.ndarray, y: np.ndarray) -> Lung:
    """Return where a lung lies: under a dome, above the diaphragm, which is higher on the liver's side."""
    across = side * (x - spine)
    down = (y - chest.top) / (chest.base - chest.top)
    dome = np.sqrt(np.clip(1 - (1 - np.clip(1.9 * down, 0, 1)) ** 2, 0, 1))
    edge = np.maximum(chest.width * (0.72 + 0.28 * np.clip(down, 0, 1)) * dome, 1e-3)
    floor = chest.base - 0.06 * (1 - ((across / chest.width - 0.42) / 0.58) ** 2) - 0.02 * (side < 0)
    inner = 0.05 + 0.02 * np.cos(6 * down)
    mask = soften((across > inner) & (across < edge) & (y < floor) & (down > 0), EDGE_PARTS)
    return Lung(side, across, across / edge, down, mask)


def place_body(chest: Chest, spine: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return where the body is, (h, w), 0-1: neck, shoulders, trunk."""
    half = np.where(y < 0.04, 0.1, np.minimum(0.1 + 5 * (y - 0.04), chest.width + chest.fat + 0.12 * np.exp(-y / 0.15)))
    return soften(np.abs(x - spine) < half, EDGE_PARTS) * (0.9 + 2 * chest.fat)


def draw_bones(rng: Generator, chest: Chest, spine: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what spine, collar bones and ribs stop, (h, w): each rib out and down behind, and in again before."""
    n = len(x)
    vertebrae = 1 + 0.25 * np.sin(2 * np.pi * y / rng.uniform(0.05, 0.06))
    bones = 1.6 * BONE * np.exp(-(((x - spine) / 0.04) ** 2)) * vertebrae
    along, step = np.linspace(0, 1, 20), (chest.base - chest.top) / chest.n_ribs
    for side in (-1, 1):
        for rib in range(chest.n_ribs):
            wide = chest.width * min(1.0, 0.55 + 0.13 * rib)
            start = chest.top + step * (rib + rng.uniform(-0.08, 0.08))
            behind = np.c_[0.03 + (wide - 0.03) * np.sin(along * np.pi / 2), start + chest.slope * along**2]
            before = np.c_[wide - 0.6 * wide * along**1.5, behind[-1, 1] + 0.8 * chest.slope * along]
            for curve, strength in ((behind, 1.0), (before, 0.55)):
                bones += strength * BONE * draw_line(curve * [side, 1] + [spine, 0], 0.3 * step, n)
        collar = np.array([[0.02, chest.top + 0.05], [0.4 * chest.width, chest.top + 0.01], [chest.width, chest.top]])
        bones += BONE * draw_line(collar * [side, 1] + [spine, 0], 0.024, n)
    return bones


def draw_vessels(rng: Generator, lungs: list[Lung], spine: float, n: int) -> np.ndarray:
    """Return the vessels of both lungs, (h, w), which fan out from the root and grow thin."""
    drawn = np.zeros((n, n))
    for lung in lungs:
        root = np.array([spine + lung.side * 0.07, rng.uniform(0.42, 0.48)])
        for angle in rng.uniform(-1.3, 1.4, rng.integers(12, 22)):
            bends = np.cumsum(np.r_[angle, rng.normal(0, 0.2, 4)])
            steps = rng.uniform(0.04, 0.07) * np.c_[lung.side * np.cos(bends), np.sin(bends)]
            path = root + np.cumsum(np.vstack([[0, 0], steps]), axis=0)
            for part in range(5):
                drawn = np.maximum(drawn, (1 - 0.15 * part) * draw_line(path[part : part + 2], 0.013 / (1 + part), n))
    return drawn


def collapse(rng: Generator, lung: Lung) -> tuple[np.ndarray, np.ndarray]:
    """Return where a lung has drawn back from the wall, without vessels, and the thin line of its edge, (h, w) each."""
    share = rng.uniform(0.15, 0.4)
    kept = (lung.out < 1 - share) & (lung.down > 0.6 * share)
    inside = (lung.mask > 0.5).astype(np.uint8)
    rim = cv2.dilate((kept * inside).astype(np.uint8), np.ones((3, 3), np.uint8)) * inside - kept * inside
    return lung.mask * soften(~kept, EDGE_PARTS), cv2.GaussianBlur(rim.astype(np.float64), (0, 0), 0.8)


def find_place(rng: Generator, air: np.ndarray, margin: float) -> tuple[float, float]:
    """Return a place, (x, y), in the air of the lungs and so far from their edge; anywhere in it if it is too small."""
    size = 2 * round(margin * len(air)) + 1
    inside = cv2.erode((air > 0.5).astype(np.uint8), np.ones((size, size), np.uint8))
    rows, columns = np.nonzero(inside if inside.any() else air > 0.5 * air.max())
    chosen = rng.integers(len(rows))
    return columns[chosen] / len(air), rows[chosen] / len(air)


def develop(rng: Generator, rays: np.ndarray, boxes: list[list]) -> tuple[np.ndarray, list[list]]:
    """Return the picture that a machine makes of what is stopped of the rays, (h, w) uint8, and the boxes in pixels."""
    n = len(rays)
    seen = cv2.GaussianBlur(rays * (1 + 0.05 * blur_noise(rng, rays.shape, 0.15)), (0, 0), 0.4 + n / 700)
    dark, light = np.percentile(seen, (rng.uniform(1, 8), rng.uniform(96, 99.7)))
    grey = np.clip((seen - dark) / (light - dark), 0, 1) ** rng.uniform(0.7, 1.4)
    noisy = grey + rng.uniform(0.005, 0.03) * rng.normal(size=rays.shape)
    picture = np.clip(255 * rng.uniform(0.75, 1.0) * noisy, 0, 255).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((n / 2, n / 2), rng.uniform(-4, 4), rng.uniform(0.94, 1.04))
    placed: list[list] = []
    for name, left, top, wide, tall in boxes:
        x, y = turn @ [n * (left + wide / 2), n * (top + tall / 2), 1]
        box = x - n * wide / 2, y - n * tall / 2, n * wide, n * tall
        placed.append([name, *(round(float(value), 1) for value in box)])
    return cv2.warpAffine(picture, turn, (n, n)), placed


def draw_line(points: np.ndarray, width: float, n: int) -> np.ndarray:
    """Return a line through points (k, 2), x and y, as (n, n), 0-1."""
    canvas, sixteenths = np.zeros((n, n), np.uint8), np.rint(16 * n * points).astype(np.int32)
    cv2.polylines(canvas, [sixteenths], False, 255, max(1, round(width * n)), cv2.LINE_AA, shift=4)
    return canvas / 255
