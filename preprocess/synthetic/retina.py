"""Draw the inside of an eye, as light reflected by the retina: no camera yet, no file.

All randomness comes from the generator that is passed, and the number of draws does not depend on the picture's size:
an eye keeps its face at any size.
"""

from typing import NamedTuple

import cv2
import numpy as np

from preprocess.synthetic import canvas
from preprocess.synthetic.canvas import blend, coarsen, diffuse, fill_spot, make_texture, measure_distance
from preprocess.synthetic.lesions import draw_lesions, place_lesions
from preprocess.synthetic.vessels import draw_vessels, grow_vessels

# Sizes of a 45 degree photograph, whose field is about 13 mm wide: the optic disc is 1.8 mm wide, the fovea lies 4.5 mm
# away from it and a little lower, the largest veins are 0.15 mm wide.
OPTIC_DISC_RADIUS = 0.14
FOVEA_OFFSET = (0.68, 0.08)

# Optical density of a full layer of blood in red, green and blue: green light is absorbed most.
BLOOD_DENSITY = (0.6, 1.6, 1.2)
EXUDATE_COLOR = (1.25, 1.15, 0.8)
COTTON_WOOL_COLOR = (1.15, 1.0, 0.8)
OPTIC_DISC_COLOR = (1.2, 1.0, 0.65)
LAYER_BLURS = (0.0025, 0.002, 0.01)  # of blood, bright and soft spots, in units of the field's radius


class Retina(NamedTuple):
    """What the two eyes of a patient share."""

    color: np.ndarray  # (3,) reflectance in red, green, blue, 0-1
    tessellation: float  # 0-1, how far the vessels of the choroid shine through
    tortuosity: float  # radians, how much vessels wind
    drusen: int  # typical number of them


class Anatomy(NamedTuple):
    """Where things are, in units of the field's radius."""

    optic_disc: np.ndarray  # (2,) place of its centre
    fovea: np.ndarray  # (2,)


def sample_retina(rng):
    """Return a random Retina: from light and tessellated to dark and plain."""
    red = rng.uniform(0.6, 0.85)
    color = red * np.array([1.0, rng.uniform(0.5, 0.72), rng.uniform(0.24, 0.5)])
    drusen = int(rng.integers(5, 40)) if rng.random() < 0.2 else 0
    return Retina(color, rng.uniform(0, 1) ** 2, rng.uniform(0.15, 0.45), drusen)


def draw_retina(rng, level, retina, frame):
    """Draw an eye of a level 0-4, without a border; return its reflectance and a table of its lesions.

    The reflectance is float32 (3, h, w), RGB, about 0-1; the lesions' kind, x, y, radius are in pixels of the frame.
    """
    optic_disc = np.array([-rng.uniform(0.4, 0.66), rng.uniform(-0.14, 0.1)])  # it and the macula are in the picture
    anatomy = Anatomy(optic_disc, optic_disc + FOVEA_OFFSET + rng.uniform(-0.05, 0.05, 2))
    vessels = grow_vessels(rng, anatomy, retina)
    lesions = place_lesions(rng, level, anatomy, vessels, frame)
    reflectance = draw_background(rng, anatomy, retina, frame)
    layers = draw_vessels(vessels, frame), canvas.new_ink(frame), canvas.new_ink(frame)
    drusen = anatomy.fovea + rng.normal(0, 0.22, (rng.poisson(retina.drusen), 2))
    for place, radius in zip(drusen, rng.uniform(0.006, 0.016, len(drusen)), strict=True):
        # Paler, softer and rounder than exudates, and no sign of diabetes.
        fill_spot(layers[-1], place, radius, int(rng.integers(90, 190)), frame)
    draw_lesions(rng, lesions, layers, anatomy, vessels, frame)
    blood, bright, soft = (diffuse(ink, sigma, frame) for ink, sigma in zip(layers, LAYER_BLURS, strict=True))
    blend(reflectance, soft, COTTON_WOOL_COLOR * np.sqrt(retina.color))
    for plane, density in zip(reflectance, BLOOD_DENSITY, strict=True):
        plane *= np.exp(np.float32(-density) * blood)
    blend(reflectance, bright, EXUDATE_COLOR * np.sqrt(retina.color))
    pixels = canvas.to_pixels(lesions[["x", "y"]].to_numpy(float), frame)
    return reflectance, lesions.assign(x=pixels[:, 0], y=pixels[:, 1], radius=lesions.radius * frame.radius)


def draw_background(rng, anatomy, retina, frame):
    """Draw what lies under vessels and lesions: pigment, choroid, macula and optic disc. (3, h, w) float32."""
    coarse = coarsen(frame, 2)
    shade = 0.05 * make_texture(rng, 6, coarse) + 0.03 * make_texture(rng, 24, coarse)
    shade += 0.02 * make_texture(rng, 110, coarse) + 0.015 * make_texture(rng, 260, coarse)
    streaks = np.exp(-2.5 * np.abs(make_texture(rng, 26, coarse) + 0.6 * make_texture(rng, 60, coarse)))
    away = measure_distance(anatomy.fovea, coarse)
    streaks *= retina.tessellation * np.clip(away, 0, 1)  # the macula hides the choroid
    macula = np.exp(-((away / rng.uniform(0.16, 0.26)) ** 2)) * rng.uniform(0.7, 1.3)
    macula += np.exp(-((away / 0.05) ** 2)) * rng.uniform(0.2, 0.7)
    planes = np.empty((3, frame.height, frame.width), np.float32)
    # Streaks of the choroid are redder than the rest; pigment of the macula takes more green and blue.
    for channel, (streak, depth) in enumerate(((0.12, 0.22), (-0.28, 0.34), (-0.35, 0.38))):
        plane = retina.color[channel] * (1 + shade + streak * streaks) * (1 - depth * macula)
        planes[channel] = cv2.resize(plane.astype(np.float32), (frame.width, frame.height))
    draw_optic_disc(rng, planes, anatomy, retina, frame)
    return planes


def draw_optic_disc(rng, planes, anatomy, retina, frame):
    """Paint the bright optic disc, its brighter cup and the glow around it over planes (3, h, w), in place."""
    radius = OPTIC_DISC_RADIUS * rng.uniform(0.85, 1.12)
    cup = rng.uniform(0.3, 0.65)
    away = measure_distance(anatomy.optic_disc, frame)
    edge = rng.uniform(0.008, 0.02)
    color = np.array(OPTIC_DISC_COLOR) * retina.color**0.3 * rng.uniform(0.85, 1.1)
    blend(planes, rng.uniform(0.05, 0.3) * np.exp(-((away / 0.33) ** 2)), color * 0.8)
    blend(planes, np.clip((radius - away) / edge + 0.5, 0, 1), color)
    blend(planes, np.clip((radius * cup - away) / (3 * edge) + 0.5, 0, 1), color * [1.05, 1.2, 1.4])
