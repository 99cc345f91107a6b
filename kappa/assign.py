"""Turns blended scores into levels: reads CACHE/blend/scores_test.csv, writes CACHE/kappa/levels_test.csv.

python -m kappa.assign --data data --cache cache
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kappa import anneal, exact, qwk
from preprocess import stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("anneal", "exact", "round", "argmax", "thresholds")
VERSION = 1  # of what this stage computes
SEED = 0


class Decision(NamedTuple):
    """Levels, (n,) int64, and the share of moves accepted where they were annealed."""

    levels: np.ndarray
    acceptance: float | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage, or work on explicit files if `--scores` is given."""
    options = parse_options(argv)
    if options.scores:
        summary = assign_file(options.scores, options.out, options.method, options.valid_scores, options.labels)
    else:
        with stage.locked(options.cache):
            summary = assign_cached(options)
    print(f"kappa.assign: {summary}")


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options, checked for what must come together."""
    parser = stage.make_parser(
        "kappa.assign",
        "Turn blended scores into levels that promise the highest quadratic weighted kappa, and tell how near to the "
        "proven optimum they are. Reads CACHE/blend/scores_test.csv, writes CACHE/kappa/levels_test.csv.",
        "--data data --cache cache --method exact",
    )
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="anneal the labels; take the "
                        "exact optimum; round the mean level; the likeliest level; or thresholds on the mean level, "
                        "fitted to validation scores")  # fmt: skip
    explicit = parser.add_argument_group("explicit files, in place of --data and --cache")
    explicit.add_argument("--scores", type=Path, help="scores to decide on")
    explicit.add_argument("--out", type=Path, help="levels to write")
    explicit.add_argument("--valid-scores", type=Path, help="scores of labelled images, for --method thresholds")
    explicit.add_argument("--labels", type=Path, help="their levels")
    options = parser.parse_args(argv)
    if bool(options.scores) != bool(options.out):
        parser.error("--scores and --out come together")
    if (options.valid_scores or options.labels) and not (options.scores and options.method == "thresholds"):
        parser.error("--valid-scores and --labels are for --scores with --method thresholds")
    if options.scores and options.method == "thresholds" and not (options.valid_scores and options.labels):
        parser.error("--method thresholds needs --valid-scores and --labels")
    return options


def assign_cached(options: argparse.Namespace) -> str:
    """Assign levels in the cache if that is not done yet; return one line on what was done."""
    folder, scores = options.cache / "kappa", options.cache / "blend" / "scores_test.csv"
    valid_scores, labels = options.cache / "blend" / "scores_valid.csv", options.data / "trainLabels.csv"
    if not scores.exists():
        raise InputError(f"{scores}: no such file; run python -m blend.predict first, or is there no test set?")
    parameters = {"version": VERSION, "method": options.method}
    used = {"scores_test": scores}
    if options.method == "thresholds":
        used |= {"scores_valid": valid_scores, "labels": labels}
    inputs = {name: stage.hash_file(path) for name, path in used.items()}
    change = stage.find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    out = folder / "levels_test.csv"
    summary = assign_file(scores, out, options.method, valid_scores, labels)
    stage.write_manifest(folder, "kappa.assign", parameters, inputs, {out.name: stage.hash_file(out)})
    if options.method != "thresholds" and valid_scores.exists() and labels.exists():
        summary += f"; {describe_validation(valid_scores, labels, options.method)}"
    return f"{summary} ({change})"


def assign_file(scores_from: Path, out: Path, method: str, valid_scores: Path | None, labels: Path | None) -> str:
    """Read scores, write the levels a method gives them, and return one line on how good they are by the proxy."""
    from dr.scores import read_labels_of, read_scores

    table = read_scores(scores_from)
    scores = table.to_numpy()
    if method == "thresholds":
        valid = read_scores(valid_scores)
        fitted = fit_thresholds(valid.to_numpy(), read_labels_of(valid.index, valid_scores, labels))
        decision = Decision(apply_thresholds(scores, fitted))
    else:
        decision = decide(scores, method)
    write_levels(out, table.index, decision.levels)
    return describe(scores, method, decision)


def decide(scores: np.ndarray, method: str) -> Decision:
    """Return the levels that a method needing no labels gives (n, 5) scores."""
    if method == "anneal":
        annealed = anneal.anneal_levels(scores, rng=np.random.default_rng(SEED))
        return Decision(annealed.levels, annealed.acceptance)
    if method == "exact":
        return Decision(exact.optimal_levels(scores))
    if method == "round":
        return Decision(apply_thresholds(scores, np.arange(scores.shape[1] - 1) + 0.5))
    return Decision(scores.argmax(axis=1))


def apply_thresholds(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return how many of the ascending thresholds the expected level reaches, (n,) int64."""
    return np.searchsorted(thresholds, expect_levels(scores), side="right")


def expect_levels(scores: np.ndarray) -> np.ndarray:
    """Return the mean of each row's distribution over the levels, (n,) in 0–4."""
    return scores @ np.arange(scores.shape[1])


def fit_thresholds(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the 4 thresholds on the expected level with the highest quadratic weighted kappa that a search finds.

    Parameters
    ----------
    scores : (n, 5) of labelled images
    levels : (n,) their true levels

    The kappa is a step function of the thresholds, hence the simplex search (Nelder and Mead 1965), from halves.
    """
    from scipy.optimize import minimize

    expected = expect_levels(scores)
    n_levels = scores.shape[1]

    def lose(thresholds: np.ndarray) -> float:
        predicted = np.searchsorted(np.sort(thresholds), expected, side="right")
        return -qwk.quadratic_weighted_kappa(levels, predicted, n_levels)

    start = np.arange(n_levels - 1) + 0.5
    simplex = np.vstack([start, start + 0.2 * np.eye(n_levels - 1)])
    found = minimize(lose, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-4})
    return np.sort(found.x)


def write_levels(path: Path, images: pd.Index, levels: np.ndarray) -> None:
    """Write a CSV of image,level."""
    import pandas as pd

    text = pd.DataFrame({"image": images, "level": levels}).to_csv(index=False, lineterminator="\n")
    stage.write_bytes(path, text.encode())


def describe(scores: np.ndarray, method: str, decision: Decision) -> str:
    """Return one line: method, proxy, optimum, gap, and acceptance where it was annealed."""
    proxy = qwk.expected_kappa(scores, decision.levels)
    optimum = qwk.expected_kappa(scores, exact.optimal_levels(scores))
    line = f"{len(scores)} images by {method}: proxy {proxy:.6f}, optimum {optimum:.6f}, gap {optimum - proxy:.1e}"
    return line if decision.acceptance is None else f"{line}, acceptance {decision.acceptance:.3f}"


def describe_validation(scores_from: Path, labels_from: Path, method: str) -> str:
    """Return how good the method is on the validation fold, whose blended scores are cross-fitted."""
    from dr.scores import read_labels_of, read_scores

    table = read_scores(scores_from)
    true = read_labels_of(table.index, scores_from, labels_from)
    levels = decide(table.to_numpy(), method).levels
    kappa, proxy = qwk.quadratic_weighted_kappa(true, levels), qwk.expected_kappa(table.to_numpy(), levels)
    return f"validation fold: QWK {kappa:.4f}, proxy {proxy:.4f}"


if __name__ == "__main__":
    stage.run(main)
