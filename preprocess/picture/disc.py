"""Find the eye, the illuminated disc of a fundus photograph, in an array; read and write no files.

The adaptive threshold of the article: threshold the picture at many levels, judge each outline by how round it is, and
keep the best. Only points inside the picture are judged, and robustly, so that neither cut-off sides nor the notch, a
flat cut, dirt and stamps count. The best circle is then fitted to the strongest edges along rays across it. An edge is
a step of colour in either direction, since noise or haze around a dark eye may be brighter than the eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.disk.errors import Unusable

THUMBNAIL_PX = 384  # longest side on which outlines are judged: a rim is still sharp there, grey noise already flat
DARKNESS = 6  # grey levels added before taking logarithms: less, and noise on black counts; more, and shaded rims fade
FLAT = 0.02  # of log brightness, standard deviation; the darkest real eye has 0.2
LEVELS = 12  # thresholds tried, evenly spaced in log brightness
LONGEST_OUTLINES = 3  # judged per threshold: a frame around the picture or the haze around a dark eye may be longer
OUTLINE_POINTS = 60  # per outline
# Triples of outline points that each propose a circle: a point and two others, these numbers of points further along.
TRIPLE_STEPS = ((20, 40), (10, 30), (7, 14), (15, 25))
RADIUS_RANGE = (
    0.2,
    1.2,
)  # of the picture's longer side; the competition's lie in 0.29-0.51, cut-off ones beyond
ROUND_TOLERANCE = 0.02  # an outline point this close to a proposed circle, in radii, counts for it
MIN_SUPPORT = (
    0.2  # of an outline's points; a cut-off disc in a frame of noise still has that many on its rim
)
RAYS = 120
EDGE_SAMPLES = 3  # averaged on each side of an edge
MAX_FINE_ROUNDS = (
    6  # two do, but on a short arc, which fits many circles nearly as well, more are needed
)
SETTLED = 0.002  # of the radius: a round that moves the circle less than that is the last
CANDIDATES = 4
CORNER = np.array(
    [0.5, 0.5, 0]
)  # circles are scaled about the upper left corner, which is at (-0.5, -0.5)
RIM_STEP = (
    0.2  # of log brightness: a rim's step is several times that, a step in noise or tissue seldom
)
RIM_TOLERANCE = 0.01  # an edge this close to the fitted rim, in radii, is the rim
TRIM_TOLERANCES = (
    0.1,
    0.03,
    0.015,
    0.01,
)  # of successive fits: first all edges in reach count, in the end the rim's
MIN_RAYS = (
    RAYS // 12
)  # fewer visible rays than 30 degrees of rim prove nothing, however well they agree
# The light falls fastest at the fitted rim and has faded out, to a twentieth, this far out, in radii. Discs that were
# checked by eye reach as far. Median of 402 real photographs (even patients); the other 416 agree within 0.001.
FADE = 1.006
# Unspoilt photographs reach 0.74 and more, broken ones with half an eye 0.47, pictures without an eye seldom 0.4.
MIN_CONFIDENCE = 0.5


class Search(NamedTuple):
    """How edges are searched along the rays across a circle."""

    reach: float  # to both sides of the circle, in its radii
    n_samples: int  # along a ray
    n_threads: int  # side by side in a ray, which is their mean


# On the thumbnail, there again, and at twice its size, where grey noise is coarser. The last reaches so far that by
# chance only 1 ray in 4 ends within RIM_TOLERANCE.
COARSE = Search(reach=0.12, n_samples=33, n_threads=1)
MIDDLE = Search(reach=0.05, n_samples=33, n_threads=1)
FINE = Search(reach=0.04, n_samples=53, n_threads=3)


@dataclass(frozen=True)
class Disc:
    """The outline of an eye: an axis-parallel ellipse in pixels of a picture, which may reach beyond the picture.

    The upper left pixel's centre is (0, 0): the picture reaches from -0.5 to width - 0.5.
    """

    center_x: float
    center_y: float
    semi_axis_x: float
    semi_axis_y: float
    # The share, 0-1, of the rim inside the picture where the strongest edge across the rim lies within 1 % of the
    # radius; a faint edge counts in part. It is 0 where no rim is visible.
    confidence: float

    def scaled(self, factor: float) -> Disc:
        """Return the same disc in the picture enlarged by a factor; its edges, not its pixel centres, stay aligned."""
        return Disc(
            center_x=(self.center_x + 0.5) * factor - 0.5,
            center_y=(self.center_y + 0.5) * factor - 0.5,
            semi_axis_x=self.semi_axis_x * factor,
            semi_axis_y=self.semi_axis_y * factor,
            confidence=self.confidence,
        )


def find_disc(rgb: np.ndarray) -> Disc:
    """Find the eye's disc in a photograph, (h, w, 3) uint8, best 500 to 1500 pixels wide.

    The disc is a circle, as all real ones are within their blur. If the eye fills the picture, so that no rim shows, it
    is the circle around the picture, with confidence 0. Raises Unusable if the picture shows no eye.
    """
    pictures = _halve_to_thumbnail(rgb)
    thumbnail = pictures[-1].astype(np.float32)
    light = np.log(thumbnail + DARKNESS)
    _, deviations = cv2.meanStdDev(light)
    if deviations.max() < FLAT:
        raise Unusable("one flat colour, or all black")
    circles = _propose_circles(thumbnail)
    if len(circles):
        circle, confidence = _fit_best_rim(pictures, light, circles)
        if confidence >= MIN_CONFIDENCE:
            center_x, center_y, radius = (circle * [1, 1, FADE]).tolist()
            return Disc(center_x, center_y, radius, radius, float(confidence))
    if not _is_filled_by_eye(thumbnail, light):
        raise Unusable("no round outline")
    height, width = rgb.shape[:2]
    radius = float(np.hypot(width, height) / 2)
    return Disc((width - 1) / 2, (height - 1) / 2, radius, radius, confidence=0.0)


def find_box_disc(rgb: np.ndarray, threshold: int = 10) -> Disc:
    """Return the ellipse in the bounding box of all pixels whose brightest channel exceeds `threshold` (0-255).

    The article's first attempt, kept as the baseline. Its confidence is always 1. Raises Unusable if there are no such
    pixels.
    """
    is_bright = _find_brightest(rgb) > threshold
    columns = np.flatnonzero(is_bright.any(axis=0))
    rows = np.flatnonzero(is_bright.any(axis=1))
    if len(columns) == 0:
        raise Unusable(f"nothing brighter than {threshold}")
    left = float(columns[0])
    right = float(columns[-1])
    top = float(rows[0])
    bottom = float(rows[-1])
    return Disc(
        center_x=(left + right) / 2,
        center_y=(top + bottom) / 2,
        semi_axis_x=(right - left + 1) / 2,
        semi_axis_y=(bottom - top + 1) / 2,
        confidence=1.0,
    )


def _halve_to_thumbnail(rgb: np.ndarray) -> list[np.ndarray]:
    """Return a picture, its half, and so on to the thumbnail.

    A pixel of the n-th, counted from 0, covers exactly 2**n x 2**n pixels of the first.
    """
    pictures = [rgb]
    while max(pictures[-1].shape) > THUMBNAIL_PX and min(pictures[-1].shape[:2]) > 1:
        height = pictures[-1].shape[0] // 2
        width = pictures[-1].shape[1] // 2
        even = pictures[-1][: 2 * height, : 2 * width]  # without an odd last row or column
        pictures.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return pictures


def _find_brightest(rgb: np.ndarray) -> np.ndarray:
    """Return the brightest channel of each pixel, (h, w): fundi are red, the hazes around them often blue."""
    red_or_green = cv2.max(rgb[..., 0], rgb[..., 1])
    return cv2.max(red_or_green, rgb[..., 2])


def _is_filled_by_eye(thumbnail: np.ndarray, light: np.ndarray) -> bool:
    """Return whether the whole picture could be retina: rather warm, lit nearly up to the border, and of soft texture.

    This holds for 776 of 778 real photographs cut down to the inside of the disc. Noise and text are too rough;
    gradients are too smooth, or vary along one axis only. Texture is measured in log brightness, over 3 and 15 pixels.
    """
    brightness = _find_brightest(thumbnail)
    border = np.concatenate([brightness[0], brightness[-1], brightness[:, 0], brightness[:, -1]])
    is_lit = np.mean(border < 0.25 * np.median(brightness)) < 0.3
    red, green, blue = np.median(thumbnail.reshape(-1, 3), axis=0)
    red_over_blue = cv2.blur(thumbnail[..., 0] - thumbnail[..., 2], (9, 9))
    warm_share = np.mean(red_over_blue > 0)
    is_warm = warm_share > 0.4 and red > 0.9 * blue and red > 0.8 * green
    grey = light.mean(axis=2)
    smooth = cv2.blur(grey, (3, 3))
    soft = cv2.blur(grey, (15, 15))
    coarse = np.std(smooth - soft)
    fine = np.std(grey - smooth)
    is_tissue = 0.002 < coarse < 0.12 and 0.25 < fine / coarse < 2
    is_striped = min(soft.mean(axis=0).std(), soft.mean(axis=1).std()) < 0.0025
    return bool(is_lit and is_warm and is_tissue and not is_striped)


def _propose_circles(thumbnail: np.ndarray) -> np.ndarray:
    """Propose the roundest circle for each of the longest outlines at each threshold: (k, 3) x, y, radius."""
    smooth = cv2.blur(_find_brightest(thumbnail), (3, 3))
    height, width = smooth.shape
    ranked = np.sort(smooth[::4, ::4], axis=None)
    low, high = np.log(ranked[[len(ranked) // 100, len(ranked) * 9 // 10]] + DARKNESS)
    levels = np.exp(np.linspace(low, high, LEVELS + 2)[1:-1]) - DARKNESS
    outlines = []
    for level in levels:
        is_bright = (smooth > level).view(np.uint8)
        contours, _ = cv2.findContours(is_bright, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        longest = sorted(contours, key=len)[-LONGEST_OUTLINES:]
        for contour in longest:
            x, y = contour[:, 0].T
            is_off_border = (x > 2) & (y > 2) & (x < width - 3) & (y < height - 3)
            points = contour[is_off_border, 0]
            if len(points) >= OUTLINE_POINTS:
                chosen = np.arange(OUTLINE_POINTS) * len(points) // OUTLINE_POINTS
                outlines.append(points[chosen])
    if not outlines:
        return np.empty((0, 3))
    return _find_roundest(np.array(outlines, dtype=np.float32), smooth.shape)


def _find_roundest(outlines: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return for each outline (k, n, 2) the circle (3,) through three of its points on which most others lie.

    An outline whose best circle has no more than MIN_SUPPORT of its points has none. The outlines are those of a
    picture of `shape` (h, w).
    """
    start = np.arange(0, OUTLINE_POINTS, 2)
    triples = [np.stack([start, start + second, start + third]) for second, third in TRIPLE_STEPS]
    corners = outlines[:, np.concatenate(triples, axis=1) % OUTLINE_POINTS]  # (k, 3, t, 2)
    origin = corners[:, 0]
    b = corners[:, 1] - origin
    c = corners[:, 2] - origin
    # The centre of the circle through 0, b and c.
    twice_area = 2 * (b[..., 0] * c[..., 1] - b[..., 1] * c[..., 0])
    twice_area = np.where(
        np.abs(twice_area) < 1, np.float32(1e-3), twice_area
    )  # on a line: an enormous circle
    b2 = (b**2).sum(axis=-1)
    c2 = (c**2).sum(axis=-1)
    offset_x = (c[..., 1] * b2 - b[..., 1] * c2) / twice_area
    offset_y = (b[..., 0] * c2 - c[..., 0] * b2) / twice_area
    radius = np.sqrt(offset_x * offset_x + offset_y * offset_y)  # (k, t)
    x = origin[..., 0] + offset_x
    y = origin[..., 1] + offset_y
    dx = outlines[:, None, ::2, 0] - x[..., None]
    dy = outlines[:, None, ::2, 1] - y[..., None]
    deviation = np.abs(np.sqrt(dx * dx + dy * dy) - radius[..., None])
    is_near = deviation < ROUND_TOLERANCE * radius[..., None]
    support = np.where(_is_possible(x, y, radius, shape), is_near.mean(axis=2), 0)
    best = support.argmax(axis=1)
    rows = np.flatnonzero(support.max(axis=1) > MIN_SUPPORT)
    return np.stack([x, y, radius], axis=2)[rows, best[rows]]


