"""Photograph a drawn retina as the cameras of the screening programme do: framing, light, dirt, noise; no file."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from preprocess.synthetic.canvas import Frame, coarsen, make_texture, measure_distance, to_pixels

LIGHT_STEP = 8  # light varies slowly: it is computed for one pixel in 8 x 8
TILT = 0.25  # of the light across the frame, in natural logarithms
NOISE_TILE_PX = 512  # sensor noise repeats after this many pixels, which no eye sees

# Shares of the photographs:
DARK_SHARE = 0.1  # a third to a half of the light
WASHED_OUT_SHARE = 0.12  # a thick veil of stray light
GLOW_SHARE = 0.45  # a glow along one side of the rim
FLARE_SHARE = 0.15  # a reflection of the lens
SNOW_SHARE = 0.12  # intense grey noise, which shows outside the eye
FLAT_BOTTOM_SHARE = 0.6  # a flat bottom, if the mask of the camera can be set so


class Camera(NamedTuple):
    """A model of camera. Shares are of the photograph's width unless noted."""

    width: int
    height: int
    radius: float  # share
    center_y: float  # share of the height
    notch: float | None  # degrees from the right, upwards, at which the orientation notch sits
    notch_is_round: bool
    edge: float  # width of the field's blurred edge, in radii
    flat_bottom: float | None  # share of the height below which the mask cuts the field off
    color: tuple[float, float, float]  # gain of red, green, blue
    jpeg_quality: int


# Sizes and radii as measured on photographs of the competition; colours are guesses that spread as the real ones do.
# fmt: off
CAMERAS = (  # width, height, radius, center_y, notch, notch_is_round, edge, flat_bottom, color, jpeg_quality
    Camera(4752, 3168, 0.321, 0.515, 44, True, 0.006, None, (1.0, 1.0, 1.0), 90),
    Camera(3888, 2592, 0.413, 0.5, None, False, 0.025, None, (0.92, 1.08, 1.3), 88),
    Camera(2560, 1920, 0.456, 0.499, -42, True, 0.006, None, (1.05, 0.95, 0.7), 92),
    Camera(3456, 2304, 0.427, 0.518, None, False, 0.03, 0.92, (1.0, 1.05, 1.25), 90),
    Camera(2592, 1944, 0.403, 0.5, 43, False, 0.006, None, (1.05, 1.0, 0.85), 85),
    Camera(1792, 1184, 0.3, 0.505, 44, False, 0.006, None, (1.2, 0.95, 0.5), 80),
    Camera(2196, 1957, 0.504, 0.499, -44, False, 0.01, None, (0.92, 1.08, 0.95), 90),
    Camera(4288, 2848, 0.328, 0.502, 45, False, 0.006, None, (1.3, 0.9, 0.55), 92),
    Camera(3504, 2336, 0.418, 0.503, None, False, 0.03, 0.94, (0.95, 1.05, 1.2), 90),
    Camera(1024, 768, 0.39, 0.5, None, False, 0.02, None, (1.0, 1.0, 0.9), 75),
)
# fmt: on


def scale_camera(camera: Camera, width_px: int) -> Camera:
    """Return the same camera with photographs of another width."""
    return camera._replace(width=width_px, height=round(camera.height * width_px / camera.width))


def frame_photograph(rng: Generator, camera: Camera, mirrored: bool) -> Frame:
    """Return the Frame of one photograph: the field sits where the camera has it, give or take a little."""
    radius = camera.radius * camera.width * (1 + rng.normal(0, 0.004))
    center_x = camera.width * (0.5 + rng.normal(0, 0.004))
    center_y = camera.height * (camera.center_y + rng.normal(0, 0.004))
    bottom: float = camera.height
    if camera.flat_bottom is not None and rng.random() < FLAT_BOTTOM_SHARE:
        bottom *= camera.flat_bottom + rng.uniform(-0.01, 0.01)
    return Frame(
        width=camera.width,
        height=camera.height,
        center_x=center_x,
        center_y=center_y,
        radius=radius,
        bottom=bottom,
        mirrored=mirrored,
    )


