"""Reads one photograph, a JPEG or PNG file, into an RGB array, no larger than it needs to be; writes nothing."""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

# Four times the largest camera of the competition (16 megapixels). A damaged or hostile header may claim anything up to
# 65535 x 65535; within these limits no file takes more than 500 MB of memory, however small it is. A progressive JPEG
# takes 6 bytes a pixel; what cannot be decoded at reduced scale, PNG and CMYK, 14 to 18.
MAX_PIXELS = 70_000_000
MAX_WHOLE_PIXELS = 24_000_000
MAX_BYTES = 256_000_000  # no photograph under MAX_PIXELS is this large; whatever is, is not read into memory
REDUCTIONS = (8, 4, 2, 1)  # the scales 1/k that a JPEG can be decoded at for less than the price of the whole
SIGNATURES = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG"}
# libjpeg's word for bytes left over before the end marker: every pixel was decoded, so the photograph is whole.
HARMLESS_WARNING = "extraneous bytes before marker 0xd9"
# How a viewer turns the picture for each value of EXIF's Orientation (CIPA DC-008, tag 0x0112).
ORIENTATION_TAG = 0x0112
TURNS = {
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
SIDEWAYS = (5, 6, 7, 8)
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, third edition, 11.2.1)
# The seven passes of an interlaced PNG: first column, first row, steps (8.1).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
UNPACKED_AT_ONCE = 1 << 20  # bytes


class UnreadablePhotograph(ValueError):
    """A file that is no whole photograph; the message is the reason, for people, without the file's name."""


