"""Lookup tables that flatten the distribution of a channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from preprocess import normalize

HISTOGRAMS = arrays.arrays(np.int64, (1, 3, 256), elements=st.integers(0, 5000)).filter(
    lambda counts: (counts.sum(axis=-1) > 0).all()
)


def table_of(**counts):
    histogram = np.zeros((1, 3, 256), np.int64)
    for value, count in counts.items():
        histogram[..., int(value[1:])] = count
    return normalize.flatten_distribution(histogram)[0, 0]


def test_hand_computed_mid_ranks():
    table = table_of(v10=1, v20=2, v200=1)
    assert table[[5, 10, 15, 20, 200, 255]].tolist() == [0, 32, 64, 128, 223, 255]


def test_a_channel_of_one_value_goes_to_the_middle():
    assert table_of(v77=9)[77] == 128


def test_black_stays_black():
    assert table_of(v0=90, v9=10)[[0, 9]].tolist() == [0, 242]


def test_an_empty_histogram_raises():
    with pytest.raises(ValueError, match="empty"):
        normalize.flatten_distribution(np.zeros((1, 3, 256), np.int64))


@given(HISTOGRAMS)
def test_tables_ascend_and_agree_with_ranks_of_the_pixels(histograms):
    luts = normalize.flatten_distribution(histograms)
    assert (np.diff(luts.astype(int), axis=-1) >= 0).all()
    counts = histograms[0, 1]
    value = int(np.argmax(counts))
    below, at = counts[:value].sum(), counts[value]
    if value > 0:
        assert luts[0, 1, value] == pytest.approx(255 * (below + at / 2) / counts.sum(), abs=0.5001)


def test_an_even_distribution_stays_as_it_is():
    lut = normalize.flatten_distribution(np.full((1, 3, 256), 7))[0, 0].astype(int)
    assert np.abs(lut - np.arange(256)).max() <= 1
