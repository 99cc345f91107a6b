"""Score levels against the truth: two tables of image and level -> quadratic weighted kappa and confusions, printed.

The kappa has a 95 percent interval from a bootstrap over patients (over images if the names do not
identify patients). Needs no cache.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr.metrics import bootstrap
from dr.metrics.agreement import count_pairs, kappa_of_counts, kappa_of_draws
from dr.scores import match_targets
from preprocess.command import cli, pipeline, process
from preprocess.dataset import kaggle, labels
from preprocess.dataset.question import RETINOPATHY, Question
from preprocess.dataset.sample_table import MOST_LEVELS
from preprocess.disk import tables
from preprocess.disk.errors import InputError


def find_question(paths: Sequence[Path]) -> Question:
    """Return what tables of levels are about: the clinical scale, or one of more levels, if a table has some."""
    highest = 0
    for path in paths:
        for cell in tables.read_table(path, ["image", "level"], kaggle.normalize_id)["level"]:
            if cell.strip().isdecimal():
                highest = max(highest, int(cell))
    if highest < len(RETINOPATHY.names) or highest >= MOST_LEVELS:
        return RETINOPATHY
    return Question("levels", tuple(f"level {level}" for level in range(highest + 1)))


def describe_kappa(
    groups: Sequence[str], levels: np.ndarray, predicted: np.ndarray, grouped_by: str
) -> str:
    """Return the kappa with its interval, or why it has none; `levels` are the true ones, (n,).

    Draws in which all true levels are one say nothing of agreement: they are left out, and counted.
    """
    if len(np.unique(levels)) < 2:
        return f"not measurable: all true levels are {levels[0]}"
    n_levels = int(max(levels.max(), predicted.max())) + 1

    def measure(rows: np.ndarray) -> np.ndarray:
        return kappa_of_draws(count_pairs(levels[rows], predicted[rows], n_levels))

    estimate = bootstrap.estimate_drawn(bootstrap.draw_figures(groups, measure))
    n_groups = len(set(groups))
    if n_groups < 2:
        return f"{estimate.value:.4f}, interval not measurable over one patient"
    text = f"{estimate.value:.4f}, 95 % interval {estimate.low:.4f} to {estimate.high:.4f} over {n_groups} {grouped_by}"
    n_lost = bootstrap.N_DRAWS - estimate.draws
    if n_lost:
        text += f" ({n_lost:,} of {bootstrap.N_DRAWS:,} draws have one true level only, and are left out)"
    return text


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "kappa.score", __doc__, "--levels levels.csv --labels trainLabels.csv"
    )
    parser.add_argument("--levels", type=Path, required=True, help="the levels to score")
    parser.add_argument(
        "--labels", type=Path, required=True, help="the true levels; more images are allowed"
    )
    parser.add_argument(
        "--known-only", action="store_true", help="leave out images without a level in --labels"
    )
    options = parser.parse_args(argv)
    import pandas as pd

    question = find_question([options.levels, options.labels])
    given = labels.read_labels(options.levels, question, kaggle.normalize_id)
    if given.empty:
        raise InputError(f"{options.levels}: holds no image")
    truth = labels.read_labels(
        options.labels, question, kaggle.normalize_id, options.known_only, labels.HINT
    )
    true = match_targets(given.index, options.levels, truth, options.labels, options.known_only)
    try:
        groups = [kaggle.find_subject(image).patient for image in true.index]
        grouped_by = "patients"
    except InputError:  # names of another kind
        groups = list(true.index)
        grouped_by = "images, whose names tell of no patients"
    levels = true.to_numpy()
    predicted = given[true.index].to_numpy()
    left_out = (
        f", {len(given) - len(true)} without a known level left out" if options.known_only else ""
    )
    print(f"kappa.score: {len(true)} images{left_out}")
    print(f"  quadratic weighted kappa {describe_kappa(groups, levels, predicted, grouped_by)}")
    counts = count_pairs(levels, predicted, len(question.names))
    table = pd.DataFrame(counts).map("{:,d}".format).rename_axis("true \\ given", axis=1)
    print(table.to_string())
    print(pipeline.NOTICE)
    kappa = kappa_of_counts(counts)
    if kappa < 0:
        worse = f"kappa {kappa:.4f}, worse than levels drawn by lot"
        print(
            f"warning: {worse}; is column level of {options.levels} the one that is meant?",
            file=sys.stderr,
        )


if __name__ == "__main__":
    process.run(main)
