"""Read one photograph, JPEG, PNG, TIFF, BMP, PPM, WebP or DICOM, into an RGB array no larger than needed.

Its content decides which it is, not its suffix. Values of more than 8 bits are scaled by their range.
"""

import contextlib
import functools
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from preprocess.cache.rejected import MISSING
from preprocess.disk import dicom
from preprocess.disk.errors import Unusable

# Four times the largest camera of the competition (16 megapixels). A damaged or hostile header may claim anything up to
# 65535 x 65535; within these limits no file takes more than 500 MB of memory, however small it is. A progressive JPEG
# takes 6 bytes a pixel; PNG and CMYK, which cannot be decoded at reduced scale, take 14 to 18.
MAX_PIXELS = 70_000_000
MAX_WHOLE_PIXELS = 24_000_000
MAX_BYTES = 256_000_000  # no photograph under MAX_PIXELS is this large; a larger file is not read into memory
REDUCTIONS = (
    8,
    4,
    2,
    1,
)  # the scales 1/k that a JPEG can be decoded at for less than the price of the whole
SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"P5": "PGM",
    b"P6": "PPM",
    b"RIFF": "WebP",
}
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "PPM", "WEBP")  # that Pillow opens
NO_PICTURE = "neither a JPEG nor a PNG image, nor TIFF, BMP, PPM, PGM, WebP or DICOM"
BITS_PER_SAMPLE_TAG = 258  # of TIFF, its bits in each channel (TIFF 6.0, section 8)
PNG_DEPTH_AT = 24  # the byte of a PNG file that says how many bits a channel has
MOST_BITS = 16
# libjpeg's warning of bytes left over before the end marker: every pixel was decoded, so the photograph is whole.
HARMLESS_WARNING = "extraneous bytes before marker 0xd9"
# How a viewer turns the picture for each value of EXIF's Orientation (CIPA DC-008, tag 0x0112): steps down and across;
# from SIDEWAYS on, the result is also transposed.
ORIENTATION_TAG = 0x0112
TURNS = {
    1: (1, 1),
    2: (1, -1),
    3: (-1, -1),
    4: (-1, 1),
    5: (1, 1),
    6: (-1, 1),
    7: (-1, -1),
    8: (1, -1),
}
SIDEWAYS = 5
PNG_CHANNELS = {
    0: 1,
    2: 3,
    3: 1,
    4: 2,
    6: 4,
}  # by colour type (PNG specification, third edition, 11.2.1)
# The seven passes of an interlaced PNG: first column, first row, steps (8.1).
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    IndexError,
    EOFError,
)  # what Pillow raises for a damaged file


# The range of values of more than 8 bits in a data set, as a number of bits; or those of its sources.
Bits = int | tuple[int, ...]


