"""Photographs that nobody should send, made by code: damaged, mislabelled, absurd files, and files that are none.

`CONTENTS`, `PLACES` and `NAMES` map a kind to what makes it and to what must become of it: `TAKEN`, a reason of
`rejected.csv` (a regular expression), or `IGNORED` for what does not look like a photograph at all.
"""

import contextlib
import io
import os
import socket
import struct
from collections import namedtuple
from functools import partial
from random import Random
from zlib import compress, crc32

import cv2
import numpy as np
from PIL import Image

from preprocess.picture import photograph

TAKEN, IGNORED, MISNAMED = "taken", "ignored", "the file's name is not"
NO_IMAGE, NO_EYE = (
    "neither a JPEG nor a PNG image",
    "one flat colour, or all black|no round outline",
)
CORRUPT_JPEG, TOO_LARGE = "corrupt JPEG|truncated JPEG|corrupt header", "absurdly large"
SLIM = ((1, 1), (1, 60_000), (60_000, 1))
BOMB_PX = 65_500  # the most that libjpeg takes; 13 GB as RGB
EXIF = b"Exif\0\0II*\0\x08\0\0\0"
UNREADABLE = TAKEN if os.geteuid() == 0 else "cannot be opened"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
Kind = namedtuple("Kind", "make outcome")


def encode(image, kind="JPEG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def recode(kind, mode="RGB", **options):
    """Return a function that stores a JPEG in another format, which a picture's bytes go through."""
    return lambda jpeg: encode(Image.open(io.BytesIO(jpeg)).convert(mode), kind, **options)


png, cmyk, progressive = recode("PNG"), recode("JPEG", "CMYK"), recode("JPEG", progressive=True)


def flip_bits(content, first, last, step):
    """Return a file with one bit flipped in every `step`-th byte from `first` to `last`."""
    flips = {position: 1 << position % 8 for position in range(first, last, step)}
    return bytes(byte ^ flips.get(position, 0) for position, byte in enumerate(content))


def find_scan(jpeg):
    return jpeg.index(b"\xff\xda") + 14  # where the compressed pixels begin


def set_size(jpeg, width, height):
    frame = next(jpeg.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg)
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def add_scans(jpeg, n_scans):
    """Return a progressive JPEG whose last scan comes so many times: a decoder goes over all pixels for each."""
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * n_scans + jpeg[-2:]


def add_segment(jpeg, content, n_times=1):
    return (
        jpeg[:2]
        + (b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content) * n_times
        + jpeg[2:]
    )


turn = partial(
    add_segment, content=EXIF + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 0)
)  # by a quarter


def make_chunk(name, content):
    return (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc32(name + content))
    )


def make_png(width, height, pixels, further=b"", interlace=0):
    """Return a PNG of 8-bit grey whose rows are `pixels`, bytes or how many zeros."""
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace))
    return (
        SIGNATURE
        + header
        + further
        + make_chunk(b"IDAT", compress(bytes(pixels)))
        + make_chunk(b"IEND", b"")
    )


