"""Turn blended scores into levels: CACHE/blend/scores_test.csv -> CACHE/kappa/levels_test.csv.

They promise the highest quadratic weighted kappa; it tells how near to the proven optimum they are.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend import explicit
from dr.metrics.agreement import quadratic_weighted_kappa, round_levels
from dr.scores import NORMALIZE_HINT, read_scores, read_targets_of
from kappa import anneal, exact
from kappa.proxy import expected_kappa
from preprocess.cache import manifest
from preprocess.command import cli, process
from preprocess.dataset.dataset import Layout
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

NAME = "kappa.assign"
METHODS = ("anneal", "exact", "round", "argmax")
VERSION = 1  # of what this stage computes
SEED = 0


class Decision(NamedTuple):
    levels: np.ndarray  # (n,) int64
    acceptance: float | None = None  # the share of moves that annealing accepted


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(NAME, __doc__, "--data data --cache cache --method exact")
    parser.add_argument("--method", choices=METHODS, help="anneal the labels; take the exact optimum; round the mean "
                        "level; or the likeliest level")  # fmt: skip
    given = {"scores": "scores to decide on", "out": "levels to write"}
    explicit.run(NAME, parser, argv, given, ["normalize"], assign, assign_cached)


def assign_cached(options: argparse.Namespace, layout: Layout) -> str:
    """Assign levels in the cache if that is not done yet.

    It tells how good the method is on the validation fold, too, whose blended scores are cross-fitted.
    """
    folder, scores_from = options.cache / "kappa", options.cache / "blend" / "scores_test.csv"
    valid_from, labels_from = scores_from.with_name("scores_valid.csv"), options.data / layout.labels["train"]
    if not scores_from.exists():
        raise InputError(f"{scores_from}: no such file; run python -m blend.predict first, or is there no test set?")

    def make() -> str:
        summary = assign(options, layout, scores_from, folder / "levels_test.csv")
        if not (valid_from.exists() and labels_from.exists()):
            return summary
        table = read_scores(valid_from, layout.task)
        true = read_targets_of(table.index, valid_from, labels_from, layout).to_numpy()
        scores = table.to_numpy()
        levels = decide(scores, options.method).levels
        kappa = quadratic_weighted_kappa(true, levels, scores.shape[1])
        return f"{summary}; validation fold: QWK {kappa:.4f}, proxy {expected_kappa(scores, levels):.4f}"

    parameters, inputs = {"version": VERSION, "method": options.method}, {"scores_test": files.hash_file(scores_from)}
    return manifest.renew(folder, NAME, parameters, inputs, ["levels_test.csv"], make)


def assign(options: argparse.Namespace, layout: Layout, scores_from: Path, out: Path) -> str:
    """Read scores, write the levels a method gives them, and return one line on how good they are by the proxy."""
    table = read_scores(scores_from, layout.task, options.normalize, layout.spell, NORMALIZE_HINT)
    scores, method = table.to_numpy(), options.method
    levels, acceptance = decide(scores, method)
    tables.write_rows(out, ("image", "level"), zip(table.index, levels, strict=True))
    proxy, optimum = (expected_kappa(scores, given) for given in (levels, exact.optimal_levels(scores)))
    line = f"{len(scores)} images by {method}: proxy {proxy:.6f}, optimum {optimum:.6f}, gap {optimum - proxy:.1e}"
    return line if acceptance is None else f"{line}, acceptance {acceptance:.3f}"


def decide(scores: np.ndarray, method: str) -> Decision:
    """Return the levels that a method gives (n, k) scores."""
    if method == "anneal":
        return Decision(*anneal.anneal_levels(scores, np.random.default_rng(SEED)))
    if method == "exact":
        return Decision(exact.optimal_levels(scores))
    return Decision(round_levels(scores) if method == "round" else scores.argmax(axis=1))


if __name__ == "__main__":
    process.run(main)
