"""Draw the inside of an eye, as light reflected by the retina: no camera yet, no file.

All randomness comes from the generator that is passed, and the number of draws does not depend on the picture's size:
an eye looks the same at any size.
"""

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.random import Generator

from preprocess.synthetic import canvas
from preprocess.synthetic.canvas import (
    Frame,
    blend,
    coarsen,
    diffuse,
    fill_spot,
    make_texture,
    measure_distance,
)
from preprocess.synthetic.lesions import Inks, draw_lesions, place_lesions
from preprocess.synthetic.vessels import Anatomy, draw_vessels, grow_vessels

# Sizes of a 45 degree photograph, whose field is about 13 mm wide: the optic disc is 1.8 mm wide, the fovea lies 4.5 mm
# away from it and a little lower, the largest veins are 0.15 mm wide.
OPTIC_DISC_RADIUS = 0.14
FOVEA_OFFSET = (0.68, 0.08)

# Optical density of a full layer of blood in red, green and blue: green light is absorbed most.
BLOOD_DENSITY = (0.6, 1.6, 1.2)
EXUDATE_COLOR = (1.25, 1.15, 0.8)
COTTON_WOOL_COLOR = (1.15, 1.0, 0.8)
OPTIC_DISC_COLOR = (1.2, 1.0, 0.65)
# Blurs of the ink layers, in units of the field's radius.
BLOOD_BLUR = 0.0025
BRIGHT_BLUR = 0.002
SOFT_BLUR = 0.01
# Per channel: how bright streaks of the choroid are, which are redder than the rest, and how dark the macula is, whose
# pigment takes more green and blue.
CHANNELS = ((0.12, 0.22), (-0.28, 0.34), (-0.35, 0.38))


class Retina(NamedTuple):
    """The traits that the two eyes of a patient share."""

    color: np.ndarray  # (3,) reflectance in red, green, blue, 0-1
    tessellation: float  # 0-1, how far the vessels of the choroid shine through
    tortuosity: float  # radians, how much vessels wind
    drusen: int  # typical number of them


def sample_retina(rng: Generator) -> Retina:
    """Return a random Retina: from light and tessellated to dark and plain."""
    red = rng.uniform(0.6, 0.85)
    color = red * np.array([1.0, rng.uniform(0.5, 0.72), rng.uniform(0.24, 0.5)])
    drusen = 0
    if rng.random() < 0.2:
        drusen = int(rng.integers(5, 40))
    return Retina(
        color=color,
        tessellation=rng.uniform(0, 1) ** 2,
        tortuosity=rng.uniform(0.15, 0.45),
        drusen=drusen,
    )


