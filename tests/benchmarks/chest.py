"""How well findings are told on real x-rays: mean AUC over folds of the patients, and what folds of images would feign.

python -m tests.benchmarks.chest --data DIR --cache DIR --weights lite0.safetensors [--nets frozen plain fine-tuned]

frozen: a ridge regression on the features of EfficientNet-Lite0 (`tests.benchmarks.nets --convert`), folds by
patient and by image. weighted, plain: nine-conv, its loss weighed by N / N_l or not.
fine-tuned: all of EfficientNet-Lite0. Scores are of images held out. Figures are means over findings and folds,
each fold by itself: the scores of different nets need not agree in their scale.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from dr import predict, train
from dr.metrics.ranking import mean_measurable, measure_auc, measure_each
from dr.nets import net
from dr.scores import read_scores
from dr.squares import crops, store
from dr.training import weights
from preprocess import __main__ as preprocess
from preprocess.command import cli, process
from preprocess.dataset import folds, readers
from tests.benchmarks.nets import LITE0
from tests.tasks import read_training_set

STRENGTHS = np.logspace(2, 5, 7)  # of ridge, chosen by leaving out one of the images learned from
FOLDS, SIZE_PX, IMAGE_PX = 5, 144, 128
COMMON = f"--recipe chest-demo --folds {FOLDS} --crop-px {IMAGE_PX} --batch-size 32"
NETS = {
    "weighted": "--epochs 12",
    "plain": "--epochs 12 --class-weights none",
    "fine-tuned": f"--net {LITE0} --epochs 8 --freeze-epochs 1 --optimizer adamw --no-nesterov --schedule cosine "
    "--learning-rate 1e-3 --body-rate 0.3 --weight-decay 0.05 --hidden 0 --dropout 0.2",
}


def main():
    parser = cli.make_parser(
        "tests.benchmarks.chest", __doc__.splitlines()[0], "--data chest --cache cache/chest"
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", choices=("frozen", *NETS), default=["frozen", *NETS])
    options = parser.parse_args()
    places = [f"--data={options.data}", f"--cache={options.cache}"]
    preprocess.main([*places, *f"--recipe chest-demo --size-px {SIZE_PX} --allow-rejected".split()])
    known = read_training_set(options.data, options.cache)
    groups = [owner.patient for owner in known.squares.subjects]
    print(f"{len(groups)} images of {len(set(groups))} patients")
    if "frozen" in options.nets:
        features = extract(known, options.weights)
        for name, divided_by in (
            ("patient", groups),
            ("image", list(map(str, range(len(groups))))),
        ):
            fold_of = folds.assign_folds(divided_by, known.targets, FOLDS, 0)
            tell(
                f"frozen, by {name}",
                regress(features, known.targets, fold_of),
                known.targets,
                fold_of,
            )
    task = readers.read_dataset(options.data).task
    for name in [name for name in NETS if name in options.nets]:
        begun = [f"--weights={options.weights}"] * (name == "fine-tuned")
        for fold in range(FOLDS):
            run = f"--run={name}-{fold}"
            train.main(
                [*places, run, f"--fold={fold}", *COMMON.split(), *NETS[name].split(), *begun]
            )
            predict.main([*places, run, *"--views 2 --epochs-averaged last:1".split()])
        runs = [f"{name}-{fold}" for fold in range(FOLDS)]
        predict.main([*places, f"--run={name}", "--average", *runs])
        scores = read_scores(options.cache / "dr" / "runs" / name / "scores_valid.csv", task)
        fold_of = sum(fold * known.find_held_out(FOLDS, fold) for fold in range(FOLDS))
        tell(name, scores.loc[known.squares.images].to_numpy(), known.targets, fold_of)


def extract(known, path):
    """Return the features of the middle of each square, (n, k)."""
    made = net.make_net(LITE0, IMAGE_PX, 1, 0.0, False).eval()
    mean, std = weights.begin(made, path)
    squares = store.load(known.squares, mean, std, torch.device("cpu"), "memory", Path())
    with torch.inference_mode():
        parts = crops.cut_centers(squares, IMAGE_PX).split(32)
        return torch.cat([made.body(part).mean(dim=(2, 3)) for part in parts]).numpy()


def regress(features, targets, fold_of):
    """Return the scores of images held out, (n, k), squeezed into 0-1."""
    scores = np.empty(targets.shape)
    for fold in range(FOLDS):
        held_out = fold_of == fold
        mean, std = features[~held_out].mean(axis=0), features[~held_out].std(axis=0) + 1e-6
        fitted = RidgeCV(STRENGTHS).fit((features[~held_out] - mean) / std, targets[~held_out])
        scores[held_out] = fitted.predict((features[held_out] - mean) / std)
    return 1 / (1 + np.exp(-scores))


def tell(name, scores, targets, fold_of):
    folds_of = [
        measure_each(measure_auc, scores[fold_of == fold], targets[fold_of == fold])
        for fold in range(FOLDS)
    ]
    each = " ".join(f"{auc:.3f}" for auc in map(mean_measurable, np.stack(folds_of).T))
    print(f"{name:20s} mean AUC {np.nanmean(folds_of):.3f}   {each}", flush=True)


if __name__ == "__main__":
    process.run(main)
