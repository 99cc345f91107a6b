"""Turn blended scores into levels: CACHE/blend/scores_test.csv -> CACHE/kappa/levels_test.csv.

The levels maximize the expected quadratic weighted kappa; the stage prints how close they are to
the proven optimum.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend import explicit
from blend.explicit import Work
from dr.metrics.agreement import quadratic_weighted_kappa, round_levels
from dr.scores import NORMALIZE_HINT, match_targets, read_scores
from kappa import anneal, exact
from kappa.proxy import expected_kappa
from preprocess.cache import manifest
from preprocess.command import cli, process
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

NAME = "kappa.assign"
METHODS = ("anneal", "exact", "round", "argmax")
VERSION = 1  # of what this stage computes
SEED = 0


class Decision(NamedTuple):
    """The levels that a method chooses."""

    levels: np.ndarray  # (n,) int64
    acceptance: float | None = None  # the share of moves that annealing accepted


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(NAME, __doc__, "--data data --cache cache --method exact")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="simulated annealing; the exact optimum; the rounded expected level; or the likeliest level",
    )
    explicit_files = {"scores": "scores to turn into levels", "out": "levels to write"}
    options = explicit.parse(NAME, parser, argv, explicit_files, ["normalize"])
    explicit.run(NAME, options, assign_on_files, assign_in_cache)


def assign_on_files(work: Work) -> str:
    """Assign levels to the scores that the options name."""
    return assign(work, work.options.scores, work.options.out)


def assign_in_cache(work: Work) -> str:
    """Assign levels in the cache if that is not done yet.

    The line says how good the method is on the validation fold as well, whose blended scores are cross-fitted.
    """
    folder = work.options.cache / "kappa"
    scores_from = work.options.cache / "blend" / "scores_test.csv"
    valid_from = scores_from.with_name("scores_valid.csv")
    if not scores_from.exists():
        missing = manifest.find_missing_stage(work.options.cache, "blend.predict")
        if manifest.has_output(scores_from.parent, valid_from.name) and not work.dataset.list_paths(
            "test"
        ):
            return f"no test photographs in {work.dataset.folder}: no levels to assign"
        raise InputError(
            f"{scores_from}: no such file; run python -m {missing} first, or is there no test set?"
        )

    def make() -> str:
        summary = assign(work, scores_from, folder / "levels_test.csv")
        if valid_from.exists() and work.dataset.has_targets("train"):
            summary += f"; {describe_validation(work, valid_from)}"
        return summary

    parameters = {"version": VERSION, "method": work.options.method}
    inputs = {"scores_test": files.hash_file(scores_from)}
    return manifest.renew(folder, NAME, parameters, inputs, ["levels_test.csv"], make)


def describe_validation(work: Work, scores_from: Path) -> str:
    """Return how good the method is on the validation fold, whose levels are known."""
    table = read_scores(scores_from, work.task)
    labels_from = work.dataset.target_sources["train"]
    known = match_targets(
        table.index, scores_from, work.dataset.get_targets("train", known_only=True), labels_from
    )
    scores = table.to_numpy()
    levels = decide(scores, work.options.method).levels
    kappa = quadratic_weighted_kappa(known.to_numpy(), levels, scores.shape[1])
    return f"validation fold: QWK {kappa:.4f}, proxy {expected_kappa(scores, levels):.4f}"


def assign(work: Work, scores_from: Path, out: Path) -> str:
    """Read scores, write the levels that a method chooses, and return one line on how good these are by the proxy."""
    method = work.options.method
    normalize_id = work.dataset.normalize_id
    table = read_scores(
        scores_from, work.task, work.options.normalize, normalize_id, NORMALIZE_HINT
    )
    scores = table.to_numpy()
    decision = decide(scores, method)
    tables.write_rows(out, ("image", "level"), zip(table.index, decision.levels, strict=True))
    proxy = expected_kappa(scores, decision.levels)
    optimum = expected_kappa(scores, exact.optimal_levels(scores))
    line = f"{len(scores)} images by {method}: proxy {proxy:.6f}, optimum {optimum:.6f}, gap {optimum - proxy:.1e}"
    if decision.acceptance is not None:
        line += f", acceptance {decision.acceptance:.3f}"
    return line


def decide(scores: np.ndarray, method: str) -> Decision:
    """Return the levels that a method gives (n, k) scores."""
    if method == "anneal":
        levels, acceptance = anneal.anneal_levels(scores, np.random.default_rng(SEED))
        return Decision(levels, acceptance)
    if method == "exact":
        return Decision(exact.optimal_levels(scores))
    if method == "round":
        return Decision(round_levels(scores))
    return Decision(scores.argmax(axis=1))


if __name__ == "__main__":
    process.run(main)
