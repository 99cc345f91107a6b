"""Compare ways to turn scores into levels, on any score table with labels, cross-fitted by patient.

python -m tests.benchmarks.decision --scores S.csv --labels L.csv

Rows of L.csv without a level are left out, so that it may be a score table with a column `level`. Prints, for each kind
of scores: log loss and how well the proxy tells the kappa; for each decision: the kappa and its difference from
rounding the raw expectation, with 95 % intervals of a bootstrap over patients (the same draws for all).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blend.mlp import fit_predictor
from blend.pairs import N_FOLDS, SEED, Pairs, cross_fit, pair_eyes
from dr import measures
from dr.measures import measure_losses, quadratic_weighted_kappa
from dr.scores import read_scores
from kappa.assign import decide
from kappa.exact import find_optimum
from kappa.proxy import Errors, expected_errors, expected_kappa
from preprocess.cache import stage, tables
from preprocess.samples import readers
from preprocess.samples.folds import assign_folds

N_LABEL_SETS = 300  # drawn to estimate an expected kappa
FLOOR = 1e-4  # under logarithms
LEVELS = np.arange(5)

Predictor = Callable[[Pairs], np.ndarray]
Fit = Callable[[Pairs, np.ndarray], Predictor]  # on labelled pairs
Figure = tuple[float, np.ndarray]  # of all images, and of each draw of patients


@dataclass
class Table:
    """Labelled images: patients, both eyes' scores, levels (n,); and the same draws of patients for all figures."""

    groups: list[str]
    pairs: Pairs
    levels: np.ndarray

    def cross_fit(self, fit: Fit) -> np.ndarray:
        """Return out-of-fold scores, (n, 5)."""
        return cross_fit(self.pairs, self.groups, self.levels, fit)

    @cached_property
    def folds(self) -> list[np.ndarray]:
        """Which images are held out, fold by fold; the folds of `cross_fit`."""
        folds = assign_folds(self.groups, self.levels, N_FOLDS, SEED)
        return [folds == fold for fold in range(N_FOLDS)]

    @cached_property
    def draws(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each draw takes each patient, and whose each image is."""
        numbers = measures.number_groups(self.groups)
        return measures.draw_groups(numbers.max() + 1), numbers

    def draw_kappa(self, decided: np.ndarray) -> Figure:
        """Return the kappa of levels."""
        return measures.draw_kappas(*self.draws, self.levels, decided)

    def draw_loss(self, scores: np.ndarray) -> Figure:
        """Return the log loss of scores."""
        (draws, numbers), losses = self.draws, measure_losses(scores, self.levels)
        total, count = measures.sum_draws(
            draws, np.column_stack([np.bincount(numbers, losses), np.bincount(numbers)])
        ).T
        return float(losses.mean()), total / count


def read_labelled(scores_from: Path, labels_from: Path, n_patients: int | None, seed: int) -> Table:
    """Return the images that have a level; if n_patients is given, only of so many patients, drawn by the seed."""
    layout = readers.find_layout(Path())
    scores = read_scores(scores_from, layout.task)
    labels = tables.read_table(labels_from, ["image", "level"]).set_index("image")["level"]
    labels = labels[(labels != "") & labels.index.isin(scores.index)].astype(float).astype(int)
    owners = [layout.find_owner(image) for image in scores.index]
    pairs, groups = pair_eyes(owners, scores.to_numpy()), np.array([owner.group for owner in owners])
    rows = np.flatnonzero(scores.index.isin(labels.index))  # a fellow needs no label
    if n_patients:
        chosen = np.random.default_rng(seed).choice(np.unique(groups[rows]), n_patients, replace=False)
        rows = rows[np.isin(groups[rows], chosen)]
    return Table(groups[rows].tolist(), pairs.select(rows), labels[scores.index[rows]].to_numpy())


def take_logarithms(scores: np.ndarray) -> np.ndarray:
    """Return floored logarithms."""
    return np.log(np.maximum(scores, FLOOR))


def fit_temperature(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """One exponent for all scores (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    def heat(scores: np.ndarray, exponent: float) -> np.ndarray:
        powers = np.maximum(scores, FLOOR) ** exponent
        return powers / powers.sum(axis=1, keepdims=True)

    lose = lambda exponent: measures.measure_log_loss(heat(pairs.own, exponent), levels)  # noqa: E731
    best = minimize_scalar(lose, bounds=(0.05, 5), method="bounded").x
    return lambda other: heat(other.own, best)


def fit_isotonic(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """An ascending curve per level, then normalized (Zadrozny and Elkan 2002)."""
    make_curve = partial(IsotonicRegression, y_min=FLOOR, y_max=1, out_of_bounds="clip")
    curves = [make_curve().fit(pairs.own[:, level], levels == level) for level in LEVELS]

    def predict(other: Pairs) -> np.ndarray:
        scores = np.column_stack([curve.predict(other.own[:, level]) for level, curve in enumerate(curves)])
        return scores / scores.sum(axis=1, keepdims=True)

    return predict


def fit_dirichlet(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """Multinomial regression on logarithms of own scores (Kull et al. 2019)."""
    model = LogisticRegression(C=0.1, max_iter=2000).fit(take_logarithms(pairs.own), levels)

    def predict(other: Pairs) -> np.ndarray:
        scores = np.zeros_like(other.own)
        scores[:, model.classes_] = model.predict_proba(take_logarithms(other.own))
        return scores

    return predict


SCORES: dict[str, Fit] = {
    "raw": lambda pairs, levels: lambda other: other.own,
    "linear": partial(fit_predictor, method="linear", seed=SEED),
    "mlp": partial(fit_predictor, method="mlp", seed=SEED),  # the pipeline's default
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "dirichlet": fit_dirichlet,
}


# --- decisions --------------------------------------------------------------------------------------------------------

HEADS = {  # regressions of the level on squared error, on both eyes: an ordinal head in place of a distribution
    "ridge": RidgeCV(np.logspace(-2, 4, 13)),
    "mlp head": MLPRegressor(hidden_layer_sizes=(500, 500), alpha=1, max_iter=10, batch_size=256, random_state=SEED),
}


def decide_stretched(table: Table, head: Any) -> np.ndarray:
    """Return the proxy's optimum where only each level's mean, by a head out of fold, and their variance are known."""
    both = np.hstack([table.pairs.own, table.pairs.fellow])
    features = np.hstack([both, take_logarithms(both)])
    expected, residuals = np.empty(len(features)), []
    for held in table.folds:
        fitted = make_pipeline(StandardScaler(), head).fit(features[~held], table.levels[~held])
        expected[held] = fitted.predict(features[held])
        residuals.append(((fitted.predict(features[~held]) - table.levels[~held]) ** 2).mean())
    variance = float(np.mean(residuals))
    chance = (expected.mean() - LEVELS) ** 2 + expected.var() + variance
    return find_optimum(Errors((expected[:, None] - LEVELS) ** 2 + variance, chance)).levels


def decide_sampled(scores: np.ndarray) -> np.ndarray:
    """Return levels of the highest mean kappa against label sets drawn from the scores.

    The kappa against each set is a ratio; its linear part at the present levels is minimized until nothing changes.
    """
    rng = np.random.default_rng(SEED)
    drawn = (rng.random((N_LABEL_SETS, len(scores), 1)) > scores.cumsum(axis=1)[None, :, :-1]).sum(axis=2)
    chances = np.stack([np.bincount(one, minlength=len(LEVELS)) for one in drawn]) / len(scores)
    chances = chances @ measures.square_distances(len(LEVELS))  # (sets, levels)
    levels = find_optimum(expected_errors(scores)).levels
    for _ in range(20):
        before, total = levels, chances[:, levels].sum(axis=1)
        own, means = ((drawn - levels) ** 2).sum(axis=1), (drawn / total[:, None]).sum(axis=0)
        costs = LEVELS**2 * (1 / total).sum() - 2 * means[:, None] * LEVELS - (own / total**2) @ chances
        levels = costs.argmin(axis=1)
        if np.array_equal(before, levels):
            break
    return levels


def fit_thresholds(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """Thresholds on the expected level of the highest kappa, by a simplex search; the levels come as certain scores."""
    from scipy.optimize import minimize

    def cut(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.sort(thresholds), measures.expect_levels(scores), side="right")

    halves = LEVELS[:-1] + 0.5
    found = minimize(
        lambda thresholds: -quadratic_weighted_kappa(levels, cut(pairs.own, thresholds)),
        halves,
        method="Nelder-Mead",
        options={"initial_simplex": np.vstack([halves, halves + 0.2 * np.eye(len(halves))]), "xatol": 1e-4},
    )
    return lambda other: np.eye(len(LEVELS))[cut(other.own, found.x)]


def decide_all(table: Table, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the levels of every decision on every kind of scores."""
    decided: dict[str, np.ndarray] = {}
    for name, kind in scores.items():
        decided |= {f"{name}, {method}": decide(kind, method).levels for method in ("argmax", "round", "exact")}
        by_thresholds = Table(table.groups, Pairs(kind, kind), table.levels).cross_fit(fit_thresholds)
        decided |= {f"{name}, thresholds": by_thresholds.argmax(axis=1), f"{name}, sampled": decide_sampled(kind)}
    return decided | {f"{name}, stretched": decide_stretched(table, head) for name, head in HEADS.items()}


def describe(value: float, draws: np.ndarray, sign: str = "") -> str:
    """Return a figure and the middle 95 % of its draws."""
    of = measures.estimate(value, draws)
    return f"{of.value:{sign}.4f} [{of.low:{sign}.4f}, {of.high:{sign}.4f}]"


def subtract(figure: Figure, other: Figure) -> str:
    """Return the paired difference of two figures."""
    return describe(figure[0] - other[0], figure[1] - other[1], "+")


def print_scores(table: Table, scores: dict[str, np.ndarray]) -> None:
    """Print how good each kind of scores is, and how reliable level by level."""
    print(
        f"{'scores':12s}  {'log loss [95 %]':25s}  proxy   kappa   proxy - kappa: mean of folds (worst), "
        "predicted / true count per level"
    )
    for name, kind in scores.items():
        levels = decide(kind, "exact").levels
        proxies, kappas = (
            [measure(of[held], levels[held]) for held in (levels >= 0, *table.folds)]
            for measure, of in ((expected_kappa, kind), (quadratic_weighted_kappa, table.levels))
        )
        excess = np.subtract(proxies, kappas)[1:]
        ratios = kind.sum(axis=0) / np.maximum(np.bincount(table.levels, minlength=len(LEVELS)), 1)
        print(
            f"{name:12s}  {describe(*table.draw_loss(kind)):25s}  {proxies[0]:.4f}  {kappas[0]:.4f}  "
            f"{excess.mean():+.4f} ({max(excess, key=abs):+.4f})  {' '.join(f'{ratio:.2f}' for ratio in ratios)}"
        )


def main(argv: list[str] | None = None) -> None:
    """Print both tables, that of the decisions with the best first."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decision", description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, required=True, help="score table")
    parser.add_argument("--labels", type=Path, required=True, help="table of image and level")
    parser.add_argument("--patients", type=int, help="how many patients to draw, to see what a small set would do")
    parser.add_argument("--seed", type=int, default=0, help="which patients are drawn")
    options = parser.parse_args(argv)
    table = read_labelled(options.scores, options.labels, options.patients, options.seed)
    scores = {name: table.cross_fit(fit) for name, fit in SCORES.items()}
    print(f"{len(table.groups)} images, {N_FOLDS} folds of patients, {measures.N_DRAWS} draws of patients")
    print_scores(table, scores)
    kappas = {name: table.draw_kappa(levels) for name, levels in decide_all(table, scores).items()}
    print(f"\n{'scores, decision':24s}  {'kappa [95 %]':25s}  difference from raw, round")
    for name, kappa in sorted(kappas.items(), key=lambda item: -item[1][0]):
        print(f"{name:24s}  {describe(*kappa):25s}  {subtract(kappa, kappas['raw, round'])}")


if __name__ == "__main__":
    stage.run(main)
