"""Tell what each step is worth: the cache's score tables and levels against the true levels -> a table on the screen.

python -m submissions.score --data DIR --cache DIR [--labels FILE]

With DATA/testLabels.csv it is the test set that is scored; without it, as with Kaggle's own files, the validation fold,
where the blend is cross-fitted.
"""

from collections.abc import Sequence
from pathlib import Path

from dr.measures import quadratic_weighted_kappa
from preprocess.cache import stage
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from submissions.report import evidence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = stage.make_parser(
        "submissions.score",
        "Print the quadratic weighted kappa after each step: on the test set if DATA/testLabels.csv (image, level) or "
        "--labels tells its levels, else on the validation fold.",
        "--data data --cache cache",
    )
    parser.add_argument("--labels", type=Path, help="true levels of the test set (default: DATA/testLabels.csv)")
    options = recipe.parse(parser, argv, "submissions.score")
    groups = evidence.read_groups(evidence.find_source(options.data, options.cache, options.labels))
    if not groups:
        raise InputError(f"{options.cache}: no scores of images whose level is known; run python -m dr.predict first")
    group = groups[0]
    print(f"quadratic weighted kappa on the {group.title} ({len(group.images)} images)")
    for step, given in group.given.items():
        print(f"  {step:<46} {quadratic_weighted_kappa(group.levels, given, group.n_levels):7.4f}")
    print(stage.NOTICE)


if __name__ == "__main__":
    stage.run(main)
