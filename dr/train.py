"""Train the net: squares, lookup tables and labels -> CACHE/dr/epochs, a checkpoint each, and history.csv.

python -m dr.train --data DIR --cache DIR [--recipe NAME] [--epochs N] [--learning-rate X] [--run NAME]
"""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dr.machine import workers
from dr.squares import source
from dr.training import runs, settings
from dr.training.settings import Settings
from preprocess.cache import files, manifest, stage
from preprocess.samples import readers

KEPT_EPOCHS = 10  # checkpoints of 7.4 MB; prediction averages the last five


def train(options: argparse.Namespace, wanted: Settings, epochs: Path) -> None:
    """Bring the epochs of a run up to date; under torchrun all train, the first process decides and writes."""
    training_set = source.read_training_set(options.data, options.cache)
    with workers.joined(options.device):
        start = workers.share(lambda: find_start(epochs, wanted, training_set.digests))
        if start is None:
            return
        if start < wanted.epochs:
            workers.let_waiting_threads_sleep()
            from dr.training.epochs import train_epochs  # torch takes seconds; who is cached does not wait for it

            task = readers.find_layout(options.data).task
            train_epochs(options, wanted, epochs, training_set, task, start)
    if workers.rank() == 0:  # the run has come to its end
        figures = runs.read_figures(epochs)
        runs.write_history(epochs, figures)
        kept = {f"{row['epoch']:04}.pt": row["checkpoint"] for row in figures[-options.keep :]}
        manifest.write_manifest(epochs, "dr.train", vars(wanted), training_set.digests, outputs=kept)


def find_start(epochs: Path, wanted: Settings, digests: Mapping[str, str]) -> int | None:
    """Return how many epochs need not be done again, None if nothing at all is to be done, and say why."""
    epochs.mkdir(parents=True, exist_ok=True)
    kept, figures = manifest.read_manifest(epochs), runs.read_figures(epochs)
    has_all = kept and max(kept["outputs"], default="") == f"{len(figures):04}.pt"
    if has_all and (epochs.parent / "history.csv").exists() and not manifest.find_change(epochs, vars(wanted), digests):
        print("dr.train: cached")
        return None
    files.remove_partials(epochs.parent)
    start = count_kept(epochs, wanted, digests)
    return wanted.epochs if runs.has_stalled(figures[:start], wanted.patience) else start


def count_kept(epochs: Path, wanted: Settings, digests: Mapping[str, str]) -> int:
    """Return how many finished epochs can be kept, and say why if none can."""
    kept = manifest.read_manifest(epochs)
    if kept is None:
        return 0
    finished = runs.count_finished(epochs)
    old, new = kept["parameters"], vars(wanted)
    change = manifest.describe_change(old, new) or manifest.describe_change(kept["inputs"], digests)
    if change is None:
        print(f"dr.train: goes on after epoch {finished}" if finished else "dr.train: starts")
        return finished
    is_longer = old | {"epochs": 0} == new | {"epochs": 0} and kept["inputs"] == digests
    if is_longer and old["epochs"] < new["epochs"]:
        before, done = Settings(**old), [(epoch, share) for epoch in range(1, finished + 1) for share in (0, 0.5)]
        if all(before.find_rate(*when) == wanted.find_rate(*when) for when in done):
            print(f"dr.train: {change}; goes on after epoch {finished}")
            return finished
        change += ", and with it the learning rates of epochs already done (--drop-epochs would fix them)"
    print(f"dr.train: {change}; starts over")
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = stage.make_parser(
        "dr.train",
        "Train the net on the squares of preprocess.resize. Writes CACHE/dr/epochs, a checkpoint per epoch, and "
        "CACHE/dr/history.csv. The same command goes on where it stopped.",
        "--data data --cache cache --epochs 60 --batch-size 64",
    )
    settings.add_device_options(parser)
    parser.add_argument("--keep", type=stage.whole(1), default=KEPT_EPOCHS, help="newest checkpoints to keep")
    settings.add_options(parser)
    options, wanted = settings.parse(parser, argv)
    epochs = runs.folder_of(options.cache, options.run) / "epochs"
    is_first = workers.rank() == 0
    with stage.working(options.cache, "dr.train", [epochs]) if is_first else contextlib.nullcontext():
        train(options, wanted, epochs)


if __name__ == "__main__":
    stage.run(main)