def make_interlaced(jpeg, n_missing=0):
    """Return an interlaced PNG in grey, perhaps without its last bytes of pixels."""
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
    passes = [grey[top::step_y, left::step_x] for left, top, step_x, step_y in photograph.ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    return make_png(grey.shape[1], grey.shape[0], rows[: len(rows) - n_missing], interlace=1)


def make_deep(jpeg):
    return cv2.imencode(".png", cv2.imdecode(np.frombuffer(jpeg, "u1"), 1) * np.uint16(257))[
        1
    ].tobytes()


OUTCOMES = {
    TAKEN: {
        "PNG": png,
        "PNG, palette": recode("PNG", "P"),
        "PNG, transparent": recode("PNG", "RGBA"),
        "PNG, 16 bits": make_deep,
        **{kind: recode(kind) for kind in ("TIFF", "BMP", "PPM", "WEBP")},
        "PNG, interlaced": make_interlaced,
        "progressive": progressive,
        "CMYK": cmyk,
        "grey": recode("JPEG", "L"),
        "turned by EXIF": turn,
        "EXIF of 64 kB": lambda jpeg: add_segment(jpeg, b"Exif\0\0II*\0" + bytes(65_000)),
        "EXIF 300 times": lambda jpeg: add_segment(jpeg, bytes(64_998), 300),
        "EXIF of rubbish": lambda jpeg: add_segment(jpeg, b"Exif\0\0" + bytes(range(256)) * 9),
        "EXIF in a circle": lambda jpeg: add_segment(
            jpeg, EXIF + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
        ),
        "bytes after the end": lambda jpeg: jpeg + bytes(10_000),
        "two in one": lambda jpeg: jpeg + jpeg,
    },
    "the file is empty": {"empty": lambda jpeg: b"", "one byte": lambda jpeg: jpeg[:0]},
    f"{TAKEN}|truncated JPEG": {"one byte short": lambda jpeg: jpeg[:-1]},
    f"{CORRUPT_JPEG}|{NO_IMAGE}|absurdly": {
        "flipped header": lambda jpeg: flip_bits(jpeg, 2, find_scan(jpeg), 7)
    },
    f"{CORRUPT_JPEG}|{NO_EYE}": {
        "flipped pixels": lambda jpeg: flip_bits(jpeg, find_scan(jpeg), len(jpeg) - 2, 50)
    },
    f"{TAKEN}|{CORRUPT_JPEG}": {
        "zeros in the pixels": lambda jpeg: (
            jpeg[: len(jpeg) // 2] + bytes(900) + jpeg[len(jpeg) // 2 :]
        ),
        "no tables": lambda jpeg: jpeg.replace(b"\xff\xc4", b"\xff\xec"),
    },
    CORRUPT_JPEG: {
        **{
            f"cut at {tenth}0 %": lambda jpeg, tenth=tenth: jpeg[: len(jpeg) * tenth // 10]
            for tenth in range(1, 10)
        },
        "end marker too soon": lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "no height": lambda jpeg: set_size(jpeg, 400, 0),
        "CMYK, end marker too soon": lambda jpeg: cmyk(jpeg)[:3000] + b"\xff\xd9",
        "progressive, cut": lambda jpeg: progressive(jpeg)[:4000],
        "progressive, 500 scans": lambda jpeg: add_scans(progressive(jpeg), 500),
        "bomb, as large as a JPEG may be": lambda jpeg: set_size(jpeg, 8_300, 8_300),
        "bomb, as large as a progressive JPEG may be": lambda jpeg: set_size(
            progressive(jpeg), 8_300, 8_300
        ),
    },
    "corrupt PNG": {"PNG, wrong checksum": lambda jpeg: flip_bits(png(jpeg), 5000, 5001, 1)},
    "truncated PNG .33 % of the pixels": {
        "PNG, a third of the rows": lambda _: make_png(300, 300, 301 * 100)
    },
    "truncated PNG .99 % of": {
        "PNG, interlaced, the last pass short": lambda jpeg: make_interlaced(jpeg, 9)
    },
    "truncated (BMP|TIFF|PPM)": {
        f"{kind}, cut": lambda jpeg, kind=kind: recode(kind)(jpeg)[:90_000]
        for kind in ("BMP", "TIFF", "PPM")
    },
    "(truncated|corrupt) WEBP|WebP with": {"WEBP, cut": lambda jpeg: recode("WEBP")(jpeg)[:3000]},
    "wholly transparent": {
        "PNG, wholly transparent": lambda _: encode(Image.new("RGBA", (400, 300)), "PNG")
    },
    "truncated PNG": {"PNG, cut": lambda jpeg: png(jpeg)[:5000]},
    "corrupt header": {
        "PNG, text before the header": lambda _: (
            SIGNATURE + make_chunk(b"tEXt", b"a\0b") + make_png(9, 9, 0)[8:]
        )
    },
    f"corrupt PNG|corrupt header|{TOO_LARGE}": {
        "PNG, text bomb": lambda _: make_png(
            9, 9, 90, make_chunk(b"zTXt", b"a\0\0" + compress(bytes(10**8)))
        )
    },
    f"corrupt PNG|{NO_EYE}": {
        "PNG, more pixels than it claims": lambda _: make_png(300, 300, 5 * 10**7)
    },
    NO_IMAGE: {
        **{kind: recode(kind) for kind in ("GIF", "PDF")},
        "HTML": lambda jpeg: b"<!doctype html><title>404</title>" * 40,
        "script": lambda jpeg: b"#!/bin/sh\necho\n",
        "zip": lambda jpeg: b"PK\5\6" + bytes(18),
    },
    TOO_LARGE: {
        "PNG, pixel bomb": lambda _: make_png(30_000, 30_000, 10**7),
        "PNG, as large as a JPEG may be": lambda _: make_png(8_300, 8_300, 0),
        "bomb": lambda jpeg: set_size(jpeg, BOMB_PX, BOMB_PX)[: find_scan(jpeg)],
        "bomb, progressive": lambda jpeg: set_size(progressive(jpeg), BOMB_PX, BOMB_PX),
    },
    NO_EYE: {
        **{f"{w} x {h}": lambda _, size=(w, h): encode(Image.new("RGB", size)) for w, h in SLIM},
        "bomb, as large as a PNG may be": lambda _: make_png(4_800, 4_800, 23_044_800),
        "black": lambda _: encode(Image.new("RGB", (400, 300))),
        "white": lambda _: encode(Image.new("RGB", (400, 300), "white")),
    },
    f"{TAKEN}|{NO_EYE}": {
        "noise": lambda _: encode(Image.frombytes("RGB", (400, 300), Random(0).randbytes(360_000)))
    },
}
CONTENTS = {
    name: Kind(make, outcome) for outcome, kinds in OUTCOMES.items() for name, make in kinds.items()
}


def make_socket(path, _):
    with (
        contextlib.chdir(path.parent),
        socket.socket(socket.AF_UNIX) as server,
    ):  # an address is at most 107 bytes
        server.bind(path.name)


PLACES = {
    "folder": Kind(lambda path, _: path.mkdir(), "a folder, not a file"),
    "dangling link": Kind(lambda path, _: path.symlink_to("nowhere"), "no such file"),
    "looping link": Kind(lambda path, _: path.symlink_to(path.name), "cannot be opened"),
    "link to a device": Kind(lambda path, _: path.symlink_to("/dev/zero"), "not a regular file"),
    "FIFO": Kind(lambda path, _: os.mkfifo(path), "not a regular file"),
    "socket": Kind(make_socket, "not a regular file"),
    "unreadable": Kind(lambda path, jpeg: (path.write_bytes(jpeg), path.chmod(0)), UNREADABLE),
    "3 GB": Kind(
        lambda path, jpeg: (path.write_bytes(jpeg), os.truncate(path, 3 * 10**9)),
        "absurdly large: 3000 MB",
    ),
}

NAMES = {
    name + b"_left.jpeg": outcome
    for outcome, names in {
        TAKEN: b'7 7|it\'s|"7"|7,7|7;rm -rf $HOME|Zo\xc3\xab \xe7\x9b\xae|%s%n|' + b"7" * 186,
        MISNAMED: b"7" * 245
        + b"|7\n7|7\r|\x1b[31m7|7\xe2\x80\xa8|7\xe2\x80\xae|\xff\xfe|=7+7|@7|-rf|a\\b",
        IGNORED: b".7",
    }.items()
    for name in names.split(b"|")
}
NAMES |= dict.fromkeys((b"7_RIGHT_b_left.JPEG", b"7_left_b.jpeg"), TAKEN)
NAMES |= dict.fromkeys((b"left.jpeg", b"7.jpeg", b" .jpeg"), MISNAMED)
NAMES |= dict.fromkeys((b"7_left", b"7_left.jpeg.part", b"Thumbs.db"), IGNORED)
