"""The epochs of a run: train, settle, check on the images held out, keep a checkpoint of each."""

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np

from dr.machine import device, workers
from dr.squares import crops, store
from dr.squares.source import TrainingSet
from dr.squares.store import Maps, Squares
from dr.tasks.task import Task
from dr.training import checkpoint, distribution, features, learner, passes, runs, schedule, views
from dr.training.checkpoint import Checkpoint
from dr.training.learner import Learner
from dr.training.runs import Start
from dr.training.settings import Settings
from preprocess import standardize
from preprocess.command import progress
from preprocess.disk import files
from preprocess.disk.errors import InputError


def train_epochs(
    options: argparse.Namespace, wanted: Settings, folder: Path, training_set: TrainingSet, task: Task, start: Start
) -> None:
    """Train the epochs after the start, a checkpoint each in `folder`, until all are done or patience is at its end."""
    on = device.choose_device(options.device)
    device.prepare(on)
    cached, targets = training_set.squares, training_set.targets
    is_held_out = training_set.find_held_out(wanted.folds, wanted.fold)
    learned, held_out = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    resolved = learner.resolve(wanted, cached.making.size_px, on, options.features == "file")
    learning = learner.make_learner(resolved, task, targets[learned], on)
    history, due = start.history, schedule.find_next(wanted, start.history)
    n_held = due.goes_on_from if due else 0
    if n_held:
        kept = checkpoint.read(start.folder / f"{n_held:04}.pt")
        learning, mean, std = learner.restore(learning, kept), kept.mean, kept.std
    else:
        with workers.first_goes_ahead():
            begun = learner.begin(learning, options.weights)
        own = standardize.read_channels(options.cache, [cached.images[row] for row in learned])
        mean, std = begun or (part.tolist() for part in own)
        if wanted.inputs == "0-1":
            mean, std = [0.0] * 3, [255.0] * 3
    with workers.first_goes_ahead():
        squares = store.load(cached, mean, std, on, options.storage, options.cache / "dr" / "pixels" / "train.npy")
    if workers.rank() == 0:
        print(f"dr.train: {len(learned)} images, {len(held_out)} held out, on {workers.count()} x {on}")
        # Nothing but the training itself can fail from here on.
        runs.begin(folder, start, vars(wanted), training_set.digests)
    record = functools.partial(
        Checkpoint, settings=learning.settings, task=task, making=cached.making, mean=mean, std=std,
        prior=task.find_prior(targets[learned]).tolist(), n_images=len(learned),
        likeness=distribution.learn(squares, learned, held_out, learning.net.image_px),
    )  # fmt: skip
    given: Squares | Maps = squares
    if options.features == "file":
        with workers.first_goes_ahead():
            given = features.load(learning, squares, options.cache, training_set.digests, mean, std)
    while due:
        if due.goes_on_from != n_held:
            learning = learner.restore(learning, checkpoint.read(folder / f"{due.goes_on_from:04}.pt"))
            if workers.rank() == 0:
                print(f"dr.train: goes on from epoch {due.goes_on_from}, the best, and all of the net learns")
        figures = {"epoch": due.number} | passes.train_epoch(learning, given, targets, learned, due)
        passes.settle_batch_norm(learning, given, learned, due)
        what = options, learning, given, targets, held_out, folder, record, figures
        n_held, history = due.number, [*history, workers.share(functools.partial(_keep_epoch, *what))]
        last, due = due, schedule.find_next(wanted, history)
        if not due and last.place < last.n_places and workers.rank() == 0:
            print(f"dr.train: no better validation log loss in {wanted.patience} epochs; stops")


def _keep_epoch(
    options: argparse.Namespace, learning: Learner, squares: Squares | Maps, targets: np.ndarray, held_out: np.ndarray,
    folder: Path, record: functools.partial[Checkpoint], figures: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Check and keep an epoch; its figures, written last and returned, make it count as done.

    Checked are the scores of the middle of the squares held out. Raises InputError if the last step led astray.
    """
    settings, epoch, rate = learning.settings, figures["epoch"], learning.optimizer.param_groups[0]["lr"]
    task, cuts = record.keywords["task"], crops.center_crops(len(squares), squares.size_px - learning.net.image_px)
    with progress.tracking(len(held_out), f"epoch {epoch}, held out") as bar:
        scores = views.score(learning.kept, squares, held_out, cuts, settings.precision, settings.batch_size, bar,
                              task)  # fmt: skip
    if not np.isfinite(scores).all():
        raise InputError(
            f"epoch {epoch}, after its last step, learning rate {rate:g}: the scores of the held-out images are not "
            "finite; try a lower --learning-rate"
        )
    made = record(
        epoch, net=learning.kept.state_dict(), raw=learning.net.state_dict() if learning.averaged else None,
        optimizer=learner.collect_optimizer(learning), scaler=learning.scaler.state_dict(),
    )  # fmt: skip
    valid = {f"valid_{name}": value for name, value in task.measure(scores, targets[held_out]).items()}
    digest = checkpoint.write(folder / f"{epoch:04}.pt", made)
    figures = figures | valid | {"learning_rate": rate, "checkpoint": digest}
    files.write_json(folder / f"{epoch:04}.json", figures)
    key, name = task.headline, task.headline_name
    runs.keep_best(folder, key, options.keep)
    told = f"log loss train {figures['train_log_loss']:.4f} valid {valid['valid_log_loss']:.4f}"
    told += f", {name} valid {valid[f'valid_{key}']:.4f}"
    if "skipped_steps" in figures:
        told += f", {figures['skipped_steps']} steps skipped: beyond float16's range"
    print(f"epoch {epoch}: learning rate {rate:.4g}, {told}", flush=True)
    return figures
