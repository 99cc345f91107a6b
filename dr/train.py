"""Train the net: squares, lookup tables and trainLabels.csv -> CACHE/dr/epochs, history.csv and history.png.

python -m dr.train --data DIR --cache DIR [--epochs N] [--batch-size N] [--learning-rate X] [--run NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import checkpoint, history, inputs, schedule, settings, threads, workers
from dr.inputs import TrainingSet
from dr.scores import measure_log_loss
from dr.settings import Settings
from kappa.qwk import quadratic_weighted_kappa
from preprocess import eyes, stage, standardize
from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch

    from dr.dataset import Photographs
    from dr.passes import Learner

CROP_SHARE = 7 / 8  # of the squares' side is the side of a random crop: 448 of 512 px
HISTORIES = ("history.csv", "history.png")
KEPT_EPOCHS = 10  # checkpoints of 7.4 MB; prediction averages the last five


def train(options: argparse.Namespace, wanted: Settings) -> None:
    """Bring the epochs of a run up to date; under torchrun the first process decides and writes, all train."""
    folder = checkpoint.folder_of(options.cache, options.run)
    training_set = inputs.read_training_set(options.data, options.cache, wanted.ready_made)
    if workers.rank() > 0:
        train_epochs(options, wanted, folder, training_set, start=0)
        return
    if is_finished(folder, dataclasses.asdict(wanted), training_set.digests):
        print("dr.train: cached")
        if workers.count() > 1:
            train_epochs(options, wanted, folder, training_set, start=wanted.epochs)  # lets the others go
        return
    start = prepare(folder / "epochs", wanted, training_set.digests)
    if workers.count() > 1 or start < wanted.epochs:
        train_epochs(options, wanted, folder, training_set, start)
    close(folder, wanted, training_set.digests, options.keep)


def prepare(epochs: Path, wanted: Settings, digests: dict[str, str]) -> int:
    """Return the number of epochs that need not be done again."""
    epochs.mkdir(parents=True, exist_ok=True)
    for folder in (epochs, epochs.parent):
        stage.remove_partials(folder)
    start = find_start(epochs, wanted, digests)
    return wanted.epochs if has_stalled(checkpoint.read_figures(epochs)[:start], wanted.patience) else start


def clear(epochs: Path, wanted: Settings, digests: dict[str, str], start: int) -> None:
    """Remove what is no use to this run, once nothing but the training itself can fail."""
    checkpoint.remove_after(epochs, start)
    stage.write_manifest(epochs, "dr.train", dataclasses.asdict(wanted), digests, outputs={})


def close(folder: Path, wanted: Settings, digests: dict[str, str], keep: int) -> None:
    """Write the history of a run that has come to its end, and the manifest that says so."""
    figures = checkpoint.read_figures(folder / "epochs")
    table, picture = (folder / name for name in HISTORIES)
    history.write_table(table, figures)
    history.write_picture(picture, figures)
    kept = {f"{row['epoch']:04}.pt": row["checkpoint"] for row in figures[-keep:]}
    stage.write_manifest(folder / "epochs", "dr.train", dataclasses.asdict(wanted), digests, outputs=kept)


def is_finished(folder: Path, parameters: dict[str, Any], sources: dict[str, str]) -> bool:
    """Tell whether the run in `folder` has the same settings and inputs and ended, with all that it leaves."""
    manifest = stage.read_manifest(folder / "epochs")
    has_all = bool(manifest and manifest["outputs"]) and all((folder / name).exists() for name in HISTORIES)
    return has_all and stage.find_change(folder / "epochs", parameters, sources) is None


def find_start(folder: Path, wanted: Settings, sources: dict[str, str]) -> int:
    """Return how many finished epochs can be kept, and say why if none can."""
    manifest = stage.read_manifest(folder)
    if manifest is None:
        return 0
    finished = checkpoint.count_finished(folder)
    old, new = manifest["parameters"], dataclasses.asdict(wanted)
    change = stage.describe_change(old, new) or stage.describe_change(manifest["inputs"], sources)
    if change is None:
        print(f"dr.train: goes on after epoch {finished}" if finished else "dr.train: starts")
        return finished
    is_longer = old | {"epochs": 0} == new | {"epochs": 0} and manifest["inputs"] == sources
    if is_longer and old["epochs"] < new["epochs"]:
        if schedule.have_same_start(Settings(**old), wanted, finished):
            print(f"dr.train: {change}; goes on after epoch {finished}")
            return finished
        change += ", and with it the learning rates of epochs already done (--drop-epochs would fix them)"
    print(f"dr.train: {change}; starts over")
    return 0


def has_stalled(figures: list[dict[str, Any]], patience: int | None) -> bool:
    """Tell whether the validation log loss has not fallen for `patience` epochs."""
    if patience is None or not figures:
        return False
    losses = [row["valid_log_loss"] for row in figures]
    return len(losses) - 1 - int(np.argmin(losses)) >= patience


class Material(NamedTuple):
    """What one run learns from and is judged by."""

    photographs: Photographs
    levels: np.ndarray  # (n,) of all photographs
    learning: np.ndarray  # positions of those learned from
    valid: np.ndarray  # positions of those held out
    channels: dict[str, list[float]]  # mean and std over those learned from, RGB, 0-255
    squares: dict[str, Any]  # how they were made, see dr.checkpoint


def train_epochs(
    options: argparse.Namespace, wanted: Settings, folder: Path, training_set: TrainingSet, start: int
) -> None:
    """Train the epochs after the first process's `start`, one checkpoint each."""
    threads.let_waiting_threads_sleep()
    from dr import device, passes

    with workers.joined(device.choose_device(options.device)) as place:
        device.prepare(place)
        start = workers.share(start)
        if start == wanted.epochs:
            return
        material = load_material(options, wanted, training_set, place)
        learner = make_learner(
            resolve(wanted, material.photographs.size_px, place), material.levels[material.learning], place
        )
        if start:
            learner = restore(learner, checkpoint.path_of(folder / "epochs", start, ".pt"))
        elif options.start_from:
            checkpoint.start_net(learner.net, options.start_from)
        if workers.rank() == 0:
            clear(folder / "epochs", wanted, training_set.digests, start)
        for epoch in range(start + 1, wanted.epochs + 1):
            log_loss = passes.train_epoch(learner, material.photographs, material.levels, material.learning, epoch)
            passes.settle_batch_norm(learner, material.photographs, material.learning, epoch)
            is_over = False
            if workers.rank() == 0:
                figures = validate(learner, material, epoch) | {"train_log_loss": log_loss}
                figures["checkpoint"] = save(learner, material, folder / "epochs", epoch)
                is_over = finish_epoch(folder, figures, options.keep, wanted.patience)
            if workers.share(is_over):
                break


