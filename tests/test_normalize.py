"""Lookup tables that flatten the distribution of a channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from preprocess.picture.square import make_luts

HISTOGRAMS = arrays.arrays(np.int64, (1, 3, 256), elements=st.integers(0, 5000)).filter(
    lambda counts: (counts.sum(axis=-1) > 0).all()
)
EVEN = np.arange(256)


@pytest.mark.parametrize(
    ("counts", "expected", "tolerance"),
    [
        ({10: 1, 20: 2, 200: 1}, {5: 0, 10: 32, 15: 64, 20: 128, 200: 223, 255: 255}, 0),  # mid-ranks by hand
        ({77: 9}, {77: 128}, 0),  # one value goes to the middle
        ({0: 90, 9: 10}, {0: 0, 9: 242}, 0),  # black stays black
        (dict.fromkeys(EVEN, 7), dict(zip(EVEN, EVEN, strict=True)), 1),  # an even distribution stays as it is
    ],
)
def test_hand_computed_tables(counts, expected, tolerance):
    histogram = np.zeros((1, 3, 256), np.int64)
    histogram[..., list(counts)] = list(counts.values())
    lut = make_luts(histogram, "cdf")[0, 0].astype(int)
    assert np.abs(lut[list(expected)] - list(expected.values())).max() <= tolerance


def test_an_empty_histogram_raises():
    with pytest.raises(ValueError, match="empty"):
        make_luts(np.zeros((1, 3, 256), np.int64), "cdf")


@given(HISTOGRAMS)
def test_tables_ascend_and_agree_with_ranks_of_the_pixels(histograms):
    luts = make_luts(histograms, "cdf")
    assert (np.diff(luts.astype(int), axis=-1) >= 0).all()
    counts = histograms[0, 1]
    value = int(np.argmax(counts))
    below, at = counts[:value].sum(), counts[value]
    if value > 0:
        assert luts[0, 1, value] == pytest.approx(255 * (below + at / 2) / counts.sum(), abs=0.5001)
