"""Compare ways to turn scores into levels, on any score table with labels, cross-fitted by patient.

python -m tests.benchmarks.decision --scores S.csv --labels L.csv

Rows of L.csv without a level are left out, so that it may be a score table with a column `level`. Prints, for each kind
of scores: log loss and how well the proxy tells the kappa; for each decision: the kappa and its difference from
rounding the raw expectation, with 95 % intervals of a bootstrap over patients (the same draws for all).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blend.mlp import apply_blend, fit_blend
from blend.pairs import Pairs, pair_eyes
from dr.scores import read_scores
from kappa.assign import apply_thresholds, decide, fit_thresholds
from kappa.exact import find_optimum
from kappa.qwk import Errors, expected_errors, expected_kappa, quadratic_weighted_kappa, square_distances
from preprocess import eyes, stage
from submissions import measures

N_FOLDS = 5
N_LABEL_SETS = 300  # drawn to estimate an expected kappa
FLOOR = 1e-4  # under logarithms
SEED = 0
LEVELS = np.arange(eyes.N_LEVELS)


class Table(NamedTuple):
    """Labelled images: ids, both eyes' scores, levels (n,), patient-wise folds (n,)."""

    images: list[str]
    pairs: Pairs
    levels: np.ndarray
    folds: np.ndarray


def read_labelled(scores_from: Path, labels_from: Path, n_patients: int | None, seed: int) -> Table:
    """Return the images that have a level; if n_patients is given, only of so many patients, drawn by the seed."""
    scores = read_scores(scores_from)
    labels = eyes.read_table(labels_from, ["image", "level"]).set_index("image")["level"]
    labels = labels[(labels != "") & labels.index.isin(scores.index)].astype(float).astype(int)
    fellows = pair_eyes(list(scores.index), scores.to_numpy())  # a fellow needs no label
    rows = np.flatnonzero(scores.index.isin(labels.index))
    patients = eyes.patients_of(scores.index[rows])
    if n_patients:
        chosen = np.random.default_rng(seed).choice(np.unique(patients.astype(str)), n_patients, replace=False)
        rows = rows[np.isin(patients.astype(str), chosen)]
    images = list(scores.index[rows])
    levels = labels[images].to_numpy()
    return Table(images, fellows.select(rows), levels, eyes.assign_folds(images, levels, N_FOLDS, SEED))


# --- scores: each fits on labelled pairs and returns a function from pairs to scores ----------------------------------

Predictor = Callable[[Pairs], np.ndarray]


