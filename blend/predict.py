"""Blends both eyes' scores: reads CACHE/dr/scores_*.csv and CACHE/blend/train/, writes CACHE/blend/scores_*.csv.

python -m blend.predict --data data --cache cache

scores_valid.csv is cross-fitted: each patient's scores come from a blend that was fitted without that patient.
linear_valid.csv and linear_test.csv hold the linear blend's scores, for comparison.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from blend.pairs import pair_eyes
from preprocess import stage
from preprocess.stage import InputError

VERSION = 1  # of what this stage computes
VALID = {"scores_valid.csv": "out_of_fold.csv", "linear_valid.csv": "linear_out_of_fold.csv"}  # what blend.train made
TEST = ("scores_test.csv", "linear_test.csv")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    options = parse_options(argv)
    if options.scores:
        summary = predict_file(options.scores, options.model, options.out)
    else:
        with stage.locked(options.cache):
            summary = predict_cached(options.cache)
    print(f"blend.predict: {summary}")


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options, checked for what must come together."""
    parser = stage.make_parser(
        "blend.predict",
        "Blend each eye's scores with those of the patient's other eye, by what blend.train has fitted. Reads "
        "CACHE/dr/scores_*.csv, writes CACHE/blend/scores_*.csv and linear_*.csv, cross-fitted on the validation fold.",
        "--data data --cache cache",
    )
    explicit = parser.add_argument_group("explicit files, in place of --data and --cache")
    explicit.add_argument("--scores", type=Path, help="scores to blend")
    explicit.add_argument("--model", type=Path, help="checkpoint of blend.train")
    explicit.add_argument("--out", type=Path, help="blended scores to write")
    options = parser.parse_args(argv)
    if len({bool(path) for path in (options.scores, options.model, options.out)}) > 1:
        parser.error("--scores, --model and --out come together")
    return options


def predict_cached(cache: Path) -> str:
    """Blend in the cache what is not blended yet; return one line on what was done."""
    folder, fitted = cache / "blend", cache / "blend" / "train"
    inputs = {name: stage.read_output(fitted, name, "blend.train") for name in ("model.pt", *VALID.values())}
    test = cache / "dr" / "scores_test.csv"  # missing where there is no test set
    if test.exists():
        inputs["scores_test"] = stage.hash_file(test)
    elif stage.has_output(test.parent, test.name):
        raise InputError(f"{test}: no such file; run python -m dr.predict again")
    change = stage.find_change(folder, {"version": VERSION}, inputs)
    if change is None:
        return "cached"
    made = [folder / name for name in VALID]
    for path in made:
        stage.write_bytes(path, (fitted / VALID[path.name]).read_bytes())
    summary = "no test set; the validation fold's scores are cross-fitted"
    if test.exists():
        blended, linear = (folder / name for name in TEST)
        summary = predict_file(test, fitted / "model.pt", blended, linear)
        made += [blended, linear]
    else:
        for name in TEST:
            (folder / name).unlink(missing_ok=True)  # of a test set that is no more
    outputs = {path.name: stage.hash_file(path) for path in made}
    stage.write_manifest(folder, "blend.predict", {"version": VERSION}, inputs, outputs)
    return f"{summary} ({change})"


def predict_file(scores_from: Path, model: Path, out: Path, linear_out: Path | None = None) -> str:
    """Read scores, write them blended (and linearly blended), and return one line on what was done."""
    from blend.linear import blend_linear
    from blend.mlp import apply_blend, load_blend
    from dr.scores import read_scores, write_scores

    blend = load_blend(model)
    table = read_scores(scores_from)
    images = list(table.index)
    pairs = pair_eyes(images, table.to_numpy())
    write_scores(out, images, apply_blend(blend, pairs))
    if linear_out:
        write_scores(linear_out, images, blend_linear(pairs, blend.fellow_weight))
    return f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}, {len(blend.nets)} networks"


if __name__ == "__main__":
    stage.run(main)
