"""Pairing eyes: by patient id, in any order of rows, and with one, two or three images of a patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blend.pairs import pair_eyes

IMAGES = ["1_left", "1_right", "2_right", "10_left", "10_left_b", "10_right", "11_left", "11_left_b"]
SCORES = np.random.default_rng(0).dirichlet(np.ones(5), len(IMAGES))
ROW = {image: row for row, image in enumerate(IMAGES)}


def fellow_of(image, images=IMAGES, scores=SCORES):
    return pair_eyes(images, scores).fellow[list(images).index(image)]


def test_own_scores_stay_in_place():
    assert (pair_eyes(IMAGES, SCORES).own == SCORES).all()


@pytest.mark.parametrize(
    ("image", "fellows"),
    [
        ("1_left", ["1_right"]),
        ("1_right", ["1_left"]),
        ("2_right", ["2_right"]),  # one eye only
        ("10_right", ["10_left", "10_left_b"]),  # two pictures of the other eye
        ("10_left", ["10_right"]),
        ("10_left_b", ["10_right"]),
        ("11_left", ["11_left"]),  # a second picture of the same eye is no fellow
        ("11_left_b", ["11_left_b"]),
    ],
)
def test_the_fellow_is_the_mean_of_the_other_side(image, fellows):
    expected = np.mean([SCORES[ROW[fellow]] for fellow in fellows], axis=0)
    assert fellow_of(image) == pytest.approx(expected)


@given(st.permutations(range(len(IMAGES))))
def test_the_order_of_rows_does_not_matter(order):
    images, scores = [IMAGES[row] for row in order], SCORES[order]
    for image in IMAGES:
        assert fellow_of(image, images, scores) == pytest.approx(fellow_of(image))


def test_a_removed_eye_mispairs_no_other():
    kept = [row for row, image in enumerate(IMAGES) if image != "1_left"]
    images, scores = [IMAGES[row] for row in kept], SCORES[kept]
    assert (fellow_of("1_right", images, scores) == SCORES[ROW["1_right"]]).all()
    for image in IMAGES[2:]:
        assert fellow_of(image, images, scores) == pytest.approx(fellow_of(image))


def test_selected_rows_keep_both_eyes_together():
    pairs = pair_eyes(IMAGES, SCORES).select(np.array([5, 1]))
    assert (pairs.own == SCORES[[5, 1]]).all()
    assert pairs.fellow[1] == pytest.approx(SCORES[0])