def fit_raw(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """The scores as they are."""
    return lambda other: other.own


def fit_linear(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """The linear blend."""
    blend = fit_blend(pairs, levels, "linear", None, SEED)
    return lambda other: apply_blend(blend, other)


def fit_network(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """The networks: the pipeline's default."""
    blend = fit_blend(pairs, levels, "mlp", None, SEED)
    return lambda other: apply_blend(blend, other)


def fit_temperature(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """One exponent for all scores (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    def heat(scores: np.ndarray, exponent: float) -> np.ndarray:
        powers = np.maximum(scores, FLOOR) ** exponent
        return powers / powers.sum(axis=1, keepdims=True)

    def lose(exponent: float) -> float:
        return -np.log(heat(pairs.own, exponent)[np.arange(len(levels)), levels]).mean()

    best = minimize_scalar(lose, bounds=(0.05, 5), method="bounded").x
    return lambda other: heat(other.own, best)


def fit_isotonic(pairs: Pairs, levels: np.ndarray) -> Predictor:
    """An ascending curve per level, then normalized (Zadrozny and Elkan 2002)."""
    curves = [
        IsotonicRegression(y_min=FLOOR, y_max=1, out_of_bounds="clip").fit(pairs.own[:, level], levels == level)
        for level in LEVELS
    ]

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


SCORES = {
    "raw": fit_raw,
    "linear": fit_linear,
    "mlp": fit_network,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "dirichlet": fit_dirichlet,
}


# --- regressions of the level on squared error: an ordinal head in place of a distribution ----------------------------


def take_logarithms(scores: np.ndarray) -> np.ndarray:
    """Return floored logarithms."""
    return np.log(np.maximum(scores, FLOOR))


def make_features(pairs: Pairs) -> np.ndarray:
    """Return scores and logarithms of both eyes, (n, 20)."""
    both = np.hstack([pairs.own, pairs.fellow])
    return np.hstack([both, take_logarithms(both)])


def make_ridge():
    """A ridge on both eyes."""
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))


def make_head():
    """The blender's network with one output, trained on squared error."""
    return make_pipeline(
        StandardScaler(),
        MLPRegressor(hidden_layer_sizes=(500, 500), alpha=1, max_iter=10, batch_size=256, random_state=SEED),
    )


HEADS = {"ridge": make_ridge, "mlp head": make_head}


def decide_expected(expected: np.ndarray, variance: float) -> np.ndarray:
    """Return the proxy's optimum where only each level's mean, and their mean variance, are known: a stretch."""
    spread = expected.var() + variance
    own = (expected[:, None] - LEVELS) ** 2 + variance
    return find_optimum(Errors(own, (expected.mean() - LEVELS) ** 2 + spread)).levels


# --- decisions --------------------------------------------------------------------------------------------------------


def decide_sampled(scores: np.ndarray) -> np.ndarray:
    """Return levels of the highest mean kappa against label sets drawn from the scores.

    The kappa against each set is a ratio; its linear part at the present levels is minimized until nothing changes.
    """
    rng = np.random.default_rng(SEED)
    drawn = (rng.random((N_LABEL_SETS, len(scores), 1)) > scores.cumsum(axis=1)[None, :, :-1]).sum(axis=2)
    chances = np.stack([np.bincount(one, minlength=eyes.N_LEVELS) for one in drawn]) / len(scores)
    chances = chances @ square_distances(eyes.N_LEVELS)  # (sets, levels)
    levels = find_optimum(expected_errors(scores)).levels
    for _ in range(20):
        own = ((drawn - levels) ** 2).sum(axis=1)
        total = chances[:, levels].sum(axis=1)
        means = (drawn / total[:, None]).sum(axis=0)  # (n,)
        costs = LEVELS**2 * (1 / total).sum() - 2 * means[:, None] * LEVELS - (own / total**2) @ chances
        after = costs.argmin(axis=1)
        if np.array_equal(after, levels):
            break
        levels = after
    return levels


def decide_thresholds(scores: np.ndarray, table: Table) -> np.ndarray:
    """Return levels by thresholds that are fitted, for each fold, to the other folds."""
    decided = np.empty(len(scores), int)
    for fold in range(N_FOLDS):
        held = table.folds == fold
        decided[held] = apply_thresholds(scores[held], fit_thresholds(scores[~held], table.levels[~held]))
    return decided


def cross_fit(table: Table, fit: Callable[[Pairs, np.ndarray], Predictor]) -> np.ndarray:
    """Return out-of-fold scores, (n, 5)."""
    scores = np.empty_like(table.pairs.own)
    for fold in range(N_FOLDS):
        held = table.folds == fold
        predict = fit(table.pairs.select(~held), table.levels[~held])
        scores[held] = predict(table.pairs.select(held))
    return scores


def cross_decide(table: Table, make_head: Callable) -> np.ndarray:
    """Return the levels of a regression, out of fold, stretched for the proxy."""
    features = make_features(table.pairs)
    expected, residuals = np.empty(len(features)), []
    for fold in range(N_FOLDS):
        held = table.folds == fold
        head = make_head().fit(features[~held], table.levels[~held])
        expected[held] = head.predict(features[held])
        residuals.append(((head.predict(features[~held]) - table.levels[~held]) ** 2).mean())
    return decide_expected(expected, float(np.mean(residuals)))


# --- the table --------------------------------------------------------------------------------------------------------


class Bootstrap:
    """The same draws of patients for everything that is measured."""

    def __init__(self, table: Table):
        self.patients = measures.number_patients(table.images)
        self.draws = measures.draw_patients(self.patients.max() + 1)
        self.levels = table.levels

    def draw_kappas(self, decided: np.ndarray) -> np.ndarray:
        """Return the kappa of each draw."""
        return measures.draw_kappas(self.draws, self.patients, self.levels, decided)

    def draw_means(self, values: np.ndarray) -> np.ndarray:
        """Return each draw's mean over images."""
        sums = np.bincount(self.patients, values)
        return self.draws @ sums / (self.draws @ np.bincount(self.patients))


def describe_interval(draws: np.ndarray) -> str:
    """Return the middle 95 %."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"[{low:+.4f}, {high:+.4f}]"


def decide_all(table: Table, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the levels of every decision on every kind of scores."""
    decided = {}
    for name, kind in scores.items():
        decided |= {f"{name}, {method}": decide(kind, method).levels for method in ("argmax", "round", "exact")}
        decided[f"{name}, thresholds"] = decide_thresholds(kind, table)
        decided[f"{name}, sampled"] = decide_sampled(kind)
    return decided | {f"{name}, stretched": cross_decide(table, make) for name, make in HEADS.items()}


def print_scores(table: Table, scores: dict[str, np.ndarray], bootstrap: Bootstrap) -> None:
    """Print how good each kind of scores is, and how reliable level by level."""
    print(
        f"{'scores':12s}  log loss  95 %                proxy   kappa   proxy - kappa: mean of folds (worst), "
        "predicted / true count per level"
    )
    for name, kind in scores.items():
        losses = -np.log(np.maximum(kind[np.arange(len(kind)), table.levels], 1e-6))
        levels = decide(kind, "exact").levels
        excess = [
            expected_kappa(kind[held], levels[held]) - quadratic_weighted_kappa(table.levels[held], levels[held])
            for held in (table.folds == fold for fold in range(N_FOLDS))
        ]
        ratios = kind.sum(axis=0) / np.maximum(np.bincount(table.levels, minlength=eyes.N_LEVELS), 1)
        print(
            f"{name:12s}  {losses.mean():.4f}    {describe_interval(bootstrap.draw_means(losses))}"
            f"  {expected_kappa(kind, levels):.4f}  {quadratic_weighted_kappa(table.levels, levels):.4f}"
            f"  {np.mean(excess):+.4f} ({max(excess, key=abs):+.4f})  {' '.join(f'{ratio:.2f}' for ratio in ratios)}"
        )


def print_decisions(table: Table, decided: dict[str, np.ndarray], bootstrap: Bootstrap) -> None:
    """Print the kappa of each decision, the best first."""
    reference = bootstrap.draw_kappas(decided["raw, round"])
    base = quadratic_weighted_kappa(table.levels, decided["raw, round"])
    print(f"\n{'scores, decision':24s}  kappa   95 %                difference from raw, round")
    kappas = {name: quadratic_weighted_kappa(table.levels, levels) for name, levels in decided.items()}
    for name in sorted(kappas, key=kappas.__getitem__, reverse=True):
        draws = bootstrap.draw_kappas(decided[name])
        print(
            f"{name:24s}  {kappas[name]:.4f}  {describe_interval(draws)}"
            f"  {kappas[name] - base:+.4f} {describe_interval(draws - reference)}"
        )


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decision", description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, required=True, help="score table")
    parser.add_argument("--labels", type=Path, required=True, help="table of image and level")
    parser.add_argument("--patients", type=int, help="how many patients to draw, to see what a small set would do")
    parser.add_argument("--seed", type=int, default=0, help="which patients are drawn")
    options = parser.parse_args(argv)
    table = read_labelled(options.scores, options.labels, options.patients, options.seed)
    scores = {name: cross_fit(table, fit) for name, fit in SCORES.items()}
    bootstrap = Bootstrap(table)
    print(f"{len(table.images)} images, {N_FOLDS} folds of patients, {measures.N_DRAWS} draws of patients")
    print_scores(table, scores, bootstrap)
    print_decisions(table, decide_all(table, scores), bootstrap)


if __name__ == "__main__":
    stage.run(main)
