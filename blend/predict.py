"""Blend the scores of both eyes with the blend of blend.train: CACHE/dr/scores_*.csv -> CACHE/blend/scores_*.csv.

scores_valid.csv is cross-fitted: each patient's scores come from a blend that was fitted without
that patient. linear_valid.csv and linear_test.csv hold the linear blend's scores, for comparison.
"""

from collections.abc import Sequence
from pathlib import Path

from blend import explicit
from blend.explicit import Work
from blend.pairs import blend_linear, pair_eyes, read_subjects
from dr.scores import NORMALIZE_HINT, read_scores, write_scores
from preprocess.cache import manifest
from preprocess.command import cli, process
from preprocess.disk import files
from preprocess.disk.errors import InputError

NAME = "blend.predict"
VERSION = 1  # of what this stage computes
VALID = {
    "scores_valid.csv": "out_of_fold.csv",
    "linear_valid.csv": "linear_out_of_fold.csv",
}  # what blend.train made
TEST = ("scores_test.csv", "linear_test.csv")


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(NAME, __doc__, "--data data --cache cache")
    explicit_files = {
        "scores": "scores to blend",
        "model": "checkpoint of blend.train",
        "out": "blended scores to write",
    }
    options = explicit.parse(NAME, parser, argv, explicit_files, ("normalize", "pairs-from"))
    explicit.run(NAME, options, predict_on_files, predict_in_cache)


def predict_on_files(work: Work) -> str:
    """Blend the scores that the options name."""
    return predict(work, work.options.scores, work.options.model, work.options.out)


def predict_in_cache(work: Work) -> str:
    """Blend in the cache what is not blended yet."""
    cache = work.options.cache
    folder = cache / "blend"
    fitted = cache / "blend" / "train"
    inputs = {
        name: manifest.read_output(fitted, name, "blend.train")
        for name in ("model.pt", *VALID.values())
    }
    test = cache / "dr" / "scores_test.csv"  # missing where there is no test set
    outputs = list(VALID)
    if test.exists():
        inputs["scores_test"] = files.hash_file(test)
        outputs += TEST
    elif manifest.has_output(test.parent, test.name):
        raise InputError(f"{test}: no such file; run python -m dr.predict again")
    blended, linear = (folder / name for name in TEST)

    def blend() -> str:
        for name, source in VALID.items():
            files.write_bytes(folder / name, (fitted / source).read_bytes())
        if test.exists():
            return predict(work, test, fitted / "model.pt", blended, linear)
        for path in (blended, linear):  # of a test set that is no more
            path.unlink(missing_ok=True)
        return "no test set; the validation fold's scores are cross-fitted"

    return manifest.renew(folder, NAME, {"version": VERSION}, inputs, outputs, blend)


def predict(
    work: Work, scores_from: Path, model: Path, out: Path, linear_out: Path | None = None
) -> str:
    """Read scores, write them blended (and linearly blended), and return one line on what was done."""
    from blend import mlp  # imported late: it needs torch

    blend = mlp.load_blend(model)
    normalize_id = work.dataset.normalize_id
    table = read_scores(
        scores_from, work.task, work.options.normalize, normalize_id, NORMALIZE_HINT
    )
    images = list(table.index)
    subjects = read_subjects(images, work.dataset, work.options.pairs_from)
    pairs = pair_eyes(subjects, table.to_numpy())
    write_scores(out, images, mlp.apply_blend(blend, pairs), work.task)
    if linear_out:
        write_scores(linear_out, images, blend_linear(pairs, blend.fellow_weight), work.task)
    return f"{len(images)} images, fellow's weight {blend.fellow_weight:.2f}, {len(blend.nets)} networks"


if __name__ == "__main__":
    process.run(main)
