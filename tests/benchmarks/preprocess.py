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

from preprocess import crop, per_image, photograph, resize
from preprocess.__main__ import crop_and_resize
from preprocess.disc import NoEye, find_box_disc, find_disc
from preprocess.photograph import decode
from tests.stress import STRESSES, measure_overlap

SHORT_SIDE_PX = crop.DETECTION_PX
SIZE_PX = resize.SIZE_PX
METHODS = {"adaptive": find_disc, "box": find_box_disc}
HALVES = {"even": 0, "odd": 1}


def read_discs(folder):
    """Return a table of the photographs with a known disc, with their path and whether the patient's number is odd."""
    discs = pd.read_csv(folder / "discs.csv")
    discs["path"] = [folder / "train" / f"{image}.jpeg" for image in discs["image"]]
    discs["odd"] = discs["image"].str.split("_").str[0].astype(int) % 2
    return discs


def decode_with_circle(row):
    """Return the photograph as the stages decode it, and its true circle in pixels of that."""
    rgb, reduction = decode(row["path"], SHORT_SIDE_PX)
    center = [(row[name] + 0.5) / reduction - 0.5 for name in ("center_x", "center_y")]
    return rgb, (*center, row["radius"] / reduction)


def overlap_or_zero(method, rgb, circle):
    """Return the overlap (IoU) of the found and the true disc, and the confidence; 0 and NaN where none is found."""
    try:
        disc = METHODS[method](rgb)
    except NoEye:
        return 0.0, np.nan
    return measure_overlap(disc, circle), disc.confidence


def measure_discs(discs, stress):
    """Return a table: for every photograph and method the overlap and confidence under `stress` (None: unspoilt)."""
    measured = []
    for row in discs.to_dict("records"):
        rgb, circle = decode_with_circle(row)
        if stress is not None:
            patient = int(row["image"].split("_")[0])
            rgb, circle = STRESSES[stress](rgb, circle, np.random.default_rng([patient, len(row["image"])]))
        for method in METHODS:
            overlap, confidence = overlap_or_zero(method, rgb, circle)
            measured.append((row["image"], row["odd"], method, overlap, confidence))
    return pd.DataFrame(measured, columns=["image", "odd", "method", "overlap", "confidence"])


COLUMNS = {"n": 6, "median": 9, ">=0.95": 9, ">=0.96": 9, ">=0.97": 9, "worst": 9, "refused": 9, "least sure": 12}
HEADING = " " * 31 + "".join(f"{name:>{width}}" for name, width in COLUMNS.items())


def describe(measured):
    """Return the line of figures, under HEADING, on a table of overlaps."""
    overlap = measured["overlap"]
    figures = [
        len(overlap),
        f"{overlap.median():.4f}",
        *(f"{(overlap >= bound).mean():.4f}" for bound in (0.95, 0.96, 0.97)),
        f"{overlap.min():.4f}",
        (overlap == 0).sum(),
        f"{measured['confidence'].min():.2f}",
    ]
    line = "".join(f"{figure:>{width}}" for figure, width in zip(figures, COLUMNS.values(), strict=True))
    return f"{line}  {measured.loc[overlap.idxmin(), 'image']}"


def print_overlaps(name, measured):
    """Print the figures of a table of overlaps, for each method and half of the patients."""
    for method in METHODS:
        for half, odd in HALVES.items():
            part = measured[(measured["method"] == method) & (measured["odd"] == odd)]
            print(f"{name:16} {method:8} {half:4} {describe(part)}", flush=True)


def print_undefined(folder, discs):
    """Print what becomes of the photographs that have no disc in the table, the broken ones."""
    known = set(discs["image"])
    for path in sorted(path for path in (folder / "train").glob("*.jpeg") if path.stem not in known):
        try:
            outcome = f"found with confidence {crop_alone(path).confidence:.2f}"
        except NoEye as error:
            outcome = f"refused: {error}"
        print(f"{path.stem}: no true disc; {outcome}")


# --- speed ------------------------------------------------------------------------------------------------------------


def crop_alone(path):
    """Do what the cropping of one photograph takes: decode and find the disc, in pixels of the file."""
    rgb, reduction = decode(path, SHORT_SIDE_PX)
    return find_disc(rgb).scaled(reduction, reduction)


def crop_and_write(path, method="adaptive", size_px=SIZE_PX):
    """Do all of both image stages from one decode: ellipse, square, histogram, PNG on disk."""
    return crop_and_resize(path, method, size_px, Path(tempfile.gettempdir()) / "benchmark_square.png")


