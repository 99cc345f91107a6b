"""The epochs of a run: train, update BatchNorm's statistics, check on the images held out, keep a checkpoint."""

import argparse
import dataclasses
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dr.machine import device, workers
from dr.squares import crops, store
from dr.squares.source import CachedSquares, TrainingSet
from dr.squares.store import Maps, Squares
from dr.tasks.task import Task
from dr.training import checkpoint, distribution, features, learner, passes, runs, schedule, views
from dr.training.checkpoint import Checkpoint
from dr.training.learner import Learner
from dr.training.runs import Start
from dr.training.schedule import Epoch
from dr.training.settings import Settings
from dr.training.weights import Channels
from preprocess import standardize
from preprocess.command import progress
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture.square import Making


class Watcher(Protocol):
    """Shows a training to a person; nothing that is computed depends on it."""

    def describe_run(self, n_learned: int, held_out_targets: np.ndarray) -> str:
        """Begin with a run; return which part of the images is held out, in words."""

    def describe_epoch(
        self, history: list[dict[str, Any]], training_s: float, whole_s: float, due: Epoch
    ) -> str:
        """Return the line of the epoch that has ended, the last of a history."""

    def end(self, history: list[dict[str, Any]]) -> None:
        """Say what came of the training."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What is the same in all epochs of a run."""

    options: argparse.Namespace
    folder: Path  # of the checkpoints and figures
    task: Task
    making: Making
    images: Squares | Maps  # of all images, or in their place the body's maps, see `--features`
    targets: np.ndarray  # (n,) int64, of findings (n, k) float64
    learned: np.ndarray  # rows
    held_out: np.ndarray  # the other rows
    mean: list[float]  # these and the next ones are a checkpoint's
    std: list[float]
    prior: list[float]
    distribution: dict[str, torch.Tensor]
    watcher: Watcher

    def train_epoch(self, learning: Learner, due: Epoch) -> dict[str, Any]:
        """Train the epoch that is due and keep it; return its figures, in all processes."""
        started_s = time.monotonic()
        trained = passes.train_epoch(learning, self.images, self.targets, self.learned, due)
        training_s = time.monotonic() - started_s
        passes.update_batch_norm(learning, self.images, self.learned, due)
        figures = {"epoch": due.number} | trained

        def keep() -> dict[str, Any]:
            kept = self.keep_epoch(learning, figures)
            whole_s = time.monotonic() - started_s
            history = runs.read_figures(self.folder)
            print(self.watcher.describe_epoch(history, training_s, whole_s, due), flush=True)
            return kept

        return workers.share(keep)

    def keep_epoch(self, learning: Learner, figures: dict[str, Any]) -> dict[str, Any]:
        """Check and keep an epoch; its figures, written last and returned, make it count as done.

        Raises InputError if the last step led astray.
        """
        task = self.task
        epoch = figures["epoch"]
        rate = learning.optimizer.param_groups[0]["lr"]
        scores = self._score_held_out(learning, epoch)
        if not np.isfinite(scores).all():
            raise InputError(
                f"epoch {epoch}, after its last step, learning rate {rate:g}: the scores of the held-out images are "
                "not finite; try a lower --learning-rate"
            )
        valid = self._measure_held_out(scores)
        digest = checkpoint.write(
            self.folder / f"{epoch:04}.pt", self._make_checkpoint(learning, epoch)
        )
        figures = figures | valid | {"learning_rate": rate, "checkpoint": digest}
        files.write_json(self.folder / f"{epoch:04}.json", figures)
        runs.keep_best(self.folder, task.headline, self.options.keep)
        return figures

    def measure_anew(self, learning: Learner, start: Start) -> list[dict[str, Any]]:
        """Check the epochs before the start on the images held out now, and keep them; return all their figures.

        An epoch without a checkpoint has no validation figures (NaN) from now on. The learner ends with the last epoch.
        """
        n_lost = 0
        history = []
        for before in start.history:
            epoch = before["epoch"]
            path = start.folder / f"{epoch:04}.pt"
            figures = dict(before)
            if path.exists():
                kept = checkpoint.read(path)
                learning = learner.restore(learning, kept)
                figures |= self._measure_held_out(self._score_held_out(learning, epoch))
                made = self._make_checkpoint(learning, epoch)
                if kept.settings.precision != made.settings.precision:  # another machine's
                    trained_by = dataclasses.replace(
                        made.settings, precision=kept.settings.precision
                    )
                    made = dataclasses.replace(made, settings=trained_by, scaler=kept.scaler)
                figures["checkpoint"] = checkpoint.write(self.folder / path.name, made)
            else:
                n_lost += 1
                figures |= {name: math.nan for name in before if name.startswith("valid_")}
            written = self.folder / f"{epoch:04}.json"
            files.write_json(written, figures)
            shutil.copystat(
                path.with_suffix(".json"), written
            )  # the pace of training is read there
            history.append(figures)
        runs.keep_best(self.folder, self.task.headline, self.options.keep)
        best = schedule.find_best(history)
        print(
            f"dr.train: the images held out changed, those learned from did not: {len(history) - n_lost} epochs are "
            f"measured anew; the lowest validation log loss is epoch {best}'s, "
            f"{history[best - 1]['valid_log_loss']:.4f}",
            flush=True,
        )
        if n_lost:
            print(
                f"dr.train: {n_lost} epochs, whose checkpoints are not kept (--keep), have no validation figures now",
                flush=True,
            )
        return history

    def _measure_held_out(self, scores: np.ndarray) -> dict[str, float]:
        """Return the validation figures of the scores of the images held out, by name."""
        measured = self.task.measure(scores, self.targets[self.held_out])
        return {f"valid_{name}": value for name, value in measured.items()}

    def _score_held_out(self, learning: Learner, epoch: int) -> np.ndarray:
        """Return the scores of the middle of the squares held out, (n_held_out, k)."""
        margin_px = self.images.size_px - learning.net.image_px
        with progress.tracking(len(self.held_out), f"epoch {epoch}, held out") as bar:
            return views.score(
                learning.kept,
                self.images,
                self.held_out,
                cuts=crops.center_crops(len(self.images), margin_px),
                precision=learning.settings.precision,
                batch_size=learning.settings.batch_size,
                bar=bar,
                task=self.task,
            )

    def _make_checkpoint(self, learning: Learner, epoch: int) -> Checkpoint:
        return Checkpoint(
            epoch=epoch,
            settings=learning.settings,
            task=self.task,
            making=self.making,
            mean=self.mean,
            std=self.std,
            prior=self.prior,
            net=learning.kept.state_dict(),
            optimizer=learner.collect_optimizer(learning),
            scaler=learning.scaler.state_dict(),
            n_images=len(self.learned),
            distribution=self.distribution,
            raw=learning.net.state_dict() if learning.averaged else None,
        )


