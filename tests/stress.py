"""Spoils a photograph whose disc is known, in all the ways that mislead a cropper; shared by tests and benchmark.

Each function of STRESSES takes rgb (h, w, 3) uint8, circle = (center_x, center_y, radius) in its pixels, and rng, and
returns the spoilt picture with the circle in the pixels of that picture.
"""

import cv2
import numpy as np


def add_haze(rgb, circle, rng):
    """Put a whitish glow around the disc that fades outwards."""
    fade = rng.uniform(0.1, 0.4)  # radii until a third is left
    glow = rng.uniform(40, 100) * np.exp(-(np.hypot(*_grid(rgb, circle)) - 1) / fade)
    return _lighten_outside(rgb, circle, np.clip(glow, 0, 100).astype(int)), circle


def add_jpeg_blocks(rgb, circle, rng):
    """Compress to JPEG quality 8: blocks of 8 pixels, and ringing around the rim."""
    coded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]), circle


def add_stamps(rgb, circle, rng):
    """Write a date in one corner and a name in another, over the disc where they meet it."""
    height, width = rgb.shape[:2]
    spoilt, color = rgb.copy(), (255, 255, int(rng.integers(0, 256)))
    for text, row in (
        ("2009-11-24 10:32", rng.choice([0.08, 0.97])),
        ("R  PATIENT 00492", rng.choice([0.14, 0.91])),
    ):
        corner = (int(width * rng.choice([0.01, 0.62])), int(height * row))
        cv2.putText(
            spoilt, text, corner, cv2.FONT_HERSHEY_SIMPLEX, width / 700, color, max(2, width // 300)
        )
    return spoilt, circle


def fill_picture(rgb, circle, rng):
    """Cut the picture down to a rectangle inscribed in the disc: no background shows, the corners touch the rim."""
    angle = np.arctan2(*rgb.shape[:2])
    half = circle[2] * 0.98 * np.array([np.cos(angle), np.sin(angle)])
    left, top = np.maximum(np.ceil(np.subtract(circle[:2], half)), 0).astype(int)
    return _crop(rgb, circle, left, top, *np.floor(np.add(circle[:2], half)).astype(int))


def shade(rgb, circle, rng):
    """Leave light on a tenth of the disc only; the rest gets 5 to 10 % of it."""
    angle, darkness = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.1)
    x, y = _grid(rgb, circle)
    along = x * np.cos(angle) + y * np.sin(angle)  # -1 to 1 over the disc
    lit = 1 / (
        1 + np.exp(-(along - 0.69) / 0.03)
    )  # the cap beyond 0.69 is a tenth of the disc's area
    return (rgb * (darkness + (1 - darkness) * lit)[..., None]).astype(np.uint8), circle


def cut(rgb, circle, rng, n_sides):
    """Let so many sides each take away 8 to 20 % of the disc's diameter; of the others one is where the rim shows."""
    edges, outwards = [0, 0, rgb.shape[1], rgb.shape[0]], (-1, -1, 1, 1)  # left, top, right, bottom
    # How much background lies between the disc and each side; negative where that side cuts it off already.
    background_px = [
        out * (edges[side] - circle[side % 2]) - circle[2] for side, out in enumerate(outwards)
    ]
    kept = max(range(4), key=lambda side: background_px[side] + rng.random())
    for side in [side for side in rng.permutation(4) if side != kept][:n_sides]:
        edge = circle[side % 2] + outwards[side] * circle[2] * (1 - 2 * rng.uniform(0.08, 0.2))
        edges[side] = int((min if side >= 2 else max)(edges[side], edge))
    return _crop(rgb, circle, *edges)


def _grid(rgb, circle):
    """Return x, y of every pixel from the disc's center, in radii."""
    y, x = np.indices(rgb.shape[:2], dtype=np.float32)
    return (x - circle[0]) / circle[2], (y - circle[1]) / circle[2]


def _lighten_outside(rgb, circle, light):
    """Add grey `light` (h, w) to all that lies outside the disc."""
    light = np.where(np.hypot(*_grid(rgb, circle)) > 1, light, 0)
    return np.minimum(rgb + light[..., None], 255).astype(np.uint8)


def _crop(rgb, circle, left, top, right, bottom):
    return np.ascontiguousarray(rgb[top:bottom, left:right]), (
        circle[0] - left,
        circle[1] - top,
        circle[2],
    )


_DRAWN = (add_haze, add_jpeg_blocks, add_stamps, fill_picture, shade)
STRESSES = {function.__name__: function for function in _DRAWN} | {
    # Grey noise up to level 60 outside the disc, as the article's worst photographs have it.
    "add_noise": lambda rgb, at, rng: (
        _lighten_outside(rgb, at, rng.integers(0, 61, rgb.shape[:2])),
        at,
    ),
    "cut_one_side": lambda *given: cut(*given, 1),
    "cut_two_sides": lambda *given: cut(*given, 2),
    "cut_three_sides": lambda *given: cut(*given, 3),
    "darken": lambda rgb, circle, rng: ((rgb * 0.15).astype(np.uint8), circle),
    "overexpose": lambda rgb, circle, rng: (
        np.minimum(rgb.astype(int) * 3, 255).astype(np.uint8),
        circle,
    ),
}


def measure_overlap(disc, circle):
    """Return intersection over union of an ellipse and the circle, whole, not as shown, by the chords of 4000 rows."""
    ellipses = (
        (disc.center_x, disc.center_y, disc.semi_axis_x, disc.semi_axis_y),
        (*circle, circle[2]),
    )
    top, bottom = min(y - b for _, y, _, b in ellipses), max(y + b for _, y, _, b in ellipses)
    rows = top + (bottom - top) * (np.arange(4000) + 0.5) / 4000
    half = [a * np.sqrt(np.maximum(0, 1 - ((rows - y) / b) ** 2)) for _, y, a, b in ellipses]
    (x1, *_), (x2, *_) = ellipses
    chords = np.minimum(x1 + half[0], x2 + half[1]) - np.maximum(x1 - half[0], x2 - half[1])
    shared = np.maximum(chords, 0).sum()
    return shared / (2 * sum(half).sum() - shared)
