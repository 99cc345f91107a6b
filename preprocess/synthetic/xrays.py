"""Draw the chest as an x-ray from the front shows it, and plan a folder of such pictures and their tables.

Places are in parts of the picture's side, `across` from the spine to either side; the heart lies on the picture's
right. The findings differ in place and shape, not in brightness: exposure, noise and build vary more.
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
TRAITS_STREAM = (
    1_000_000  # a patient's generator beside those of the pictures, which are numbered from 0
)
NODULE = (
    0.014,
    0.028,
)  # radii; in a chest of 30 cm a mass, which is wider than 3 cm, has at least 0.05
MASS = (0.05, 0.09)
HEALTHY = (0.40, 0.48)  # the heart's width by the chest's; above 0.5 it is called large
LARGE = (0.58, 0.68)
AIR = 0.03  # the share of the rays that each stops; lungs stop as much less
TISSUE = 0.55
LUNG = 0.40
BONE = 0.09
EDGE_PARTS = 150  # edges are blurred by 1/150 of the height
MOST_PICTURES = 4  # of a patient, at least one
SHARE = 0.16  # of the patients have each finding, so that a third has none
STAYS = 0.85  # the probability that a picture shows a finding of the patient
COMES = 0.02  # the probability that it shows another finding


class Xray(NamedTuple):
    """A picture to draw."""

    image: str
    patient: int
    number: int  # among the patient's pictures, from 0
    shown: str  # the findings, joined by |


class Chest(NamedTuple):
    """A patient's build."""

    width: float  # half of the chest's
    top: float  # where the lungs begin
    base: float  # where the lungs end
    fat: float  # tissue around the lungs
    heart: float  # its width by the chest's
    n_ribs: int
    slope: float  # of the ribs


class Lung(NamedTuple):
    """One lung in a picture (h, w)."""

    side: int  # of the picture: -1 left, 1 right
    across: np.ndarray  # (h, w) distance from the spine
    out: np.ndarray  # (h, w) share of the way from the spine to the outer wall
    down: np.ndarray  # (h, w) share of the way from top to base
    mask: np.ndarray  # (h, w) where the lung is, 0-1


def plan(n_patients: int, seed: int) -> list[list[Xray]]:
    """Return the pictures of each patient."""
    patients = []
    for patient in range(1, n_patients + 1):
        rng = np.random.default_rng([seed, patient])
        has_finding = rng.random(len(FINDINGS)) < SHARE
        n_pictures = rng.integers(1, MOST_PICTURES + 1)
        drawn = rng.random((n_pictures, len(FINDINGS)))
        is_shown = np.where(has_finding, drawn < STAYS, drawn < COMES)
        pictures = []
        for number, row in enumerate(is_shown):
            shown = "|".join(np.array(FINDINGS)[row])
            pictures.append(
                Xray(image=f"{patient:08}_{number:03}", patient=patient, number=number, shown=shown)
            )
        patients.append(pictures)
    return patients


def write_tables(
    data: Path, planned: Mapping[str, Sequence[Xray]], rows: Mapping[str, dict]
) -> None:
    """Write the table of findings, the lists of its parts and the boxes, in the form of ChestX-ray14."""
    tables: dict[str, list[str]] = {}
    label_lines = ["Image Index,Finding Labels,Follow-up #,Patient ID"]
    for split, xrays in planned.items():
        tables[findings.LISTS[split]] = [f"{xray.image}.png" for xray in xrays]
        for xray in xrays:
            label_lines.append(
                f"{xray.image}.png,{xray.shown or labels.NO_FINDING},{xray.number},{xray.patient}"
            )
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h]"]
    for image, row in rows.items():
        for name, x, y, width, height in row["boxes"]:
            boxes.append(f"{image}.png,{name},{x},{y},{width},{height}")
    tables[findings.TABLES[1]] = label_lines
    tables[findings.BOXES] = boxes
    for name, lines in tables.items():
        text = "".join(f"{line}\n" for line in lines)
        files.write_bytes(data / name, text.encode())