TIMED = {
    "cv2.imread, full size": lambda path: cv2.imread(str(path)),
    "decode": lambda path: decode(path, SHORT_SIDE_PX),
    "crop alone": crop_alone,
    "crop + resize + PNG": crop_and_write,
    "the same, box": lambda path: crop_and_write(path, method="box"),
    "the same, 256 px": lambda path: crop_and_write(path, size_px=256),
}


def time_once(function, paths):
    """Return the mean seconds of processor time per photograph."""
    start = time.process_time()
    for path in paths:
        function(path)
    return (time.process_time() - start) / len(paths)


def print_speed(paths, rounds):
    """Print milliseconds and the ratio to cv2.imread, in turn so that all meet the same machine, on one core.

    The first round is apart: in a fresh process cv2.imread pays the kernel for tens of megabytes of new memory for each
    photograph, as it does in any program that lets go of the picture; later the allocator has learnt to keep them.
    """
    seconds = np.array([[time_once(function, paths) for function in TIMED.values()] for _ in range(rounds)])
    later = np.median(seconds[1:], axis=0)
    print(f"{'speed':28}{'first round':>16}{'':10}{'median of the next ' + str(rounds - 1):>22}")
    for number, name in enumerate(TIMED):
        first, rest = seconds[0, number], later[number]
        ratios = first / seconds[0, 0], rest / later[0]
        print(f"{name:28}{1e3 * first:10.1f} ms{ratios[0]:7.2f} x{1e3 * rest:14.1f} ms{ratios[1]:7.2f} x")


def print_processes(paths):
    """Print how much faster two processes are than one, in turn, and the memory of the larger."""
    tasks = {f"{path.stem}_{copy}": (path,) for copy in range(4) for path in paths}

    def time_jobs(jobs):
        start = time.perf_counter()
        memory_mb = [memory for _, memory in per_image.map_parallel(crop_and_weigh, tasks, jobs, f"{jobs} processes")]
        return time.perf_counter() - start, memory_mb

    time_jobs(2)  # starts the processes
    (one, _), (two, memory_mb) = (min(time_jobs(jobs) for _ in range(3)) for jobs in (1, 2))
    print(
        f"{len(tasks)} photographs: one process {one:.1f} s, two {two:.1f} s, {one / two:.2f} times as fast; ", end=""
    )
    print(f"largest worker {max(memory_mb):.0f} MB, {max(memory_mb[: len(paths)]):.0f} MB after a quarter of them")


def crop_and_weigh(path):
    """Do both image stages into a file of this photograph's own; return the most memory the process has had, MB."""
    with tempfile.TemporaryDirectory() as folder:
        crop_and_resize(path, "adaptive", SIZE_PX, Path(folder) / f"{path.stem}.png")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_quality(paths):
    """Print the mean absolute difference between squares cut from reduced and from full decodes, in grey levels."""
    differences = []
    for path in paths:
        reduced, reduction = decode(path, SHORT_SIDE_PX)
        disc = find_disc(reduced).scaled(reduction, reduction)
        width, height = photograph.read_size(path)
        full = decode(path, min(width, height))[0]
        squares = []
        for rgb, scale in ((reduced, 1 / reduction), (full, 1.0)):
            scaled = disc.scaled(scale, scale)
            ellipse = (scaled.center_x, scaled.center_y, scaled.semi_axis_x, scaled.semi_axis_y)
            squares.append(resize.cut_out(rgb, ellipse, SIZE_PX)[0].astype(int))
        differences.append(np.abs(squares[0] - squares[1]).mean())
    print(f"reduced against full decode: mean difference {np.mean(differences):.2f} grey levels, ", end="")
    print(f"largest of {len(paths)} photographs {max(differences):.2f}")


# --- the command ------------------------------------------------------------------------------------------------------


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, help="folders with train/ and discs.csv")
    parser.add_argument("--stress-images", type=int, default=200, help="photographs per stress and folder (200)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the speed measurement (5); 0 leaves it out")
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse_arguments(argv)
    cv2.setNumThreads(1)
    for folder in arguments.photographs:
        discs = read_discs(folder)
        if arguments.rounds > 1:  # first, while the process is fresh
            print(f"\n{folder.name}: time per photograph on one core")
            print_speed(list(discs["path"]), arguments.rounds)
            print_quality(list(discs["path"])[:40])
            print_processes(list(discs["path"])[:40])
        print(f"\n{folder.name}: overlap (IoU) with the true disc\n{HEADING}")
        print_overlaps("unspoilt", measure_discs(discs, None))
        print_undefined(folder, discs)
        some = discs.iloc[:: max(1, len(discs) // max(1, arguments.stress_images))]
        for stress in STRESSES if arguments.stress_images else ():
            print_overlaps(stress, measure_discs(some, stress))


if __name__ == "__main__":
    main()
