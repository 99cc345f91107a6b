"""Reads one photograph, a JPEG or PNG file, into an RGB array, no larger than it needs to be; writes nothing."""

import contextlib
import functools
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from preprocess.cache.rejected import MISSING
from preprocess.disk.errors import Unusable

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
# How a viewer turns the picture for each value of EXIF's Orientation (CIPA DC-008, tag 0x0112): steps down and across,
# and from 5 on, then, its diagonal to the other side.
ORIENTATION_TAG = 0x0112
TURNS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
SIDEWAYS = 5
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, third edition, 11.2.1)
# The seven passes of an interlaced PNG: first column, first row, steps (8.1).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
BROKEN = (OSError, SyntaxError, ValueError, struct.error, IndexError, EOFError)  # what Pillow raises for a damaged file


class Photograph:
    """One file, opened when it is asked for pixels and decoded again only if they are wanted at another scale."""

    def __init__(self, path: Path):
        self.path = path
        self._wanted = 0  # the reduction that was asked for last
        self._decoded: tuple[np.ndarray, int] | None = None

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as a viewer shows the file. Raises Unusable for whatever has no sound header."""
        with _open(self.path) as header:
            width, height = header.size
            return (width, height) if _orientation(header) < SIDEWAYS else (height, width)

    def decode(self, short_side_px: int) -> tuple[np.ndarray, int]:
        """See `decode`."""
        wanted = choose_reduction(self.size, short_side_px)
        if self._decoded is None or (wanted != self._wanted and self._decoded[1] == self._wanted):  # PNG stays whole
            self._decoded, self._wanted = decode(self.path, short_side_px), wanted
        return self._decoded


def decode(path: Path | str, short_side_px: int) -> tuple[np.ndarray, int]:
    """Decode a JPEG or PNG file at the coarsest scale that leaves its shorter side at least `short_side_px`.

    Returns (h, w, 3) uint8, C-contiguous, turned as EXIF says, and the reduction k, 1, 2, 4 or 8: a pixel covers k x k
    of the file's, counted from the upper left corner before turning, fewer in the last row and column. PNG files are
    never reduced. Raises Unusable, with the reason, unless every pixel could be decoded.
    """
    path = Path(path)
    with _open(path) as header:
        orientation, reduction = _orientation(header), 1
        if header.format == "PNG":
            _check_png(path)
            rgb = _load_pixels(header)
        elif header.mode == "CMYK":
            _decode_jpeg(path, header.size, REDUCTIONS[0], "CMYK")  # Pillow paints grey where pixels are missing
            rgb = _load_pixels(header)
        else:
            reduction = choose_reduction(header.size, short_side_px)
            rgb = _decode_jpeg(path, header.size, reduction)
    down, across = TURNS[orientation]
    turned = rgb[::down, ::across]
    return np.ascontiguousarray(turned if orientation < SIDEWAYS else turned.transpose(1, 0, 2)), reduction


def choose_reduction(size: tuple[int, int], short_side_px: int) -> int:
    """Return the coarsest of REDUCTIONS that leaves the shorter side of a JPEG of `size` at least `short_side_px`."""
    return next(k for k in REDUCTIONS if k == 1 or -(-min(size) // k) >= short_side_px)


def _open(path: Path) -> Image.Image:
    """Open the file as a PIL image without reading its pixels; the caller closes it."""
    start = _read_start(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own, laxer size limit; ours comes just below
            header = Image.open(path, formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise Unusable(f"absurdly large: more than {MAX_PIXELS // 10**6} megapixels") from error
    except BROKEN as error:
        kinds = [kind for signature, kind in SIGNATURES.items() if start.startswith(signature)]
        reason = f"{kinds[0]} with a truncated or corrupt header" if kinds else "neither a JPEG nor a PNG image"
        raise Unusable(reason) from error
    n_pixels = header.width * header.height
    is_whole = header.format == "PNG" or header.mode == "CMYK"  # decoded by Pillow, as libjpeg has no RGB for CMYK
    if n_pixels > MAX_PIXELS or (n_pixels > MAX_WHOLE_PIXELS and is_whole):
        header.close()
        hint = "" if n_pixels > MAX_PIXELS else "; as a JPEG in RGB it could be read"
        raise Unusable(f"absurdly large: {header.width} x {header.height} pixels{hint}")
    return header


def _read_start(path: Path) -> bytes:
    """Return a file's first bytes; refuse, before opening, what has none or would block: a FIFO, a device, a folder."""
    start = b""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                start = file.read(4)
    except FileNotFoundError as error:
        raise Unusable(MISSING) from error
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise Unusable("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("not a regular file")
    if status.st_size == 0:
        raise Unusable("the file is empty")
    if status.st_size > MAX_BYTES:
        raise Unusable(f"absurdly large: {status.st_size / 1e6:.0f} MB")
    return start


def _orientation(header: Image.Image) -> int:
    """Return EXIF's orientation 1 to 8; 1, as viewers do, where it is missing or makes no sense."""
    try:
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError):
        return 1
    return orientation if orientation in TURNS else 1


