"""Train a net on labelled squares and tell how well it grades the eyes held out, and what averaging and the blend add.

python -m tests.benchmarks.recipe --data DIR --cache DIR [--recipe NAME] [--compare CACHE] [dr.train's options]

The photographs in DIR are taken as they are, without a search for the eye; all else is the recipe's. Options that this
benchmark does not know go to dr.train, and the cache is that of a run: the same command goes on where it stopped, and
prints the table again. Prints, for one view of the last epoch, ten views of it, ten views of the last five epochs, and
these blended (cross-fitted by patient): log loss, and the kappa of the likeliest level, of the rounded expectation and
of the optimum, with 95 % intervals of a bootstrap over patients. With --compare, each row's difference from the MLP
blend of another cache, whose held-out eyes must be the same.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from blend.pairs import pair_eyes
from dr import predict, train
from dr.measures import N_DRAWS
from dr.scores import read_scores, read_targets_of
from kappa.assign import decide
from preprocess import __main__ as preprocess
from preprocess.cache import stage, tables
from preprocess.samples import readers
from tests.benchmarks.decision import SCORES, Figure, Table, describe, subtract

N_VIEWS, N_EPOCHS = 10, 5
DECISIONS = ("argmax", "round", "exact")
FIGURES = ("log loss", *(f"kappa, {method}" for method in DECISIONS))
REFERENCE = "… MLP blend"


def main(argv: list[str] | None = None) -> None:
    """Train, predict, print the table."""
    parser = stage.make_parser("tests.benchmarks.recipe", __doc__.splitlines()[0], "--data squares --cache cache/fifty")
    parser.add_argument("--size-px", type=stage.whole(1), help="side of the squares, where it is not the recipe's")
    parser.add_argument("--compare", type=Path, metavar="CACHE", help="another cache of the same held-out eyes")
    options, further = parser.parse_known_args(argv)
    common = ["--data", str(options.data), "--cache", str(options.cache), "--recipe", options.recipe]
    size = ["--size-px", str(options.size_px)] if options.size_px else []
    preprocess.main([*common, "--crop", "whole", *size])
    started = time.monotonic()
    train.main([*common, *further])
    print(f"dr.train: {(time.monotonic() - started) / 60:.1f} minutes")
    predict.main([*common, "--views", str(N_VIEWS), "--epochs-averaged", f"last:{N_EPOCHS}"])
    print_tables(options.data, options.cache, options.compare)


def print_tables(data: Path, cache: Path, other: Path | None) -> None:
    """Print how good the scores of the held-out eyes are, step by step, and by how much they differ from another's."""
    images, figures = measure_steps(data, cache)
    print(f"{len(images)} images held out, {N_DRAWS} draws of patients; value [95 %]")
    print_rows({name: [describe(*one) for one in row] for name, row in figures.items()})
    if other:
        others, reference = measure_steps(data, other)
        tables.check_same_images(images, others, cache, other)
        print(f"\ndifference from the MLP blend of {other}")
        print_rows({name: list(map(subtract, row, reference[REFERENCE])) for name, row in figures.items()})


def measure_steps(data: Path, cache: Path) -> tuple[list[str], dict[str, list[Figure]]]:
    """Return the images held out, and of each step those of FIGURES."""
    layout, path = readers.find_layout(data), cache / "dr" / "scores_valid.csv"
    scores = read_scores(path, layout.task)
    owners = [layout.find_owner(image) for image in scores.index]
    levels = read_targets_of(scores.index, path, data / layout.labels["train"], layout)
    table = Table([owner.group for owner in owners], pair_eyes(owners, scores.to_numpy()), levels)
    epochs = [np.load(views)["scores"] for views in sorted((cache / "dr" / "views").glob("valid_*.npz"))[-N_EPOCHS:]]
    steps = {
        "one view, last epoch": epochs[-1][0],
        f"{N_VIEWS} views, last epoch": epochs[-1].mean(axis=0),
        f"{N_VIEWS} views, {len(epochs)} epochs": table.pairs.own,
        "… linear blend": table.cross_fit(SCORES["linear"]),
        REFERENCE: table.cross_fit(SCORES["mlp"]),
    }
    return list(scores.index), {
        name: [table.draw_loss(of), *(table.draw_kappa(decide(of, method).levels) for method in DECISIONS)]
        for name, of in steps.items()
    }


def print_rows(rows: dict[str, list[str]]) -> None:
    """Print a table of the figures."""
    for name, cells in {"": FIGURES, **rows}.items():
        print(f"{name:22s}" + "".join(f"  {cell:26s}" for cell in cells))


if __name__ == "__main__":
    stage.run(main)