def load_material(
    options: argparse.Namespace, wanted: Settings, training_set: TrainingSet, place: torch.device
) -> Material:
    """Decode the squares and set a fold of the patients apart."""
    from dr import dataset

    is_held_out = inputs.find_fold(training_set, wanted.folds) == wanted.fold
    learning, valid = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    images = list(training_set.paths)
    file = options.cache / "dr" / "pixels" / "train.npy"
    with workers.first_goes_ahead():
        pixels, luts = dataset.load_squares(
            training_set.paths,
            inputs.read_luts(options.cache, "train", images, wanted.ready_made),
            wanted.local_contrast,
            place,
            options.storage,
            file,
            str(training_set.digests),
        )
    if wanted.ready_made or wanted.local_contrast:
        mean, std = dataset.measure_channels(pixels, learning)
    else:
        mean, std = standardize.read_channels(options.cache, [images[position] for position in learning])
    photographs = dataset.make_photographs(images, pixels, luts, mean, std)
    squares = {
        "size_px": photographs.size_px,
        "crop_method": inputs.read_crop_method(options.cache, wanted.ready_made),
    }
    if workers.rank() == 0:
        print(f"dr.train: {len(learning)} images, {len(valid)} held out, on {workers.count()} x {place}")
    channels = {"mean": mean.tolist(), "std": std.tolist()}
    return Material(photographs, training_set.levels, learning, valid, channels, squares)


def resolve(wanted: Settings, size_px: int, place: torch.device) -> Settings:
    """Return the settings with crop and precision decided."""
    from dr import device

    if wanted.pairs and workers.count() > 1:
        raise InputError("--pairs trains in one process: a patient's eyes have to meet in it")
    precision = device.choose_precision(wanted.precision, place)
    return dataclasses.replace(wanted, crop_px=choose_crop(wanted, size_px), precision=precision)


def choose_crop(wanted: Settings, size_px: int) -> int:
    """Return the side of the crops. Raises InputError if the squares are smaller."""
    crop_px = wanted.crop_px or round(CROP_SHARE * size_px)
    if crop_px > size_px:
        raise InputError(f"--crop-px {crop_px}: the squares are only {size_px} px wide")
    return crop_px


