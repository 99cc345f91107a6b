"""Draw a cross-section of a retina as optical coherence tomography shows it, and plan a folder of such scans.

Depths and heights are in parts of the picture's height, places across in parts of its width. The classes differ in
where things lie, not in how bright they are: gain, noise and the white corners of straightened scans vary more.
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
TRAITS_STREAM = (
    1_000_000  # a patient's generator beside those of the scans, which are numbered from 1
)
# Brightness at depths from the inner surface (0) to the pigment epithelium's outer edge (1): nerve fibres, ganglion
# cells, inner nuclei, outer plexus, outer nuclei, ellipsoid zone, pigment epithelium.
DEPTHS = (
    0.0,
    0.03,
    0.10,
    0.14,
    0.36,
    0.40,
    0.47,
    0.50,
    0.56,
    0.60,
    0.79,
    0.81,
    0.85,
    0.88,
    0.91,
    0.94,
    1.0,
)
BRIGHTNESS = (
    0.35,
    0.62,
    0.58,
    0.40,
    0.42,
    0.24,
    0.24,
    0.40,
    0.38,
    0.20,
    0.20,
    0.66,
    0.66,
    0.30,
    0.90,
    0.95,
    0.80,
)
VITREOUS = 0.02
FLUID = 0.05
EDGE_PARTS = 400  # edges are blurred by 1/400 of the height
FIRST_PATIENT = 1001
PATIENT_GAP = 40  # patient numbers rise with gaps below this, as Kermany's do
MOST_SCANS = 5  # of a patient, at least one
ODD_SHARE = 0.15  # of the scans show a random class, not the patient's own; 19 % of Kermany's patients have such scans
TURNED_SHARE = 0.6  # of the scans are turned; as many, independently, are shifted
JPEG_QUALITY = 92
FILE = "{split}/{name}/{image}.jpeg"  # where a scan lies in its folder


class Scan(NamedTuple):
    """A scan to draw."""

    image: str
    patient: int
    number: int  # among the patient's scans, from 1
    name: str  # of the class that it shows


class Traits(NamedTuple):
    """The traits that a patient's scans share."""

    thickness: float  # of the retina
    pit: float  # depth of the fovea, of the thickness
    choroid: float  # depth at which its light has fallen to a third
    bend: float


class Section(NamedTuple):
    """Where the retina lies in a picture (h, w)."""

    across: np.ndarray  # (w,) places of the columns
    down: np.ndarray  # (h, 1) depths of the rows
    fovea: float  # its place
    top: np.ndarray  # (w,) depths of the inner surface
    edge: np.ndarray  # (w,) depths of the outer edge
    base: np.ndarray  # (w,) depths of the outer edge in health


def plan(n_patients: int, seed: int) -> list[list[Scan]]:
    """Return the scans of each patient; the classes take turns as the patients' own."""
    rng = np.random.default_rng(seed)
    gaps = rng.integers(1, PATIENT_GAP, n_patients)
    numbers = np.cumsum(np.r_[FIRST_PATIENT, gaps])[:n_patients].tolist()
    patients = []
    for position, patient in enumerate(numbers):
        rng = np.random.default_rng([seed, patient])
        own_class = CLASSES[position % len(CLASSES)]
        n_scans = int(rng.integers(1, MOST_SCANS + 1))
        is_odd = rng.random(n_scans) < ODD_SHARE
        scans = []
        for number in range(1, n_scans + 1):
            name = str(rng.choice(CLASSES)) if is_odd[number - 1] else own_class
            scans.append(
                Scan(image=f"{name}-{patient}-{number}", patient=patient, number=number, name=name)
            )
        patients.append(scans)
    return patients