def draw(
    xray: Xray, seed: int, width_px: int | None = None
) -> tuple[np.ndarray, Sequence[int], dict]:
    """Draw a picture, a function of the arguments alone.

    Returns it, (h, w) uint8, OpenCV's options to store it, and a row with its boxes, which nodules and masses have:
    [finding, x, y, width, height] in pixels.
    """
    chest = sample_chest(np.random.default_rng([seed, xray.patient, TRAITS_STREAM]))
    rng = np.random.default_rng([seed, xray.patient, xray.number])
    shown = xray.shown.split("|")
    n = WIDTH_PX if width_px is None else width_px
    y, x = np.mgrid[:n, :n] / n
    spine = 0.5 + rng.uniform(-0.03, 0.03)
    breath = rng.uniform(-0.03, 0.03)
    chest = chest._replace(base=chest.base + breath)
    lungs = [place_lung(chest, side, spine=spine, x=x, y=y) for side in (-1, 1)]
    heart = draw_heart(rng, chest, is_large="Cardiomegaly" in shown, spine=spine, x=x, y=y)
    air = np.maximum(lungs[0].mask, lungs[1].mask) * (1 - heart)
    vessels = draw_vessels(rng, lungs, spine, n)
    added = np.zeros((n, n))  # the share of the rays that findings stop
    if "Pneumothorax" in shown:
        collapsed, edge = collapse(rng, lungs[rng.integers(2)])
        vessels = vessels * (1 - collapsed)
        added = added + 0.12 * edge * air - 0.06 * collapsed * air
    if "Effusion" in shown:
        is_one_sided = rng.random() < 0.7
        filled = [lungs[rng.integers(2)]] if is_one_sided else lungs
        for lung in filled:
            depth = rng.uniform(0.09, 0.24)
            level = (
                chest.base - depth - 0.12 * np.clip(lung.out, 0, 1) ** 3
            )  # it climbs the outer wall
            air = air * (1 - soften((y > level) & (lung.across > 0), EDGE_PARTS))
    if "Infiltration" in shown:
        added += draw_infiltration(rng, air, x, y)
    boxes: list[list] = []
    if "Nodule" in shown:
        for _ in range(rng.integers(1, 4)):
            density, box = draw_spot(rng, "Nodule", air=air, x=x, y=y)
            added += density
            boxes.append(box)
    if "Mass" in shown:
        density, box = draw_spot(rng, "Mass", air=air, x=x, y=y)
        added += density
        boxes.append(box)
    bones = draw_bones(rng, chest, spine, x=x, y=y)
    belly = 0.10 * np.clip((y - chest.base + 0.05) / 0.1, 0, 1)
    stopped = TISSUE + belly + bones - LUNG * air + 0.07 * vessels * air + added
    rays = AIR + place_body(chest, spine, x=x, y=y) * stopped
    picture, boxes = develop(rng, rays, boxes)
    return picture, (), {"boxes": boxes}


def sample_chest(rng: Generator) -> Chest:
    """Return a random patient's build."""
    return Chest(
        width=rng.uniform(0.33, 0.40),
        top=rng.uniform(0.10, 0.17),
        base=rng.uniform(0.70, 0.82),
        fat=rng.uniform(0.03, 0.10),
        heart=rng.uniform(*HEALTHY),
        n_ribs=int(rng.integers(8, 11)),
        slope=rng.uniform(0.05, 0.12),
    )


def draw_heart(
    rng: Generator, chest: Chest, is_large: bool, spine: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return where the heart is, (h, w), 0-1: a tilted ellipse on the diaphragm."""
    share = rng.uniform(*LARGE) if is_large else chest.heart * rng.uniform(0.97, 1.03)
    semi_axis_x = share * chest.width
    semi_axis_y = rng.uniform(0.12, 0.15)
    across = (x - spine - 0.3 * semi_axis_x) / semi_axis_x
    down = (y - chest.base + 0.75 * semi_axis_y) / semi_axis_y
    is_heart = across**2 - 0.5 * across * down + down**2 < 1
    return soften(is_heart, EDGE_PARTS)


def draw_infiltration(rng: Generator, air: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the share of the rays, (h, w), that a patchy cloud in the air of the lungs stops."""
    center_x, center_y = find_place(rng, air, 0.05)
    radius = rng.uniform(0.06, 0.11)
    cloud = np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / 2 / radius**2)
    patches = np.clip(0.6 + 0.6 * blur_noise(rng, air.shape, 0.02), 0, None)
    return rng.uniform(0.18, 0.3) * cloud * patches * air


