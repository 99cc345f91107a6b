"""Photographs that nobody should send, made by code: damaged, mislabelled, absurd files, and files that are none.

`CONTENTS`, `PLACES` and `NAMES` map a kind to what makes it and to what must become of it: `TAKEN`, a reason of
`rejected.csv` (a regular expression), or `IGNORED` for what does not look like a photograph at all.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from preprocess.picture import photograph

TAKEN, IGNORED = "taken", "ignored"
NO_IMAGE = "neither a JPEG nor a PNG image"
NO_EYE = "one flat colour, or all black|no round outline"
ORIENTATION_TAG = 0x0112
BOMB_PX = 65_500  # the most that libjpeg takes; 13 GB as RGB


class Kind(NamedTuple):
    """A kind of photograph: what makes it, and what must become of it."""

    make: Callable
    outcome: str


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """Return a picture as the bytes of a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def recode(kind: str, mode: str = "RGB", **options) -> Callable:
    """Return a function that stores a JPEG in another format, which a picture's bytes go through."""
    return lambda jpeg: encode(Image.open(io.BytesIO(jpeg)).convert(mode), kind, **options)


def keep(share: float) -> Callable:
    """Return a function that cuts a file off."""
    return lambda content: content[: int(share * len(content))]


def flip_bits(content: bytes, first: int, last: int, step: int) -> bytes:
    """Return a file with one bit flipped in every `step`-th byte from `first` to `last`."""
    damaged = bytearray(content)
    for position in range(first, min(last, len(damaged)), step):
        damaged[position] ^= 1 << position % 8
    return bytes(damaged)


def find_scan(jpeg: bytes) -> int:
    """Return where the compressed pixels begin."""
    return jpeg.index(b"\xff\xda") + 14


def set_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    frame = next(jpeg.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg)
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def make_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png(width: int, height: int, pixels: bytes, *chunks: bytes) -> bytes:
    """Return a PNG of 8-bit grey whose rows are `pixels`, compressed."""
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    middle = b"".join(chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + make_chunk(b"IDAT", pixels) + make_chunk(b"IEND", b"")


def make_interlaced(jpeg: bytes, n_missing: int = 0) -> bytes:
    """Return an interlaced PNG in grey, perhaps without its last bytes of pixels."""
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
    height, width = grey.shape
    passes = [grey[top::step_y, left::step_x] for left, top, step_x, step_y in photograph.ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    pixels = make_chunk(b"IDAT", zlib.compress(rows[: len(rows) - n_missing]))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + make_chunk(b"IEND", b"")


def compress_zeros(size_bytes: int) -> bytes:
    """Return so many zeros, compressed, without holding them in memory."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    parts = [
        packer.compress(block[: min(len(block), size_bytes - start)]) for start in range(0, size_bytes, len(block))
    ]
    return b"".join(parts) + packer.flush()


def add_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Return a JPEG with an APP1 segment of EXIF bytes."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:]


def turn(jpeg: bytes) -> bytes:
    """Return a photograph that its EXIF data turns by a quarter."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    return encode(Image.open(io.BytesIO(jpeg)), exif=exif)


def make_deep(jpeg: bytes) -> bytes:
    """Return a PNG with 16 bits a channel."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(np.uint16)
    return cv2.imencode(".png", bgr * 257)[1].tobytes()


def make_archive(jpeg: bytes) -> bytes:
    """Return a zip file with the photograph in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("1_left.jpeg", jpeg)
    return content.getvalue()


def fill(value: int) -> Callable:
    """Return a function that makes a JPEG of one grey."""
    return lambda jpeg: encode(Image.new("RGB", (400, 300), (value,) * 3))


def add_noise(jpeg: bytes) -> bytes:
    """Return a JPEG of noise alone."""
    return encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)))


LOOPING_IFD = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
CORRUPT_JPEG = "corrupt JPEG|truncated JPEG|corrupt header"

