"""Local contrast: what is taken away from a square, and what is left."""

import numpy as np
import pytest

from preprocess.picture import contrast


@pytest.fixture
def textured():
    """A textured disc on black, 128 px, and each pixel's distance from its middle."""
    radius = np.hypot(*(np.mgrid[:128, :128] - 63.5))
    texture = np.random.default_rng(0).integers(80, 100, (128, 128, 3))
    return np.where(radius[:, :, None] < 60, texture, 0).astype(np.uint8), radius


def test_one_colour_background_and_rim_become_grey(textured):
    pixels, radius = textured
    assert (contrast.subtract_local_mean(pixels)[radius > 60] == contrast.GREY).all()
    uniform = np.where(pixels > 0, 90, 0).astype(np.uint8)  # the black outside has no part in the means
    for flat in (np.full((64, 64, 3), (200, 90, 20), np.uint8), uniform):
        assert (contrast.subtract_local_mean(flat) == contrast.GREY).all()


def test_slow_change_of_light_goes_and_a_lesion_stays(textured):
    pixels, radius = textured
    shade = (np.arange(128)[None, :, None] - 64) / 2
    shaded = np.where(pixels > 0, pixels + shade, 0).astype(np.uint8)
    one, other = (contrast.subtract_local_mean(given).astype(float) for given in (pixels, shaded))
    inner = radius < 45
    assert np.abs(shaded.astype(float) - pixels)[inner].mean() > 9
    assert np.abs(one - other)[inner].mean() < 4  # gain 4: less than a grey level of the square
    spotted = shaded.copy()
    spotted[60:63, 60:63] -= 20
    assert other[61, 61].mean() - contrast.subtract_local_mean(spotted)[61, 61].mean() > 60


def test_difference_is_that_from_a_gaussian_mean():
    """Against scipy at full size, far from any border."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    pixels = gaussian_filter(rng.uniform(20, 235, (256, 256, 3)), (2, 2, 0))
    pixels = np.clip(128 + 4 * (pixels - 127.5), 30, 225).astype(np.uint8)
    expected = contrast.GREY + contrast.GAIN * (pixels - gaussian_filter(pixels.astype(float), (6, 6, 0)))
    local = contrast.subtract_local_mean(pixels)
    difference = np.abs(np.clip(expected, 0, 255) - local)[40:-40, 40:-40]
    assert difference.mean() < 3
    assert np.percentile(difference, 99) < 10