def draw_spot(
    rng: Generator, name: str, air: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, list]:
    """Return the share of the rays, (h, w), that a round nodule or a lobed mass in the lungs stops, and its box.

    The box is [name, left, top, width, height] in parts of the picture's side.
    """
    radii = MASS if name == "Mass" else NODULE
    radius = rng.uniform(*radii)
    center_x, center_y = find_place(rng, air, 0.04)
    phase = rng.uniform(0, 6)
    edge = np.full(air.shape, radius)
    if name == "Mass":
        edge = radius * (1 + 0.12 * np.cos(3 * np.arctan2(y - center_y, x - center_x) + phase))
    strength = rng.uniform(0.14, 0.24)
    density = strength * soften(np.hypot(x - center_x, y - center_y) < edge, EDGE_PARTS)
    return density, [name, center_x - radius, center_y - radius, 2 * radius, 2 * radius]


def place_lung(chest: Chest, side: int, spine: float, x: np.ndarray, y: np.ndarray) -> Lung:
    """Return where a lung lies: under a dome, above the diaphragm, which is higher on the liver's side."""
    across = side * (x - spine)
    down = (y - chest.top) / (chest.base - chest.top)
    dome = np.sqrt(np.clip(1 - (1 - np.clip(1.9 * down, 0, 1)) ** 2, 0, 1))
    edge = np.maximum(chest.width * (0.72 + 0.28 * np.clip(down, 0, 1)) * dome, 1e-3)
    floor = chest.base - 0.06 * (1 - ((across / chest.width - 0.42) / 0.58) ** 2)
    if side < 0:  # the liver's
        floor = floor - 0.02
    inner = 0.05 + 0.02 * np.cos(6 * down)
    mask = soften((across > inner) & (across < edge) & (y < floor) & (down > 0), EDGE_PARTS)
    return Lung(side=side, across=across, out=across / edge, down=down, mask=mask)