def train_epochs(
    options: argparse.Namespace,
    wanted: Settings,
    folder: Path,
    training_set: TrainingSet,
    inputs: Mapping[str, str],
    task: Task,
    start: Start,
    watcher: Watcher,
) -> None:
    """Train the epochs after the start, a checkpoint each in `folder`, until all are done or patience is at its end.

    Those before it are measured anew where other images are held out now; `inputs` are those of the net's manifest.
    The watcher is called in the first process alone.
    """
    on = device.choose_device(options.device)
    device.prepare(on)
    cached = training_set.squares
    targets = training_set.targets
    is_held_out = training_set.find_held_out(wanted.folds, wanted.fold)
    learned = np.flatnonzero(~is_held_out)
    held_out = np.flatnonzero(is_held_out)
    resolved = learner.resolve(wanted, cached.making.size_px, on, options.features == "file")
    learning = learner.make_learner(resolved, task, targets[learned], on)
    history = start.history
    due = schedule.find_next(wanted, history)
    last = due.goes_on_from if due else len(history)  # the epoch that the learner holds
    if last:
        kept = checkpoint.read(start.folder / f"{last:04}.pt")
        learning = learner.restore(learning, kept)
        trained_in = kept.settings.precision
        if learning.settings.precision != trained_in and workers.rank() == 0:
            print(
                f"dr.train: epoch {last} was trained in {trained_in}: {device.EMULATED}: training goes on in "
                f"{learning.settings.precision}"
            )
        mean = kept.mean
        std = kept.std
    else:
        mean, std = _begin(learning, options, cached, learned)
    with workers.first_goes_ahead():
        pixels_file = options.cache / "dr" / "pixels" / "train.npy"
        squares = store.load(
            cached, mean, std, device=on, storage=options.storage, file=pixels_file
        )
    if workers.rank() == 0:
        part = watcher.describe_run(len(learned), targets[held_out])
        print(
            f"dr.train: {len(learned)} images, {len(held_out)} held out{part}, on "
            f"{workers.count()} x {on}"
        )
        # Nothing but the training itself can fail from here on.
        runs.begin(folder, start, vars(wanted), inputs)
    with progress.waiting("dr.train: what the squares look like", workers.rank() == 0):
        summary = distribution.summarize_training_squares(
            squares, learned, held_out, learning.net.image_px
        )
    images: Squares | Maps = squares
    if options.features == "file":
        with workers.first_goes_ahead():
            images = features.load(
                learning, squares, options.cache, training_set.digests, mean, std
            )
    run = Run(
        options=options,
        folder=folder,
        task=task,
        making=cached.making,
        images=images,
        targets=targets,
        learned=learned,
        held_out=held_out,
        mean=mean,
        std=std,
        prior=task.find_prior(targets[learned]).tolist(),
        distribution=summary,
        watcher=watcher,
    )
    if start.is_held_out_changed:
        history = workers.share(lambda: run.measure_anew(learning, start))
    while due:
        if due.goes_on_from != last:
            learning = learner.restore(
                learning, checkpoint.read(folder / f"{due.goes_on_from:04}.pt")
            )
            if workers.rank() == 0:
                print(
                    f"dr.train: goes on from epoch {due.goes_on_from}, the best, and all of the net learns"
                )
        history = [*history, run.train_epoch(learning, due)]
        last = due.number
        is_planned_last = due.place >= due.n_places
        due = schedule.find_next(wanted, history)
        if not due and not is_planned_last and workers.rank() == 0:
            print(f"dr.train: no better validation log loss in {wanted.patience} epochs; stops")
    if workers.rank() == 0:
        watcher.end(history)


def _begin(
    learning: Learner, options: argparse.Namespace, cached: CachedSquares, learned: np.ndarray
) -> Channels:
    """Give an untrained net the weights that it begins with; return the mean and deviation, 0-255, of its images.

    They are those that are given, or what the weights are used to, or else those of the squares learned from.
    """
    with workers.first_goes_ahead():
        channels = learner.begin(learning, options.weights)
    mean, std = standardize.read_channels(options.cache, [cached.images[row] for row in learned])
    if options.inputs == "0-1":
        return [0.0] * 3, [255.0] * 3
    if options.mean is not None:
        return [255.0 * value for value in options.mean], [255.0 * value for value in options.std]
    return channels or (mean.tolist(), std.tolist())
