"""A square's way behind the cut: lookup tables, local contrast, moments; in memory it is made as the stages make it."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter

from preprocess import normalize, photographs, standardize
from preprocess.__main__ import main as preprocess
from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from preprocess.picture import outline, square
from preprocess.picture.square import Making, make_luts, make_square

MAKING = Making("adaptive", 48, "cdf")
EVEN = np.arange(256)


@pytest.fixture
def paths(drawn_folder):
    """The test photographs."""
    return kaggle.list_folder(drawn_folder / "test").paths


@pytest.mark.parametrize(
    ("counts", "expected", "tolerance"),
    [
        (
            {10: 1, 20: 2, 200: 1},
            {5: 0, 10: 32, 15: 64, 20: 128, 200: 223, 255: 255},
            0,
        ),  # mid-ranks by hand
        ({77: 9}, {77: 128}, 0),  # one value goes to the middle
        ({0: 90, 9: 10}, {0: 0, 9: 242}, 0),  # black stays black
        (
            dict.fromkeys(EVEN, 7),
            dict(zip(EVEN, EVEN, strict=True)),
            1,
        ),  # an even distribution stays as it is
    ],
)
def test_hand_computed_lookup_tables(counts, expected, tolerance):
    histogram = np.zeros((1, 3, 256), np.int64)
    with pytest.raises(ValueError, match="empty"):
        make_luts(histogram, "cdf")
    histogram[..., list(counts)] = list(counts.values())
    lut = make_luts(histogram, "cdf")[0, 0].astype(int)
    assert np.abs(lut[list(expected)] - list(expected.values())).max() <= tolerance


@given(
    arrays.arrays(np.int64, (3, 256), elements=st.integers(0, 5000)).filter(
        lambda rows: rows.any(axis=1).all()
    )
)
def test_lookup_tables_ascend_and_agree_with_ranks_of_the_pixels(histogram):
    (luts,) = make_luts(histogram[None], "cdf")
    assert (np.diff(luts.astype(int), axis=-1) >= 0).all()
    counts = histogram[1]
    value = int(np.argmax(counts))
    below, at = counts[:value].sum(), counts[value]
    if value > 0:
        assert luts[1, value] == pytest.approx(255 * (below + at / 2) / counts.sum(), abs=0.5001)


@pytest.fixture
def textured():
    """A textured disc on black, 128 px, and each pixel's distance from its middle."""
    radius = np.hypot(*(np.mgrid[:128, :128] - 63.5))
    texture = np.random.default_rng(0).integers(80, 100, (128, 128, 3))
    return np.where(radius[:, :, None] < 60, texture, 0).astype(np.uint8), radius


def test_one_colour_background_and_rim_become_grey(textured):
    pixels, radius = textured
    assert (square.subtract_local_mean(pixels)[radius > 60] == square.GREY).all()
    uniform = np.where(pixels > 0, 90, 0).astype(
        np.uint8
    )  # the black outside has no part in the means
    for flat in (np.full((64, 64, 3), (200, 90, 20), np.uint8), uniform):
        assert (square.subtract_local_mean(flat) == square.GREY).all()


def test_slow_change_of_light_goes_and_a_lesion_stays(textured):
    pixels, radius = textured
    shade = (np.arange(128)[None, :, None] - 64) / 2
    shaded = np.where(pixels > 0, pixels + shade, 0).astype(np.uint8)
    one, other = (square.subtract_local_mean(given).astype(float) for given in (pixels, shaded))
    inner = radius < 45
    assert np.abs(shaded.astype(float) - pixels)[inner].mean() > 9
    assert np.abs(one - other)[inner].mean() < 4  # gain 4: less than a grey level of the square
    spotted = shaded.copy()
    spotted[60:63, 60:63] -= 20
    assert other[61, 61].mean() - square.subtract_local_mean(spotted)[61, 61].mean() > 60


def test_local_contrast_is_the_difference_from_a_gaussian_mean():
    """Against scipy at full size, far from any border."""
    pixels = gaussian_filter(np.random.default_rng(1).uniform(20, 235, (256, 256, 3)), (2, 2, 0))
    pixels = np.clip(128 + 4 * (pixels - 127.5), 30, 225).astype(np.uint8)
    expected = square.GREY + square.GAIN * (
        pixels - gaussian_filter(pixels.astype(float), (6, 6, 0))
    )
    difference = np.abs(np.clip(expected, 0, 255) - square.subtract_local_mean(pixels))[
        40:-40, 40:-40
    ]
    assert difference.mean() < 3
    assert np.percentile(difference, 99) < 10


