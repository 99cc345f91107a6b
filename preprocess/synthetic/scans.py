"""Draw a cross-section of a retina as optical coherence tomography shows it, and plan a folder of such scans.

Depths and heights are in parts of the picture's height, places across in parts of its width. What tells the classes
apart is where things lie, not how bright they are: gain, noise and the white corners of straightened scans vary more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from preprocess.synthetic.canvas import blur_noise, soften

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")  # of Kermany et al., Cell 172(5), 2018
WIDTH_PX = 512  # of Kermany's scans, most of which are 496 px high
ASPECT = 496 / 512
TRAITS_STREAM = 1_000_000  # a patient's generator beside those of the scans, which are numbered from 1
# Brightness at depths from the inner surface (0) to the pigment epithelium's outer edge (1): nerve fibres, ganglion
# cells, inner nuclei, outer plexus, outer nuclei, ellipsoid zone, pigment epithelium.
DEPTHS = (0.0, 0.03, 0.10, 0.14, 0.36, 0.40, 0.47, 0.50, 0.56, 0.60, 0.79, 0.81, 0.85, 0.88, 0.91, 0.94, 1.0)
BRIGHTNESS = (0.35, 0.62, 0.58, 0.40, 0.42, 0.24, 0.24, 0.40, 0.38, 0.20, 0.20, 0.66, 0.66, 0.30, 0.90, 0.95, 0.80)
VITREOUS, FLUID = 0.02, 0.05
EDGE_PARTS = 400  # edges are blurred by one of so many parts of the height
FIRST_PATIENT, PATIENT_GAP = 1001, 40  # patient numbers rise with gaps, as Kermany's do
MOST_SCANS = 5  # of a patient, at least one
ODD_SHARE = 0.15  # of the scans show another class than the patient's own; 19 % of Kermany's patients have such
JPEG_QUALITY = 92
FILE = "{split}/{name}/{image}.jpeg"  # where a scan lies in its folder


class Scan(NamedTuple):
    """A scan that is to be drawn: of whom, which of theirs, and what it shows."""

    image: str
    patient: int
    number: int
    name: str


class Traits(NamedTuple):
    """What a patient's scans have in common."""

    thickness: float
    pit: float  # depth of the fovea, of the thickness
    choroid: float  # depth at which its light has fallen to a third
    bend: float


class Section(NamedTuple):
    """Where the retina lies in a picture (h, w): its inner surface, its outer edge, where that lies in health."""

    across: np.ndarray  # (w,) places of the columns
    down: np.ndarray  # (h, 1) depths of the rows
    fovea: float  # its place
    top: np.ndarray  # (w,), as the next two
    edge: np.ndarray
    base: np.ndarray


def plan(n_patients: int, seed: int) -> list[list[Scan]]:
    """Return the scans of each patient; the classes take turns as the patients' own."""
    rng = np.random.default_rng(seed)
    numbers = np.cumsum(np.r_[FIRST_PATIENT, rng.integers(1, PATIENT_GAP, n_patients)])[:n_patients].tolist()
    patients = []
    for position, patient in enumerate(numbers):
        rng = np.random.default_rng([seed, patient])
        own, n_scans = CLASSES[position % len(CLASSES)], int(rng.integers(1, MOST_SCANS + 1))
        odd = rng.random(n_scans) < ODD_SHARE
        names = [str(rng.choice(CLASSES)) if is_odd else own for is_odd in odd]
        patients.append([Scan(f"{name}-{patient}-{i}", patient, i, name) for i, name in enumerate(names, 1)])
    return patients


def draw(scan: Scan, seed: int, width_px: int | None = None) -> tuple[np.ndarray, Sequence[int], dict]:
    """Draw a scan, (h, w) uint8, a function of its arguments alone; return it, how cv2 stores it, and nothing else."""
    of = np.random.default_rng([seed, scan.patient, TRAITS_STREAM])
    traits = Traits(*of.uniform((0.15, 0.25, 0.06, -0.16), (0.22, 0.5, 0.14, 0.06)))
    rng = np.random.default_rng([seed, scan.patient, scan.number])
    width = width_px or WIDTH_PX
    height = round(width * ASPECT)
    at = place_retina(rng, traits, np.linspace(0, 1, width), np.arange(height)[:, None] / height)
    material, holes = np.zeros((height, width)), np.zeros((height, width))
    if scan.name == "DRUSEN":
        at = add_drusen(rng, at)
    elif scan.name == "CNV":
        at, holes, material = add_membrane(rng, at)
    elif scan.name == "DME":
        at, holes = add_cysts(rng, at)
    light = light_layers(rng, at, traits.choroid)
    light = light * (1 - material) + material * np.clip(rng.normal(0.5, 0.2, light.shape), 0, 1)
    light = light * (1 - holes) + FLUID * holes
    return develop(rng, shade_vessels(rng, light, at)), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY), {}


def place_retina(rng: Generator, traits: Traits, across: np.ndarray, down: np.ndarray) -> Section:
    """Return where a healthy retina lies."""
    fovea, middle = rng.uniform(0.35, 0.65), rng.uniform(0.42, 0.66)
    base = middle + rng.uniform(-0.16, 0.16) * (across - 0.5) + traits.bend * 2 * (across - 0.5) ** 2
    base = base + wave(rng, across, 3) * 0.004
    pit = traits.pit * bump(across, fovea, rng.uniform(0.06, 0.1)) - 0.1 * bump(across, fovea, 0.25)
    thickness = traits.thickness * rng.uniform(0.93, 1.07) * (1 - pit) + wave(rng, across, 4) * 0.003
    return Section(across, down, fovea, base - thickness, base, base)