def expose(rng: Generator, reflectance: np.ndarray, camera: Camera, frame: Frame) -> np.ndarray:
    """Return the photograph of a reflectance (3, h, w), without noise: float32 (h, w, 3) of 0-255.

    The reflectance changes.
    """
    light, veil = shine(rng, camera, frame)
    reflectance *= light
    reflectance += veil
    add_dirt(rng, reflectance, frame)
    image = cv2.merge([reflectance[0], reflectance[1], reflectance[2]])
    blur = rng.uniform(0, 1) ** 3 * 0.006 * frame.radius
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image *= cover_field(rng, camera, frame)[..., None]
    return np.clip(image, 0, 1, out=image) * np.float32(255)


def shine(rng: Generator, camera: Camera, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the light that falls on the retina and the veil of stray light before it, each (3, h, w) float32."""
    coarse = coarsen(frame, LIGHT_STEP)
    away = measure_distance((0, 0), coarse)
    light = spread_light(rng, away, coarse)
    exposure = np.exp(rng.normal(0, 0.3))
    if rng.random() < DARK_SHARE:
        exposure *= rng.uniform(0.3, 0.55)
    gain = np.array(camera.color) * np.exp(rng.normal(0, 0.08, 3)) * exposure * 0.75
    haze = rng.uniform(0, 0.16)
    if rng.random() < WASHED_OUT_SHARE:
        haze += rng.uniform(0.1, 0.3)
    haze_color = np.array([1, rng.uniform(0.8, 1.0), rng.uniform(0.6, 1.1)]) * haze
    glow = spread_glow(rng, away, coarse)
    glow_color = np.array([rng.uniform(0.5, 1), 1, rng.uniform(0.5, 1.1)])
    size = (frame.width, frame.height)
    lights = []
    veils = []
    for channel in range(3):
        coarse_light = light * (gain[channel] * (1 - haze))
        coarse_veil = haze_color[channel] + glow_color[channel] * glow
        lights.append(cv2.resize(coarse_light.astype(np.float32), size))
        veils.append(cv2.resize(coarse_veil.astype(np.float32), size))
    return np.stack(lights), np.stack(veils)


def spread_light(rng: Generator, away: np.ndarray, coarse: Frame) -> np.ndarray:
    """Return how much light falls on each place (h, w) of a coarse frame, given the distance from its field's centre.

    It falls off towards the rim, is tilted, and has shadows of lashes, of the lens, of a pupil that is too narrow.
    """
    falloff = rng.uniform(0, 0.4)
    slope = rng.normal(0, TILT, 2)
    across = np.linspace(-1, 1, coarse.width, dtype=np.float32)
    down = np.linspace(-1, 1, coarse.height, dtype=np.float32)[:, None]
    tilt = slope[0] * across + slope[1] * down + 0.5 * TILT * make_texture(rng, 5, coarse)
    light = np.exp(-falloff * away**2 + tilt)
    for _ in range(rng.poisson(0.5)):
        distance = measure_distance(rng.uniform(-0.7, 0.7, 2), coarse)
        depth = rng.uniform(0.2, 0.75)
        width = rng.uniform(0.2, 0.5)
        light *= 1 - depth * np.exp(-((distance / width) ** 2))
    return light


def spread_glow(rng: Generator, away: np.ndarray, coarse: Frame) -> np.ndarray:
    """Return the glow (h, w) along one side of the rim, given the distance from the field's centre."""
    has_glow = rng.random() < GLOW_SHARE
    strength = rng.uniform(0.3, 1.2) if has_glow else rng.uniform(0, 0.1)
    angle = rng.uniform(0, 2 * np.pi)
    source = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.0, 0.5)
    beyond = measure_distance(-source, coarse) - np.linalg.norm(source)
    rise = np.clip((beyond - 0.6) / rng.uniform(0.4, 0.6), 0, 1)
    return strength * rise**2 * np.minimum(away, 1)