def _is_possible(
    center_x: np.ndarray, center_y: np.ndarray, radius: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Return which circles' radii are in RADIUS_RANGE and their centres in the picture of `shape` (h, w, ...)."""
    low, high = RADIUS_RANGE
    is_inside = (center_x > 0) & (center_x < shape[1]) & (center_y > 0) & (center_y < shape[0])
    return is_inside & (radius > low * max(shape)) & (radius < high * max(shape))


def _fit_best_rim(
    pictures: list[np.ndarray], light: np.ndarray, circles: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the circle (3,) that has most of its rim on edges, and that share.

    The circle is in pixels of the first of `pictures`. `light` is the logarithm of the last and smallest of them,
    `circles` (k, 3) the proposals in its pixels, of which the CANDIDATES with the most contrast across their rim are
    fitted.
    """
    profile = _sample_rays(light, circles, np.array([0.92, 0.95, 1.04, 1.07], np.float32))
    inner = profile[..., :2, :].sum(axis=2)
    outer = profile[..., 2:, :].sum(axis=2)
    step = np.abs(inner - outer).sum(axis=2) / 6
    contrast = np.minimum(step, 1).mean(axis=1)
    circles = circles[np.argsort(-contrast, kind="stable")[:CANDIDATES]]
    circles, _ = _fit_rims(light, circles, COARSE)
    circles, share = _fit_rims(light, circles, MIDDLE)
    circle = circles[share.argmax()]
    halvings = len(pictures) - 1
    if halvings > 0:
        circle = (circle + CORNER) * 2 - CORNER
        halvings -= 1
    for _ in range(MAX_FINE_ROUNDS):
        before = circle
        (circle,), (confidence,) = _fit_rims(pictures[halvings], before[None], FINE)
        if np.abs(circle - before).max() < SETTLED * before[2]:
            break
    return (circle + CORNER) * 2**halvings - CORNER, confidence


def _find_directions(n_threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors x, y, each (RAYS * n_threads,) float32, of the threads of all rays."""
    turns = (np.arange(RAYS * n_threads, dtype=np.float32) - (n_threads - 1) / 2) / (
        RAYS * n_threads
    )
    return np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)


def _sample_rays(
    light: np.ndarray, circles: np.ndarray, radii: np.ndarray, n_threads: int = 1
) -> np.ndarray:
    """Sample a picture, bilinearly, along rays of `circles` (k, 3) at `radii` (n,) in units of each circle's own.

    Returns (k, RAYS, n, 3) float32; a ray is the mean of its threads.
    """
    x, y = _find_directions(n_threads)
    center_x, center_y, radius = circles.astype(np.float32).T[..., None, None]  # each (k, 1, 1)
    columns = center_x + radius * (x[:, None] * radii)
    rows = center_y + radius * (y[:, None] * radii)
    values = cv2.remap(
        light,
        columns.reshape(-1, len(radii)),
        rows.reshape(-1, len(radii)),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,  # so that the picture's border is no edge
    )
    means = values.reshape(-1, n_threads, 3 * len(radii)).mean(axis=1, dtype=np.float32)
    return means.reshape(len(circles), RAYS, len(radii), 3)


def _fit_rims(
    light: np.ndarray, circles: np.ndarray, search: Search
) -> tuple[np.ndarray, np.ndarray]:
    """Fit circles to the strongest edges that are found along rays across each of `circles` (k, 3).

    `light` is a picture (h, w, 3), uint8 or already as the logarithm. Returns circles (k, 3), and the share (k,) of
    the rays visible in the picture whose edge, by its weight, lies within RIM_TOLERANCE of them.
    """
    radii = np.linspace(1 - search.reach, 1 + search.reach, search.n_samples, dtype=np.float32)
    profile = _sample_rays(light, circles, radii, search.n_threads)
    if light.dtype == np.uint8:
        profile = np.log(profile + np.float32(DARKNESS))
    # The colour step just before each sample: the root mean square over the channels of the difference of two means.
    kernel = np.repeat(np.array([1, -1], np.float32) / EDGE_SAMPLES, EDGE_SAMPLES)[None]
    flat = profile.reshape(-1, *profile.shape[2:])
    step = cv2.filter2D(flat, -1, kernel, anchor=(EDGE_SAMPLES, 0), borderType=cv2.BORDER_REPLICATE)
    contrast = np.sqrt(np.einsum("rsc,rsc->rs", step, step) / 3).reshape(profile.shape[:3])
    strongest = contrast.argmax(axis=2)
    distance = circles[:, 2, None] * (radii[strongest] - (radii[1] - radii[0]) / 2)
    directions = np.stack(_find_directions(), axis=1)
    edges = circles[:, None, :2] + distance[..., None] * directions  # (k, RAYS, 2)
    strength = np.minimum(contrast.max(axis=2) / RIM_STEP, 1) ** 2
    weight = np.where(_is_visible(edges, light.shape), strength, 0)
    fitted = _fit_circles(edges, weight, circles)
    deviation = np.abs(np.linalg.norm(edges - fitted[:, None, :2], axis=2) / fitted[:, 2, None] - 1)
    on_rim = np.where(deviation < RIM_TOLERANCE, weight, 0).sum(axis=1)
    rim = fitted[:, None, :2] + fitted[:, 2, None, None] * directions
    n_visible = _is_visible(rim, light.shape).sum(axis=1)
    share = np.minimum(on_rim / np.maximum(n_visible, MIN_RAYS), 1)
    is_possible = _is_possible(fitted[:, 0], fitted[:, 1], fitted[:, 2], light.shape)
    return fitted, np.where(is_possible, share, 0)


def _is_visible(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which points (k, n, 2) lie inside a picture of `shape` (h, w, ...), and not on its border."""
    x = points[..., 0]
    y = points[..., 1]
    return (x >= 1) & (y >= 1) & (x <= shape[1] - 2) & (y <= shape[0] - 2)


def _fit_circles(points: np.ndarray, weight: np.ndarray, circles: np.ndarray) -> np.ndarray:
    """Fit circles (k, 3) to points (k, n, 2) by weighted geometric least squares, from `circles` (k, 3).

    Gauss-Newton, with ever less weight for points off the circle: Cauchy's weights squared, so that points beyond the
    tolerance (in radii) count for next to nothing. The usual linear fit would make short arcs too round.
    """
    center = circles[:, None, :2].astype(float)  # (k, 1, 2)
    radius = circles[:, 2:].astype(float)  # (k, 1)
    for tolerance in TRIM_TOLERANCES:
        away = points - center
        distance = np.linalg.norm(away, axis=2) + 1e-9
        excess = distance - radius
        trimmed = weight / (1 + (excess / (tolerance * radius)) ** 2) ** 2
        design = np.concatenate(
            [away / distance[..., None], np.ones_like(excess)[..., None]], axis=2
        )
        weighted = (design * trimmed[..., None]).transpose(0, 2, 1)
        change = np.linalg.solve(
            weighted @ design + 1e-6 * np.eye(3), weighted @ excess[..., None]
        )[..., 0]
        center = center + change[:, None, :2]
        radius = np.maximum(radius + change[:, 2:], 1e-6)
    return np.concatenate([center[:, 0], radius], axis=1)
