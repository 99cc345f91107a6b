"""Fit the blend of both eyes: CACHE/dr/scores_valid.csv, DATA/trainLabels.csv -> CACHE/blend/train/, a checkpoint.

Prints how much the blend gains, cross-fitted by patient.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blend import explicit
from blend.explicit import Work
from blend.pairs import N_FOLDS, SEED, cross_fit, pair_eyes, read_subjects
from dr.metrics.agreement import expect_levels
from dr.metrics.calibration import measure_log_loss
from dr.scores import NORMALIZE_HINT, match_targets, read_scores, write_scores
from dr.tasks.task import Task
from preprocess.cache import manifest
from preprocess.command import cli, process, progress
from preprocess.dataset import labels
from preprocess.disk import files
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NAME = "blend.train"
VERSION = 2  # of what this stage computes; a change refits every cache's blend
METHODS = ("mlp", "linear")
OUT_OF_FOLD = (
    "out_of_fold.csv",
    "linear_out_of_fold.csv",
)  # by the method chosen; by the linear blend, to compare


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(NAME, __doc__, "--data data --cache cache")
    parser.add_argument(
        "--method", choices=METHODS, help="blend by small networks, or by one fixed weight"
    )
    explicit_files = {
        "scores": "scores of labelled images",
        "labels": "levels of these images",
        "out": "checkpoint to write",
    }
    options = explicit.parse(
        NAME, parser, argv, explicit_files, ("known-only", "normalize", "pairs-from")
    )
    explicit.run(NAME, options, train_on_files, train_in_cache)


def train_on_files(work: Work) -> str:
    """Fit a blend to the tables that the options name."""
    options = work.options
    known = work.dataset.read_labels(options.labels, options.known_only, labels.HINT)
    return train(work, options.scores, known, options.labels, options.out)


def train_in_cache(work: Work) -> str:
    """Fit the blend in the cache if that is not done yet."""
    folder = work.options.cache / "blend" / "train"
    scores = work.options.cache / "dr" / "scores_valid.csv"
    if not scores.exists():
        missing = manifest.find_missing_stage(work.options.cache, "dr.predict")
        raise InputError(f"{scores}: no such file; run python -m {missing} first")
    levels = work.dataset.get_targets("train", known_only=True)
    labels_from = work.dataset.target_sources["train"]
    parameters = {
        "version": VERSION,
        "method": work.options.method,
        "n_folds": N_FOLDS,
        "seed": SEED,
    }
    inputs = {"scores_valid": files.hash_file(scores), "labels": files.hash_text(levels.to_json())}

    def fit() -> str:
        return train(work, scores, levels, labels_from, folder / "model.pt", folder)

    return manifest.renew(folder, NAME, parameters, inputs, ("model.pt", *OUT_OF_FOLD), fit)


def train(
    work: Work,
    scores_from: Path,
    targets: pd.Series,
    labels_from: Path,
    out: Path,
    folder: Path | None = None,
) -> str:
    """Fit a blend to a table of scores, write its checkpoint, return one line on what it gains.

    With a folder, the scores of each image by blends fitted without its patient go there, see OUT_OF_FOLD.
    """
    from blend import mlp  # imported late: it needs torch

    options = work.options
    table = read_scores(
        scores_from, work.task, options.normalize, work.dataset.normalize_id, NORMALIZE_HINT
    )
    known = match_targets(table.index, scores_from, targets, labels_from, options.known_only)
    images = list(known.index)
    scores = table.loc[known.index].to_numpy()
    levels = known.to_numpy()
    subjects = read_subjects(images, work.dataset, options.pairs_from)
    patients = [subject.patient for subject in subjects]
    if len(set(patients)) < 2:
        raise InputError(
            f"{scores_from}: one patient only; a blend is judged on other patients than it was fitted to"
        )
    warn_of_columns(scores, levels, work.task, scores_from)
    pairs = pair_eyes(subjects, scores)
    blended: dict[str, np.ndarray] = {}
    n_steps = mlp.count_steps(len(images)) * mlp.N_SEEDS * (N_FOLDS + 1)
    with progress.tracking(n_steps, NAME, unit="step") as bar:
        for method in dict.fromkeys(("linear", options.method)):
            fit = functools.partial(mlp.fit_predictor, method=method, seed=SEED, bar=bar)
            blended[method] = cross_fit(pairs, patients, levels, fit)
        blend = mlp.fit_blend(pairs, levels, options.method, SEED, bar)
    if folder:
        for name, method in zip(OUT_OF_FOLD, (options.method, "linear"), strict=True):
            write_scores(folder / name, images, blended[method], work.task)
    mlp.save_blend(out, blend)
    parts = [f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}"]
    if not pairs.is_pair.any():
        parts[0] += " (none of these eyes has a fellow)"
    if options.known_only:
        parts.append(f"{len(table) - len(images)} without a known level left out")
    figures = ", ".join(
        describe_figures(name, part, levels) for name, part in {"raw": scores, **blended}.items()
    )
    parts.append(f"cross-fitted log loss and squared error: {figures}")
    return "; ".join(parts)


def describe_figures(name: str, scores: np.ndarray, levels: np.ndarray) -> str:
    """Return log loss and squared error of the expected level, on which the kappa depends, of (n, k) scores."""
    squared_error = ((expect_levels(scores) - levels) ** 2).mean()
    return f"{name} {measure_log_loss(scores, levels):.4f} {squared_error:.4f}"


def warn_of_columns(scores: np.ndarray, levels: np.ndarray, task: Task, scores_from: Path) -> None:
    """Say on stderr that scores are worse than none: (n, k) scores, (n,) levels."""
    loss = measure_log_loss(scores, levels)
    prior = task.find_prior(levels)
    guessed = measure_log_loss(np.tile(prior, (len(levels), 1)), levels)
    if loss > guessed:
        worse = (
            f"log loss {loss:.4f}, worse than guessing each level by its frequency, {guessed:.4f}"
        )
        columns = ", ".join(task.columns)
        print(
            f"warning: {scores_from}: {worse}; are {columns} in the order of the levels?",
            file=sys.stderr,
        )


if __name__ == "__main__":
    process.run(main)