def add_drusen(rng: Generator, at: Section) -> Section:
    """Lift the pigment epithelium over deposits; the inner surface hardly follows."""
    lifted = np.zeros_like(at.across)
    for _ in range(rng.integers(3, 9)):
        width, height = rng.uniform(0.012, 0.035, 2)
        lifted = np.maximum(lifted, height * bump(at.across, rng.uniform(0.1, 0.9), width))
    return at._replace(top=at.top - 0.15 * lifted, edge=at.edge - lifted)


def add_membrane(rng: Generator, at: Section) -> tuple[Section, np.ndarray, np.ndarray]:
    """Lift the epithelium by a membrane of new vessels, with fluid over it; return also fluid and membrane (h, w)."""
    place, width, height = at.fovea + rng.uniform(-0.15, 0.15), rng.uniform(0.08, 0.18), rng.uniform(0.03, 0.08)
    lifted = height * bump(at.across, place, width) * (1 + 0.35 * wave(rng, at.across, 14))
    fluid = rng.uniform(0.01, 0.05) * bump(at.across, place + rng.uniform(-0.1, 0.1), width * rng.uniform(0.8, 1.3))
    edge, top = at.edge - np.maximum(lifted, 0), at.top - 0.7 * np.maximum(lifted, 0) - 0.8 * fluid
    roof = edge - 0.12 * (edge - top)
    holes = soften((at.down < roof) & (at.down > roof - np.where(fluid > 0.006, fluid, 0)), EDGE_PARTS)
    patches = rng.uniform(0.2, 0.7) + 0.25 * blur_noise(rng, holes.shape, 0.03)
    material = soften((at.down > edge) & (at.down < at.base), EDGE_PARTS) * np.clip(patches, 0, 1)
    return at._replace(top=top, edge=edge), holes, material


def add_cysts(rng: Generator, at: Section) -> tuple[Section, np.ndarray]:
    """Swell the retina around pockets of fluid in its middle layers; return also the pockets (h, w)."""
    place, width = at.fovea + rng.uniform(-0.12, 0.12), rng.uniform(0.08, 0.16)
    top = at.top - rng.uniform(0.01, 0.06) * bump(at.across, place, width)
    holes = np.zeros((len(at.down), len(at.across)), bool)
    for _ in range(rng.integers(3, 11)):
        x, depth = place + rng.normal(0, 0.6) * width, rng.uniform(0.35, 0.68)
        column = int(np.clip(x, 0, 0.999) * len(at.across))
        thick = at.edge[column] - top[column]
        tall, wide = rng.uniform(0.06, 0.17) * thick, rng.uniform(0.008, 0.026)
        y = top[column] + depth * thick
        holes |= ((at.across - x) / wide) ** 2 + ((at.down - y) / tall) ** 2 <= 1
    return at._replace(top=top), soften(holes, EDGE_PARTS)


def light_layers(rng: Generator, at: Section, choroid_depth: float) -> np.ndarray:
    """Return how much light each place throws back, (h, w), 0-1: vitreous, layers, deposits, choroid."""
    depth = (at.down - at.top) / np.maximum(at.edge - at.top, 1e-3)
    light = np.interp(depth, DEPTHS, BRIGHTNESS, left=VITREOUS, right=0)
    below = at.down - at.base
    texture = np.clip(1 + 0.35 * blur_noise(rng, depth.shape, 0.02), 0.2, None)
    choroid = rng.uniform(0.3, 0.5) * np.exp(-np.maximum(below, 0) / choroid_depth) * texture
    deposits = rng.uniform(0.3, 0.45)
    return np.where(depth <= 1, light, np.where(below < 0, deposits, choroid))


def shade_vessels(rng: Generator, light: np.ndarray, at: Section) -> np.ndarray:
    """Darken what lies behind the vessels of the inner layers."""
    shade = np.ones_like(at.across)
    for _ in range(rng.integers(1, 7)):
        shade *= 1 - rng.uniform(0.2, 0.6) * bump(at.across, rng.uniform(0, 1), rng.uniform(0.003, 0.012))
    return np.where(at.down > at.top + 0.02, light * shade, light)


def develop(rng: Generator, light: np.ndarray) -> np.ndarray:
    """Return the picture a machine makes of the light, (h, w) uint8: speckle, noise, gain, perhaps turned on white."""
    looks = rng.uniform(3, 10)  # frames averaged: speckle is gamma-distributed (Goodman 1976)
    seen = light * rng.gamma(looks, 1 / looks, light.shape)
    blurred = cv2.GaussianBlur(seen, (0, 0), 0.4 + len(light) / 900)
    noisy = blurred + rng.uniform(0.0, 0.06) * np.abs(rng.normal(size=light.shape))
    grey = np.clip(255 * rng.uniform(0.55, 1.1) * noisy ** rng.uniform(0.8, 1.25), 0, 255)
    height, width = grey.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-7, 7) * (rng.random() < 0.6), 1)
    shift = rng.uniform(-0.08, 0.08, 2) * (rng.random() < 0.6) * (width, height)
    matrix = matrix + np.c_[np.zeros((2, 2)), shift]
    return cv2.warpAffine(grey.astype(np.uint8), matrix, (width, height), borderValue=255)


def bump(across: np.ndarray, at: float, width: float) -> np.ndarray:
    """Return a bell of height 1."""
    return np.exp(-(((across - at) / width) ** 2) / 2)


def wave(rng: Generator, across: np.ndarray, count: int) -> np.ndarray:
    """Return a smooth random line of about unit deviation with so many bends."""
    return np.interp(across, np.linspace(0, 1, count + 2), rng.normal(size=count + 2))