def read_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) in pixels as a viewer shows the file, from its header alone.

    Raises UnreadablePhotograph for whatever has no sound header; damage further on goes unnoticed here.
    """
    with _open(Path(path)) as header:
        return _shown_size(header)


def decode(path: Path | str, short_side_px: int) -> tuple[np.ndarray, int]:
    """Decode a photograph at the coarsest scale that leaves its shorter side at least `short_side_px`.

    Parameters
    ----------
    path : path of a JPEG or PNG file
    short_side_px : int; a photograph that is smaller than that comes at its full size

    Returns
    -------
    rgb : (h, w, 3) uint8, C-contiguous, turned as EXIF says
    reduction : 1, 2, 4 or 8. A pixel of `rgb` covers reduction x reduction pixels of the file, counted from the upper
        left corner before turning; the last row and column may cover fewer. PNG files are never reduced.

    Raises UnreadablePhotograph, with the reason, unless every pixel could be decoded.
    """
    path = Path(path)
    with _open(path) as header:
        orientation = _orientation(header)
        if header.format == "PNG":
            _check_png(path)
        elif header.mode == "CMYK":  # Pillow paints grey where pixels are missing, and says nothing
            _decode_jpeg(path.read_bytes(), _reduced(header.size, REDUCTIONS[0]), "CMYK")
        if _is_whole(header):
            rgb, reduction = _load_pixels(header), 1
        else:
            reduction = choose_reduction(header.size, short_side_px)
            rgb = _decode_jpeg(path.read_bytes(), _reduced(header.size, reduction))
    return np.ascontiguousarray(TURNS[orientation](rgb)), reduction


def choose_reduction(size: tuple[int, int], short_side_px: int) -> int:
    """Return the coarsest of REDUCTIONS that leaves the shorter side of a JPEG of `size` at least `short_side_px`."""
    return next(k for k in REDUCTIONS if k == 1 or min(_reduced(size, k)) >= short_side_px)


def _open(path: Path) -> Image.Image:
    """Open the file as a PIL image without reading its pixels; the caller closes it."""
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own, laxer size limit; ours comes just below
            header = Image.open(path, formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph(f"absurdly large: more than {MAX_PIXELS // 10**6} megapixels") from error
    except (OSError, SyntaxError, ValueError, struct.error, IndexError) as error:
        raise UnreadablePhotograph(_header_fault(path)) from error
    n_pixels = header.width * header.height
    if n_pixels > MAX_PIXELS or (n_pixels > MAX_WHOLE_PIXELS and _is_whole(header)):
        header.close()
        hint = "" if n_pixels > MAX_PIXELS else "; as a JPEG in RGB it could be read"
        raise UnreadablePhotograph(f"absurdly large: {header.width} x {header.height} pixels{hint}")
    return header


def _is_whole(header: Image.Image) -> bool:
    """Tell whether a picture is decoded by Pillow, and whole: libjpeg has no RGB for CMYK, which no camera writes."""
    return header.format == "PNG" or header.mode == "CMYK"


def _check_file(path: Path) -> None:
    """Refuse, before opening, what has no bytes to offer or would block: a FIFO, a device, a folder."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UnreadablePhotograph("no such file") from error
    except (OSError, ValueError) as error:
        raise UnreadablePhotograph(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadablePhotograph("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadablePhotograph("not a regular file")
    if status.st_size == 0:
        raise UnreadablePhotograph("the file is empty")
    if status.st_size > MAX_BYTES:
        raise UnreadablePhotograph(f"absurdly large: {status.st_size / 1e6:.0f} MB")


def _header_fault(path: Path) -> str:
    """Say why Pillow could not open `path`: no image at all, or one with a damaged header."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            return f"{kind} with a truncated or corrupt header"
    return "neither a JPEG nor a PNG image"


def _orientation(header: Image.Image) -> int:
    """Return EXIF's orientation 1 to 8; 1, as viewers do, where it is missing or makes no sense."""
    try:
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError):
        return 1
    return orientation if orientation in TURNS else 1


def _shown_size(header: Image.Image) -> tuple[int, int]:
    width, height = header.size
    return (height, width) if _orientation(header) in SIDEWAYS else (width, height)


def _reduced(size: tuple[int, int], reduction: int) -> tuple[int, int]:
    """Return the size in which a JPEG decoder delivers `size` at scale 1/reduction."""
    return -(-size[0] // reduction), -(-size[1] // reduction)


def _decode_jpeg(content: bytes, size: tuple[int, int], colors: str = "RGB") -> np.ndarray:
    """Decode JPEG bytes to (h, w, c) uint8 of exactly `size` (width, height), or say what is wrong with them."""
    width, height = size
    try:
        return simplejpeg.decode_jpeg(content, colors, min_width=width, min_height=height, min_factor=1)
    except ValueError as error:
        if HARMLESS_WARNING not in str(error):
            raise UnreadablePhotograph(_jpeg_fault(str(error))) from error
    return simplejpeg.decode_jpeg(content, colors, min_width=width, min_height=height, min_factor=1, strict=False)


def _jpeg_fault(message: str) -> str:
    if "remature end of JPEG file" in message:
        return "truncated JPEG"
    return f"corrupt JPEG ({message})"


def _check_png(path: Path) -> None:
    """Compare the checksums of a PNG file and count its pixels, which Pillow does not when it loads them."""
    with _open(path) as header:
        try:
            header.verify()
        except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
            kind = "truncated" if "runcated" in str(error) else "corrupt"
            raise UnreadablePhotograph(f"{kind} PNG ({error})") from error
    content = path.read_bytes()
    if content[12:16] != b"IHDR":  # Pillow takes chunks in any order
        raise UnreadablePhotograph("PNG with a corrupt header")
    wanted = _measure_png(content)
    found = _count_unpacked(content, wanted)
    if found < wanted:
        raise UnreadablePhotograph(f"truncated PNG ({100 * found // wanted} % of the pixels are there)")


def _measure_png(content: bytes) -> int:
    """Return how many bytes the pixels of a PNG file are before compression: a filter byte and the pixels per row."""
    width, height, bits, color, _, _, is_interlaced = struct.unpack(">IIBBBBB", content[16:29])
    bits_per_pixel = bits * PNG_CHANNELS[color]
    total = 0
    for left, top, step_x, step_y in ADAM7 if is_interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits_per_pixel // 8))
    return total


def _count_unpacked(content: bytes, most: int) -> int:
    """Return how many bytes the pixels of a PNG file with sound checksums are, up to `most` or a little more."""
    unpacker, count, start = zlib.decompressobj(), 0, 8
    while start + 12 <= len(content) and count < most:
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        packed = content[start + 8 : start + 8 + length] if kind == b"IDAT" else b""
        start += 12 + length
        while packed and count < most:
            try:
                count += len(unpacker.decompress(packed, UNPACKED_AT_ONCE))
            except zlib.error as error:
                raise UnreadablePhotograph(f"corrupt PNG ({error})") from error
            packed = unpacker.unconsumed_tail
    return count


def _load_pixels(header: Image.Image) -> np.ndarray:
    """Load with Pillow what simplejpeg does not: PNG of any kind, and CMYK JPEG; transparency lies on black."""
    try:
        header.load()
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        kind = "truncated" if "truncated" in str(error) else "corrupt"
        raise UnreadablePhotograph(f"{kind} {header.format} ({error})") from error
    if header.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(header).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if header.has_transparency_data:
        shown = header.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown).convert("RGB"))
    return np.asarray(header.convert("RGB"))