def place_body(chest: Chest, spine: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return where the body is, (h, w), 0-1: neck, shoulders, trunk."""
    shoulders = 0.1 + 5 * (y - 0.04)
    trunk = chest.width + chest.fat + 0.12 * np.exp(-y / 0.15)
    half_width = np.where(y < 0.04, 0.1, np.minimum(shoulders, trunk))
    return soften(np.abs(x - spine) < half_width, EDGE_PARTS) * (0.9 + 2 * chest.fat)


def draw_bones(
    rng: Generator, chest: Chest, spine: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return the share of the rays that spine, collar bones and ribs stop, (h, w).

    Each rib goes out and down behind, and in again in front.
    """
    n = len(x)
    vertebrae = 1 + 0.25 * np.sin(2 * np.pi * y / rng.uniform(0.05, 0.06))
    bones = 1.6 * BONE * np.exp(-(((x - spine) / 0.04) ** 2)) * vertebrae
    along = np.linspace(0, 1, 20)
    step = (chest.base - chest.top) / chest.n_ribs
    for side in (-1, 1):
        for rib in range(chest.n_ribs):
            wide = chest.width * min(1.0, 0.55 + 0.13 * rib)
            start = chest.top + step * (rib + rng.uniform(-0.08, 0.08))
            behind = np.c_[
                0.03 + (wide - 0.03) * np.sin(along * np.pi / 2), start + chest.slope * along**2
            ]
            before = np.c_[
                wide - 0.6 * wide * along**1.5, behind[-1, 1] + 0.8 * chest.slope * along
            ]
            for curve, strength in ((behind, 1.0), (before, 0.55)):
                points = curve * [side, 1] + [spine, 0]
                bones += strength * BONE * draw_line(points, 0.3 * step, n)
        inner = [0.02, chest.top + 0.05]
        middle = [0.4 * chest.width, chest.top + 0.01]
        outer = [chest.width, chest.top]
        collar = np.array([inner, middle, outer])
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
                line = draw_line(path[part : part + 2], 0.013 / (1 + part), n)
                drawn = np.maximum(drawn, (1 - 0.15 * part) * line)
    return drawn


def collapse(rng: Generator, lung: Lung) -> tuple[np.ndarray, np.ndarray]:
    """Return where a lung has drawn back from the wall, without vessels, and the thin line of its edge, (h, w) each."""
    share = rng.uniform(0.15, 0.4)
    is_kept = (lung.out < 1 - share) & (lung.down > 0.6 * share)
    is_lung = lung.mask > 0.5
    kept = (is_kept & is_lung).astype(np.uint8)
    is_grown = cv2.dilate(kept, np.ones((3, 3), np.uint8)) > 0
    is_rim = is_grown & is_lung & ~is_kept
    edge = cv2.GaussianBlur(is_rim.astype(np.float64), (0, 0), 0.8)
    return lung.mask * soften(~is_kept, EDGE_PARTS), edge


def find_place(rng: Generator, air: np.ndarray, margin: float) -> tuple[float, float]:
    """Return a place, (x, y), in the air of the lungs and so far from their edge; anywhere in it if it is too small."""
    size = 2 * round(margin * len(air)) + 1
    inside = cv2.erode((air > 0.5).astype(np.uint8), np.ones((size, size), np.uint8))
    if not inside.any():
        inside = air > 0.5 * air.max()
    rows, columns = np.nonzero(inside)
    chosen = rng.integers(len(rows))
    return columns[chosen] / len(air), rows[chosen] / len(air)


def develop(rng: Generator, rays: np.ndarray, boxes: list[list]) -> tuple[np.ndarray, list[list]]:
    """Return the picture that a machine makes of the stopped rays (h, w), (h, w) uint8, and the boxes in its pixels."""
    n = len(rays)
    uneven = rays * (1 + 0.05 * blur_noise(rng, rays.shape, 0.15))
    blurred = cv2.GaussianBlur(uneven, (0, 0), 0.4 + n / 700)
    dark, light = np.percentile(blurred, (rng.uniform(1, 8), rng.uniform(96, 99.7)))
    gamma = rng.uniform(0.7, 1.4)
    grey = np.clip((blurred - dark) / (light - dark), 0, 1) ** gamma
    noise = rng.uniform(0.005, 0.03)
    noisy = grey + noise * rng.normal(size=rays.shape)
    gain = rng.uniform(0.75, 1.0)
    picture = np.clip(255 * gain * noisy, 0, 255).astype(np.uint8)
    angle = rng.uniform(-4, 4)
    zoom = rng.uniform(0.94, 1.04)
    turn = cv2.getRotationMatrix2D((n / 2, n / 2), angle, zoom)
    turned_boxes: list[list] = []
    for name, left, top, width, height in boxes:
        x, y = turn @ [n * (left + width / 2), n * (top + height / 2), 1]
        box = (x - n * width / 2, y - n * height / 2, n * width, n * height)
        turned_boxes.append([name, *(round(float(value), 1) for value in box)])
    return cv2.warpAffine(picture, turn, (n, n)), turned_boxes


def draw_line(points: np.ndarray, width: float, n: int) -> np.ndarray:
    """Return a line through points (k, 2), x and y, as (n, n), 0-1."""
    canvas = np.zeros((n, n), np.uint8)
    sixteenths = np.rint(16 * n * points).astype(np.int32)
    thickness_px = max(1, round(width * n))
    cv2.polylines(canvas, [sixteenths], False, 255, thickness_px, cv2.LINE_AA, shift=4)
    return canvas / 255
