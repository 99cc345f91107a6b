"""How long a fully cached rerun of preprocessing takes: `python -m tests.benchmarks.cache --images 90000`.

Draws a few eyes, copies them to so many small files, preprocesses them twice and prints both times.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preprocess import synthetic

WIDTH_PX, SIZE_PX = 200, 32


def time_run(data: Path, cache: Path) -> float:
    """Return the seconds that one run of preprocessing takes, the interpreter's start included."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "preprocess", f"--data={data}", f"--cache={cache}", f"--size-px={SIZE_PX}"]
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=90_000, help="photographs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, cache = Path(folder), Path(folder) / "cache"
        synthetic.main(f"--data={data}/drawn --patients-train=5 --patients-test=0 --width-px={WIDTH_PX}".split())
        originals = sorted((data / "drawn" / "train").iterdir())
        (data / "train").mkdir()
        for number in range(options.images):
            name = f"{number // 2}_{('left', 'right')[number % 2]}.jpeg"
            shutil.copyfile(originals[number % len(originals)], data / "train" / name)
        first, second = time_run(data, cache), time_run(data, cache)
    print(f"{options.images} images: {first:.1f} s, cached {second:.1f} s")


if __name__ == "__main__":
    main()