def _decode_jpeg(path: Path, size: tuple[int, int], reduction: int, colors: str = "RGB") -> np.ndarray:
    """Decode a JPEG of `size` (width, height) at 1/reduction, (h, w, c) uint8, or say what is wrong with it."""
    width, height = (-(-side // reduction) for side in size)
    read = functools.partial(simplejpeg.decode_jpeg, path.read_bytes(), colors, min_width=width, min_height=height)
    try:
        return read(min_factor=1)
    except ValueError as error:
        message = str(error)
        if HARMLESS_WARNING not in message:
            is_truncated = "remature end of JPEG file" in message
            raise Unusable("truncated JPEG" if is_truncated else f"corrupt JPEG ({message})") from error
    return read(min_factor=1, strict=False)


def _check_png(path: Path) -> None:
    """Compare the checksums of a PNG file and count its pixels, which Pillow does not when it loads them."""
    with _open(path) as header, _naming_damage("PNG"):
        header.verify()
    content = path.read_bytes()
    if content[12:16] != b"IHDR":  # Pillow takes chunks in any order
        raise Unusable("PNG with a corrupt header")
    width, height, bits, color, _, _, is_interlaced = struct.unpack(">IIBBBBB", content[16:29])
    wanted = 0  # bytes of the pixels before compression: in each row a filter byte and the pixels
    for left, top, step_x, step_y in ADAM7 if is_interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + -(-columns * bits * PNG_CHANNELS[color] // 8))
    unpacker, found, start = zlib.decompressobj(), 0, 8
    while start + 12 <= len(content) and found < wanted:
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        if kind == b"IDAT":
            try:
                found += len(unpacker.decompress(content[start + 8 : start + 8 + length], wanted))  # at most: no bomb
            except zlib.error as error:
                raise Unusable(f"corrupt PNG ({error})") from error
        start += 12 + length
    if found < wanted:
        raise Unusable(f"truncated PNG ({100 * found // wanted} % of the pixels are there)")


@contextlib.contextmanager
def _naming_damage(kind: str) -> Iterator[None]:
    """Have what Pillow raises for a damaged file of a kind be Unusable."""
    try:
        yield
    except BROKEN as error:
        raise Unusable(f"{'truncated' if 'runcated' in str(error) else 'corrupt'} {kind} ({error})") from error


def _load_pixels(header: Image.Image) -> np.ndarray:
    """Load with Pillow what simplejpeg does not: PNG of any kind, and CMYK JPEG; transparency lies on black."""
    with _naming_damage(str(header.format)):
        header.load()
    if header.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(header).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if header.has_transparency_data:
        shown = header.convert("RGBA")
        header = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
    return np.asarray(header.convert("RGB"))
