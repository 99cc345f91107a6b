"""Fits the blend of both eyes: reads CACHE/dr/scores_valid.csv and DATA/trainLabels.csv, writes CACHE/blend/train/.

python -m blend.train --data data --cache cache
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blend.pairs import Pairs, pair_eyes
from preprocess import eyes, stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    from blend.mlp import Blend

VERSION = 1  # of what this stage computes; a change refits every cache's blend
METHODS = ("mlp", "linear")
N_FOLDS = 5
SEED = 0


class Fit(NamedTuple):
    """A blend and what it is worth.

    blend : fitted to all images
    out_of_fold : name -> (n, 5) scores of each image by a blend fitted without its patient
    """

    blend: Blend
    out_of_fold: dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    options = parse_options(argv)
    if options.scores:
        summary = train_file(options.scores, options.labels, options.out, None, options.method, options.fellow_weight)
    else:
        with stage.locked(options.cache):
            summary = train_cached(options)
    print(f"blend.train: {summary}")


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options, checked for what must come together."""
    parser = stage.make_parser("blend.train", __doc__.splitlines()[0], "--data data --cache cache")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="what to blend with")
    parser.add_argument("--fellow-weight", type=parse_weight, help="the linear blend's, 0-1 (default: fitted)")
    explicit = parser.add_argument_group("explicit files, in place of --data and --cache")
    explicit.add_argument("--scores", type=Path, help="scores of labelled images")
    explicit.add_argument("--labels", type=Path, help="their levels")
    explicit.add_argument("--out", type=Path, help="checkpoint to write")
    options = parser.parse_args(argv)
    if len({bool(path) for path in (options.scores, options.labels, options.out)}) > 1:
        parser.error("--scores, --labels and --out come together")
    return options


def parse_weight(text: str) -> float:
    """Return a number in 0-1."""
    weight = float(text)
    if not 0 <= weight <= 1:
        raise argparse.ArgumentTypeError("from 0 to 1")
    return weight


def train_cached(options: argparse.Namespace) -> str:
    """Fit the blend in the cache if that is not done yet; return one line on what was done."""
    folder = options.cache / "blend" / "train"
    scores, labels = options.cache / "dr" / "scores_valid.csv", options.data / "trainLabels.csv"
    if not scores.exists():
        raise InputError(f"{scores}: no such file; run python -m dr.predict first")
    parameters = describe_parameters(options.method, options.fellow_weight)
    inputs = {"scores_valid": stage.hash_file(scores), "labels": stage.hash_file(labels)}
    change = stage.find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    made = (folder / "model.pt", folder / "out_of_fold.csv")
    summary = train_file(scores, labels, *made, options.method, options.fellow_weight)
    outputs = {path.name: stage.hash_file(path) for path in made}
    stage.write_manifest(folder, "blend.train", parameters, inputs, outputs)
    return f"{summary} ({change})"


def describe_parameters(method: str, fellow_weight: float | None) -> dict[str, Any]:
    """Return what the blend depends on besides its inputs."""
    return {"version": VERSION, "method": method, "fellow_weight": fellow_weight, "n_folds": N_FOLDS, "seed": SEED}


def train_file(
    scores_from: Path, labels_from: Path, out: Path, out_of_fold: Path | None, method: str, fellow_weight: float | None
) -> str:
    """Fit a blend to files, write its checkpoint (and out-of-fold scores), return one line on what it is worth."""
    from blend.mlp import save_blend
    from dr.scores import read_labels_of, read_scores, write_scores

    table = read_scores(scores_from)
    levels = read_labels_of(table.index, scores_from, labels_from)
    fit = fit_blend(list(table.index), table.to_numpy(), levels, method, fellow_weight)
    save_blend(out, fit.blend)
    if out_of_fold:
        write_scores(out_of_fold, list(table.index), fit.out_of_fold["blend"])
    return describe(fit, levels)


