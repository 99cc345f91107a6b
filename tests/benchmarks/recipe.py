"""Train a net on labelled squares and tell how well it grades the eyes held out, and what averaging and the blend add.

python -m tests.benchmarks.recipe --data DIR --cache DIR [dr.train's options]

DIR holds ready-made squares (see dr.train --ready-made). Options that this benchmark does not know go to dr.train, and
the cache is that of a run: the same command goes on where it stopped, and prints the table again. Prints, for one view
of the last epoch, ten views of it, ten views of the last five epochs, and these blended (cross-fitted by patient): log
loss, and the kappa of the likeliest level, of the rounded expectation and of the optimum, with 95 % intervals of
a bootstrap over patients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from blend.pairs import pair_eyes
from dr import predict, train
from dr.scores import read_scores
from preprocess import eyes, stage
from submissions.measures import N_DRAWS
from tests.benchmarks.decision import N_FOLDS, SEED, Bootstrap, Table, cross_fit, fit_linear, fit_network
from tests.benchmarks.pairs import METHODS, draw_figures

N_VIEWS, N_EPOCHS = 10, 5


def main(argv: list[str] | None = None) -> None:
    """Train, predict, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.recipe", description=__doc__.splitlines()[0], allow_abbrev=False
    )  # or it would take --fold for --fold-seed
    parser.add_argument("--data", type=Path, required=True, help="folder of ready-made squares with trainLabels.csv")
    parser.add_argument("--cache", type=Path, required=True, help="where the net is kept")
    parser.add_argument("--fold-seed", type=int, default=SEED, help="of the folds in which the blend is cross-fitted")
    options, further = parser.parse_known_args(argv)
    places = ["--data", str(options.data), "--cache", str(options.cache)]
    started = time.monotonic()
    train.main([*places, "--ready-made", *further])
    print(f"dr.train: {(time.monotonic() - started) / 60:.1f} minutes")
    predict.main([*places, "--views", str(N_VIEWS), "--epochs-averaged", f"last:{N_EPOCHS}"])
    print_table(options.data, options.cache, options.fold_seed)


def print_table(data: Path, cache: Path, fold_seed: int) -> None:
    """Print how good the scores of the held-out eyes are, step by step."""
    images = list(read_scores(cache / "dr" / "scores_valid.csv").index)
    levels = eyes.read_labels(data / "trainLabels.csv")[images].to_numpy()
    epochs = [np.load(path)["scores"] for path in sorted((cache / "dr" / "views").glob("valid_*.npz"))[-N_EPOCHS:]]
    averaged = np.mean(epochs, axis=(0, 1))  # of (epochs, views, n, 5)
    folds = eyes.assign_folds(images, levels, N_FOLDS, fold_seed)
    table = Table(images, pair_eyes(images, averaged), levels, folds)
    scores = {
        "one view, last epoch": epochs[-1][0],
        f"{N_VIEWS} views, last epoch": epochs[-1].mean(axis=0),
        f"{N_VIEWS} views, {len(epochs)} epochs": averaged,
        "… linear blend": cross_fit(table, fit_linear),
        "… MLP blend": cross_fit(table, fit_network),
    }
    bootstrap = Bootstrap(table)
    print(f"{len(images)} images held out, {N_DRAWS} draws of patients; value [95 %]")
    print(f"{'':22s}" + "".join(f"  {name:24s}" for name in ("log loss", *(f"kappa, {name}" for name in METHODS))))
    for name, kind in scores.items():
        print(f"{name:22s}" + "".join(f"  {describe(*figure):24s}" for figure in draw_figures(kind, levels, bootstrap)))


def describe(value: float, draws: np.ndarray) -> str:
    """Return a value and the middle 95 % of its draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    stage.run(main)
