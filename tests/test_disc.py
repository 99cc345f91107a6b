"""The eye's disc is found on clean and spoilt photographs, with a confidence that means what it says, or none is."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.disk.errors import Unusable
from preprocess.picture.disc import Disc, find_box_disc, find_disc
from preprocess.picture.photograph import decode
from preprocess.synthetic import eyes
from tests.stress import STRESSES, measure_overlap

SIZE = (400, 600)  # height, width


def draw_disc(circle, size=SIZE, color=(180, 110, 60), blur_px=1.0):
    """Draw a plain lit disc with a soft rim on black: (h, w, 3) uint8."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    inside = circle[2] - np.hypot(x - circle[0], y - circle[1])
    return (np.clip(inside / blur_px + 0.5, 0, 1)[..., None] * color).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn_eyes():
    """Pairs of a drawn photograph, 768 px wide, and its true circle, of four cameras."""
    drawn = [
        eyes.draw_eye(3, patient, side, 2, 768)
        for patient, side in ((1, "left"), (2, "right"), (4, "left"))
    ]
    return [(eye.photograph, tuple(eye.disc)) for eye in drawn]


@given(st.floats(-99, 9999), st.floats(1, 999), st.floats(0.05, 20))
def test_scaling_keeps_edges_not_pixel_centres_and_scaling_back_gives_the_same_disc(
    center, semi_axis, factor
):
    # Two pixels with centres 0 and 1 reach from -0.5 to 1.5; enlarged threefold that is -0.5 to 5.5, centre 2.5.
    assert Disc(0.5, 0.5, 1, 2, 0.9).scaled(3) == Disc(2.5, 2.5, 3, 6, 0.9)
    disc = Disc(center, -center, semi_axis, semi_axis / 2, 0.5)
    back = disc.scaled(factor).scaled(1 / factor)
    assert dataclasses.astuple(back) == pytest.approx(dataclasses.astuple(disc), abs=1e-6)


def test_overlap_agrees_with_hand_computed_values():
    assert measure_overlap(Disc(5, 5, 4, 4, 1), (5, 5, 4)) == pytest.approx(1, abs=1e-6)
    assert measure_overlap(Disc(5, 5, 2, 4, 1), (5, 5, 4)) == pytest.approx(1 / 2, abs=1e-4)
    assert measure_overlap(Disc(50, 5, 4, 4, 1), (5, 5, 4)) == 0
    lens = 2 * np.pi / 3 - np.sqrt(3) / 2  # of two unit circles, each through the other's centre
    assert measure_overlap(Disc(1, 0, 1, 1, 1), (0, 0, 1)) == pytest.approx(
        lens / (2 * np.pi - lens), abs=1e-4
    )


@pytest.mark.parametrize(
    "circle",
    [
        (299.5, 199.5, 180),
        (250.3, 210.7, 150),
        (300, 200, 240),
        (290, 205, 300),
        (420, 200, 230),
        (120, 300, 200),
    ]
    + [(300, 200, 290)],
)
def test_plain_disc_is_found_within_two_percent_though_cut_off(circle):
    disc = find_disc(draw_disc(circle))
    assert disc.semi_axis_x == disc.semi_axis_y == pytest.approx(circle[2], rel=0.02)
    assert np.hypot(disc.center_x - circle[0], disc.center_y - circle[1]) < 0.015 * circle[2]
    assert measure_overlap(disc, circle) > 0.96
    assert disc.confidence > 0.97  # a rim outside the picture does not lower it


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_other_resolutions_give_the_same_disc(factor):
    height, width = SIZE
    circle = (311.4, 190.2, 170.5)
    larger = Disc(*circle, circle[2], 1).scaled(factor)
    rgb = draw_disc(
        dataclasses.astuple(larger)[:3], (factor * height, factor * width), blur_px=factor
    )
    found = find_disc(rgb).scaled(1 / factor)
    plain = find_disc(draw_disc(circle))
    assert (found.center_x, found.center_y) == pytest.approx(
        (plain.center_x, plain.center_y), abs=0.3
    )
    assert found.semi_axis_x == pytest.approx(plain.semi_axis_x, rel=0.006)


def test_notch_and_flat_bottom_do_not_count():
    rgb = draw_disc((300, 190, 170))
    plain = find_disc(rgb)
    cv2.rectangle(rgb, (410, 50), (440, 80), (180, 110, 60), -1)
    rgb[320:] = 0
    found = find_disc(rgb)
    assert dataclasses.astuple(found)[:4] == pytest.approx(dataclasses.astuple(plain)[:4], abs=0.5)


def test_nearly_black_eye_and_one_darker_than_the_noise_around_it_are_found():
    for level in (5, 12, 30):
        circle = (300, 195, 190)
        assert (
            measure_overlap(
                find_disc(draw_disc(circle, color=(level, level - 1, level - 3))), circle
            )
            > 0.95
        )
    circle = (300, 195, 170)
    rgb = draw_disc(circle, color=(34, 22, 10))
    noise = np.random.default_rng(8).integers(0, 61, SIZE)
    y, x = np.indices(SIZE)
    outside = np.hypot(x - 300, y - 195) > 170
    rgb[outside] = noise[outside, None]
    assert measure_overlap(find_disc(rgb), circle) > 0.95


