"""A square made in memory is that of the stages, however it is made; what is no eye is refused with the reason."""

import itertools

import cv2
import numpy as np
import pytest

from preprocess import images, normalize
from preprocess.__main__ import main as preprocess
from preprocess.picture import outline, square
from preprocess.picture.contrast import subtract_local_mean
from preprocess.picture.square import Making, Unusable, make_square
from preprocess.samples import retina

MAKING = Making("adaptive", 48, "cdf")


@pytest.fixture
def paths(drawn_folder):
    """The test photographs."""
    return retina.list_images(drawn_folder, "test").paths


@pytest.mark.parametrize(("crop", "method"), itertools.product(outline.METHODS, square.NORMALIZATIONS))
def test_pixels_and_lookup_tables_are_those_of_the_stages(drawn_folder, cache, paths, crop, method):
    arguments = [f"--crop={crop}", f"--normalize={method}", "--size-px=48", "--jobs=1"]
    preprocess([f"--data={drawn_folder}", f"--cache={cache}", *arguments])
    making = square.read_making(cache)
    assert making == (crop, 48, method)
    named, luts = normalize.read_luts(cache, "test")
    left = square.leave_luts(luts, method)
    rows = images.read_crops(cache, "test")
    for image, lut, lut_left in zip(named, luts, left, strict=True):
        made = make_square(paths[image], making)
        kept = square.read_pixels(cache / "resize" / "test" / f"{image}.png", 48)
        np.testing.assert_array_equal(made.pixels, square.finish(kept, lut, method)[0])
        np.testing.assert_array_equal(made.lut, lut_left)
        assert made.disc == outline.read_disc(rows[image])


def test_methods_differ(paths):
    path = next(iter(paths.values()))
    plain, local, raw = (make_square(path, MAKING._replace(normalize=name)) for name in ("cdf", "local", "none"))
    flattened = np.stack([plain.lut[channel][plain.pixels[..., channel]] for channel in range(3)], axis=-1)
    np.testing.assert_array_equal(local.pixels, subtract_local_mean(flattened))
    np.testing.assert_array_equal(raw.pixels, plain.pixels)
    assert (raw.lut == local.lut).all()
    assert (raw.lut == np.arange(256)).all()
    assert np.abs(make_square(path, MAKING._replace(crop="box")).pixels.astype(int) - plain.pixels).max() > 0


def test_taken_whole_is_any_whole_picture_whatever_its_suffix(paths, tmp_path):
    """Reasons for what is none, or shows no eye, are those of tests.hostile."""
    whole, path = MAKING._replace(crop="whole"), tmp_path / "left eye"
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((300, 400, 3), np.uint8))
    assert not make_square(tmp_path / "black.png", whole).pixels.any()
    eye = next(iter(paths.values())).read_bytes()
    path.write_bytes(eye)
    assert all(make_square(path, making).pixels.shape == (48, 48, 3) for making in (MAKING, whole))
    bad = {b"hello": "neither a JPEG nor a PNG", b"": "the file is empty", eye[: len(eye) // 2]: "truncated JPEG"}
    for content, reason in bad.items():
        path.write_bytes(content)
        with pytest.raises(Unusable, match=reason):
            make_square(path, whole)
    for place, reason in ((tmp_path / "missing", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(Unusable, match=reason):
            make_square(place, whole)