def fit_blend(
    images: Sequence[str], scores: np.ndarray, levels: np.ndarray, method: str, fellow_weight: float | None = None
) -> Fit:
    """Fit a blend to labelled images, and one without each fold of patients to tell what it is worth.

    Parameters
    ----------
    images : n image ids
    scores, levels : (n, 5) and (n,), row i belongs to images[i]
    method : one of METHODS
    fellow_weight : the linear blend's; None fits it

    The share of the network against the linear blend is the one of lowest log loss on the out-of-fold scores of the
    other patients: 1 or nearly so with thousands of labels, down to 0 with a handful, where networks overfit.
    """
    from blend.mlp import Blend

    pairs = pair_eyes(images, scores)
    n_folds = min(N_FOLDS, len(set(eyes.patients_of(images))))
    folds = eyes.assign_folds(images, levels, n_folds, SEED)
    linear, mlp = np.empty_like(scores), np.empty_like(scores)
    for fold in range(n_folds):
        held = folds == fold
        parts = fit_parts(pairs.select(~held), levels[~held], method, fellow_weight)
        linear[held], mlp[held] = predict_parts(parts, pairs.select(held))
    blended = np.empty_like(scores)
    for fold in range(n_folds):
        held = folds == fold
        blended[held] = mix(linear[held], mlp[held], fit_share(linear[~held], mlp[~held], levels[~held]))
    weight, nets = fit_parts(pairs, levels, method, fellow_weight)
    blend = Blend(weight, fit_share(linear, mlp, levels), nets)
    return Fit(blend, {"raw": scores, "linear": linear, "mlp": mlp, "blend": blended})


def fit_parts(
    pairs: Pairs, levels: np.ndarray, method: str, fellow_weight: float | None
) -> tuple[float, dict[str, Any] | None]:
    """Return the linear blend's weight and the fitted networks (None if the method is linear)."""
    from blend.linear import fit_fellow_weight
    from blend.mlp import fit_mlp

    weight = fit_fellow_weight(pairs, levels) if fellow_weight is None else fellow_weight
    return weight, fit_mlp(pairs, levels, SEED) if method == "mlp" else None


def predict_parts(parts: tuple[float, dict[str, Any] | None], pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return the linear blend's scores and the networks' (the linear ones again if there are no networks)."""
    from blend.linear import blend_linear
    from blend.mlp import predict_mlp

    weight, nets = parts
    linear = blend_linear(pairs, weight)
    return linear, linear if nets is None else predict_mlp(nets, pairs)


def mix(linear: np.ndarray, mlp: np.ndarray, share: float) -> np.ndarray:
    """Return share·mlp + (1 − share)·linear."""
    return share * mlp + (1 - share) * linear


def fit_share(linear: np.ndarray, mlp: np.ndarray, levels: np.ndarray) -> float:
    """Return the network's share in 0–1 with the lowest log loss; 0 if there is no network."""
    from scipy.optimize import minimize_scalar

    from blend.linear import measure_log_loss

    if linear is mlp or np.array_equal(linear, mlp):
        return 0.0
    return float(minimize_scalar(lambda share: measure_log_loss(mix(linear, mlp, share), levels), bounds=(0, 1)).x)


def describe(fit: Fit, levels: np.ndarray) -> str:
    """Return one line: cross-fitted log loss and quadratic weighted kappa (of the best labels) of each blend."""
    from blend.linear import measure_log_loss
    from kappa.exact import optimal_levels
    from kappa.qwk import quadratic_weighted_kappa

    worth = (
        f"{name} {measure_log_loss(scores, levels):.4f} {quadratic_weighted_kappa(levels, optimal_levels(scores)):.4f}"
        for name, scores in fit.out_of_fold.items()
    )
    fitted = f"fellow weight {fit.blend.fellow_weight:.2f}, network's share {fit.blend.share:.2f}"
    return f"{len(levels)} images, {fitted}; cross-fitted log loss and QWK: {', '.join(worth)}"


if __name__ == "__main__":
    stage.run(main)
