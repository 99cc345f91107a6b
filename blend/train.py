"""Fits the blend of both eyes: reads CACHE/dr/scores_valid.csv and DATA/trainLabels.csv, writes CACHE/blend/train/.

python -m blend.train --data data --cache cache
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from blend.pairs import N_FOLDS, SEED, cross_fit, pair_eyes
from dr.measures import expect_levels, measure_log_loss
from dr.scores import read_scores, read_targets_of, write_scores
from preprocess.cache import files, manifest, stage
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples import readers
from preprocess.samples.layout import Layout

VERSION = 1  # of what this stage computes; a change refits every cache's blend
METHODS = ("mlp", "linear")
OUT_OF_FOLD = ("out_of_fold.csv", "linear_out_of_fold.csv")  # by the method chosen; by the linear blend, to compare


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    parser = stage.make_parser(
        "blend.train",
        "Fit the blend of a patient's two eyes on the validation scores and their labels. Reads "
        "CACHE/dr/scores_valid.csv and DATA/trainLabels.csv, writes CACHE/blend/train/, and tells what it is worth, "
        "cross-fitted by patient.",
        "--data data --cache cache",
    )
    parser.add_argument("--method", choices=METHODS, help="what to blend with: small networks, or a fixed weight")
    explicit = parser.add_argument_group("explicit files, in place of those in --data and --cache")
    explicit.add_argument("--scores", type=Path, help="scores of labelled images")
    explicit.add_argument("--labels", type=Path, help="their levels")
    explicit.add_argument("--out", type=Path, help="checkpoint to write")
    options = recipe.parse(parser, argv, "blend.train")
    if len({bool(path) for path in (options.scores, options.labels, options.out)}) > 1:
        parser.error("--scores, --labels and --out come together")
    layout = readers.find_layout(options.data)
    if options.scores:
        summary = train_file(options.scores, options.labels, options.out, None, options.method, layout)
    else:
        with stage.working(options.cache, "blend.train"):
            summary = train_cached(options, layout)
    print(f"blend.train: {summary}")


def train_cached(options: argparse.Namespace, layout: Layout) -> str:
    """Fit the blend in the cache if that is not done yet; return one line on what was done."""
    folder = options.cache / "blend" / "train"
    scores, labels = options.cache / "dr" / "scores_valid.csv", options.data / layout.labels["train"]
    if not scores.exists():
        raise InputError(f"{scores}: no such file; run python -m dr.predict first")
    parameters = {"version": VERSION, "method": options.method, "n_folds": N_FOLDS, "seed": SEED}
    inputs = {"scores_valid": files.hash_file(scores), "labels": files.hash_file(labels)}
    change = manifest.find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    summary = train_file(scores, labels, folder / "model.pt", folder, options.method, layout)
    outputs = {name: files.hash_file(folder / name) for name in ("model.pt", *OUT_OF_FOLD)}
    manifest.write_manifest(folder, "blend.train", parameters, inputs, outputs)
    return f"{summary} ({change})"


def train_file(
    scores_from: Path, labels_from: Path, out: Path, folder: Path | None, method: str, layout: Layout
) -> str:
    """Fit a blend to files, write its checkpoint, return one line on what it is worth.

    With a folder, the scores of each image by blends fitted without its patient go there, see OUT_OF_FOLD.
    """
    from blend import mlp  # torch takes a second and a half; who is cached does not wait for it

    table = read_scores(scores_from, layout.task)
    images, scores = list(table.index), table.to_numpy()
    levels = read_targets_of(table.index, scores_from, labels_from, layout)
    owners = [layout.find_owner(image) for image in images]
    groups, pairs = [owner.group for owner in owners], pair_eyes(owners, scores)
    if len(set(groups)) < 2:
        raise InputError(f"{scores_from}: one patient only; a blend is judged on other patients than it was fitted to")
    blended = {
        name: cross_fit(pairs, groups, levels, partial(mlp.fit_predictor, method=name, seed=SEED))
        for name in ("linear", method)
    }
    if folder:
        for name, which in zip(OUT_OF_FOLD, (method, "linear"), strict=True):
            write_scores(folder / name, images, blended[which], layout.task)
    blend = mlp.fit_blend(pairs, levels, method, SEED)
    mlp.save_blend(out, blend)
    worth = ", ".join(  # the squared error of the expected level: the kappa hangs on it
        f"{name} {measure_log_loss(kind, levels):.4f} {((expect_levels(kind) - levels) ** 2).mean():.4f}"
        for name, kind in {"raw": scores, **blended}.items()
    )
    fitted = f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}"
    return f"{fitted}; cross-fitted log loss and squared error: {worth}"


if __name__ == "__main__":
    stage.run(main)
