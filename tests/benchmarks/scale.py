"""Measures every stage on thousands of images: seconds, peak memory, disk, and how long a terminal shows no new line.

python -m tests.benchmarks.scale [--images 5000 20000 88702] [--stages NAME …] [--root CHECKOUT] [--folder DIR]

The photographs are a few tiny drawn ones under many names (hard links), so that the number of images counts and not
their pixels: of a net, or of squares of 512 px, these figures say nothing. 4 of 10 images are training images, as in
Kaggle's data of 2015. With --root the stages are another checkout's, to compare two; with --folder the data and the
cache stay, and a second start measures further stages on them.

Each stage is a process of its own on a terminal: its seconds, its processor seconds (of its workers, too), its peak
memory (ru_maxrss, the largest of the process and its workers), the longest time without output, and what the cache
grew by on the disk.
"""

import argparse
import contextlib
import os
import pty
import select
import shutil
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.command import cli, process

ROOT = Path(__file__).parents[2]
SIZE_PX = 40  # of photographs and squares; crops are 32 px, the net's least
N_LEVELS = 5
N_DRAWN = 8  # photographs of a level: a file has at most 65,000 names
TRAIN_SHARE = 35_126 / 88_702
STAGES = (
    "preprocess.crop --method whole --jobs 2",
    f"preprocess.resize --size-px {SIZE_PX} --jobs 2",
    "preprocess.normalize",
    "preprocess.standardize",
    "dr.train --epochs 1 --batch-size 128 --crop-px 32 --device cpu --precision float32",
    "dr.predict --views 1 --epochs-averaged last:1 --batch-size 128 --device cpu",
    "blend.train",
    "blend.predict",
    "kappa.assign",
    "submissions.write --out {cache}/submission.csv",
    "submissions.report --out {cache}/report.html",
)


class Ended(NamedTuple):
    """What a process took."""

    elapsed_s: float
    processor_s: float
    memory_mb: float
    silence_s: float  # the longest time without output
    output: str
    status: int


def draw_data(data: Path, n_images: int) -> None:
    """Write a data folder of so many images in Kaggle's layout: both eyes of each patient have one level."""
    rng = np.random.default_rng(0)
    drawn = data / "drawn"
    drawn.mkdir(parents=True)
    for level in range(N_LEVELS):
        for number in range(N_DRAWN):
            noise = rng.integers(0, 120, (SIZE_PX, SIZE_PX, 3)) + 30 * level
            cv2.imwrite(str(drawn / f"{level}_{number}.png"), noise.astype(np.uint8))
    n_patients = n_images // 2
    n_train = int(n_patients * TRAIN_SHARE)
    lines = ["image,level"]
    for part in ("train", "test"):
        (data / part).mkdir()
    for patient in range(n_patients):
        part = "train" if patient < n_train else "test"
        level = int(rng.choice(N_LEVELS, p=[0.73, 0.07, 0.15, 0.03, 0.02]))
        for side in ("left", "right"):
            source = drawn / f"{level}_{rng.integers(N_DRAWN)}.png"
            os.link(source, data / part / f"{patient}_{side}.png")
            if part == "train":
                lines.append(f"{patient}_{side},{level}")
    (data / "trainLabels.csv").write_text("\n".join(lines) + "\n")


def run(command: list[str], root: Path) -> Ended:
    """Run a command of a checkout on a terminal of its own."""
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "2",
    }
    start = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(1, (24, 100))  # bars have no room on a terminal of no columns
        os.execve(command[0], command, environment)
    output = b""
    silence_s = 0.0
    last = start
    while True:
        select.select([terminal], [], [])
        try:
            content = os.read(terminal, 65536)
        except OSError:  # Linux's word for the end of a terminal
            content = b""
        now = time.monotonic()
        silence_s = max(silence_s, now - last)
        last = now
        if not content:
            break
        output += content
    _, status, usage = os.wait4(pid, 0)
    os.close(terminal)
    return Ended(
        elapsed_s=time.monotonic() - start,
        processor_s=usage.ru_utime + usage.ru_stime,
        memory_mb=usage.ru_maxrss / 1024,
        silence_s=silence_s,
        output=output.decode(errors="replace"),
        status=os.waitstatus_to_exitcode(status),
    )


def measure_disk(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk, a file of several names once."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            sizes[status.st_ino] = 512 * status.st_blocks
    return sum(sizes.values())


def measure_stages(folder: Path, n_images: int, options: argparse.Namespace) -> None:
    """Run the stages on so many images and print a row each."""
    data = folder / f"data-{n_images}"
    cache = folder / f"cache-{n_images}"
    if not data.exists():
        draw_data(data, n_images)
    before = measure_disk(cache) if cache.exists() else 0
    for stage in STAGES:
        module, *words = stage.format(cache=cache).split()
        if options.stages and module not in options.stages:
            continue
        command = [sys.executable, "-P", "-m", module, f"--data={data}", f"--cache={cache}"]
        ended = run([*command, *words], options.root)
        if ended.status:
            raise SystemExit(f"{module} ended with status {ended.status}: {ended.output[-2000:]}")
        after = measure_disk(cache)
        figures = f"{ended.elapsed_s:.1f} | {ended.processor_s:.1f} | {ended.memory_mb:,.0f}"
        figures += f" | {ended.silence_s:.1f} | {(after - before) / 1e6:,.1f}"
        print(f"| {n_images:,} | {module} | {figures} |", flush=True)
        before = after


def main() -> None:
    parser = cli.make_bare_parser(
        "tests.benchmarks.scale", __doc__.splitlines()[0], "--images 5000 20000"
    )
    parser.add_argument("--images", type=cli.whole(100), nargs="+", default=[5_000, 20_000, 88_702])
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="only these stages")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the checkout whose stages are measured"
    )
    parser.add_argument(
        "--folder", type=Path, help="where data and caches are made and stay (default: removed)"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    head = "images | stage | s | processor s | peak MB | silence s | disk MB"
    print(f"| {head} |\n|{' --- |' * 7}", flush=True)
    try:
        for n_images in options.images:
            measure_stages(folder, n_images, options)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    process.run(main)
