"""Reads one photograph, a JPEG or PNG file, into an RGB array, no larger than it needs to be; writes nothing."""

from __future__ import annotations

import stat
import struct
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

# Six times the largest camera of the competition (16 megapixels), and at most 300 MB as RGB; a damaged or hostile
# header may claim anything up to 65535 x 65535.
MAX_PIXELS = 100_000_000
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
    8: lambda rgb: np.rot90(rgb),
}
SIDEWAYS = (5, 6, 7, 8)


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
        if header.format == "PNG" or header.mode == "CMYK":  # libjpeg has no RGB for CMYK, which no camera writes
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
    if header.width * header.height > MAX_PIXELS:
        header.close()
        raise UnreadablePhotograph(f"absurdly large: {header.width} x {header.height} pixels")
    return header


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


def _decode_jpeg(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode JPEG bytes to (h, w, 3) uint8 RGB of exactly `size` (width, height), or say what is wrong with them."""
    width, height = size
    try:
        return simplejpeg.decode_jpeg(content, "RGB", min_width=width, min_height=height, min_factor=1)
    except ValueError as error:
        if HARMLESS_WARNING not in str(error):
            raise UnreadablePhotograph(_jpeg_fault(str(error))) from error
    return simplejpeg.decode_jpeg(content, "RGB", min_width=width, min_height=height, min_factor=1, strict=False)


def _jpeg_fault(message: str) -> str:
    if "remature end of JPEG file" in message:
        return "truncated JPEG"
    return f"corrupt JPEG ({message})"


def _check_png(path: Path) -> None:
    """Compare the checksums of a PNG file, which Pillow does not when it loads the pixels."""
    with _open(path) as header:
        try:
            header.verify()
        except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
            kind = "truncated" if "runcated" in str(error) else "corrupt"
            raise UnreadablePhotograph(f"{kind} PNG ({error})") from error


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
