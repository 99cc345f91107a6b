"""Compare a net trained on both eyes (`dr.train --pairs`) with a single-eye net and its blend, on the same eyes.

python -m tests.benchmarks.pairs --single A/scores_valid.csv --paired B/scores_valid.csv --labels trainLabels.csv

Both tables hold the same images. The blend is cross-fitted by patient. Prints log loss and, for three decisions, the
kappa, each with its difference from the single net with the MLP blend and 95 % intervals of a bootstrap over patients.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kappa.assign import decide
from kappa.qwk import quadratic_weighted_kappa
from preprocess import eyes, stage
from submissions.measures import N_DRAWS
from tests.benchmarks.decision import (
    N_FOLDS,
    Bootstrap,
    cross_fit,
    describe_interval,
    fit_linear,
    fit_network,
    read_labelled,
)

METHODS = ("argmax", "round", "exact")
REFERENCE = "single, MLP blend"


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pairs", description=__doc__.splitlines()[0])
    for name, text in (("single", "scores of the single net"), ("paired", "scores of the paired net")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--labels", type=Path, required=True, help="table of image and level")
    options = parser.parse_args(argv)
    single, paired = (read_labelled(path, options.labels, None, 0) for path in (options.single, options.paired))
    eyes.check_same_images(single.images, paired.images, options.single, options.paired)
    scores = {
        "single": single.pairs.own,
        "single, linear blend": cross_fit(single, fit_linear),
        REFERENCE: cross_fit(single, fit_network),
        "paired": paired.pairs.own,
        "paired, MLP blend": cross_fit(paired, fit_network),
    }
    bootstrap = Bootstrap(single)
    print(f"{len(single.images)} images, {N_FOLDS} folds of patients, {N_DRAWS} draws of patients")
    figures = {name: draw_figures(table, single.levels, bootstrap) for name, table in scores.items()}
    for row, figure in enumerate(("log loss", *(f"kappa, {method}" for method in METHODS))):
        print(f"\n{figure:22s}           95 %                difference from {REFERENCE}")
        for name, rows in figures.items():
            value, draws = rows[row]
            base, reference = figures[REFERENCE][row]
            print(
                f"{name:22s}  {value:.4f}  {describe_interval(draws)}  {value - base:+.4f} "
                f"{describe_interval(draws - reference)}"
            )


def draw_figures(scores: np.ndarray, levels: np.ndarray, bootstrap: Bootstrap) -> list[tuple[float, np.ndarray]]:
    """Return log loss and the kappa of each method, each with its bootstrap draws."""
    losses = -np.log(np.maximum(scores[np.arange(len(levels)), levels], 1e-6))
    figures = [(float(losses.mean()), bootstrap.draw_means(losses))]
    for method in METHODS:
        decided = decide(scores, method).levels
        figures.append((quadratic_weighted_kappa(levels, decided), bootstrap.draw_kappas(decided)))
    return figures


if __name__ == "__main__":
    stage.run(main)
