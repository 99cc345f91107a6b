"""Pairing eyes: by patient, in any order of rows, and with one, two or three images of a patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blend.pairs import pair_eyes
from preprocess.samples.layout import Owner
from preprocess.samples.retina import find_owner

IMAGES = ["1_left", "1_right", "2_right", "10_left", "10_left_b", "10_right", "11_left", "11_left_b"]
SCORES = np.random.default_rng(0).dirichlet(np.ones(5), len(IMAGES))


def pair_rows(rows):
    return pair_eyes([find_owner(IMAGES[row]) for row in rows], SCORES[rows])


PAIRS = pair_rows(range(len(IMAGES)))


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
    expected = np.mean([SCORES[IMAGES.index(fellow)] for fellow in fellows], axis=0)
    assert PAIRS.fellow[IMAGES.index(image)] == pytest.approx(expected)


@given(st.permutations(range(len(IMAGES))))
def test_the_order_of_rows_does_not_matter_nor_an_eye_that_is_removed(order):
    assert (pair_rows(order).fellow == PAIRS.fellow[order]).all()
    kept = [row for row in order if IMAGES[row] != "1_left"]
    expected = PAIRS.fellow.copy()
    expected[1] = SCORES[1]  # 1_right has no fellow any more
    assert (pair_rows(kept).fellow == expected[kept]).all()


def test_selected_rows_keep_both_eyes_together():
    assert (PAIRS.own == SCORES).all()
    pairs = PAIRS.select(np.array([5, 1]))
    assert (pairs.own == SCORES[[5, 1]]).all()
    assert pairs.fellow[1] == pytest.approx(SCORES[0])


def test_images_without_a_side_are_their_own_fellows():
    assert (pair_eyes([Owner("1"), Owner("1")], SCORES[:2]).fellow == SCORES[:2]).all()
