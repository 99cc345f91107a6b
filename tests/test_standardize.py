"""Moments of the normalized training set, pooled over whichever patients are trained on."""

import cv2
import numpy as np
import pytest

from preprocess import images, normalize, standardize
from preprocess.__main__ import main as preprocess
from preprocess.cache.errors import InputError
from preprocess.picture import square


def test_moments_agree_with_the_pixels():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 3, 1000))
    histograms = np.stack([[np.bincount(channel, minlength=256) for channel in image] for image in pixels])
    luts = rng.integers(0, 256, (4, 3, 256)).astype(np.uint8)
    normalized = np.stack([[luts[i, c][pixels[i, c]] for c in range(3)] for i in range(4)]).astype(np.int64)
    moments = [np.full((4, 1), 1000), normalized.sum(axis=2), (normalized**2).sum(axis=2)]
    np.testing.assert_array_equal(standardize.measure_moments(histograms, luts), np.hstack(moments))


def test_zero_variance_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "1_left.png"), np.full((40, 40, 3), 9, np.uint8))
    with pytest.raises(InputError, match=r"moments\.csv: a channel without variance"):
        preprocess([f"--data={tmp_path}", f"--cache={tmp_path}", *"--jobs=1 --size-px=40 --crop=whole".split()])


def test_channels_of_some_patients_do_not_see_the_others_and_those_of_local_contrast_see_all_pixels(
    drawn_folder, cache
):
    arguments = [f"--data={drawn_folder}", f"--cache={cache}", "--jobs=1", "--size-px=64"]
    preprocess(arguments)
    named, cdf_luts = normalize.read_luts(cache, "train")
    everyone = standardize.read_channels(cache, named)
    assert everyone[0] == pytest.approx(127, abs=2)
    assert not np.array_equal(standardize.read_channels(cache, named[:2])[0], everyone[0])
    with pytest.raises(InputError, match="1 images of the training set are not in"):
        standardize.read_channels(cache, [*named, "9999_left"])

    preprocess([*arguments, "--normalize=local"])
    named, luts = normalize.read_luts(cache, "train")
    np.testing.assert_array_equal(luts, cdf_luts)
    folder = cache / "resize" / "train"
    pixels = [square.read_pixels(folder / f"{image}.png", 64) for image in named[2:]]
    finished = np.stack([square.finish(*both, "local")[0] for both in zip(pixels, luts[2:], strict=True)])
    mean, std = standardize.read_channels(cache, named[2:])
    assert mean == pytest.approx(finished.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(finished.astype(float).std(axis=(0, 1, 2)))

    preprocess([*arguments, "--normalize=none"])
    named, luts = normalize.read_luts(cache, "train")
    np.testing.assert_array_equal(luts, square.keep_values(len(named)))
    histograms, values = images.read_histograms(cache, "train")[1][2:], np.arange(256)
    mean, std = standardize.read_channels(cache, named[2:])
    for channel, counts in enumerate(histograms.sum(axis=0)):
        assert mean[channel] == pytest.approx(np.average(values, weights=counts))
        assert std[channel] == pytest.approx(np.repeat(values, counts).std())
