"""Fit the blend of both eyes: CACHE/dr/scores_valid.csv, DATA/trainLabels.csv -> CACHE/blend/train/, a checkpoint.

Tells what it is worth, cross-fitted by patient.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from blend import explicit
from blend.pairs import N_FOLDS, SEED, cross_fit, pair_eyes, read_owners
from dr.metrics.agreement import expect_levels
from dr.metrics.calibration import measure_log_loss
from dr.scores import NORMALIZE_HINT, read_scores, read_targets_of, write_scores
from dr.tasks.task import find_prior, name_columns
from preprocess.cache import manifest
from preprocess.command import cli, process
from preprocess.dataset.dataset import Layout, Task
from preprocess.disk import files
from preprocess.disk.errors import InputError

NAME = "blend.train"
VERSION = 2  # of what this stage computes; a change refits every cache's blend
METHODS = ("mlp", "linear")
OUT_OF_FOLD = ("out_of_fold.csv", "linear_out_of_fold.csv")  # by the method chosen; by the linear blend, to compare


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(NAME, __doc__, "--data data --cache cache")
    parser.add_argument("--method", choices=METHODS, help="what to blend with: small networks, or a fixed weight")
    given = {"scores": "scores of labelled images", "labels": "their levels", "out": "checkpoint to write"}
    extras = ("known-only", "normalize", "pairs-from")
    explicit.run(NAME, parser, argv, given, extras, train, train_cached)


def train_cached(options: argparse.Namespace, layout: Layout) -> str:
    """Fit the blend in the cache if that is not done yet."""
    folder = options.cache / "blend" / "train"
    scores, labels = options.cache / "dr" / "scores_valid.csv", options.data / layout.labels["train"]
    if not scores.exists():
        raise InputError(f"{scores}: no such file; run python -m dr.predict first")
    parameters = {"version": VERSION, "method": options.method, "n_folds": N_FOLDS, "seed": SEED}
    inputs = {"scores_valid": files.hash_file(scores), "labels": files.hash_file(labels)}
    fit = partial(train, options, layout, scores, labels, folder / "model.pt", folder)
    return manifest.renew(folder, NAME, parameters, inputs, ("model.pt", *OUT_OF_FOLD), fit)


def train(
    options: argparse.Namespace, layout: Layout, scores_from: Path, labels_from: Path, out: Path,
    folder: Path | None = None,
) -> str:  # fmt: skip
    """Fit a blend to files, write its checkpoint, return one line on what it is worth.

    With a folder, the scores of each image by blends fitted without its patient go there, see OUT_OF_FOLD.
    """
    from blend import mlp  # torch takes a second and a half; who is cached does not wait for it

    table = read_scores(scores_from, layout.task, options.normalize, layout.spell, NORMALIZE_HINT)
    known = read_targets_of(table.index, scores_from, labels_from, layout, options.known_only)
    images, scores, levels = list(known.index), table.loc[known.index].to_numpy(), known.to_numpy()
    owners = read_owners(images, layout, options.pairs_from)
    groups, pairs = [owner.group for owner in owners], pair_eyes(owners, scores)
    if len(set(groups)) < 2:
        raise InputError(f"{scores_from}: one patient only; a blend is judged on other patients than it was fitted to")
    warn_of_columns(scores, levels, layout.task, scores_from)
    blended = {
        name: cross_fit(pairs, groups, levels, partial(mlp.fit_predictor, method=name, seed=SEED))
        for name in ("linear", options.method)
    }
    if folder:
        for name, which in zip(OUT_OF_FOLD, (options.method, "linear"), strict=True):
            write_scores(folder / name, images, blended[which], layout.task)
    blend = mlp.fit_blend(pairs, levels, options.method, SEED)
    mlp.save_blend(out, blend)
    worth = ", ".join(  # the squared error of the expected level: the kappa hangs on it
        f"{name} {measure_log_loss(kind, levels):.4f} {((expect_levels(kind) - levels) ** 2).mean():.4f}"
        for name, kind in {"raw": scores, **blended}.items()
    )
    fitted = f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}"
    fitted += "" if pairs.is_pair.any() else " (none of these eyes has a fellow)"
    fitted += f"; {len(table) - len(images)} without a known level left out" if options.known_only else ""
    return f"{fitted}; cross-fitted log loss and squared error: {worth}"


def warn_of_columns(scores: np.ndarray, levels: np.ndarray, task: Task, scores_from: Path) -> None:
    """Say on stderr that scores are worse than none: (n, k) scores, (n,) levels."""
    loss, prior = measure_log_loss(scores, levels), find_prior(task, levels)
    guessed = measure_log_loss(np.tile(prior, (len(levels), 1)), levels)
    if loss > guessed:
        worse = f"log loss {loss:.4f}, worse than guessing each level by its frequency, {guessed:.4f}"
        columns = ", ".join(name_columns(task))
        print(f"warning: {scores_from}: {worse}; are {columns} in the order of the levels?", file=sys.stderr)


if __name__ == "__main__":
    process.run(main)