def add_dirt(rng: Generator, planes: np.ndarray, frame: Frame) -> None:
    """Add reflections, dust on the lens and a flare to planes (3, h, w), in place. None is a sign of disease."""
    white = np.ones(3)
    for _ in range(rng.poisson(1.2)):
        place = rng.uniform(-0.8, 0.8, 2)
        radius = rng.uniform(0.02, 0.05)
        add_spot(planes, place, radius, color=rng.uniform(0.05, 0.2) * white, frame=frame)
    for _ in range(rng.poisson(1.0)):
        place = rng.uniform(-0.8, 0.8, 2)
        radius = rng.uniform(0.006, 0.03)
        add_spot(planes, place, radius, color=-rng.uniform(0.04, 0.15) * white, frame=frame)
    if rng.random() < FLARE_SHARE:
        color = rng.uniform(0.2, 0.5) * np.array([0.75, 0.75, 1.0])
        place = rng.uniform(-0.3, 0.3, 2)
        radius = rng.uniform(0.06, 0.12)
        add_spot(planes, place, radius, color=color, frame=frame)


def add_spot(
    planes: np.ndarray, place: ArrayLike, radius: float, color: np.ndarray, frame: Frame
) -> None:
    """Add light of a colour (3,) in a soft-edged spot, in place; a negative colour removes light."""
    x, y = to_pixels(place, frame)
    away = np.hypot(np.arange(frame.width) - x, np.arange(frame.height)[:, None] - y)
    spot = np.clip(2.5 - 2 * away / (radius * frame.radius), 0, 1)
    for plane, value in zip(planes, color, strict=True):
        plane += (spot * value).astype(np.float32)


def cover_field(rng: Generator, camera: Camera, frame: Frame) -> np.ndarray:
    """Return the share of light that passes the mask, (h, w) float32 of 0-1: the field, and its notch, which is up."""
    away = measure_distance((0, 0), frame)
    edge = max(camera.edge * rng.uniform(0.7, 1.3), 0.7 / frame.radius)
    cover = np.clip((1 - away) / edge + 0.5, 0, 1)
    if camera.notch is not None:
        angle = np.radians(camera.notch + rng.uniform(-3, 3))
        size = rng.uniform(0.03, 0.045)
        x = frame.center_x + np.cos(angle) * frame.radius
        y = frame.center_y - np.sin(angle) * frame.radius
        dx = (np.arange(frame.width) - x) / frame.radius
        dy = (np.arange(frame.height)[:, None] - y) / frame.radius
        along = dx * np.cos(angle) - dy * np.sin(angle)
        across = dx * np.sin(angle) + dy * np.cos(angle)
        distance = np.maximum(np.abs(along), np.abs(across))
        if camera.notch_is_round:
            distance = np.hypot(along, across)
        notch = np.clip((size - distance) * frame.radius + 0.5, 0, 1)
        np.maximum(cover, notch, out=cover)
    if frame.bottom < frame.height:
        rows = np.arange(frame.height, dtype=np.float32)
        fade = (frame.bottom - rows) / np.float32(0.012 * frame.height)
        cover *= np.clip(fade, 0, 1)[:, None]
    return cover.astype(np.float32)


def develop(rng: Generator, image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the photograph, uint8 (height, width, 3), of an image of 0-255, enlarged and with noise.

    The image changes.
    """
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    floor = rng.uniform(0, 3)
    noise = rng.uniform(0.3, 1.8)
    if rng.random() < SNOW_SHARE:
        floor = min(
            rng.uniform(12, 40), 0.5 * float(image.mean())
        )  # or a dark eye would drown in it
        noise = rng.uniform(0.25, 0.45) * floor
    tile = noise * rng.standard_normal(
        (NOISE_TILE_PX, NOISE_TILE_PX), dtype=np.float32
    ) + np.float32(0.5)
    np.maximum(image, np.float32(floor), out=image)
    for top in range(0, height, NOISE_TILE_PX):
        for left in range(0, width, NOISE_TILE_PX):
            part = image[top : top + NOISE_TILE_PX, left : left + NOISE_TILE_PX]
            part += tile[: part.shape[0], : part.shape[1], None]
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
