"""Photographs are read whole, the right way up and in 8-bit RGB, or refused with a reason; and see tests.hostile."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from preprocess.disk.errors import Unusable
from preprocess.picture.photograph import Photograph, choose_reduction, decode

ORIENTATION_TAG = 0x0112


@pytest.fixture(scope="module")
def smooth():
    """A colourful picture (301, 403, 3) without hard edges, so that JPEG keeps it nearly as it is."""
    noise = np.random.default_rng(5).random((301, 403, 3), dtype=np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 12)
    return (255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8)


def encode(rgb, kind="JPEG", **options):
    buffer = io.BytesIO()
    (rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "1_left.jpeg"
    return lambda content: (path.write_bytes(content), path)[1]


def mean_difference(one, other):
    return np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize(
    ("short_side_px", "reduction"),
    [(1, 8), (38, 8), (39, 4), (76, 4), (77, 2), (151, 2), (152, 1), (9999, 1)],
)
def test_reduction_is_the_coarsest_that_keeps_the_short_side(
    smooth, write, short_side_px, reduction
):
    rgb, used = decode(write(encode(smooth)), short_side_px)
    assert used == reduction == choose_reduction((403, 301), short_side_px)
    assert rgb.shape == (-(-301 // reduction), -(-403 // reduction), 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous


def test_reduced_pixels_are_averages_of_the_full_decode(smooth, write):
    path = write(encode(smooth[:296, :400], quality=95))
    full, _ = decode(path, 9999)
    for short_side_px, reduction in ((37, 8), (74, 4), (148, 2)):
        rgb, _ = decode(path, short_side_px)
        average = full.reshape(296 // reduction, reduction, 400 // reduction, reduction, 3).mean(
            axis=(1, 3)
        )
        assert mean_difference(rgb, average) < 1


@pytest.mark.parametrize(
    "orientation", [*range(10), 77]
)  # 0, 9 and 77 make no sense and are ignored
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_as_pillow_applies_it(smooth, write, orientation, kind):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = write(encode(smooth, kind, exif=exif))
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    rgb, _ = decode(path, 9999)
    assert np.array_equal(rgb, shown)
    assert Photograph(path).size == shown.shape[1::-1]


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16", "transparent"])
def test_png_of_any_mode_becomes_8_bit_rgb_on_black(smooth, write, mode):
    if mode == "I;16":
        stored, expected = Image.fromarray(smooth[..., 1].astype(np.uint16) * 257), smooth[..., 1:2]
    elif mode == "transparent":
        alpha = np.repeat(np.uint8([255, 0]), (200, 101))[:, None, None] * np.ones(
            (1, 403, 1), np.uint8
        )
        stored, expected = Image.fromarray(np.dstack([smooth, alpha])), np.where(alpha, smooth, 0)
    else:
        stored = Image.fromarray(smooth).convert(mode)
        expected = np.asarray(stored.convert("RGB"))
    rgb, reduction = decode(write(encode(stored, "PNG")), 10)
    assert (rgb.shape, rgb.dtype, reduction) == ((301, 403, 3), np.uint8, 1)
    assert np.array_equal(rgb, np.broadcast_to(expected, rgb.shape))


@pytest.mark.parametrize(
    ("mode", "reduction", "is_progressive"), [("L", 2, False), ("CMYK", 1, False), ("RGB", 2, True)]
)
def test_jpeg_of_any_kind_becomes_rgb(smooth, write, mode, reduction, is_progressive):
    stored = Image.fromarray(smooth).convert(mode)
    rgb, used = decode(write(encode(stored, quality=95, progressive=is_progressive)), 100)
    assert used == reduction
    assert mean_difference(rgb, np.asarray(stored.convert("RGB").reduce(reduction))) < 3


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        (mode, "JPEG", {"progressive": is_so})
        for mode in ("RGB", "L", "CMYK")
        for is_so in (False, True)
    ]
    + [("RGB", "PNG", {})],
)
def test_truncated_photograph_is_refused(smooth, write, mode, kind, options, kept):
    content = encode(Image.fromarray(smooth).convert(mode), kind, **options)
    with pytest.raises(Unusable, match="truncated PNG" if kind == "PNG" else "truncated"):
        decode(write(content[: int(kept * len(content))]), 40)


def test_bytes_left_over_before_the_end_marker_do_no_harm(smooth, write):
    content = encode(smooth)
    expected, _ = decode(write(content), 9999)
    rgb, _ = decode(write(content[:-2] + b"\x12\x34\x56" + content[-2:] + b"after the end"), 9999)
    assert np.array_equal(rgb, expected)


def test_real_photographs_are_read_as_opencv_reads_them(real_data):
    for path in sorted((real_data / "eyepacs-fullsize" / "train").iterdir())[::13]:
        rgb, reduction = decode(path, 512)
        assert reduction in {2, 4}
        flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduction]
        assert mean_difference(rgb, cv2.imread(str(path), flag)[..., ::-1]) < 0.1
