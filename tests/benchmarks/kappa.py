"""Time the proven optimum and the annealing on a score table, one core, five runs each: milliseconds and gap.

OMP_NUM_THREADS=1 python -m tests.benchmarks.kappa --scores S.csv
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dr.scores import read_scores
from kappa.anneal import anneal_levels
from kappa.exact import optimal_levels
from preprocess.cache import stage
from preprocess.samples import readers


def main(argv: list[str] | None = None) -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kappa", description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, required=True, help="score table")
    scores = read_scores(parser.parse_args(argv).scores, readers.find_layout(Path()).task).to_numpy()
    for seed in range(5):
        start = time.perf_counter()
        optimal_levels(scores)
        solved = time.perf_counter()
        annealed = anneal_levels(scores, rng=np.random.default_rng(seed))
        times = f"optimum {1e3 * (solved - start):.1f} ms, annealed {1e3 * (time.perf_counter() - solved):.0f} ms"
        print(f"{len(scores)} images: {times}, gap {annealed.gap:.1e}, acceptance {annealed.acceptance:.3f}")


if __name__ == "__main__":
    stage.run(main)