def draw(
    scan: Scan, seed: int, width_px: int | None = None
) -> tuple[np.ndarray, Sequence[int], dict]:
    """Draw a scan, a function of the arguments alone.

    Returns it, (h, w) uint8, OpenCV's options to store it, and an empty row: its folder tells its class.
    """
    traits = sample_traits(np.random.default_rng([seed, scan.patient, TRAITS_STREAM]))
    rng = np.random.default_rng([seed, scan.patient, scan.number])
    width = WIDTH_PX if width_px is None else width_px
    height = round(width * ASPECT)
    across = np.linspace(0, 1, width)
    down = np.arange(height)[:, None] / height
    section = place_retina(rng, traits, across, down)
    membrane = np.zeros((height, width))
    fluid = np.zeros((height, width))
    if scan.name == "DRUSEN":
        section = add_drusen(rng, section)
    elif scan.name == "CNV":
        section, fluid, membrane = add_membrane(rng, section)
    elif scan.name == "DME":
        section, fluid = add_cysts(rng, section)
    light = light_layers(rng, section, traits.choroid)
    grain = np.clip(rng.normal(0.5, 0.2, light.shape), 0, 1)
    light = light * (1 - membrane) + membrane * grain
    light = light * (1 - fluid) + FLUID * fluid
    light = shade_vessels(rng, light, section)
    return develop(rng, light), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY), {}


def sample_traits(rng: Generator) -> Traits:
    """Return a random patient's Traits."""
    return Traits(
        thickness=rng.uniform(0.15, 0.22),
        pit=rng.uniform(0.25, 0.5),
        choroid=rng.uniform(0.06, 0.14),
        bend=rng.uniform(-0.16, 0.06),
    )


def place_retina(rng: Generator, traits: Traits, across: np.ndarray, down: np.ndarray) -> Section:
    """Return where a healthy retina lies."""
    fovea = rng.uniform(0.35, 0.65)
    middle = rng.uniform(0.42, 0.66)
    slope = rng.uniform(-0.16, 0.16)
    base = middle + slope * (across - 0.5) + traits.bend * 2 * (across - 0.5) ** 2
    base = base + wave(rng, across, 3) * 0.004
    pit = traits.pit * bump(across, fovea, rng.uniform(0.06, 0.1)) - 0.1 * bump(across, fovea, 0.25)
    thickness = (
        traits.thickness * rng.uniform(0.93, 1.07) * (1 - pit) + wave(rng, across, 4) * 0.003
    )
    return Section(
        across=across, down=down, fovea=fovea, top=base - thickness, edge=base, base=base
    )


def add_drusen(rng: Generator, section: Section) -> Section:
    """Lift the pigment epithelium over deposits; the inner surface hardly follows."""
    lifted = np.zeros_like(section.across)
    for _ in range(rng.integers(3, 9)):
        width, height = rng.uniform(0.012, 0.035, 2)
        place = rng.uniform(0.1, 0.9)
        lifted = np.maximum(lifted, height * bump(section.across, place, width))
    return section._replace(top=section.top - 0.15 * lifted, edge=section.edge - lifted)


def add_membrane(rng: Generator, section: Section) -> tuple[Section, np.ndarray, np.ndarray]:
    """Lift the epithelium by a membrane of new vessels, with fluid over it; return also fluid and membrane (h, w)."""
    place = section.fovea + rng.uniform(-0.15, 0.15)
    width = rng.uniform(0.08, 0.18)
    height = rng.uniform(0.03, 0.08)
    lifted = (
        height * bump(section.across, place, width) * (1 + 0.35 * wave(rng, section.across, 14))
    )
    fluid_height = rng.uniform(0.01, 0.05)
    fluid_place = place + rng.uniform(-0.1, 0.1)
    fluid_width = width * rng.uniform(0.8, 1.3)
    thickness = fluid_height * bump(section.across, fluid_place, fluid_width)
    edge = section.edge - np.maximum(lifted, 0)
    top = section.top - 0.7 * np.maximum(lifted, 0) - 0.8 * thickness
    floor = edge - 0.12 * (edge - top)  # of the fluid
    roof = floor - np.where(thickness > 0.006, thickness, 0)
    fluid = soften((section.down < floor) & (section.down > roof), EDGE_PARTS)
    patches = rng.uniform(0.2, 0.7) + 0.25 * blur_noise(rng, fluid.shape, 0.03)
    is_lifted = (section.down > edge) & (section.down < section.base)
    membrane = soften(is_lifted, EDGE_PARTS) * np.clip(patches, 0, 1)
    return section._replace(top=top, edge=edge), fluid, membrane


