"""Train a net on labelled squares and tell how well it grades the eyes held out, and what averaging and the blend add.

python -m tests.benchmarks.recipe --data DIR --cache DIR [--recipe NAME] [--compare CACHE] [dr.train's options]

The photographs in DIR are taken as they are; the same command goes on where it stopped. Prints 95 % intervals of a
bootstrap over patients, of cross-fitted blends; CACHE/times.csv tells how long all took.
"""

from pathlib import Path

from blend.pairs import pair_eyes
from dr import predict, train
from dr.scores import read_scores
from dr.tasks.kinds import make_task
from dr.view_scores import read_views
from kappa.assign import decide
from preprocess import __main__ as preprocess
from preprocess.command import cli, process
from preprocess.dataset import readers
from preprocess.disk import tables
from tests.benchmarks.decision import SCORES, Table, describe

N_VIEWS, N_EPOCHS = 10, 5
DECISIONS = ("argmax", "round", "exact")
FIGURES = ("log loss", *(f"kappa, {method}" for method in DECISIONS))
REFERENCE = "… MLP blend"


def main():
    parser = cli.make_parser(
        "tests.benchmarks.recipe", __doc__.splitlines()[0], "--data squares --cache cache/fifty"
    )
    parser.add_argument(
        "--size-px", type=cli.whole(1), help="side of the squares, where it is not the recipe's"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="CACHE", help="another cache of the same held-out eyes"
    )
    options, further = parser.parse_known_args()
    common = [
        "--data",
        str(options.data),
        "--cache",
        str(options.cache),
        "--recipe",
        options.recipe,
    ]
    size = ["--size-px", str(options.size_px)] if options.size_px else []
    preprocess.main([*common, "--crop", "whole", *size])
    train.main([*common, *further])
    predict.main([*common, "--views", str(N_VIEWS), "--epochs-averaged", f"last:{N_EPOCHS}"])
    images, figures = measure_steps(options.data, options.cache)
    print(f"{len(images)} images held out; value [95 %]")
    print_rows({name: [describe(one) for one in row] for name, row in figures.items()})
    if options.compare:
        others, reference = measure_steps(options.data, options.compare)
        tables.check_same_images(images, others, options.cache, options.compare)
        print(f"\ndifference from the MLP blend of {options.compare}")
        print_rows(
            {
                name: [
                    describe(one - other, "+")
                    for one, other in zip(row, reference[REFERENCE], strict=True)
                ]
                for name, row in figures.items()
            }
        )


def measure_steps(data, cache):
    """Return the images held out, and of each step those of FIGURES."""
    dataset, path = readers.read_dataset(data), cache / "dr" / "scores_valid.csv"
    scores = read_scores(path, make_task(dataset.question))
    owners = dataset.get_subjects(scores.index)
    levels = dataset.get_targets("train").loc[scores.index].to_numpy()
    table = Table([owner.patient for owner in owners], pair_eyes(owners, scores.to_numpy()), levels)
    epochs = [
        read_views(path, scores.index)
        for path in sorted((cache / "dr" / "views").glob("valid_????.jsonl"))[-N_EPOCHS:]
    ]
    steps = {
        "one view, last epoch": epochs[-1][0],
        f"{N_VIEWS} views, last epoch": epochs[-1].mean(axis=0),
        f"{N_VIEWS} views, {len(epochs)} epochs": table.pairs.own,
        "… linear blend": table.cross_fit(SCORES["linear"]),
        REFERENCE: table.cross_fit(SCORES["mlp"]),
    }
    return list(scores.index), {
        name: [
            table.draw_loss(of),
            *(table.draw_kappa(decide(of, method).levels) for method in DECISIONS),
        ]
        for name, of in steps.items()
    }


def print_rows(rows):
    for name, cells in {"": FIGURES, **rows}.items():
        print(f"{name:22s}" + "".join(f"  {cell:26s}" for cell in cells))


if __name__ == "__main__":
    process.run(main)
