"""Spoils a photograph whose disc is known, in all the ways that mislead a cropper; shared by tests and benchmark.

Each function of STRESSES takes rgb (h, w, 3) uint8, circle = (center_x, center_y, radius) in its pixels, and rng, and
returns the spoilt picture with the circle in the pixels of that picture.
"""

import cv2
import numpy as np

STRESSES = {}


def stress(function):
    """Put a function into STRESSES by its name."""
    STRESSES[function.__name__] = function
    return function


@stress
def add_noise(rgb, circle, rng):
    """Put uniform grey noise up to level 60 outside the disc, as the article's worst photographs have it."""
    return _lighten_outside(rgb, circle, rng.integers(0, 61, rgb.shape[:2])), circle


@stress
def add_noise_band(rgb, circle, rng):
    """Put grey noise up to level 120 over the top third, outside the disc."""
    noise = rng.integers(0, 121, rgb.shape[:2])
    noise[len(noise) // 3 :] = 0
    return _lighten_outside(rgb, circle, noise), circle


@stress
def add_haze(rgb, circle, rng):
    """Put a whitish glow around the disc that fades outwards."""
    fade = rng.uniform(0.1, 0.4)  # radii until a third is left
    glow = rng.uniform(40, 100) * np.exp(-(np.hypot(*_grid(rgb, circle)) - 1) / fade)
    return _lighten_outside(rgb, circle, np.clip(glow, 0, 100).astype(int)), circle


@stress
def add_jpeg_blocks(rgb, circle, rng):
    """Compress to JPEG quality 8: blocks of 8 pixels, and ringing around the rim."""
    coded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]), circle


@stress
def add_stamps(rgb, circle, rng):
    """Write a date in one corner and a name in another, over the disc where they meet it."""
    height, width = rgb.shape[:2]
    spoilt, scale, thick = rgb.copy(), width / 700, max(2, width // 300)
    color = (255, 255, int(rng.integers(0, 256)))
    for text, row in (("2009-11-24 10:32", rng.choice([0.08, 0.97])), ("R  PATIENT 00492", rng.choice([0.14, 0.91]))):
        corner = (int(width * rng.choice([0.01, 0.62])), int(height * row))
        cv2.putText(spoilt, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick)
    return spoilt, circle


@stress
def add_frame(rgb, circle, rng):
    """Draw a thin bright frame around the picture."""
    spoilt, thick = rgb.copy(), int(rng.integers(2, 7))
    cv2.rectangle(spoilt, (0, 0), (rgb.shape[1] - 1, rgb.shape[0] - 1), (230, 230, 230), 2 * thick)
    return spoilt, circle


# Cut the picture so that so many sides each take away 8 to 20 % of the disc's diameter, but not all: of the others one
# is where the rim shows, if there is any.
for _number, _name in ((1, "one_side"), (2, "two_sides"), (3, "three_sides")):
    STRESSES[f"cut_{_name}"] = lambda rgb, circle, rng, n_sides=_number: _cut(rgb, circle, rng, n_sides)


@stress
def blacken_bottom(rgb, circle, rng):
    """Cut the disc off flat, a tenth to a fifth of the diameter above its bottom, in the middle of the picture."""
    spoilt = rgb.copy()
    spoilt[int(circle[1] + circle[2] * (1 - 2 * rng.uniform(0.1, 0.2))) :] = 0
    return spoilt, circle


@stress
def fill_picture(rgb, circle, rng):
    """Cut the picture down to a rectangle inscribed in the disc: no background shows, the corners touch the rim."""
    angle = np.arctan2(*rgb.shape[:2])
    half = circle[2] * 0.98 * np.array([np.cos(angle), np.sin(angle)])
    left, top = np.maximum(np.ceil(np.subtract(circle[:2], half)), 0).astype(int)
    right, bottom = np.floor(np.add(circle[:2], half)).astype(int)
    return _crop(rgb, circle, left, top, right, bottom)


@stress
def shade(rgb, circle, rng):
    """Leave light on a tenth of the disc only; the rest gets 5 to 10 % of it."""
    angle, darkness = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.1)
    x, y = _grid(rgb, circle)
    along = x * np.cos(angle) + y * np.sin(angle)  # -1 to 1 over the disc
    lit = 1 / (1 + np.exp(-(along - 0.69) / 0.03))  # the cap beyond 0.69 is a tenth of the disc's area
    return (rgb * (darkness + (1 - darkness) * lit)[..., None]).astype(np.uint8), circle


@stress
def darken(rgb, circle, rng):
    """Take 85 % of the light away."""
    return (rgb * 0.15).astype(np.uint8), circle


@stress
def overexpose(rgb, circle, rng):
    """Give three times the light, and clip."""
    return np.minimum(rgb.astype(int) * 3, 255).astype(np.uint8), circle


def measure_overlap(disc, circle):
    """Return intersection over union of an ellipse and the circle (center_x, center_y, radius), whole, not as shown.

    Both are cut into 4000 rows, and what the two chords of each row share is exact.
    """
    ellipses = ((disc.center_x, disc.center_y, disc.semi_axis_x, disc.semi_axis_y), (*circle, circle[2]))
    top, bottom = min(y - b for _, y, _, b in ellipses), max(y + b for _, y, _, b in ellipses)
    rows = top + (bottom - top) * (np.arange(4000) + 0.5) / 4000
    half = [a * np.sqrt(np.maximum(0, 1 - ((rows - y) / b) ** 2)) for _, y, a, b in ellipses]
    (x1, *_), (x2, *_) = ellipses
    shared = np.minimum(x1 + half[0], x2 + half[1]) - np.maximum(x1 - half[0], x2 - half[1])
    shared = np.maximum(shared, 0).sum()
    return shared / (2 * sum(half).sum() - shared)


def _grid(rgb, circle):
    """Return x, y of every pixel from the disc's center, in radii."""
    y, x = np.indices(rgb.shape[:2], dtype=np.float32)
    return (x - circle[0]) / circle[2], (y - circle[1]) / circle[2]


def _lighten_outside(rgb, circle, light):
    """Add grey `light` (h, w) to all that lies outside the disc."""
    light = np.where(np.hypot(*_grid(rgb, circle)) > 1, light, 0)
    return np.minimum(rgb + light[..., None], 255).astype(np.uint8)


def _cut(rgb, circle, rng, n_sides):
    edges, outwards = [0, 0, rgb.shape[1], rgb.shape[0]], (-1, -1, 1, 1)  # left, top, right, bottom
    # How much background lies between the disc and each side; negative where that side cuts it off already.
    background_px = [out * (edges[side] - circle[side % 2]) - circle[2] for side, out in enumerate(outwards)]
    kept = max(range(4), key=lambda side: background_px[side] + rng.random())
    for side in [side for side in rng.permutation(4) if side != kept][:n_sides]:
        cut = circle[side % 2] + outwards[side] * circle[2] * (1 - 2 * rng.uniform(0.08, 0.2))
        edges[side] = int(min(edges[side], cut) if side >= 2 else max(edges[side], cut))
    return _crop(rgb, circle, *edges)


def _crop(rgb, circle, left, top, right, bottom):
    spoilt = np.ascontiguousarray(rgb[top:bottom, left:right])
    return spoilt, (circle[0] - left, circle[1] - top, circle[2])