class Photograph:
    """One file, opened when its pixels are needed and decoded again only if they are needed at another scale.

    `bits` is the range of values of more than 8 bits, see `decode`.
    """

    def __init__(self, path: Path, bits: Bits | None = None):
        self.path = path
        self.bits = bits
        self._wanted = 0  # the reduction of the last request; all but JPEG in RGB is decoded whole nevertheless
        self._decoded: tuple[np.ndarray, int] | None = None

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as a viewer shows the file. Raises Unusable if its header is damaged."""
        if _is_dicom(self.path):
            return _read_dicom_size(self.path)
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
            is_always_whole = reduction != self._wanted  # all but JPEG in RGB
            if wanted == self._wanted or is_always_whole:
                return self._decoded
        self._decoded = decode(self.path, short_side_px, self.bits)
        self._wanted = wanted
        return self._decoded


def decode(
    path: Path | str, short_side_px: int, bits: Bits | None = None
) -> tuple[np.ndarray, int]:
    """Decode a photograph at the coarsest scale that leaves its shorter side at least `short_side_px`.

    Returns (h, w, 3) uint8, C-contiguous, turned as EXIF says, and the reduction k, 1, 2, 4 or 8: a pixel covers k x k
    of the file's, counted from the upper left corner before turning, fewer in the last row and column. Only JPEG files
    are reduced. Values of 16 bits are scaled to 0-255 by the range of so many `bits` as the data set has, or else of
    16; of several `bits`, those of a joined set's sources, by the least that holds the file's values. DICOM, PPM and
    TIFF of fewer than 16 bits say their range themselves. Raises Unusable, with the reason, unless
    every pixel could be decoded.
    """
    path = Path(path)
    if _is_dicom(path):
        _read_dicom_size(path)
        return np.ascontiguousarray(dicom.read_pixels(path)), 1
    reduction = 1
    with _open(path) as header:
        orientation = _read_orientation(header)
        if header.format == "JPEG" and header.mode != "CMYK":
            reduction = choose_reduction(header.size, short_side_px)
            rgb = _decode_jpeg(path, header.size, reduction)
        else:
            _check_whole(path, header)
            depth = _read_depth(path, header)
            if depth > 8:
                values = _load_values(path, header)
                rgb = _scale(values, _find_range(header, depth, bits, int(values.max())))
            else:
                rgb = _load_pixels(header)
    down, across = TURNS[orientation]
    turned = rgb[::down, ::across]
    if orientation >= SIDEWAYS:
        turned = turned.transpose(1, 0, 2)
    return np.ascontiguousarray(turned), reduction


def read_values(path: Path) -> np.ndarray | None:
    """Return the values of a file of 16 bits whose range the file itself does not say, (h, w, 3) uint16; else None.

    Raises Unusable for what cannot be decoded.
    """
    if _is_dicom(path):
        return None
    with _open(path) as header:
        if header.format not in ("PNG", "TIFF") or _read_depth(path, header) != MOST_BITS:
            return None
        _check_whole(path, header)
        return _load_values(path, header)


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
            header = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Unusable(f"absurdly large: more than {MAX_PIXELS // 10**6} megapixels") from error
    except BROKEN as error:
        for signature, kind in SIGNATURES.items():
            if start.startswith(signature):
                raise Unusable(f"{kind} with a truncated or corrupt header") from error
        raise Unusable(NO_PICTURE) from error
    n_pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    if n_pixels > MAX_PIXELS:
        header.close()
        raise Unusable(f"absurdly large: {size}")
    # Decoded by Pillow: libjpeg has no RGB for CMYK.
    is_whole = header.format != "JPEG" or header.mode == "CMYK"
    if is_whole and n_pixels > MAX_WHOLE_PIXELS:
        header.close()
        raise Unusable(f"absurdly large: {size}; as a JPEG in RGB it could be read")
    n_frames = 1
    if header.format in ("TIFF", "WEBP"):
        n_frames = getattr(header, "n_frames", 1)
    if n_frames > 1:
        header.close()
        raise Unusable(
            f"{header.format} of {n_frames} pictures; export the one that is meant as a file of its own"
        )
    return header


def _is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its content. Raises Unusable if it cannot be opened, see `_read_start`."""
    _read_start(path)
    return dicom.has_mark(path)


def _read_dicom_size(path: Path) -> tuple[int, int]:
    width, height = dicom.read_size(path)
    if width * height > MAX_WHOLE_PIXELS:
        raise Unusable(f"absurdly large: {width} x {height} pixels")
    return width, height


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
    if header.format == "TIFF":
        return 1  # Pillow turns it
    try:
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, OSError):
        return 1
    return orientation if orientation in TURNS else 1


def _decode_jpeg(
    path: Path, size: tuple[int, int], reduction: int, colors: str = "RGB"
) -> np.ndarray:
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
                n_decompressed += len(
                    unpacker.decompress(chunk, n_expected)
                )  # at most: the file may be a bomb
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


def _check_whole(path: Path, header: Image.Image) -> None:
    """Raise Unusable for damage that Pillow would paint over when it loads the pixels."""
    if header.format == "PNG":
        _check_png(path)
    elif header.format == "JPEG":  # in CMYK: Pillow paints grey where pixels are missing
        _decode_jpeg(path, header.size, REDUCTIONS[0], "CMYK")