CONTENTS: dict[str, Kind] = {
    "empty": Kind(lambda jpeg: b"", "the file is empty"),
    **{f"cut at {tenth}0 %": Kind(keep(tenth / 10), CORRUPT_JPEG) for tenth in range(1, 10)},
    "one byte": Kind(keep(1e-9), "the file is empty"),
    "one byte short": Kind(lambda jpeg: jpeg[:-1], f"{TAKEN}|truncated JPEG"),
    "flipped header": Kind(lambda jpeg: flip_bits(jpeg, 2, find_scan(jpeg), 7), f"{CORRUPT_JPEG}|{NO_IMAGE}|absurdly"),
    "flipped pixels": Kind(
        lambda jpeg: flip_bits(jpeg, find_scan(jpeg), len(jpeg) - 2, 50), f"{CORRUPT_JPEG}|{NO_EYE}"
    ),
    "zeros in the pixels": Kind(
        lambda jpeg: jpeg[: len(jpeg) // 2] + bytes(900) + jpeg[len(jpeg) // 2 :], f"{TAKEN}|{CORRUPT_JPEG}"
    ),
    "end marker too soon": Kind(lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff\xd9", CORRUPT_JPEG),
    "no tables": Kind(lambda jpeg: jpeg.replace(b"\xff\xc4", b"\xff\xec"), f"{TAKEN}|{CORRUPT_JPEG}"),
    "no height": Kind(lambda jpeg: set_size(jpeg, 400, 0), CORRUPT_JPEG),
    "PNG": Kind(recode("PNG"), TAKEN),
    "PNG, palette": Kind(recode("PNG", "P"), TAKEN),
    "PNG, transparent": Kind(recode("PNG", "RGBA"), TAKEN),
    "PNG, 16 bits": Kind(make_deep, TAKEN),
    "PNG, wrong checksum": Kind(lambda jpeg: flip_bits(recode("PNG")(jpeg), 5000, 5001, 1), "corrupt PNG"),
    "PNG, a third of the rows": Kind(
        lambda jpeg: make_png(300, 300, zlib.compress(bytes(301 * 100))), "truncated PNG .33 % of the pixels"
    ),
    "CMYK, end marker too soon": Kind(lambda jpeg: keep(0.5)(recode("JPEG", "CMYK")(jpeg)) + b"\xff\xd9", CORRUPT_JPEG),
    "PNG, interlaced": Kind(make_interlaced, TAKEN),
    "PNG, interlaced, the last pass short": Kind(lambda jpeg: make_interlaced(jpeg, 9), "truncated PNG .99 % of"),
    "PNG, text before the header": Kind(
        lambda jpeg: recode("PNG")(jpeg)[:8] + make_chunk(b"tEXt", b"a\0b") + recode("PNG")(jpeg)[8:], "corrupt header"
    ),
    "PNG, cut": Kind(lambda jpeg: recode("PNG")(jpeg)[:5000], "truncated PNG"),
    "PNG, text bomb": Kind(
        lambda jpeg: make_png(9, 9, zlib.compress(bytes(90)), make_chunk(b"zTXt", b"a\0\0" + compress_zeros(10**8))),
        "corrupt PNG|corrupt header|absurdly large",
    ),
    "PNG, pixel bomb": Kind(lambda jpeg: make_png(30_000, 30_000, compress_zeros(10**7)), "absurdly large"),
    "PNG, more pixels than it claims": Kind(
        lambda jpeg: make_png(300, 300, compress_zeros(5 * 10**7)), f"corrupt PNG|{NO_EYE}"
    ),
    "GIF": Kind(recode("GIF"), NO_IMAGE),
    "TIFF": Kind(recode("TIFF"), NO_IMAGE),
    "BMP": Kind(recode("BMP"), NO_IMAGE),
    "PDF": Kind(recode("PDF"), NO_IMAGE),
    "HTML": Kind(lambda jpeg: b"<!doctype html><title>404</title>" * 40, NO_IMAGE),
    "script": Kind(lambda jpeg: b"#!/bin/sh\necho\n", NO_IMAGE),
    "zip": Kind(make_archive, NO_IMAGE),
    "progressive": Kind(recode("JPEG", progressive=True), TAKEN),
    "progressive, cut": Kind(lambda jpeg: keep(0.6)(recode("JPEG", progressive=True)(jpeg)), CORRUPT_JPEG),
    "progressive, 500 scans": Kind(lambda jpeg: add_scans(recode("JPEG", progressive=True)(jpeg), 500), CORRUPT_JPEG),
    "CMYK": Kind(recode("JPEG", "CMYK"), TAKEN),
    "grey": Kind(recode("JPEG", "L"), TAKEN),
    "turned by EXIF": Kind(turn, TAKEN),
    "EXIF of 64 kB": Kind(lambda jpeg: add_exif(jpeg, b"II*\0" + bytes(65_000)), TAKEN),
    "EXIF 300 times": Kind(
        lambda jpeg: jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(64_998)) * 300 + jpeg[2:], TAKEN
    ),
    "EXIF of rubbish": Kind(lambda jpeg: add_exif(jpeg, bytes(range(256)) * 9), TAKEN),
    "EXIF in a circle": Kind(lambda jpeg: add_exif(jpeg, LOOPING_IFD), TAKEN),
    "bytes after the end": Kind(lambda jpeg: jpeg + bytes(10_000), TAKEN),
    "two in one": Kind(lambda jpeg: jpeg + jpeg, TAKEN),
    "1 x 1": Kind(lambda jpeg: encode(Image.new("RGB", (1, 1))), NO_EYE),
    "1 x 60000": Kind(lambda jpeg: encode(Image.new("RGB", (1, 60_000))), NO_EYE),
    "60000 x 1": Kind(lambda jpeg: encode(Image.new("RGB", (60_000, 1))), NO_EYE),
    "bomb": Kind(lambda jpeg: set_size(jpeg, BOMB_PX, BOMB_PX)[: find_scan(jpeg)], "absurdly large"),
    "bomb, progressive": Kind(
        lambda jpeg: set_size(recode("JPEG", progressive=True)(jpeg), BOMB_PX, BOMB_PX), "absurdly large"
    ),
    "bomb, as large as a JPEG may be": Kind(lambda jpeg: set_size(jpeg, 8_300, 8_300), CORRUPT_JPEG),
    "bomb, as large as a progressive JPEG may be": Kind(
        lambda jpeg: set_size(recode("JPEG", progressive=True)(jpeg), 8_300, 8_300), CORRUPT_JPEG
    ),
    "bomb, as large as a PNG may be": Kind(lambda jpeg: make_png(4_800, 4_800, compress_zeros(23_044_800)), NO_EYE),
    "PNG, as large as a JPEG may be": Kind(lambda jpeg: make_png(8_300, 8_300, b""), "absurdly large"),
    "black": Kind(fill(0), NO_EYE),
    "white": Kind(fill(255), NO_EYE),
    "noise": Kind(add_noise, f"{TAKEN}|{NO_EYE}"),
}


def add_scans(jpeg: bytes, n_scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes so many times: a decoder goes over all pixels for each."""
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * n_scans + jpeg[-2:]


def make_socket(path: Path, jpeg: bytes) -> None:
    """Make a socket; its address may be no longer than 107 bytes."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def make_sparse(path: Path, jpeg: bytes) -> None:
    """Make a file of 3 GB that takes no room."""
    path.write_bytes(jpeg)
    os.truncate(path, 3_000_000_000)


def make_unreadable(path: Path, jpeg: bytes) -> None:
    """Make a file that only the superuser may read."""
    path.write_bytes(jpeg)
    path.chmod(0)


PLACES: dict[str, Kind] = {
    "folder": Kind(lambda path, jpeg: path.mkdir(), "a folder, not a file"),
    "dangling link": Kind(lambda path, jpeg: path.symlink_to("nowhere"), "no such file"),
    "looping link": Kind(lambda path, jpeg: path.symlink_to(path.name), "cannot be opened"),
    "link to a device": Kind(lambda path, jpeg: path.symlink_to("/dev/zero"), "not a regular file"),
    "FIFO": Kind(lambda path, jpeg: os.mkfifo(path), "not a regular file"),
    "socket": Kind(make_socket, "not a regular file"),
    "unreadable": Kind(make_unreadable, TAKEN if os.geteuid() == 0 else "cannot be opened"),
    "3 GB": Kind(make_sparse, "absurdly large: 3000 MB"),
}

MISNAMED = "the file's name is not"
NAMES: dict[bytes, str] = {
    b"7 7_left.jpeg": TAKEN,
    b"it's_left.jpeg": TAKEN,
    b'"7"_left.jpeg': TAKEN,
    b"7,7_left.jpeg": TAKEN,
    b"7;rm -rf $HOME_left.jpeg": TAKEN,
    "Zoë 目_left.jpeg".encode(): TAKEN,
    b"%s%n_left.jpeg": TAKEN,
    b"7" * 186 + b"_left.jpeg": TAKEN,
    b"7_RIGHT_b_left.JPEG": TAKEN,
    b"7_left_b.jpeg": TAKEN,
    b"7" * 245 + b"_left.jpeg": MISNAMED,
    b"7\n7_left.jpeg": MISNAMED,
    b"7\r_left.jpeg": MISNAMED,
    b"\x1b[31m7_left.jpeg": MISNAMED,
    "7\u2028_left.jpeg".encode(): MISNAMED,
    "7\u202e_left.jpeg".encode(): MISNAMED,
    b"\xff\xfe_left.jpeg": MISNAMED,
    b"=7+7_left.jpeg": MISNAMED,
    b"@7_left.jpeg": MISNAMED,
    b"-rf_left.jpeg": MISNAMED,
    b"a\\b_left.jpeg": MISNAMED,
    b"left.jpeg": MISNAMED,
    b"7.jpeg": MISNAMED,
    b" .jpeg": MISNAMED,
    b".7_left.jpeg": IGNORED,
    b"7_left": IGNORED,
    b"7_left.jpeg.part": IGNORED,
    b"Thumbs.db": IGNORED,
}
