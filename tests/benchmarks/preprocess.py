"""Measures preprocessing on photographs with known discs: overlap, overlap under stress, time, quality and memory.

python -m tests.benchmarks.preprocess --photographs DIR [DIR ...]; each DIR holds train/*.jpeg and discs.csv (image,
center_x, center_y, radius). Patients with even numbers, on which constants were tuned, and odd ones are apart.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from preprocess.cache import parallel
from preprocess.images import Order, work_on
from preprocess.picture import cut, outline, photograph
from preprocess.picture.disc import NoEye, find_box_disc, find_disc
from preprocess.picture.photograph import decode
from tests.stress import STRESSES, measure_overlap

SHORT_SIDE_PX = outline.DETECTION_PX
SIZE_PX = 512  # the article's
METHODS = {"adaptive": find_disc, "box": find_box_disc}


def measure_discs(discs, stress):
    """Return a table: for every photograph and method the overlap (IoU) and confidence under `stress` (None: unspoilt).

    They are 0 and NaN where no disc is found.
    """
    measured = []
    for row in discs.to_dict("records"):
        rgb, reduction = decode(row["path"], SHORT_SIDE_PX)
        center = [(row[name] + 0.5) / reduction - 0.5 for name in ("center_x", "center_y")]
        circle = (*center, row["radius"] / reduction)
        if stress is not None:
            patient = int(row["image"].split("_")[0])
            rgb, circle = STRESSES[stress](rgb, circle, np.random.default_rng([patient, len(row["image"])]))
        for method, find in METHODS.items():
            try:
                disc = find(rgb)
                found = measure_overlap(disc, circle), disc.confidence
            except NoEye:
                found = 0.0, np.nan
            measured.append((row["image"], row["odd"], method, *found))
    return pd.DataFrame(measured, columns=["image", "odd", "method", "overlap", "confidence"])


COLUMNS = {"n": 6, "median": 9, ">=0.95": 9, ">=0.96": 9, ">=0.97": 9, "worst": 9, "refused": 9, "least sure": 12}
HEADING = " " * 31 + "".join(f"{name:>{width}}" for name, width in COLUMNS.items())


def print_overlaps(name, measured):
    """Print the figures of a table of overlaps, under HEADING, for each method and half of the patients."""
    for (method, odd), part in measured.groupby(["method", "odd"]):
        overlap = part["overlap"]
        figures = [
            len(overlap),
            f"{overlap.median():.4f}",
            *(f"{(overlap >= bound).mean():.4f}" for bound in (0.95, 0.96, 0.97)),
            f"{overlap.min():.4f}",
            (overlap == 0).sum(),
            f"{part['confidence'].min():.2f}",
        ]
        line = "".join(f"{figure:>{width}}" for figure, width in zip(figures, COLUMNS.values(), strict=True))
        half = "odd" if odd else "even"
        print(f"{name:16} {method:8} {half:4} {line}  {part.loc[overlap.idxmin(), 'image']}", flush=True)


def crop_alone(path):
    """Do what the cropping of one photograph takes: decode and find the disc, in pixels of the file."""
    rgb, reduction = decode(path, SHORT_SIDE_PX)
    return find_disc(rgb).scaled(reduction, reduction)


def crop_and_write(path, method="adaptive", size_px=SIZE_PX, folder=None):
    """Do all of both image stages from one decode: ellipse, square, histogram, PNG on disk."""
    target = Path(folder or tempfile.gettempdir()) / "benchmark_square.png"
    return work_on(path, Order([], None, method, None, size_px, target, None))


TIMED = {
    "cv2.imread, full size": lambda path: cv2.imread(str(path)),
    "decode": lambda path: decode(path, SHORT_SIDE_PX),
    "crop alone": crop_alone,
    "crop + resize + PNG": crop_and_write,
    "the same, box": lambda path: crop_and_write(path, method="box"),
    "the same, 256 px": lambda path: crop_and_write(path, size_px=256),
}


def print_speed(paths, rounds):
    """Print milliseconds and the ratio to cv2.imread, in turn so that all meet the same machine, on one core.

    The first round is apart: in a fresh process cv2.imread pays the kernel for tens of megabytes of new memory for each
    photograph, as it does in any program that lets go of the picture; later the allocator has learnt to keep them.
    """
    seconds = np.zeros((rounds, len(TIMED)))
    for position in np.ndindex(seconds.shape):
        function, start = list(TIMED.values())[position[1]], time.process_time()
        for path in paths:
            function(path)
        seconds[position] = (time.process_time() - start) / len(paths)
    later = np.median(seconds[1:], axis=0)
    print(f"{'speed':28}{'first round':>16}{'':10}{'median of the next ' + str(rounds - 1):>22}")
    for number, name in enumerate(TIMED):
        first, rest = seconds[0, number], later[number]
        ratios = first / seconds[0, 0], rest / later[0]
        print(f"{name:28}{1e3 * first:10.1f} ms{ratios[0]:7.2f} x{1e3 * rest:14.1f} ms{ratios[1]:7.2f} x")


def crop_and_weigh(path):
    """Do both image stages into a file of this photograph's own; return the most memory the process has had, MB."""
    with tempfile.TemporaryDirectory() as folder:
        crop_and_write(path, folder=folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_processes(paths):
    """Print how much faster two processes are than one, in turn, and the memory of the larger."""
    tasks = {f"{path.stem}_{copy}": (path,) for copy in range(4) for path in paths}

    def time_jobs(jobs):
        start = time.perf_counter()
        memory_mb = [memory for _, memory in parallel.map_parallel(crop_and_weigh, tasks, jobs, f"{jobs} processes")]
        return time.perf_counter() - start, memory_mb

    time_jobs(2)  # starts the processes
    (one, _), (two, memory_mb) = (min(time_jobs(jobs) for _ in range(3)) for jobs in (1, 2))
    print(
        f"{len(tasks)} photographs: one process {one:.1f} s, two {two:.1f} s, {one / two:.2f} times as fast; ", end=""
    )
    print(f"largest worker {max(memory_mb):.0f} MB, {max(memory_mb[: len(paths)]):.0f} MB after a quarter of them")


def print_quality(paths):
    """Print the mean absolute difference between squares cut from reduced and from full decodes, in grey levels."""
    differences = []
    for path in paths:
        reduced, reduction = decode(path, SHORT_SIDE_PX)
        disc, full = find_disc(reduced), decode(path, photograph.MAX_PIXELS)[0]
        square, _ = cut.cut_out(full, disc.scaled(reduction, reduction), SIZE_PX)
        differences.append(np.abs(cut.cut_out(reduced, disc, SIZE_PX)[0].astype(int) - square).mean())
    print(f"reduced against full decode: mean difference {np.mean(differences):.2f} grey levels, ", end="")
    print(f"largest of {len(paths)} photographs {max(differences):.2f}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, help="folders with train/ and discs.csv")
    parser.add_argument("--stress-images", type=int, default=200, help="photographs per stress and folder (200)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the speed measurement (5); 0 leaves it out")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    for folder in arguments.photographs:
        discs = pd.read_csv(folder / "discs.csv")
        discs["path"] = [folder / "train" / f"{image}.jpeg" for image in discs["image"]]
        discs["odd"] = discs["image"].str.split("_").str[0].astype(int) % 2  # the patient's number
        if arguments.rounds > 1:  # first, while the process is fresh
            print(f"\n{folder.name}: time per photograph on one core")
            print_speed(list(discs["path"]), arguments.rounds)
            print_quality(list(discs["path"])[:40])
            print_processes(list(discs["path"])[:40])
        print(f"\n{folder.name}: overlap (IoU) with the true disc\n{HEADING}")
        print_overlaps("unspoilt", measure_discs(discs, None))
        for path in sorted(set((folder / "train").glob("*.jpeg")) - set(discs["path"])):  # the broken ones
            try:
                outcome = f"found with confidence {crop_alone(path).confidence:.2f}"
            except NoEye as error:
                outcome = f"refused: {error}"
            print(f"{path.stem}: no true disc; {outcome}")
        some = discs.iloc[:: max(1, len(discs) // max(1, arguments.stress_images))]
        for stress in STRESSES if arguments.stress_images else ():
            print_overlaps(stress, measure_discs(some, stress))


if __name__ == "__main__":
    main()
