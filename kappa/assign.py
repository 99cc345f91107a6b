"""Turns blended scores into levels: reads CACHE/blend/scores_test.csv, writes CACHE/kappa/levels_test.csv.

python -m kappa.assign --data data --cache cache
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dr.measures import quadratic_weighted_kappa, round_levels
from dr.scores import NORMALIZE, NORMALIZE_HINT, read_scores, read_targets_of
from dr.task import explain_absence
from kappa import anneal, exact
from kappa.proxy import expected_kappa
from preprocess.cache import files, manifest, stage, tables
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples import readers
from preprocess.samples.layout import Layout

METHODS = ("anneal", "exact", "round", "argmax")
VERSION = 1  # of what this stage computes
SEED = 0


class Decision(NamedTuple):
    """Levels, (n,) int64, and the share of moves accepted where they were annealed."""

    levels: np.ndarray
    acceptance: float | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    parser = stage.make_parser(
        "kappa.assign",
        "Turn blended scores into levels that promise the highest quadratic weighted kappa, and tell how near to the "
        "proven optimum they are. Reads CACHE/blend/scores_test.csv, writes CACHE/kappa/levels_test.csv.",
        "--data data --cache cache --method exact",
    )
    parser.add_argument("--method", choices=METHODS, help="anneal the labels; take the exact optimum; round the mean "
                        "level; or the likeliest level")  # fmt: skip
    explicit = parser.add_argument_group("explicit files, in place of those in --cache")
    explicit.add_argument("--scores", type=Path, help="scores to decide on")
    explicit.add_argument("--out", type=Path, help="levels to write")
    explicit.add_argument("--normalize", **NORMALIZE)
    options = recipe.parse(parser, argv, "kappa.assign")
    if bool(options.scores) != bool(options.out):
        parser.error("--scores and --out come together")
    if options.normalize and not options.scores:
        parser.error("--normalize comes with --scores")
    files.check_out(options.out, options.scores)
    layout = readers.find_layout(options.data)
    if why := explain_absence(layout.task):
        print(f"kappa.assign: {why}")
        return
    if options.scores:
        summary = assign_file(options, layout, options.scores, options.out)
    else:
        with stage.working(options.cache, "kappa.assign"):
            summary = assign_cached(options, layout)
    print(f"kappa.assign: {summary}", file=files.summary_stream(options.out))


def assign_cached(options: argparse.Namespace, layout: Layout) -> str:
    """Assign levels in the cache if that is not done yet; return one line on what was done.

    It tells how good the method is on the validation fold, too, whose blended scores are cross-fitted.
    """
    folder, scores_from = options.cache / "kappa", options.cache / "blend" / "scores_test.csv"
    if not scores_from.exists():
        raise InputError(f"{scores_from}: no such file; run python -m blend.predict first, or is there no test set?")
    parameters = {"version": VERSION, "method": options.method}
    inputs = {"scores_test": files.hash_file(scores_from)}
    change = manifest.find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    out = folder / "levels_test.csv"
    summary = assign_file(options, layout, scores_from, out)
    manifest.write_manifest(folder, "kappa.assign", parameters, inputs, {out.name: files.hash_file(out)})
    valid_from, labels_from = scores_from.with_name("scores_valid.csv"), options.data / layout.labels["train"]
    if valid_from.exists() and labels_from.exists():
        table = read_scores(valid_from, layout.task)
        true = read_targets_of(table.index, valid_from, labels_from, layout).to_numpy()
        scores = table.to_numpy()
        levels = decide(scores, options.method).levels
        kappa = quadratic_weighted_kappa(true, levels, scores.shape[1])
        summary += f"; validation fold: QWK {kappa:.4f}, proxy {expected_kappa(scores, levels):.4f}"
    return f"{summary} ({change})"


def assign_file(options: argparse.Namespace, layout: Layout, scores_from: Path, out: Path) -> str:
    """Read scores, write the levels a method gives them, and return one line on how good they are by the proxy."""
    table = read_scores(scores_from, layout.task, options.normalize, layout.spell, NORMALIZE_HINT)
    scores, method = table.to_numpy(), options.method
    levels, acceptance = decide(scores, method)
    rows = zip(table.index, levels, strict=True)
    tables.write_table(out, ("image", "level"), {image: {"level": level} for image, level in rows})
    proxy, optimum = (expected_kappa(scores, given) for given in (levels, exact.optimal_levels(scores)))
    line = f"{len(scores)} images by {method}: proxy {proxy:.6f}, optimum {optimum:.6f}, gap {optimum - proxy:.1e}"
    return line if acceptance is None else f"{line}, acceptance {acceptance:.3f}"


def decide(scores: np.ndarray, method: str) -> Decision:
    """Return the levels that a method gives (n, k) scores."""
    if method == "anneal":
        annealed = anneal.anneal_levels(scores, rng=np.random.default_rng(SEED))
        return Decision(annealed.levels, annealed.acceptance)
    if method == "exact":
        return Decision(exact.optimal_levels(scores))
    return Decision(round_levels(scores) if method == "round" else scores.argmax(axis=1))


if __name__ == "__main__":
    stage.run(main)