def add_cysts(rng: Generator, section: Section) -> tuple[Section, np.ndarray]:
    """Swell the retina around pockets of fluid in its middle layers; return also the pockets (h, w)."""
    place = section.fovea + rng.uniform(-0.12, 0.12)
    width = rng.uniform(0.08, 0.16)
    top = section.top - rng.uniform(0.01, 0.06) * bump(section.across, place, width)
    is_fluid = np.zeros((len(section.down), len(section.across)), bool)
    for _ in range(rng.integers(3, 11)):
        x = place + rng.normal(0, 0.6) * width
        depth = rng.uniform(0.35, 0.68)
        column = int(np.clip(x, 0, 0.999) * len(section.across))
        thickness = section.edge[column] - top[column]
        y = top[column] + depth * thickness
        semi_axis_y = rng.uniform(0.06, 0.17) * thickness
        semi_axis_x = rng.uniform(0.008, 0.026)
        is_fluid |= ((section.across - x) / semi_axis_x) ** 2 + (
            (section.down - y) / semi_axis_y
        ) ** 2 <= 1
    return section._replace(top=top), soften(is_fluid, EDGE_PARTS)


def light_layers(rng: Generator, section: Section, choroid_depth: float) -> np.ndarray:
    """Return how much light each place throws back, (h, w), 0-1: vitreous, layers, deposits, choroid."""
    depth = (section.down - section.top) / np.maximum(section.edge - section.top, 1e-3)
    light = np.interp(depth, DEPTHS, BRIGHTNESS, left=VITREOUS, right=0)
    below = section.down - section.base
    texture = np.clip(1 + 0.35 * blur_noise(rng, depth.shape, 0.02), 0.2, None)
    choroid = rng.uniform(0.3, 0.5) * np.exp(-np.maximum(below, 0) / choroid_depth) * texture
    deposits = rng.uniform(0.3, 0.45)
    outside = np.where(below < 0, deposits, choroid)
    return np.where(depth <= 1, light, outside)


def shade_vessels(rng: Generator, light: np.ndarray, section: Section) -> np.ndarray:
    """Darken the light (h, w) from behind the vessels of the inner layers."""
    shade = np.ones_like(section.across)
    for _ in range(rng.integers(1, 7)):
        depth = rng.uniform(0.2, 0.6)
        place = rng.uniform(0, 1)
        width = rng.uniform(0.003, 0.012)
        shade *= 1 - depth * bump(section.across, place, width)
    return np.where(section.down > section.top + 0.02, light * shade, light)


def develop(rng: Generator, light: np.ndarray) -> np.ndarray:
    """Return the picture a machine makes of the light, (h, w) uint8: speckle, noise, gain, perhaps turned on white."""
    looks = rng.uniform(3, 10)  # frames averaged: speckle is gamma-distributed (Goodman 1976)
    speckled = light * rng.gamma(looks, 1 / looks, light.shape)
    blurred = cv2.GaussianBlur(speckled, (0, 0), 0.4 + len(light) / 900)
    noise = rng.uniform(0.0, 0.06)
    noisy = blurred + noise * np.abs(rng.normal(size=light.shape))
    gain = rng.uniform(0.55, 1.1)
    gamma = rng.uniform(0.8, 1.25)
    grey = np.clip(255 * gain * noisy**gamma, 0, 255)
    height, width = grey.shape
    angle = rng.uniform(-7, 7)
    if rng.random() >= TURNED_SHARE:
        angle = 0
    shift = rng.uniform(-0.08, 0.08, 2)
    if rng.random() >= TURNED_SHARE:
        shift = np.zeros(2)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    matrix = matrix + np.c_[np.zeros((2, 2)), shift * (width, height)]
    return cv2.warpAffine(grey.astype(np.uint8), matrix, (width, height), borderValue=255)


def bump(across: np.ndarray, place: float, width: float) -> np.ndarray:
    """Return a bell of height 1 at a place."""
    return np.exp(-(((across - place) / width) ** 2) / 2)


def wave(rng: Generator, across: np.ndarray, n_bends: int) -> np.ndarray:
    """Return a smooth random line of about unit deviation with a number of bends."""
    knots = np.linspace(0, 1, n_bends + 2)
    return np.interp(across, knots, rng.normal(size=n_bends + 2))