def draw_retina(
    rng: Generator, level: int, retina: Retina, frame: Frame
) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw an eye of a level 0-4, without a border; return its reflectance and a table of its lesions.

    The reflectance is float32 (3, h, w), RGB, about 0-1; the lesions' kind, x, y, radius are in pixels of the frame.
    """
    anatomy = place_anatomy(rng)
    vessels = grow_vessels(rng, anatomy, retina.tortuosity)
    lesions = place_lesions(rng, level, anatomy, vessels=vessels, frame=frame)
    reflectance = draw_background(rng, anatomy, retina, frame)
    inks = Inks(
        blood=draw_vessels(vessels, frame), bright=canvas.new_ink(frame), soft=canvas.new_ink(frame)
    )
    draw_drusen(rng, inks.soft, anatomy, n_typical=retina.drusen, frame=frame)
    draw_lesions(rng, lesions, inks, anatomy=anatomy, vessels=vessels, frame=frame)
    blend(
        reflectance, diffuse(inks.soft, SOFT_BLUR, frame), COTTON_WOOL_COLOR * np.sqrt(retina.color)
    )
    blood = diffuse(inks.blood, BLOOD_BLUR, frame)
    for plane, density in zip(reflectance, BLOOD_DENSITY, strict=True):
        plane *= np.exp(np.float32(-density) * blood)
    blend(
        reflectance, diffuse(inks.bright, BRIGHT_BLUR, frame), EXUDATE_COLOR * np.sqrt(retina.color)
    )
    pixels = canvas.to_pixels(lesions[["x", "y"]].to_numpy(float), frame)
    return reflectance, lesions.assign(
        x=pixels[:, 0], y=pixels[:, 1], radius=lesions.radius * frame.radius
    )


def place_anatomy(rng: Generator) -> Anatomy:
    """Return random places of optic disc and fovea, both in the picture."""
    optic_disc = np.array([-rng.uniform(0.4, 0.66), rng.uniform(-0.14, 0.1)])
    fovea = optic_disc + FOVEA_OFFSET + rng.uniform(-0.05, 0.05, 2)
    return Anatomy(optic_disc=optic_disc, fovea=fovea)


def draw_drusen(
    rng: Generator, soft: np.ndarray, anatomy: Anatomy, n_typical: int, frame: Frame
) -> None:
    """Draw drusen around the fovea: paler, softer and rounder than exudates, and no sign of diabetes."""
    n = rng.poisson(n_typical)
    places = anatomy.fovea + rng.normal(0, 0.22, (n, 2))
    radii = rng.uniform(0.006, 0.016, n)
    for place, radius in zip(places, radii, strict=True):
        fill_spot(soft, place, radius, value=int(rng.integers(90, 190)), frame=frame)


def draw_background(rng: Generator, anatomy: Anatomy, retina: Retina, frame: Frame) -> np.ndarray:
    """Draw pigment, choroid, macula and optic disc, which lie under vessels and lesions: (3, h, w) float32."""
    coarse = coarsen(frame, 2)
    shade = 0.05 * make_texture(rng, 6, coarse) + 0.03 * make_texture(rng, 24, coarse)
    shade += 0.02 * make_texture(rng, 110, coarse) + 0.015 * make_texture(rng, 260, coarse)
    streaks = np.exp(
        -2.5 * np.abs(make_texture(rng, 26, coarse) + 0.6 * make_texture(rng, 60, coarse))
    )
    away = measure_distance(anatomy.fovea, coarse)
    streaks *= retina.tessellation * np.clip(away, 0, 1)  # the macula hides the choroid
    macula = np.exp(-((away / rng.uniform(0.16, 0.26)) ** 2)) * rng.uniform(0.7, 1.3)
    macula += np.exp(-((away / 0.05) ** 2)) * rng.uniform(0.2, 0.7)
    planes = np.empty((3, frame.height, frame.width), np.float32)
    for channel, (streak, depth) in enumerate(CHANNELS):
        plane = retina.color[channel] * (1 + shade + streak * streaks) * (1 - depth * macula)
        planes[channel] = cv2.resize(plane.astype(np.float32), (frame.width, frame.height))
    draw_optic_disc(rng, planes, anatomy, retina, frame)
    return planes


def draw_optic_disc(
    rng: Generator, planes: np.ndarray, anatomy: Anatomy, retina: Retina, frame: Frame
) -> None:
    """Paint the bright optic disc, its brighter cup and the glow around it over planes (3, h, w), in place."""
    radius = OPTIC_DISC_RADIUS * rng.uniform(0.85, 1.12)
    cup = rng.uniform(0.3, 0.65)
    away = measure_distance(anatomy.optic_disc, frame)
    edge = rng.uniform(0.008, 0.02)
    color = np.array(OPTIC_DISC_COLOR) * retina.color**0.3 * rng.uniform(0.85, 1.1)
    glow_cover = rng.uniform(0.05, 0.3) * np.exp(-((away / 0.33) ** 2))
    disc_cover = np.clip((radius - away) / edge + 0.5, 0, 1)
    cup_cover = np.clip((radius * cup - away) / (3 * edge) + 0.5, 0, 1)
    blend(planes, glow_cover, color * 0.8)
    blend(planes, disc_cover, color)
    blend(planes, cup_cover, color * [1.05, 1.2, 1.4])