@pytest.mark.parametrize("stress", [None, *STRESSES])
def test_drawn_photographs_are_found_under_stress_too(drawn_eyes, stress):
    for number, (rgb, circle) in enumerate(drawn_eyes):
        if stress:
            rgb, circle = STRESSES[stress](rgb, circle, np.random.default_rng(number))
        found = find_disc(rgb)
        assert measure_overlap(found, circle) > (0.94 if stress else 0.95)
        assert found == find_disc(rgb.copy())


def test_confidence_is_the_share_of_the_rim_with_an_edge_on_it():
    y, x = np.indices(SIZE)
    for hidden in (0.1, 0.25, 0.4):
        rgb = draw_disc((300, 200, 160))
        rgb[np.arctan2(y - 200, x - 300) / (2 * np.pi) % 1 < hidden] = (
            180,
            110,
            60,
        )  # as bright outside as inside
        assert find_disc(rgb).confidence == pytest.approx(1 - hidden, abs=0.06)


def test_eye_that_fills_the_picture_gets_the_circle_around_it_and_no_confidence(drawn_eyes):
    rgb, circle = drawn_eyes[0]
    spoilt, _ = STRESSES["fill_picture"](rgb, circle, np.random.default_rng(0))
    height, width = spoilt.shape[:2]
    radius = np.hypot(width, height) / 2
    assert find_disc(spoilt) == Disc((width - 1) / 2, (height - 1) / 2, radius, radius, 0)


def draw_text():
    page = np.full((*SIZE, 3), 255, np.uint8)
    for row in range(30, 400, 30):
        cv2.putText(page, "Lorem ipsum dolor sit amet, consetetur", (20, row), 0, 0.8, (0, 0, 0), 2)
    return page


def draw_landscape():
    y = np.linspace(0, 1, SIZE[0])[:, None, None] * np.ones((1, SIZE[1], 1))
    land = np.where(
        y < 0.5,
        np.array([120, 170, 230]) * (1.2 - 0.8 * y),
        np.array([70, 120, 40]) * (1.4 - 0.8 * y),
    )
    return np.clip(land + np.random.default_rng(2).normal(0, 3, land.shape), 0, 255)


def draw_noise(levels, channels):
    return np.random.default_rng(levels).integers(0, levels, (*SIZE, channels), dtype=np.uint8)


FLAT = {"black": 0, "white": 255, "orange": (200, 100, 50)}
EYELESS = FLAT | {
    "half an eye": draw_disc((300, 200, 160)) * (np.arange(SIZE[0]) < 180)[:, None, None],
    "faint grey noise": draw_noise(4, 1),
    "grey noise": draw_noise(256, 1),
    "coloured noise": draw_noise(256, 3),
    "gradient": np.linspace(0, 255, 600)[:, None],
    "landscape": draw_landscape(),
    "text": draw_text(),
    "white on black": 255 - draw_text(),
    "yellowed text": draw_text() * np.array([0.95, 0.88, 0.75]),
    "rectangle": cv2.rectangle(
        np.zeros((*SIZE, 3), np.uint8), (150, 60), (480, 350), (180, 110, 60), -1
    ),
}


@pytest.mark.parametrize("name", EYELESS)
def test_picture_without_an_eye_is_refused(name):
    with pytest.raises(
        Unusable, match="one flat colour" if name in FLAT else "no round outline|one flat colour"
    ):
        find_disc(np.ascontiguousarray(np.broadcast_to(EYELESS[name], (*SIZE, 3))).astype(np.uint8))


def test_box_is_that_of_the_pixels_above_the_threshold():
    rgb = np.zeros((10, 12, 3), np.uint8)
    rgb[2:8, 3:5, 1] = 11
    rgb[0, 0] = 10
    assert find_box_disc(rgb, 10) == Disc(3.5, 4.5, 1, 3, 1)
    with pytest.raises(Unusable, match="nothing brighter than 11"):
        find_box_disc(rgb, 11)


@pytest.fixture(scope="module")
def real_sample(real_data):
    """Every 16th real photograph, decoded, with its true circle in pixels of the decode."""
    folder = real_data / "eyepacs-1024"
    sample = []
    for row in pd.read_csv(folder / "discs.csv")[::16].to_dict("records"):
        rgb, reduction = decode(folder / "train" / f"{row['image']}.jpeg", 512)
        sample.append(
            (rgb, tuple(row[name] / reduction for name in ("center_x", "center_y", "radius")))
        )
    return sample


@pytest.mark.parametrize("stress", [None, *STRESSES])
def test_real_discs_are_found_under_stress_too(real_sample, stress):
    overlaps = []
    for number, (rgb, circle) in enumerate(real_sample[::4] if stress else real_sample):
        if stress:
            rgb, circle = STRESSES[stress](rgb, circle, np.random.default_rng(number))
        overlaps.append(measure_overlap(find_disc(rgb), circle))
    if stress:
        assert np.mean(np.array(overlaps) > 0.95) > 0.9
    else:
        assert np.median(overlaps) > 0.985
        assert min(overlaps) > 0.93


def test_broken_photographs_are_refused_and_the_darkest_eye_is_not(real_data):
    folder = real_data / "eyepacs-1024" / "train"
    for image in ("492_left", "492_right"):
        with pytest.raises(Unusable):
            find_disc(decode(folder / f"{image}.jpeg", 512)[0])
    assert find_disc(decode(folder / "766_left.jpeg", 512)[0]).confidence > 0.6
