"""Tell what each step is worth: the cache's score tables and levels against the true levels -> a table on the screen.

python -m submissions.score --data DIR --cache DIR [--labels FILE]

With DATA/testLabels.csv it is the test set that is scored; without it, as with Kaggle's own files, the validation fold,
where the blend is cross-fitted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dr.scores import read_scores
from kappa.anneal import anneal_levels
from kappa.qwk import quadratic_weighted_kappa
from preprocess import eyes, stage

SEED = 0  # of the annealing, where the levels of the validation fold are not in the cache
STEPS = (
    ("argmax of the net, one view of its last epoch", "dr/single_{split}.csv"),
    ("argmax after averaging views and epochs", "dr/scores_{split}.csv"),
    ("argmax after the linear blend of both eyes", "blend/linear_{split}.csv"),
    ("argmax after the MLP blend", "blend/scores_{split}.csv"),
)
LAST_STEP = "annealed labels"
DISCLAIMER = "For competition and research: not a medical device, no diagnosis."


def score_steps(cache: Path, split: str, labels_path: Path) -> list[tuple[str, int, float]]:
    """Return (step, number of images, quadratic weighted kappa) for every step of the pipeline.

    Parameters
    ----------
    split : "test" or "valid"
    labels_path : true levels; those of other images are not looked at
    """
    labels = eyes.read_labels(labels_path)
    rows = []
    for step, name in STEPS:
        path = cache / name.format(split=split)
        scores = read_scores(path)
        levels = np.argmax(scores.to_numpy(), axis=1)
        rows.append((step, *_score(levels, scores.index, labels, path, labels_path)))
    if split == "test":
        path = cache / "kappa" / "levels_test.csv"
        assigned = eyes.read_labels(path)
        levels, images = assigned.to_numpy(), assigned.index
    else:
        levels, images = anneal_levels(scores.to_numpy(), rng=np.random.default_rng(SEED)).levels, scores.index
    return [*rows, (LAST_STEP, *_score(levels, images, labels, path, labels_path))]


def _score(levels, images, labels, path: Path, labels_path: Path) -> tuple[int, float]:
    eyes.check_same_images(images, set(images) & set(labels.index), path, labels_path)
    return len(levels), quadratic_weighted_kappa(labels[images].to_numpy(), levels)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "submissions.score",
        "Print the quadratic weighted kappa after each step: on the test set if DATA/testLabels.csv (image, level) or "
        "--labels tells its levels, else on the validation fold.",
        "--data data --cache cache",
    )
    parser.add_argument("--labels", type=Path, help="true levels of the test set (default: DATA/testLabels.csv)")
    options = parser.parse_args(argv)
    labels = options.labels or options.data / "testLabels.csv"
    split = "test" if options.labels or labels.exists() else "valid"
    rows = score_steps(options.cache, split, labels if split == "test" else options.data / "trainLabels.csv")
    print(
        f"quadratic weighted kappa on the {'test set' if split == 'test' else 'validation fold'} ({rows[0][1]} images)"
    )
    for step, _, kappa in rows:
        print(f"  {step:<46} {kappa:7.4f}")
    print(DISCLAIMER)


if __name__ == "__main__":
    stage.run(main)
