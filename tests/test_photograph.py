"""Photographs are read whole, the right way up and in 8-bit RGB, or refused with a reason."""

import contextlib
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from preprocess.photograph import UnreadablePhotograph, choose_reduction, decode, read_size

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
    def write(content):
        path = tmp_path / "1_left.jpeg"
        path.write_bytes(content)
        return path

    return write


def mean_difference(one, other):
    return np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize(
    ("short_side_px", "reduction"), [(1, 8), (38, 8), (39, 4), (76, 4), (77, 2), (151, 2), (152, 1), (9999, 1)]
)
def test_reduction_is_the_coarsest_that_keeps_the_short_side(smooth, write, short_side_px, reduction):
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
        average = full.reshape(296 // reduction, reduction, 400 // reduction, reduction, 3).mean(axis=(1, 3))
        assert mean_difference(rgb, average) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_as_pillow_applies_it(smooth, write, orientation, kind):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = write(encode(smooth, kind, exif=exif))
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    rgb, _ = decode(path, 9999)
    assert np.array_equal(rgb, shown)
    assert read_size(path) == shown.shape[1::-1]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_senseless_orientation_is_ignored(smooth, write, orientation):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = write(encode(smooth, exif=exif))
    assert read_size(path) == (403, 301)
    assert decode(path, 1)[0].shape == (38, 51, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_png_of_any_mode_becomes_8_bit_rgb(smooth, write, mode):
    if mode == "I;16":
        stored = Image.fromarray(smooth[..., 1].astype(np.uint16) * 257)
    else:
        stored = Image.fromarray(smooth).convert(mode)
    rgb, reduction = decode(write(encode(stored, "PNG")), 10)
    assert (rgb.shape, rgb.dtype, reduction) == ((301, 403, 3), np.uint8, 1)
    expected = smooth[..., 1:2] if mode == "I;16" else np.asarray(stored.convert("RGB"))
    assert np.array_equal(rgb, np.broadcast_to(expected, rgb.shape))


def test_transparent_pixels_lie_on_black(write):
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    rgb, _ = decode(write(encode(rgba, "PNG")), 4)
    assert (rgb[:2] == 0).all()
    assert (rgb[2:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpeg_become_rgb(smooth, write, mode):
    stored = Image.fromarray(smooth).convert(mode)
    rgb, reduction = decode(write(encode(stored, quality=95)), 100)
    expected = np.asarray(stored.convert("RGB").reduce(reduction))
    assert reduction == {"L": 2, "CMYK": 1}[mode]
    assert mean_difference(rgb, expected) < 3


def test_progressive_jpeg_is_read(smooth, write):
    rgb, _ = decode(write(encode(smooth, progressive=True, quality=95)), 9999)
    assert mean_difference(rgb, smooth) < 3


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_jpeg_is_refused(smooth, write, mode, progressive, kept):
    content = encode(Image.fromarray(smooth).convert(mode), progressive=progressive)
    with pytest.raises(UnreadablePhotograph, match="truncated"):
        decode(write(content[: int(kept * len(content))]), 40)


def test_truncated_jpeg_with_an_end_marker_is_refused(smooth, write):
    content = encode(smooth)
    with pytest.raises(UnreadablePhotograph, match="corrupt JPEG"):
        decode(write(content[: len(content) // 2] + b"\xff\xd9"), 40)


def test_jpeg_with_damaged_pixels_is_refused(smooth, write):
    content = bytearray(encode(smooth, quality=95))
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    with pytest.raises(UnreadablePhotograph, match="corrupt JPEG"):
        decode(write(bytes(content)), 40)


def test_bytes_left_over_before_the_end_marker_do_no_harm(smooth, write):
    content = encode(smooth)
    expected, _ = decode(write(content), 9999)
    rgb, _ = decode(write(content[:-2] + b"\x12\x34\x56" + content[-2:] + b"after the end"), 9999)
    assert np.array_equal(rgb, expected)


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_png_is_refused(smooth, write, kept):
    content = encode(smooth, "PNG")
    with pytest.raises(UnreadablePhotograph, match="truncated PNG"):
        decode(write(content[: int(kept * len(content))]), 40)


def test_png_with_a_wrong_checksum_is_refused(smooth, write):
    content = bytearray(encode(smooth, "PNG"))
    content[len(content) // 2] ^= 1
    with pytest.raises(UnreadablePhotograph, match="corrupt PNG"):
        decode(write(bytes(content)), 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n", "neither a JPEG nor a PNG"),
        (b"<html>404</html>" * 99, "neither a JPEG nor a PNG"),
        (b"GIF89a" + bytes(99), "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG with a truncated or corrupt header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5), "PNG with a truncated or corrupt header"),
    ],
)
def test_what_is_no_photograph_is_refused_with_a_reason(write, content, reason):
    path = write(content)
    for read in (read_size, lambda path: decode(path, 512)):
        with pytest.raises(UnreadablePhotograph, match=reason):
            read(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side_px", [12_000, 65_000])
def test_absurd_size_is_refused_from_the_header(smooth, write, kind, side_px):
    content = encode(smooth, kind)
    size = {"JPEG": ">HH", "PNG": ">II"}[kind]
    old, new = (struct.pack(size, *sides) for sides in ((301, 403), (side_px, side_px)))
    if kind == "PNG":
        old = old[4:] + old[:4]  # width comes first
    content = content.replace(old, new, 1)
    if kind == "PNG":
        header = content[12:29]
        content = content[:29] + struct.pack(">I", zlib.crc32(header)) + content[33:]
    for read in (read_size, lambda path: decode(path, 512)):
        with pytest.raises(UnreadablePhotograph, match="absurdly large"):
            read(write(content))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, reason in (
        ("missing", "no such file"),
        ("", "a folder"),
        ("pipe", "not a regular file"),
        ("file/below", "cannot be opened"),
        ("nul\0", "cannot be opened"),
    ):
        with pytest.raises(UnreadablePhotograph, match=reason):
            decode(tmp_path / name, 512)


def test_nothing_is_printed_about_bad_files(smooth, write, capfd):
    for content in (encode(smooth)[:5000], encode(smooth, "PNG")[:5000], encode(smooth)[:-2] + b"xx\xff\xd9"):
        with contextlib.suppress(UnreadablePhotograph):
            decode(write(content), 40)
    assert capfd.readouterr() == ("", "")


def test_real_photographs_are_read_as_opencv_reads_them(real_data):
    for path in sorted((real_data / "eyepacs-fullsize" / "train").iterdir())[::13]:
        rgb, reduction = decode(path, 512)
        assert reduction in {2, 4}
        flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduction]
        assert mean_difference(rgb, cv2.imread(str(path), flag)[..., ::-1]) < 0.1
