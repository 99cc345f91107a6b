"""How much is gained by more photographs: nets that learn from parts of a data set, always the same images held out.

python -m tests.benchmarks.curve --data DIR --cache DIR --counts 500 1000 2000 [--recipe NAME] [dr.train's options]
python -m tests.benchmarks.curve --draw TITLE=TABLE.csv... --out curve.svg

The cache must hold squares (`python -m preprocess`). A part is of whole patients, and a larger one holds the smaller
ones. Each net is a run of its own; the same command goes on where it stopped. Writes CACHE/curve.csv: images learned
from, log loss and QWK of the optimal labels (kappa.assign --method exact) on the images held out, 10
views of the last epoch, with 95 % intervals of a bootstrap over patients; the second form draws such tables.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from dr import measures, predict, train
from dr.scores import read_scores
from dr.squares import source
from dr.training import runs
from kappa.assign import decide
from preprocess.cache import stage
from preprocess.samples import readers
from tests.benchmarks.decision import Table

FOLDS, FOLD = 7, 0
FIGURES = ("log loss", "QWK")


def limit(whole, count):
    """Return a training set of the fold held out and about `count` other images, those of patients drawn at random."""
    is_held_out = whole.find_held_out(FOLDS, FOLD)
    groups = np.array([owner.group for owner in whole.squares.owners])
    patients = np.random.default_rng(0).permutation(np.unique(groups[~is_held_out]))
    sizes = np.cumsum([np.count_nonzero(groups == patient) for patient in patients])
    rows = np.flatnonzero(is_held_out | np.isin(groups, patients[: np.searchsorted(sizes, count, side="right")]))
    held_out = frozenset(np.array(whole.squares.images)[is_held_out].tolist())
    return whole._replace(squares=whole.squares.select(rows), targets=whole.targets[rows], set_apart=held_out)


def measure(data, cache, run):
    """Return log loss and kappa of a run's scores of the images held out, each with its interval."""
    layout, path = readers.find_layout(data), runs.folder_of(cache, run) / "scores_valid.csv"
    table = read_scores(path, layout.task)
    levels = layout.read_labels(data / layout.labels["train"])[table.index].to_numpy()
    scores, groups = table.to_numpy(), [layout.find_owner(image).group for image in table.index]
    drawn = Table(groups, None, levels)
    figures = drawn.draw_loss(scores), drawn.draw_kappa(decide(scores, "exact").levels)
    return [number for value, values in figures for number in measures.estimate(value, values)]


def draw(tables, out):
    """Draw the tables, title -> path, side by side by figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for title, path in tables.items():
        of = pd.read_csv(path)
        for name, one in zip(FIGURES, axes, strict=True):
            one.fill_between(of["images"], of[f"{name}, low"], of[f"{name}, high"], alpha=0.15)
            one.plot(of["images"], of[name], "o-", label=title)
            one.set(xscale="log", xlabel="photographs learned from", title=f"{name}, images held out")
            one.set_xticks(of["images"], of["images"])
            one.minorticks_off()
    axes[0].legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


def main():
    parser = stage.make_parser("tests.benchmarks.curve", __doc__.splitlines()[0], "--data data --cache cache/few")
    parser.add_argument("--counts", type=stage.whole(2), nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--draw", nargs="+", metavar="TITLE=TABLE")
    parser.add_argument("--out", type=Path, default=Path("curve.svg"))
    options, further = parser.parse_known_args()
    if options.draw:
        draw(dict(part.split("=", 1) for part in options.draw), options.out)
        return
    common = ["--data", str(options.data), "--cache", str(options.cache), "--recipe", options.recipe]
    read_all, rows = source.read_training_set, []
    n_all = int((~read_all(options.data, options.cache).find_held_out(FOLDS, FOLD)).sum())
    for count in sorted({*options.counts, n_all}):
        source.read_training_set = lambda *places, count=count: limit(read_all(*places), count)
        run = f"of-{count}"
        train.main([*common, "--run", run, "--folds", str(FOLDS), "--fold", str(FOLD), *further])
        predict.main([*common, "--run", run, "--views", "10", "--epochs-averaged", "last:1"])
        rows.append([count, *measure(options.data, options.cache, run)])
        names = [f"{name}{part}" for name in FIGURES for part in ("", ", low", ", high")]
        pd.DataFrame(rows, columns=["images", *names]).to_csv(options.cache / "curve.csv", index=False)
        print(f"{count} images: " + ", ".join(f"{number:.4f}" for number in rows[-1][1:]), flush=True)


if __name__ == "__main__":
    main()
