"""Compare ways to turn scores into levels, on any score table with labels, cross-fitted by patient.

python -m tests.benchmarks.decision --scores S.csv --labels L.csv

Rows of L.csv without a level are left out. Prints the log loss of each kind of scores; for each decision its
milliseconds, proxy, kappa and that one's difference from rounding the raw expectation, with 95 % intervals of a
bootstrap over patients (the same draws for all).
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blend.mlp import fit_predictor
from blend.pairs import SEED, cross_fit, pair_eyes
from dr.metrics import agreement, bootstrap, calibration
from dr.scores import read_scores
from dr.tasks.kinds import make_task
from kappa.assign import METHODS, decide
from kappa.exact import find_optimum
from kappa.proxy import Errors, expected_kappa
from preprocess.command import cli, process
from preprocess.dataset import kaggle
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk import tables

FLOOR = 1e-4  # under logarithms
LEVELS = np.arange(5)
SCORES = {
    "raw": lambda pairs, levels: lambda other: other.own,
    "linear": partial(fit_predictor, method="linear", seed=SEED),
    "mlp": partial(fit_predictor, method="mlp", seed=SEED),  # the pipeline's default
}


class Table:
    """Labelled images; a figure of them is its value, first, and its values for draws of patients, the same for all."""

    def __init__(self, groups, pairs, levels):
        self.groups, self.pairs, self.levels = groups, pairs, levels

    def cross_fit(self, fit):
        return cross_fit(self.pairs, self.groups, self.levels, fit)

    def draw_kappa(self, decided):
        n_levels = self.pairs.own.shape[1]

        def measure(rows):
            return agreement.kappa_of_counts(
                agreement.count_pairs(self.levels[rows], decided[rows], n_levels)
            )

        return bootstrap.draw_figures(self.groups, measure)

    def draw_loss(self, scores):
        losses = calibration.measure_losses(scores, self.levels)
        return bootstrap.draw_figures(self.groups, lambda rows: losses[rows].mean())


def read_labelled(scores_from, labels_from):
    """Return the table of the images that have a level; a fellow needs none."""
    scores = read_scores(scores_from, make_task(RETINOPATHY))
    labels = tables.read_table(labels_from, ["image", "level"]).set_index("image")["level"]
    labels = labels[labels != ""].astype(float).astype(int)
    owners = [kaggle.find_subject(image) for image in scores.index]
    rows = np.flatnonzero(scores.index.isin(labels.index))
    pairs = pair_eyes(owners, scores.to_numpy()).select(rows)
    return Table([owners[row].group for row in rows], pairs, labels[scores.index[rows]].to_numpy())


def fit_ridge(pairs, levels):
    """Fit the level itself, on squared error: an ordinal head, which tells each level's expected squared error."""

    def see(of):
        both = np.hstack(of)
        return np.hstack([both, np.log(np.maximum(both, FLOOR))])

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(see(pairs), levels)
    variance = ((model.predict(see(pairs)) - levels) ** 2).mean()
    return lambda other: (model.predict(see(other))[:, None] - LEVELS) ** 2 + variance


def describe(drawn, sign=""):
    of = bootstrap.estimate_drawn(drawn)
    return f"{of.value:{sign}.4f} [{of.low:{sign}.4f}, {of.high:{sign}.4f}]"


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.decision", __doc__.splitlines()[0], "--scores S.csv --labels L.csv"
    )
    parser.add_argument("--scores", type=Path, required=True, help="score table")
    parser.add_argument("--labels", type=Path, required=True, help="table of image and level")
    options = parser.parse_args()
    table = read_labelled(options.scores, options.labels)
    print(f"{len(table.groups)} images, {bootstrap.N_DRAWS} draws of patients")
    errors = table.cross_fit(fit_ridge)
    rows = {"ridge, exact": ("", find_optimum(Errors(errors, errors.mean(axis=0))))}
    for name, fit in SCORES.items():
        scores = table.cross_fit(fit)
        print(f"{name:16s}  log loss {describe(table.draw_loss(scores))}")
        for method in METHODS:
            start, levels = time.perf_counter(), decide(scores, method).levels
            elapsed_ms, proxy = 1e3 * (time.perf_counter() - start), expected_kappa(scores, levels)
            rows[f"{name}, {method}"] = f"{elapsed_ms:6.1f}  {proxy:.7f}", levels
    kappas = {name: table.draw_kappa(levels) for name, (_, levels) in rows.items()}
    print(
        f"\n{'scores, decision':16s}  {'ms':>6s}  {'proxy':9s}  {'kappa [95 %]':25s}  difference from raw, round"
    )
    for name, kappa in sorted(kappas.items(), key=lambda item: -item[1][0]):
        print(
            f"{name:16s}  {rows[name][0]:17s}  {describe(kappa):25s}  {describe(kappa - kappas['raw, round'], '+')}"
        )


if __name__ == "__main__":
    process.run(main)
