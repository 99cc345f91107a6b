"""Read one photograph, a JPEG or PNG file, into an RGB array no larger than needed; write nothing."""

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
# takes 6 bytes a pixel; PNG and CMYK, which cannot be decoded at reduced scale, take 14 to 18.
MAX_PIXELS = 70_000_000
MAX_WHOLE_PIXELS = 24_000_000
MAX_BYTES = 256_000_000  # no photograph under MAX_PIXELS is this large; a larger file is not read into memory
REDUCTIONS = (8, 4, 2, 1)  # the scales 1/k that a JPEG can be decoded at for less than the price of the whole
SIGNATURES = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG"}
# libjpeg's warning of bytes left over before the end marker: every pixel was decoded, so the photograph is whole.
HARMLESS_WARNING = "extraneous bytes before marker 0xd9"
# How a viewer turns the picture for each value of EXIF's Orientation (CIPA DC-008, tag 0x0112): steps down and across;
# from SIDEWAYS on, the result is also transposed.
ORIENTATION_TAG = 0x0112
TURNS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
SIDEWAYS = 5
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, third edition, 11.2.1)
# The seven passes of an interlaced PNG: first column, first row, steps (8.1).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
BROKEN = (OSError, SyntaxError, ValueError, struct.error, IndexError, EOFError)  # what Pillow raises for a damaged file


class Photograph:
    """One file, opened when its pixels are needed and decoded again only if they are needed at another scale."""

    def __init__(self, path: Path):
        self.path = path
        self._wanted = 0  # the reduction of the last request; PNG and CMYK are decoded whole nevertheless
        self._decoded: tuple[np.ndarray, int] | None = None

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as a viewer shows the file. Raises Unusable if its header is damaged."""
        with _open(self.path) as header:
            width, height = header.size
            if _read_orientation(header) >= SIDEWAYS:
                return height, width
            return width, height

    def decode(self, short_side_px: int) -> tuple[np.ndarray, int]:
        """See `decode`."""
        wanted = choose_reduction(self.size, short_side_px)
        if self._decoded is not None:
            _, reduction = self._decoded
            is_always_whole = reduction != self._wanted  # PNG and CMYK
            if wanted == self._wanted or is_always_whole:
                return self._decoded
        self._decoded = decode(self.path, short_side_px)
        self._wanted = wanted
        return self._decoded


def decode(path: Path | str, short_side_px: int) -> tuple[np.ndarray, int]:
    """Decode a JPEG or PNG file at the coarsest scale that leaves its shorter side at least `short_side_px`.

    Returns (h, w, 3) uint8, C-contiguous, turned as EXIF says, and the reduction k, 1, 2, 4 or 8: a pixel covers k x k
    of the file's, counted from the upper left corner before turning, fewer in the last row and column. PNG files are
    never reduced. Raises Unusable, with the reason, unless every pixel could be decoded.
    """
    path = Path(path)
    reduction = 1
    with _open(path) as header:
        orientation = _read_orientation(header)
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
    if orientation >= SIDEWAYS:
        turned = turned.transpose(1, 0, 2)
    return np.ascontiguousarray(turned), reduction


def choose_reduction(size: tuple[int, int], short_side_px: int) -> int:
    """Return the coarsest of REDUCTIONS that leaves the shorter side of a JPEG of `size` at least `short_side_px`."""
    for reduction in REDUCTIONS:
        if _reduce(min(size), reduction) >= short_side_px:
            return reduction
    return 1


def _reduce(side: int, reduction: int) -> int:
    """Return how many pixels a side has at 1/reduction: a last, smaller one counts."""
    return -(-side // reduction)


def _open(path: Path) -> Image.Image:
    """Open the file as a PIL image without reading its pixels; the caller closes it."""
    start = _read_start(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, laxer size limit; ours is checked below
            header = Image.open(path, formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise Unusable(f"absurdly large: more than {MAX_PIXELS // 10**6} megapixels") from error
    except BROKEN as error:
        for signature, kind in SIGNATURES.items():
            if start.startswith(signature):
                raise Unusable(f"{kind} with a truncated or corrupt header") from error
        raise Unusable("neither a JPEG nor a PNG image") from error
    n_pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    if n_pixels > MAX_PIXELS:
        header.close()
        raise Unusable(f"absurdly large: {size}")
    is_whole = header.format == "PNG" or header.mode == "CMYK"  # decoded by Pillow, as libjpeg has no RGB for CMYK
    if is_whole and n_pixels > MAX_WHOLE_PIXELS:
        header.close()
        raise Unusable(f"absurdly large: {size}; as a JPEG in RGB it could be read")
    return header


def _read_start(path: Path) -> bytes:
    """Return a file's first bytes.

    Raises Unusable if it is missing, empty or too large, or no regular file: a FIFO, whose opening would block, a
    device, a folder.
    """
    start = b""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                start = file.read(4)
    except FileNotFoundError as error:
        raise Unusable(MISSING) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unusable(f"cannot be opened: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        raise Unusable("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("not a regular file")
    if status.st_size == 0:
        raise Unusable("the file is empty")
    if status.st_size > MAX_BYTES:
        raise Unusable(f"absurdly large: {status.st_size / 1e6:.0f} MB")
    return start


def _read_orientation(header: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1, as viewers do, if it is missing or makes no sense."""
    try:
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError):
        return 1
    return orientation if orientation in TURNS else 1