def test_moments_agree_with_the_pixels():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 3, 1000))
    histograms = np.stack(
        [[np.bincount(channel, minlength=256) for channel in image] for image in pixels]
    )
    luts = rng.integers(0, 256, (4, 3, 256)).astype(np.uint8)
    normalized = np.stack([[luts[i, c][pixels[i, c]] for c in range(3)] for i in range(4)]).astype(
        np.int64
    )
    moments = [np.full((4, 1), 1000), normalized.sum(axis=2), (normalized**2).sum(axis=2)]
    np.testing.assert_array_equal(standardize.measure_moments(histograms, luts), np.hstack(moments))


def test_zero_variance_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "1_left.png"), np.full((40, 40, 3), 9, np.uint8))
    with pytest.raises(InputError, match=r"moments\.csv: a channel without variance"):
        preprocess(
            [
                f"--data={tmp_path}",
                f"--cache={tmp_path}",
                *"--jobs=1 --size-px=40 --crop=whole".split(),
            ]
        )


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
    finished = np.stack(
        [square.finish(*both, "local")[0] for both in zip(pixels, luts[2:], strict=True)]
    )
    mean, std = standardize.read_channels(cache, named[2:])
    assert mean == pytest.approx(finished.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(finished.astype(float).std(axis=(0, 1, 2)))

    preprocess([*arguments, "--normalize=none"])
    histograms = next(photographs.iterate_histograms(cache, "train"))[1][2:]
    mean, std = standardize.read_channels(cache, named[2:])
    for channel, counts in enumerate(histograms.sum(axis=0)):
        assert mean[channel] == pytest.approx(np.average(EVEN, weights=counts))
        assert std[channel] == pytest.approx(np.repeat(EVEN, counts).std())


@pytest.mark.parametrize(
    ("crop", "method"), itertools.product(outline.METHODS, square.NORMALIZATIONS)
)
def test_pixels_and_lookup_tables_are_those_of_the_stages(drawn_folder, cache, paths, crop, method):
    arguments = [f"--crop={crop}", f"--normalize={method}", "--size-px=48", "--jobs=1"]
    preprocess([f"--data={drawn_folder}", f"--cache={cache}", *arguments])
    making = square.read_making(cache)
    assert making == Making(crop, 48, method)
    named, luts = normalize.read_luts(cache, "test")
    left, rows = square.leave_luts(luts, method), photographs.read_crops(cache, "test")
    for image, lut, lut_left in zip(named, luts, left, strict=True):
        made = make_square(paths[image], making)
        kept = square.read_pixels(cache / "resize" / "test" / f"{image}.png", 48)
        np.testing.assert_array_equal(made.pixels, square.finish(kept, lut, method)[0])
        np.testing.assert_array_equal(made.lut, lut_left)
        assert made.disc == outline.read_disc(rows[image])


def test_methods_differ(paths):
    path = next(iter(paths.values()))
    plain, local, raw = (
        make_square(path, MAKING._replace(normalize=name)) for name in ("cdf", "local", "none")
    )
    flattened = np.stack(
        [plain.lut[channel][plain.pixels[..., channel]] for channel in range(3)], axis=-1
    )
    np.testing.assert_array_equal(local.pixels, square.subtract_local_mean(flattened))
    np.testing.assert_array_equal(raw.pixels, plain.pixels)
    assert (raw.lut == local.lut).all()
    assert (raw.lut == EVEN).all()
    assert (
        np.abs(
            make_square(path, MAKING._replace(crop="box")).pixels.astype(int) - plain.pixels
        ).max()
        > 0
    )


def test_taken_whole_is_any_whole_picture_whatever_its_suffix(paths, tmp_path):
    whole, path = MAKING._replace(crop="whole"), tmp_path / "left eye"
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((300, 400, 3), np.uint8))
    assert not make_square(tmp_path / "black.png", whole).pixels.any()
    path.write_bytes(next(iter(paths.values())).read_bytes())
    assert all(make_square(path, making).pixels.shape == (48, 48, 3) for making in (MAKING, whole))