def make_learner(resolved: Settings, levels: np.ndarray, place: torch.device) -> Learner:
    """Return an untrained net and its optimizer; `levels` are those of the photographs learned from."""
    import torch

    from dr import model, passes

    net = model.make_net(resolved.crop_px, resolved.dropout, resolved.pairs)
    model.initialize_weights(net, resolved.seed)
    net = net.to(place, memory_format=passes.MEMORY_FORMAT)
    forward = workers.connect(net, place)
    weights, others = model.split_parameters(net)
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": resolved.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=resolved.learning_rate,
        momentum=resolved.momentum,
        nesterov=resolved.nesterov,
    )
    level_weights = weigh_levels(levels) if resolved.class_weights == "balanced" else np.ones(eyes.N_LEVELS)
    level_weights = torch.tensor(level_weights, dtype=torch.float32, device=place)
    return passes.Learner(net, forward, optimizer, resolved, level_weights, place)


def weigh_levels(levels: np.ndarray) -> np.ndarray:
    """Return a weight per level, (5,), with which all levels present count alike and an image 1 on average."""
    counts = np.bincount(levels, minlength=eyes.N_LEVELS)
    return np.where(counts > 0, len(levels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)


def restore(learner: Learner, path: Path) -> Learner:
    """Return the learner as it was when the checkpoint was written."""
    content = checkpoint.read(path)
    learner.net.load_state_dict(content["net"])
    for parameter, momentum in zip(learner.net.parameters(), content["momentum"], strict=True):
        learner.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter)
    precision = content["settings"]["precision"]  # this machine might choose another
    return learner._replace(settings=dataclasses.replace(learner.settings, precision=precision))


def validate(learner: Learner, material: Material, epoch: int) -> dict[str, Any]:
    """Score the photographs held out, the middle of each, and return the epoch's figures.

    Raises InputError if the net has got out of hand in the last step.
    """
    from tqdm import tqdm

    from dr import dataset, passes

    resolved, photographs, valid = learner.settings, material.photographs, material.valid
    crops = dataset.center_crops(len(photographs.images), photographs.size_px - resolved.crop_px)
    with tqdm(total=len(valid), desc=f"epoch {epoch}, held out", unit="image", leave=False) as bar:
        scores = passes.score(learner.net, photographs, valid, crops, resolved.precision, resolved.batch_size, bar)
    rate = learner.optimizer.param_groups[0]["lr"]
    if not np.isfinite(scores).all():
        raise InputError(
            f"epoch {epoch}, after its last step, learning rate {rate:g}: the scores of the held-out images are not "
            "finite; try a lower --learning-rate"
        )
    return {
        "epoch": epoch,
        "learning_rate": rate,
        "valid_log_loss": measure_log_loss(scores, material.levels[valid]),
        "valid_qwk": quadratic_weighted_kappa(material.levels[valid], scores.argmax(axis=1)),
    }


def save(learner: Learner, material: Material, folder: Path, epoch: int) -> str:
    """Write an epoch's checkpoint and return its digest."""
    counts = np.bincount(material.levels[material.learning], minlength=eyes.N_LEVELS)
    content = {
        "epoch": epoch,
        "settings": dataclasses.asdict(learner.settings),
        "net": learner.net.state_dict(),
        "momentum": [learner.optimizer.state[parameter]["momentum_buffer"] for parameter in learner.net.parameters()],
        "prior": (counts / counts.sum()).tolist(),
        **material.channels,
        **material.squares,
    }
    return checkpoint.write(checkpoint.path_of(folder, epoch, ".pt"), content)


def finish_epoch(folder: Path, figures: dict[str, Any], keep: int, patience: int | None) -> bool:
    """Write an epoch's figures, which makes it count as done, and drop the checkpoint that is no longer kept.

    Returns whether training should end here.
    """
    epoch = figures["epoch"]
    stage.write_json(checkpoint.path_of(folder / "epochs", epoch, ".json"), figures)
    if epoch > keep:
        checkpoint.path_of(folder / "epochs", epoch - keep, ".pt").unlink(missing_ok=True)
    done = checkpoint.read_figures(folder / "epochs")
    history.write_table(folder / HISTORIES[0], done)
    print(history.describe_epoch(figures), flush=True)
    is_over = has_stalled(done, patience)
    if is_over:
        print(f"dr.train: no better validation log loss in {patience} epochs; stops")
    return is_over


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "dr.train",
        "Train the net on the squares of preprocess.resize, or on ready-made ones. Writes CACHE/dr/epochs, a "
        "checkpoint per epoch, and CACHE/dr/history.csv and history.png. The same command goes on where it stopped.",
        "--data data --cache cache --epochs 60 --batch-size 64",
    )
    settings.add_place_options(parser)
    parser.add_argument("--keep", type=settings.whole(1), default=KEPT_EPOCHS, help="newest checkpoints to keep")
    settings.add_options(parser)
    options, wanted = settings.parse(parser, argv)
    lock = stage.locked(options.cache) if workers.rank() == 0 else contextlib.nullcontext()
    with lock:
        train(options, wanted)


if __name__ == "__main__":
    stage.run(main)
