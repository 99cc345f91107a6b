"""Measures preprocessing on photographs with known discs: overlap, overlap under stress, time and memory.

python -m tests.benchmarks.preprocess --photographs DIR [DIR ...]; each DIR holds train/*.jpeg and discs.csv (image,
center_x, center_y, radius). Patients with even numbers, on which constants were tuned, and odd ones are apart.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from preprocess.command import cli, process
from preprocess.disk.errors import Unusable
from preprocess.picture.disc import find_box_disc, find_disc
from preprocess.picture.outline import DETECTION_PX
from preprocess.picture.photograph import decode
from tests.stress import STRESSES, measure_overlap

METHODS = {"adaptive": find_disc, "box": find_box_disc}
BOUNDS = (0.95, 0.96, 0.97)
COLUMNS = ("n", "median", *(f">={bound}" for bound in BOUNDS), "worst", "refused")


def print_overlaps(discs, stress):
    """Print the overlaps (IoU) under `stress` (None: unspoilt) of each method and half; 0 where no disc is found."""
    measured = []
    for row in discs.to_dict("records"):
        rgb, reduction = decode(row["path"], DETECTION_PX)
        center = [(row[name] + 0.5) / reduction - 0.5 for name in ("center_x", "center_y")]
        circle = (*center, row["radius"] / reduction)
        if stress:
            rng = np.random.default_rng([int(row["image"].split("_")[0]), len(row["image"])])
            rgb, circle = STRESSES[stress](rgb, circle, rng)
        for method, find in METHODS.items():
            try:
                overlap = measure_overlap(find(rgb), circle)
            except Unusable:
                overlap = 0.0
            measured.append((method, "odd" if row["odd"] else "even", row["image"], overlap))
    table = pd.DataFrame(measured, columns=["method", "half", "image", "overlap"]).set_index(
        "image"
    )
    for (method, half), overlap in table.groupby(["method", "half"])["overlap"]:
        figures = [
            overlap.median(),
            *((overlap >= bound).mean() for bound in BOUNDS),
            overlap.min(),
        ]
        line = "".join(f"{figure:9.4f}" for figure in figures)
        start = f"{stress or 'unspoilt':16} {method:8} {half:4}{len(overlap):9}"
        print(f"{start}{line}{(overlap == 0).sum():9}  {overlap.idxmin()}", flush=True)


def print_speed(folder):
    """Print what the command `python -m preprocess` takes with one process, with two, and where all is cached."""
    with tempfile.TemporaryDirectory() as caches:
        for name, cache, jobs in (
            ("one process", "one", 1),
            ("two", "two", 2),
            ("two, cached", "two", 2),
        ):
            command = [
                sys.executable,
                "-m",
                "preprocess",
                f"--data={folder}",
                f"--cache={caches}/{cache}",
            ]
            start = time.perf_counter()
            subprocess.run(
                [*command, f"--jobs={jobs}", "--allow-rejected"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            memory_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"{name:12} {time.perf_counter() - start:8.1f} s, largest process {memory_mb:.0f} MB"
            )


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.preprocess", __doc__.splitlines()[0], "--photographs DIR"
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs="+",
        required=True,
        help="folders with train/ and discs.csv",
    )
    parser.add_argument(
        "--stress-images", type=int, default=200, help="photographs per stress and folder"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for folder in options.photographs:
        discs = pd.read_csv(folder / "discs.csv")
        discs["path"] = [folder / "train" / f"{image}.jpeg" for image in discs["image"]]
        discs["odd"] = discs["image"].str.split("_").str[0].astype(int) % 2  # the patient's number
        print_speed(folder)
        print(
            f"\n{folder.name}: overlap (IoU) with the true disc\n{'':30}"
            + "".join(f"{name:>9}" for name in COLUMNS)
        )
        print_overlaps(discs, None)
        some = discs.iloc[:: max(1, len(discs) // max(1, options.stress_images))]
        for stress in STRESSES if options.stress_images else ():
            print_overlaps(some, stress)


if __name__ == "__main__":
    process.run(main)
