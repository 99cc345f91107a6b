"""Blends both eyes' scores: reads CACHE/dr/scores_*.csv and CACHE/blend/train/, writes CACHE/blend/scores_*.csv.

python -m blend.predict --data data --cache cache

scores_valid.csv is cross-fitted: each patient's scores come from a blend that was fitted without that patient.
linear_valid.csv and linear_test.csv hold the linear blend's scores, for comparison.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from blend.pairs import PAIRS_FROM, blend_linear, pair_eyes, read_owners
from dr.scores import NORMALIZE, NORMALIZE_HINT, read_scores, write_scores
from dr.task import explain_absence
from preprocess.cache import files, manifest, stage
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples import readers
from preprocess.samples.layout import Layout

VERSION = 1  # of what this stage computes
VALID = {"scores_valid.csv": "out_of_fold.csv", "linear_valid.csv": "linear_out_of_fold.csv"}  # what blend.train made
TEST = ("scores_test.csv", "linear_test.csv")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    parser = stage.make_parser(
        "blend.predict",
        "Blend each eye's scores with those of the patient's other eye, by what blend.train has fitted. Reads "
        "CACHE/dr/scores_*.csv, writes CACHE/blend/scores_*.csv and linear_*.csv, cross-fitted on the validation fold.",
        "--data data --cache cache",
    )
    explicit = parser.add_argument_group("explicit files, in place of those in --cache")
    explicit.add_argument("--scores", type=Path, help="scores to blend")
    explicit.add_argument("--model", type=Path, help="checkpoint of blend.train")
    explicit.add_argument("--out", type=Path, help="blended scores to write")
    explicit.add_argument("--normalize", **NORMALIZE)
    explicit.add_argument("--pairs-from", **PAIRS_FROM)
    options = recipe.parse(parser, argv, "blend.predict")
    if len({bool(path) for path in (options.scores, options.model, options.out)}) > 1:
        parser.error("--scores, --model and --out come together")
    if not options.scores and (options.normalize or options.pairs_from):
        parser.error("--normalize and --pairs-from come with --scores")
    files.check_out(options.out, options.scores, options.model, options.pairs_from)
    layout = readers.find_layout(options.data)
    if why := explain_absence(layout.task):
        print(f"blend.predict: {why}")
        return
    if options.scores:
        summary = predict_file(options, layout, options.scores, options.model, options.out, None)
    else:
        with stage.working(options.cache, "blend.predict"):
            summary = predict_cached(options, layout)
    print(f"blend.predict: {summary}", file=files.summary_stream(options.out))


def predict_cached(options: argparse.Namespace, layout: Layout) -> str:
    """Blend in the cache what is not blended yet; return one line on what was done."""
    cache = options.cache
    folder, fitted = cache / "blend", cache / "blend" / "train"
    inputs = {name: manifest.read_output(fitted, name, "blend.train") for name in ("model.pt", *VALID.values())}
    test = cache / "dr" / "scores_test.csv"  # missing where there is no test set
    if test.exists():
        inputs["scores_test"] = files.hash_file(test)
    elif manifest.has_output(test.parent, test.name):
        raise InputError(f"{test}: no such file; run python -m dr.predict again")
    change = manifest.find_change(folder, {"version": VERSION}, inputs)
    if change is None:
        return "cached"
    for name, source in VALID.items():
        files.write_bytes(folder / name, (fitted / source).read_bytes())
    blended, linear = (folder / name for name in TEST)
    if test.exists():
        summary = predict_file(options, layout, test, fitted / "model.pt", blended, linear)
    else:
        summary = "no test set; the validation fold's scores are cross-fitted"
        blended.unlink(missing_ok=True)  # of a test set that is no more
        linear.unlink(missing_ok=True)
    outputs = {name: files.hash_file(folder / name) for name in (*VALID, *(TEST if test.exists() else ()))}
    manifest.write_manifest(folder, "blend.predict", {"version": VERSION}, inputs, outputs)
    return f"{summary} ({change})"


def predict_file(
    options: argparse.Namespace, layout: Layout, scores_from: Path, model: Path, out: Path, linear_out: Path | None
) -> str:
    """Read scores, write them blended (and linearly blended), and return one line on what was done."""
    from blend import mlp  # torch takes a second and a half; who is cached does not wait for it

    blend = mlp.load_blend(model)
    table = read_scores(scores_from, layout.task, options.normalize, layout.spell, NORMALIZE_HINT)
    images = list(table.index)
    pairs = pair_eyes(read_owners(images, layout, options.pairs_from), table.to_numpy())
    write_scores(out, images, mlp.apply_blend(blend, pairs), layout.task)
    if linear_out:
        write_scores(linear_out, images, blend_linear(pairs, blend.fellow_weight), layout.task)
    return f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}, {len(blend.nets)} networks"


if __name__ == "__main__":
    stage.run(main)
