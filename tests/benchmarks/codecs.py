"""Measures what squares take on the disk and to read: PNG, WebP and JPEG XL without loss, and mapped pixels.

python -m tests.benchmarks.codecs --photographs DIR [--size-px 512] [--images 40]; DIR holds train/*.jpeg. Formats that
need packages of their own, imagecodecs or pillow-jxl-plugin, are left out where these are not installed.

Per square: bytes, and processor seconds to encode and to decode to RGB, one thread, the best of three. Every decoded
square is compared with the one that was encoded.
"""

import importlib.util
import io
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from preprocess.command import cli, process
from preprocess.picture import cut, outline
from preprocess.picture.encode import encode_image
from preprocess.picture.photograph import Photograph

N_TIMES = 3
FILTERS = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "average": cv2.IMWRITE_PNG_FILTER_AVG,
    "Paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "all": cv2.IMWRITE_PNG_ALL_FILTERS,
}
STRATEGIES = {
    "run lengths": cv2.IMWRITE_PNG_STRATEGY_RLE,
    "Huffman": cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    "filtered": cv2.IMWRITE_PNG_STRATEGY_FILTERED,
    "default": cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
}
PNGS = (
    (1, "run lengths", "average"),
    (1, "run lengths", "Paeth"),
    (1, "run lengths", "all"),
    (1, "Huffman", "average"),
    (1, "default", "average"),
    (3, "filtered", "average"),
    (6, "filtered", "average"),
    (6, "filtered", "all"),
    (9, "filtered", "Paeth"),
)


def make_png(level, strategy, kept_filter):
    """Return the functions that encode RGB as a PNG with zlib's level, strategy and filter, and decode it."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, level]
    options += [cv2.IMWRITE_PNG_STRATEGY, STRATEGIES[strategy]]
    options += [cv2.IMWRITE_PNG_FILTER, FILTERS[kept_filter]]

    def encode(rgb):
        return encode_image(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), ".png", options)

    return encode, decode_cv2


def decode_cv2(content):
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def make_pillow(kind, **options):
    """Return the functions that encode and decode with Pillow, a format and its options."""
    from PIL import Image

    def encode(rgb):
        content = io.BytesIO()
        Image.fromarray(rgb).save(content, kind, **options)
        return content.getvalue()

    def decode(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    return encode, decode


def make_jpegxl(effort, decoding_speed):
    """Return the functions that encode and decode JPEG XL without loss with imagecodecs."""
    import imagecodecs

    def encode(rgb):
        return imagecodecs.jpegxl_encode(
            rgb, lossless=True, effort=effort, decodingspeed=decoding_speed, numthreads=1
        )

    def decode(content):
        return imagecodecs.jpegxl_decode(content, numthreads=1)

    return encode, decode


def list_formats():
    """Return the functions that encode and decode, by what they are."""
    formats = {}
    for level, strategy, kept_filter in PNGS:
        title = f"PNG, level {level}, {strategy}, filter {kept_filter}"
        formats[title] = make_png(level, strategy, kept_filter)
    for method in (0, 4):
        title = f"WebP without loss, method {method} (Pillow)"
        formats[title] = make_pillow("WEBP", lossless=True, quality=0, method=method)
    if importlib.util.find_spec("imagecodecs"):
        for effort in (1, 2, 3, 5):
            title = f"JPEG XL without loss, effort {effort} (imagecodecs)"
            formats[title] = make_jpegxl(effort, 0)
        formats["JPEG XL without loss, effort 2, fastest decoding"] = make_jpegxl(2, 4)
    if importlib.util.find_spec("pillow_jxl"):
        import pillow_jxl  # noqa: F401

        title = "JPEG XL without loss, effort 1 (pillow-jxl-plugin)"
        formats[title] = make_pillow("JXL", lossless=True, effort=1, num_threads=1)
    return formats


def measure(encode, decode, squares):
    """Return the mean bytes of squares, and the processor seconds to encode and to decode one."""
    encode_s = []
    decode_s = []
    for _ in range(N_TIMES):
        start = time.process_time()
        contents = [encode(square) for square in squares]
        encode_s.append(time.process_time() - start)
        start = time.process_time()
        decoded = [decode(content) for content in contents]
        decode_s.append(time.process_time() - start)
    for before, after in zip(squares, decoded, strict=True):
        np.testing.assert_array_equal(before, after)
    n = len(squares)
    size_bytes = sum(len(content) for content in contents) / n
    return size_bytes, min(encode_s) / n, min(decode_s) / n


def measure_map(squares):
    """Return the bytes of a square in a file of mapped pixels, and the processor seconds to write and to read one."""
    pixels = np.stack(squares)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pixels.npy")
        start = time.process_time()
        np.save(path, pixels)
        write_s = time.process_time() - start
        read_s = []
        for _ in range(N_TIMES):
            mapped = np.load(path, mmap_mode="r")
            start = time.process_time()
            for square in mapped:
                square.copy()
            read_s.append(time.process_time() - start)
        size_bytes = path.stat().st_size
    n = len(squares)
    return size_bytes / n, write_s / n, min(read_s) / n


def cut_squares(folder, size_px, n):
    """Return the squares of n photographs of a folder, evenly among all, and the bytes of these photographs."""
    paths = sorted(Path(folder, "train").glob("*.jpeg"))
    chosen = [paths[row] for row in np.linspace(0, len(paths) - 1, min(n, len(paths))).astype(int)]
    squares = []
    for path in chosen:
        photograph = Photograph(path)
        row = outline.measure(photograph, "adaptive")
        square, _ = cut.cut_square(photograph, row, size_px, outline.SHAPES["adaptive"])
        squares.append(square)
    return squares, sum(path.stat().st_size for path in chosen)


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.codecs", __doc__.splitlines()[0], "--photographs DIR"
    )
    parser.add_argument("--photographs", type=Path, required=True, help="folder with train/*.jpeg")
    parser.add_argument("--size-px", type=int, default=512, help="side of the squares")
    parser.add_argument("--images", type=int, default=40, help="photographs")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    squares, photographs_bytes = cut_squares(options.photographs, options.size_px, options.images)
    n = len(squares)
    print(f"{n} photographs of {photographs_bytes / n / 1e3:,.0f} kB, {options.size_px} px\n")
    print("| format | kB a square | encode, ms | decode, ms |\n| --- | --- | --- | --- |")
    rows = {"mapped uint8 pixels": measure_map(squares)}
    for title, (encode, decode) in list_formats().items():
        rows[title] = measure(encode, decode, squares)
    for title, (size_bytes, encode_s, decode_s) in rows.items():
        figures = f"{size_bytes / 1e3:,.0f} | {1e3 * encode_s:.1f} | {1e3 * decode_s:.1f}"
        print(f"| {title} | {figures} |", flush=True)


if __name__ == "__main__":
    process.run(main)