def _decode_jpeg(path: Path, size: tuple[int, int], reduction: int, colors: str = "RGB") -> np.ndarray:
    """Decode a JPEG of `size` (width, height) at 1/reduction, (h, w, c) uint8. Raises Unusable if it is damaged."""
    width, height = size
    content = path.read_bytes()
    options = {
        "min_width": _reduce(width, reduction),
        "min_height": _reduce(height, reduction),
        "min_factor": 1,
    }
    try:
        return simplejpeg.decode_jpeg(content, colors, **options)
    except ValueError as error:
        message = str(error)
        if HARMLESS_WARNING not in message:
            if "remature end of JPEG file" in message:
                raise Unusable("truncated JPEG") from error
            raise Unusable(f"corrupt JPEG ({message})") from error
    return simplejpeg.decode_jpeg(content, colors, strict=False, **options)


def _check_png(path: Path) -> None:
    """Compare the checksums of a PNG file and count its pixels, which Pillow does not do when it loads them."""
    with _open(path) as header, _naming_damage("PNG"):
        header.verify()
    content = path.read_bytes()
    if content[12:16] != b"IHDR":  # Pillow takes chunks in any order
        raise Unusable("PNG with a corrupt header")
    n_expected = _count_png_bytes(content)
    n_decompressed = 0
    unpacker = zlib.decompressobj()
    start = 8  # of a chunk: its length, its kind, its content, a checksum
    while start + 12 <= len(content) and n_decompressed < n_expected:
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        if kind == b"IDAT":
            chunk = content[start + 8 : start + 8 + length]
            try:
                n_decompressed += len(unpacker.decompress(chunk, n_expected))  # at most: the file may be a bomb
            except zlib.error as error:
                raise Unusable(f"corrupt PNG ({error})") from error
        start += 12 + length
    if n_decompressed < n_expected:
        percentage = 100 * n_decompressed // n_expected
        raise Unusable(f"truncated PNG ({percentage} % of the pixels are there)")


def _count_png_bytes(content: bytes) -> int:
    """Return how many bytes the pixels of a PNG file have before compression: a filter byte in each row, the pixels."""
    width, height, bits, color, _, _, is_interlaced = struct.unpack(">IIBBBBB", content[16:29])
    passes = ADAM7 if is_interlaced else [(0, 0, 1, 1)]
    n_bytes = 0
    for left, top, step_x, step_y in passes:
        n_columns = -(-(width - left) // step_x)
        n_rows = -(-(height - top) // step_y)
        if n_columns > 0 and n_rows > 0:
            row_bits = n_columns * bits * PNG_CHANNELS[color]
            n_bytes += n_rows * (1 + -(-row_bits // 8))
    return n_bytes


@contextlib.contextmanager
def _naming_damage(kind: str) -> Iterator[None]:
    """Turn errors that Pillow raises for a damaged file of a kind into Unusable."""
    try:
        yield
    except BROKEN as error:
        damage = "truncated" if "runcated" in str(error) else "corrupt"
        raise Unusable(f"{damage} {kind} ({error})") from error


def _load_pixels(header: Image.Image) -> np.ndarray:
    """Load with Pillow what simplejpeg does not: PNG of any kind, and CMYK JPEG; transparent pixels lie on black."""
    with _naming_damage(str(header.format)):
        header.load()
    if header.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(header).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if header.has_transparency_data:
        transparent = header.convert("RGBA")
        black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
        header = Image.alpha_composite(black, transparent)
    return np.asarray(header.convert("RGB"))
