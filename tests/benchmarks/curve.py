"""How much is gained by more photographs: nets that learn from parts of a data set, always the same images held out.

python -m tests.benchmarks.curve --data DIR --cache DIR --counts 500 1000 2000 [--recipe NAME] [dr.train's options]
python -m tests.benchmarks.curve --draw TITLE=TABLE.csv... --out curve.svg

The cache must hold squares (`python -m preprocess`). A part is of whole patients, and a larger one holds the smaller
ones. Each net is a run of its own; the same command goes on where it stopped. Writes CACHE/curve.csv: images learned
from, and the figures of the images held out, --views of the last epoch, with 95 % intervals of a bootstrap over groups;
of levels also the QWK of the optimal labels. The second form draws such tables.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from dr import predict, train
from dr.metrics import bootstrap
from dr.scores import read_scores
from dr.squares import source
from dr.tasks.kinds import make_task
from dr.training import runs
from kappa.assign import decide
from preprocess.command import cli
from preprocess.dataset import readers

FOLD = 0
OPTIMAL = "qwk, optimal labels"


def limit(whole, count, n_folds):
    """Return a training set of the fold held out and about `count` other images, those of patients drawn at random."""
    is_held_out = whole.find_held_out(n_folds, FOLD)
    groups = np.array([owner.patient for owner in whole.squares.subjects])
    patients = np.random.default_rng(0).permutation(np.unique(groups[~is_held_out]))
    sizes = np.cumsum([np.count_nonzero(groups == patient) for patient in patients])
    rows = np.flatnonzero(
        is_held_out | np.isin(groups, patients[: np.searchsorted(sizes, count, side="right")])
    )
    held_out = frozenset(np.array(whole.squares.images)[is_held_out].tolist())
    part = {
        "squares": whole.squares.select(rows),
        "targets": whole.targets[rows],
        "set_apart": held_out,
        "identities": [whole.identities[row] for row in rows],
    }
    return whole._replace(**part, digests=whole.digests | {"part": str(len(rows))})


def measure(data, cache, run):
    """Return the figures of a run's scores of the images held out, name -> Estimate."""
    dataset, path = readers.read_dataset(data), runs.folder_of(cache, run) / "scores_valid.csv"
    task = make_task(dataset.question)
    table = read_scores(path, task)
    targets = dataset.get_targets("train").loc[table.index].to_numpy()
    scores, groups = table.to_numpy(), dataset.get_patients(table.index)
    drawn = task.draw_measures(groups, scores, targets)
    figures = {name: bootstrap.estimate_drawn(values) for name, values in drawn.items()}
    if task.has_eyes:
        worth = bootstrap.measure_step_gains(
            groups, targets, {OPTIMAL: decide(scores, "exact").levels}
        )
        figures[OPTIMAL] = worth[OPTIMAL].figure
    return figures


def draw(tables, out):
    """Draw the tables, title -> path, side by side by figure."""
    import matplotlib.pyplot as plt

    tables = {title: pd.read_csv(path) for title, path in tables.items()}
    names = [
        name
        for name in next(iter(tables.values()))
        if name != "images" and ", from" not in name and ", to" not in name
    ]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2), layout="constrained")
    for name, one in zip(names, axes, strict=True):
        for title, of in tables.items():
            one.fill_between(of["images"], of[f"{name}, from"], of[f"{name}, to"], alpha=0.15)
            one.plot(of["images"], of[name], "o-", label=title)
        one.set(xscale="log", xlabel="images learned from", title=f"{name}, images held out")
        one.set_xticks(of["images"], of["images"])
        one.minorticks_off()
    axes[0].legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


def main():
    parser = cli.make_parser(
        "tests.benchmarks.curve", __doc__.splitlines()[0], "--data data --cache cache/few"
    )
    parser.add_argument("--counts", type=cli.whole(2), nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--folds", type=cli.whole(2), default=7)
    parser.add_argument("--views", type=cli.whole(1), default=10)
    parser.add_argument("--draw", nargs="+", metavar="TITLE=TABLE")
    parser.add_argument("--out", type=Path, default=Path("curve.svg"))
    options, further = parser.parse_known_args()
    if options.draw:
        draw(dict(part.split("=", 1) for part in options.draw), options.out)
        return
    common = [
        "--data",
        str(options.data),
        "--cache",
        str(options.cache),
        "--recipe",
        options.recipe,
    ]
    read_all, rows = source.read_training_set, []
    n_all = int((~read_all(options.data, options.cache).find_held_out(options.folds, FOLD)).sum())
    for count in sorted({*options.counts, n_all}):
        source.read_training_set = lambda *places, count=count: limit(
            read_all(*places), count, options.folds
        )
        run = f"of-{count}"
        train.main(
            [*common, "--run", run, "--folds", str(options.folds), "--fold", str(FOLD), *further]
        )
        predict.main(
            [*common, "--run", run, "--views", str(options.views), "--epochs-averaged", "last:1"]
        )
        figures = measure(options.data, options.cache, run)
        row = {"images": count}
        for name, of in figures.items():
            row |= {name: of.value, f"{name}, from": of.low, f"{name}, to": of.high}
        rows.append(row)
        pd.DataFrame(rows).to_csv(options.cache / "curve.csv", index=False)
        told = (
            f"{name} {of.value:.4f} ({of.low:.3f} to {of.high:.3f})" for name, of in figures.items()
        )
        print(f"{count} images: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
