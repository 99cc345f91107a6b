"""Fits the blend of both eyes: reads CACHE/dr/scores_valid.csv and DATA/trainLabels.csv, writes CACHE/blend/train/.

python -m blend.train --data data --cache cache
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blend.pairs import pair_eyes
from dr.scores import measure_log_loss
from preprocess import eyes, stage
from preprocess.stage import InputError

VERSION = 1  # of what this stage computes; a change refits every cache's blend
METHODS = ("mlp", "linear")
OUT_OF_FOLD = ("out_of_fold.csv", "linear_out_of_fold.csv")  # by the method chosen; by the linear blend, to compare
N_FOLDS = 5
SEED = 0


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
    parser = stage.make_parser(
        "blend.train",
        "Fit the blend of a patient's two eyes on the validation scores and their labels. Reads "
        "CACHE/dr/scores_valid.csv and DATA/trainLabels.csv, writes CACHE/blend/train/, and tells what it is worth, "
        "cross-fitted by patient.",
        "--data data --cache cache",
    )
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="what to blend with: small networks, or a fixed weight"
    )
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
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not 0 <= weight <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
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
    made = [folder / name for name in ("model.pt", *OUT_OF_FOLD)]
    summary = train_file(scores, labels, made[0], folder, options.method, options.fellow_weight)
    outputs = {path.name: stage.hash_file(path) for path in made}
    stage.write_manifest(folder, "blend.train", parameters, inputs, outputs)
    return f"{summary} ({change})"


def describe_parameters(method: str, fellow_weight: float | None) -> dict[str, Any]:
    """Return what the blend depends on besides its inputs."""
    return {"version": VERSION, "method": method, "fellow_weight": fellow_weight, "n_folds": N_FOLDS, "seed": SEED}


def train_file(
    scores_from: Path, labels_from: Path, out: Path, folder: Path | None, method: str, fellow_weight: float | None
) -> str:
    """Fit a blend to files, write its checkpoint, return one line on what it is worth.

    With a folder, the scores of each image by blends fitted without its patient go there, see OUT_OF_FOLD.
    """
    from blend.mlp import fit_blend, save_blend
    from dr.scores import read_labels_of, read_scores, write_scores

    table = read_scores(scores_from)
    images, scores = list(table.index), table.to_numpy()
    levels = read_labels_of(table.index, scores_from, labels_from)
    if len(set(eyes.patients_of(images))) < 2:
        raise InputError(f"{scores_from}: one patient only; a blend is judged on other patients than it was fitted to")
    fitted = {name: cross_fit(images, scores, levels, name, fellow_weight) for name in ("linear", method)}
    if folder:
        for name, which in zip(OUT_OF_FOLD, (method, "linear"), strict=True):
            write_scores(folder / name, images, fitted[which])
    blend = fit_blend(pair_eyes(images, scores), levels, method, fellow_weight, SEED)
    save_blend(out, blend)
    worth = ", ".join(f"{name} {describe(blended, levels)}" for name, blended in {"raw": scores, **fitted}.items())
    fitted = f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}"
    return f"{fitted}; cross-fitted log loss and squared error: {worth}"


def cross_fit(
    images: Sequence[str], scores: np.ndarray, levels: np.ndarray, method: str, fellow_weight: float | None = None
) -> np.ndarray:
    """Return each image's scores, (n, 5), by a blend that was fitted without its patient.

    Parameters
    ----------
    images : n image ids
    scores, levels : (n, 5) and (n,), row i belongs to images[i]
    method : one of METHODS
    fellow_weight : the linear blend's, 0–1; None fits it
    """
    from blend.mlp import apply_blend, fit_blend

    pairs = pair_eyes(images, scores)
    n_folds = min(N_FOLDS, len(set(eyes.patients_of(images))))
    folds = eyes.assign_folds(images, levels, n_folds, SEED)
    blended = np.empty_like(scores)
    for fold in range(n_folds):
        held = folds == fold
        blend = fit_blend(pairs.select(~held), levels[~held], method, fellow_weight, SEED)
        blended[held] = apply_blend(blend, pairs.select(held))
    return blended


def describe(scores: np.ndarray, levels: np.ndarray) -> str:
    """Return the log loss of scores and the squared error of the level they expect, on which the kappa hangs."""
    squared_error = ((scores @ np.arange(eyes.N_LEVELS) - levels) ** 2).mean()
    return f"{measure_log_loss(scores, levels):.4f} {squared_error:.4f}"


if __name__ == "__main__":
    stage.run(main)
