"""Moments of the normalized training set, pooled over whichever patients are trained on."""

import numpy as np
import pytest

from preprocess import normalize, stage, standardize
from preprocess.__main__ import main as preprocess


def test_moments_agree_with_the_pixels():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 3, 1000))
    histograms = np.stack([[np.bincount(channel, minlength=256) for channel in image] for image in pixels])
    luts = rng.integers(0, 256, (4, 3, 256)).astype(np.uint8)
    normalized = np.stack([[luts[i, c][pixels[i, c]] for c in range(3)] for i in range(4)]).astype(np.float64)
    mean, std = standardize.pool_moments(standardize.measure_moments(histograms, luts)[1:])
    assert mean == pytest.approx(normalized[1:].mean(axis=(0, 2)))
    assert std == pytest.approx(normalized[1:].std(axis=(0, 2)))


def test_zero_variance_raises():
    histograms = np.zeros((1, 3, 256), np.int64)
    histograms[..., 9] = 100
    moments = standardize.measure_moments(histograms, normalize.flatten_distribution(histograms))
    with pytest.raises(ValueError, match="variance"):
        standardize.pool_moments(moments)


def test_channels_of_some_patients_do_not_see_the_others(drawn_folder, cache):
    preprocess([f"--data={drawn_folder}", f"--cache={cache}", "--jobs=1", "--size-px=64"])
    images, _ = normalize.read_tables(cache, "train")
    everyone = standardize.read_channels(cache, images)
    some = standardize.read_channels(cache, images[:2])
    assert everyone[0] == pytest.approx(127, abs=2)
    assert not np.array_equal(some[0], everyone[0])
    with pytest.raises(stage.InputError, match="1 images of the training set are not in"):
        standardize.read_channels(cache, [*images, "9999_left"])
