"""A DICOM file: its size, its pixels as a viewer shows them, whom it shows. Nothing of its tags is ever printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess.disk import files
from preprocess.disk.errors import Unusable
from preprocess.disk.libraries import import_libraries

REQUIREMENTS = Path(__file__).parents[1] / "dicom-requirements.txt"
MARK = b"DICM"
MARK_AT = 128  # behind the preamble (DICOM PS3.10, 7.1)
LATERALITY = {"L": "left", "R": "right"}  # (0020,0062), of eyes and other pairs
HASH_DIGITS = 12  # of a patient's digest: enough to tell a million apart
GREY = ("MONOCHROME1", "MONOCHROME2")
COLORS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PALETTE = "PALETTE COLOR"
# What decodes a compression that Pillow does not, beside pylibjpeg: transfer syntax (DICOM PS3.5, annex A) -> package.
LIBJPEG = "pylibjpeg-libjpeg"
PLUGINS = {
    "1.2.840.10008.1.2.4.51": LIBJPEG,  # JPEG of 12 bits
    "1.2.840.10008.1.2.4.57": LIBJPEG,  # lossless JPEG
    "1.2.840.10008.1.2.4.70": LIBJPEG,  # lossless JPEG, the usual one
    "1.2.840.10008.1.2.4.80": LIBJPEG,  # JPEG-LS
    "1.2.840.10008.1.2.4.81": LIBJPEG,
}


class Shown(NamedTuple):
    """Whom a file shows, as far as its tags tell; patient and acquisition are digests, which name nobody."""

    patient: str
    side: str
    acquisition: str


def has_mark(path: Path) -> bool:
    """Return whether a file's content says that it is a DICOM file."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(MARK_AT + len(MARK))
    except OSError:  # whoever reads it says why it cannot be opened
        return False
    return start.endswith(MARK) and len(start) == MARK_AT + len(MARK)


def read_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels. Raises Unusable for what is no single picture."""
    tags = _read_tags(path, stop_before_pixels=True)
    width, height = tags.get("Columns"), tags.get("Rows")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise Unusable("DICOM without a picture")
    n_frames = int(tags.get("NumberOfFrames") or 1)
    if n_frames > 1:
        raise Unusable(
            f"DICOM of {n_frames} frames; export the one that is meant as a file of its own"
        )
    return width, height


def read_pixels(path: Path) -> np.ndarray:
    """Return the picture as a viewer shows it, (h, w, 3) uint8 RGB.

    Grey values go through the modality's table, then through the window or table of interest, and are scaled by the
    range of these, or else by BitsStored; MONOCHROME1 is inverted. Raises Unusable unless all pixels can be decoded.
    """
    read_size(path)
    tags = _read_tags(path)
    interpretation = str(tags.get("PhotometricInterpretation", ""))
    try:
        if interpretation in GREY:
            return _read_grey(tags, is_inverted=interpretation == "MONOCHROME1")
        if interpretation == PALETTE:
            return _read_palette(tags)
        if interpretation in COLORS:
            return _read_colors(tags)
    except Unusable:
        raise
    except (
        ValueError,
        RuntimeError,
        AttributeError,
        KeyError,
        IndexError,
        OSError,
        NotImplementedError,
    ) as error:
        raise Unusable(f"DICOM whose pixels cannot be decoded ({type(error).__name__})") from error
    raise Unusable("DICOM of colours that are neither grey, RGB, YBR nor a palette")


def read_shown(path: Path) -> Shown:
    """Return whom a file shows. Raises Unusable for what is no DICOM file."""
    tags = _read_tags(path, stop_before_pixels=True)
    side = str(tags.get("ImageLaterality") or tags.get("Laterality") or "")
    return Shown(
        patient=_digest(tags.get("PatientID")),
        side=LATERALITY.get(side, ""),
        acquisition=_digest(tags.get("StudyInstanceUID")),
    )


def _digest(value: object) -> str:
    if not value:
        return ""
    return files.hash_text(str(value))[:HASH_DIGITS]


def _read_tags(path: Path, stop_before_pixels: bool = False) -> Any:
    """Return the data set of a file. Raises Unusable if it is damaged, InputError without the library."""
    pydicom, errors = import_libraries(REQUIREMENTS, "pydicom", "pydicom.errors")
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except errors.InvalidDicomError:
        raise Unusable("no DICOM file") from None
    except (OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise Unusable(f"corrupt DICOM ({type(error).__name__})") from error


def _decode(tags: Any) -> np.ndarray:
    """Return the stored values. Raises Unusable, with the transfer syntax, if nothing here decodes them."""
    try:
        return tags.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        syntax = tags.file_meta.get("TransferSyntaxUID", "")
        name = getattr(syntax, "name", syntax)
        missing = PLUGINS.get(str(syntax), "")
        hint = f"pip install pylibjpeg {missing}" if missing else f"see {REQUIREMENTS.name}"
        raise Unusable(
            f"DICOM compressed in a way that is not read here ({name}); {hint}"
        ) from error


def _read_grey(tags: Any, is_inverted: bool) -> np.ndarray:
    (pixels,) = import_libraries(REQUIREMENTS, "pydicom.pixels")
    stored = _decode(tags)
    if stored.ndim != 2:
        raise Unusable("DICOM whose grey picture has several channels")
    values = pixels.apply_modality_lut(stored, tags).astype(np.float64)
    low, high = _find_range(tags)
    if _has_window(tags):
        shown = pixels.apply_voi_lut(pixels.apply_modality_lut(stored, tags), tags).astype(
            np.float64
        )
        low, high = _find_shown_range(tags, low, high)
        values = shown
    if high <= low:
        raise Unusable("DICOM without a range of grey values")
    grey = np.clip((values - low) / (high - low), 0, 1)
    if is_inverted:
        grey = 1 - grey
    return np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def _find_range(tags: Any) -> tuple[float, float]:
    """Return the least and the greatest value that BitsStored can hold, behind the modality's table or line."""
    bits = int(tags.BitsStored)
    low, high = 0.0, 2.0**bits - 1
    if int(tags.get("PixelRepresentation", 0)) == 1:
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    if tags.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(tags.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    slope = float(tags.get("RescaleSlope") or 1)
    intercept = float(tags.get("RescaleIntercept") or 0)
    ends = sorted((slope * low + intercept, slope * high + intercept))
    return ends[0], ends[1]


def _has_window(tags: Any) -> bool:
    return bool(tags.get("VOILUTSequence")) or (
        tags.get("WindowCenter") not in (None, "") and tags.get("WindowWidth") not in (None, "")
    )


def _find_shown_range(tags: Any, low: float, high: float) -> tuple[float, float]:
    """Return the range of what a table of interest gives; a window gives the range of the values it is laid over."""
    if tags.get("VOILUTSequence"):
        return 0.0, 2.0 ** int(tags.VOILUTSequence[0].LUTDescriptor[2]) - 1
    return low, high


def _read_palette(tags: Any) -> np.ndarray:
    (pixels,) = import_libraries(REQUIREMENTS, "pydicom.pixels")
    colors = pixels.apply_color_lut(_decode(tags), tags)[..., :3]
    if colors.dtype == np.uint8:
        return np.ascontiguousarray(colors)
    return np.rint(colors * (255 / 65535)).astype(np.uint8)


def _read_colors(tags: Any) -> np.ndarray:
    colors = _decode(tags)  # pydicom gives RGB for YBR
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise Unusable("DICOM whose colours are no three channels")
    highest = 2 ** int(tags.BitsStored) - 1
    return np.rint(colors * (255 / highest)).astype(np.uint8)