def _read_depth(path: Path, header: Image.Image) -> int:
    """Return how many bits a channel of a file has. Raises Unusable for values that are no whole numbers of 16 bits."""
    depth = 8
    if header.format == "PNG":
        with path.open("rb") as file:
            depth = max(8, file.read(PNG_DEPTH_AT + 1)[PNG_DEPTH_AT])
    elif header.format == "TIFF":
        depths = header.tag_v2.get(BITS_PER_SAMPLE_TAG, (1,))  # type: ignore[attr-defined]
        depth = max(8, *depths)
    elif header.mode.startswith(
        "I"
    ):  # PGM, which Pillow scales to 16 bits by the range that the file says
        depth = MOST_BITS
    if depth > MOST_BITS or header.mode == "F":
        raise Unusable(f"{header.format} of {max(depth, 32)} bits a channel; save it with 8 or 16")
    return depth


def _find_range(header: Image.Image, depth: int, bits: Bits | None, highest: int) -> int:
    """Return by how many bits values are to be scaled: the file's own if it says them, else those of its data set.

    Of the ranges of several sources it is the least that holds the highest value.
    """
    if header.format == "PPM" or depth < MOST_BITS:
        return depth
    if isinstance(bits, tuple):
        holding = [of_source for of_source in sorted(bits) if highest < 2**of_source]
        return holding[0] if holding else max(bits)
    return bits or MOST_BITS


def _load_values(path: Path, header: Image.Image) -> np.ndarray:
    """Load values of more than 8 bits, (h, w, 3) uint16, as they are; transparent pixels lie on black."""
    turn = TURNS[1]
    is_sideways = False
    if header.format == "TIFF":  # which Pillow turns, and OpenCV does not
        orientation = header.tag_v2.get(ORIENTATION_TAG, 1)  # type: ignore[attr-defined]
        turn = TURNS.get(orientation, turn)
        is_sideways = orientation in TURNS and orientation >= SIDEWAYS
    with _naming_damage(str(header.format)):
        header.load()
    if header.mode.startswith("I"):
        grey = np.asarray(header)
        if grey.min() < 0 or grey.max() >= 2**MOST_BITS:
            raise Unusable(f"{header.format} with values beyond 16 bits")
        return np.repeat(grey.astype(np.uint16)[..., None], 3, axis=2)
    # Pillow keeps but the upper 8 bits of colours.
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise Unusable(f"{header.format} whose colours of 16 bits cannot be decoded")
    down, across = turn
    values = values[::down, ::across]
    if is_sideways:
        values = values.swapaxes(0, 1)
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / (2**MOST_BITS - 1)
        _check_visible(float(alpha.max()))
        values = np.rint(values[..., :3] * alpha).astype(np.uint16)
    return values[..., ::-1]


def _scale(values: np.ndarray, bits: int) -> np.ndarray:
    """Return values (h, w, 3) uint16 as uint8: the range of so many bits becomes 0-255. Raises Unusable beyond it."""
    highest = 2**bits - 1
    if values.max() > highest:
        raise Unusable(
            f"a value of {values.max()}: more than the {bits} bits of the photographs that were sampled"
        )
    table = np.rint(np.arange(highest + 1) * (255 / highest)).astype(np.uint8)
    return table[values]


def _check_visible(most_opaque: float) -> None:
    """Raise Unusable if no pixel is opaque, not even a little."""
    if most_opaque == 0:
        raise Unusable("wholly transparent")


def _load_pixels(header: Image.Image) -> np.ndarray:
    """Load with Pillow what simplejpeg does not, of 8 bits or fewer; transparent pixels lie on black."""
    with _naming_damage(str(header.format)):
        header.load()
    if header.has_transparency_data:
        transparent = header.convert("RGBA")
        _check_visible(float(np.asarray(transparent.getchannel("A")).max()))
        black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
        header = Image.alpha_composite(black, transparent)
    return np.asarray(header.convert("RGB"))
