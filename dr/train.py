"""Train the net: squares, lookup tables and trainLabels.csv -> CACHE/dr/epochs, history.csv and history.png.

python -m dr.train --data DIR --cache DIR [--epochs N] [--batch-size N] [--learning-rate X] [--run NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr import checkpoint, history, inputs, schedule, settings
from dr.inputs import TrainingSet
from dr.settings import Settings
from preprocess import eyes, stage, standardize
from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch

    from dr.dataset import Photographs
    from dr.passes import Learner

KEPT_EPOCHS = 10  # checkpoints of 7.4 MB; prediction averages the last five
CROP_SHARE = 7 / 8  # 448 of 512 px


def train(options: argparse.Namespace, wanted: Settings) -> None:
    """Bring the epochs of a run up to date."""
    folder = checkpoint.folder_of(options.cache, options.run)
    epochs = folder / "epochs"
    training_set = inputs.read_training_set(options.data, options.cache, wanted.ready_made)
    parameters, digests = dataclasses.asdict(wanted), training_set.digests
    if is_finished(epochs, parameters, digests):
        print("dr.train: cached")
        return
    start = find_start(epochs, wanted, digests)
    checkpoint.remove_after(epochs, start)
    stage.write_manifest(epochs, "dr.train", parameters, digests, outputs={})
    if start < wanted.epochs and not has_stalled(checkpoint.read_figures(epochs), wanted.patience):
        train_epochs(options, wanted, folder, training_set, start)
    figures = checkpoint.read_figures(epochs)
    history.write_table(folder / "history.csv", figures)
    history.write_picture(folder / "history.png", figures)
    kept = {f"{row['epoch']:04}.pt": row["checkpoint"] for row in figures[-options.keep :]}
    stage.write_manifest(epochs, "dr.train", parameters, digests, outputs=kept)


def is_finished(folder: Path, parameters: dict[str, Any], sources: dict[str, str]) -> bool:
    """Tell whether the run in `folder` has the same settings and inputs and came to its end."""
    manifest = stage.read_manifest(folder)
    return bool(manifest and manifest["outputs"]) and stage.find_change(folder, parameters, sources) is None


def find_start(folder: Path, wanted: Settings, sources: dict[str, str]) -> int:
    """Return how many finished epochs can be kept, and say why if none can."""
    folder.mkdir(parents=True, exist_ok=True)
    stage.remove_partials(folder)
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


def train_epochs(
    options: argparse.Namespace, wanted: Settings, folder: Path, training_set: TrainingSet, start: int
) -> None:
    """Train the epochs after `start`, one checkpoint each."""
    from dr import device

    place = device.choose_device(options.device)
    device.prepare(place)
    levels = training_set.levels
    is_held_out = inputs.find_fold(training_set, wanted.folds) == wanted.fold
    learning, valid = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    photographs, channels = load_photographs(options, wanted, training_set, learning, place)
    precision = device.choose_precision(wanted.precision, place)
    resolved = dataclasses.replace(wanted, crop_px=choose_crop(wanted, photographs.size_px), precision=precision)
    learner = make_learner(resolved, levels[learning], place)
    if start:
        learner = restore(learner, checkpoint.path_of(folder / "epochs", start, ".pt"))
    prior = np.bincount(levels[learning], minlength=eyes.N_LEVELS) / len(learning)
    print(f"dr.train: {len(learning)} images, {len(valid)} held out, {learner.settings.precision} on {place}")
    for epoch in range(start + 1, wanted.epochs + 1):
        figures = train_one(learner, photographs, levels, learning, valid, epoch)
        figures["checkpoint"] = save(learner, folder / "epochs", epoch, channels | {"prior": prior.tolist()})
        finish_epoch(folder, figures, options.keep)
        if has_stalled(checkpoint.read_figures(folder / "epochs"), wanted.patience):
            print(f"dr.train: no better validation log loss in {wanted.patience} epochs; stops")
            break


def load_photographs(
    options: argparse.Namespace, wanted: Settings, training_set: TrainingSet, learning: np.ndarray, place: torch.device
) -> tuple[Photographs, dict[str, list[float]]]:
    """Return the decoded squares with their tables, and the channels' mean and std over those learned from, 0-255."""
    from dr import dataset

    images = list(training_set.paths)
    file = options.cache / "dr" / "pixels" / "train.npy"
    key = stage.hash_text(str(sorted(training_set.digests.items())))
    pixels = dataset.load_pixels(training_set.paths, place, options.storage, file, key)
    if wanted.ready_made:
        mean, std = dataset.measure_channels(pixels, learning)
    else:
        mean, std = standardize.read_channels(options.cache, [images[position] for position in learning])
    luts = inputs.read_luts(options.cache, "train", images, wanted.ready_made)
    photographs = dataset.make_photographs(images, pixels, luts, mean, std)
    return photographs, {"mean": mean.tolist(), "std": std.tolist()}


def choose_crop(wanted: Settings, size_px: int) -> int:
    """Return the side of the crops. Raises InputError if the squares are smaller."""
    crop_px = wanted.crop_px or round(CROP_SHARE * size_px)
    if crop_px > size_px:
        raise InputError(f"--crop-px {crop_px}: the squares are only {size_px} px wide")
    return crop_px


def make_learner(resolved: Settings, levels: np.ndarray, device: torch.device) -> Learner:
    """Return an untrained net and its optimizer; `levels` are those of the photographs learned from."""
    import torch

    from dr import model, passes

    net = model.NineConvNet(resolved.crop_px, resolved.dropout)
    model.initialize_weights(net, resolved.seed)
    net = net.to(device, memory_format=passes.MEMORY_FORMAT)
    weights, others = model.split_parameters(net)
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": resolved.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=resolved.learning_rate,
        momentum=resolved.momentum,
        nesterov=resolved.nesterov,
    )
    level_weights = weigh_levels(levels) if resolved.class_weights == "balanced" else np.ones(eyes.N_LEVELS)
    level_weights = torch.tensor(level_weights, dtype=torch.float32, device=device)
    return passes.Learner(net, optimizer, resolved, level_weights, device)


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


def train_one(
    learner: Learner,
    photographs: Photographs,
    levels: np.ndarray,
    learning: np.ndarray,
    valid: np.ndarray,
    epoch: int,
) -> dict[str, Any]:
    """Train one epoch and score the photographs held out; return the epoch's figures."""
    from tqdm import tqdm

    from dr import dataset, passes

    train_log_loss = passes.train_epoch(learner, photographs, levels, learning, epoch)
    margin_px = photographs.size_px - learner.settings.crop_px
    crops = dataset.center_crops(len(photographs.images), margin_px)
    resolved = learner.settings
    with tqdm(total=len(valid), desc=f"epoch {epoch}, held out", unit="image", leave=False) as bar:
        scores = passes.score(learner.net, photographs, valid, crops, resolved.precision, resolved.batch_size, bar)
    if not np.isfinite(scores).all():
        raise InputError(f"epoch {epoch}, after the last step: the scores of the validation fold are not finite")
    return {
        "epoch": epoch,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "train_log_loss": train_log_loss,
        "valid_log_loss": history.measure_log_loss(scores, levels[valid]),
        "valid_qwk": history.measure_qwk(scores, levels[valid]),
    }


def save(learner: Learner, folder: Path, epoch: int, fixed: dict[str, Any]) -> str:
    """Write an epoch's checkpoint and return its digest."""
    content = {
        "epoch": epoch,
        "settings": dataclasses.asdict(learner.settings),
        "net": learner.net.state_dict(),
        "momentum": [learner.optimizer.state[parameter]["momentum_buffer"] for parameter in learner.net.parameters()],
        **fixed,
    }
    return checkpoint.write(checkpoint.path_of(folder, epoch, ".pt"), content)


def finish_epoch(folder: Path, figures: dict[str, Any], keep: int) -> None:
    """Write an epoch's figures, which makes it count as done; drop the checkpoint that is no longer kept."""
    epoch = figures["epoch"]
    stage.write_json(checkpoint.path_of(folder / "epochs", epoch, ".json"), figures)
    if epoch > keep:
        checkpoint.path_of(folder / "epochs", epoch - keep, ".pt").unlink(missing_ok=True)
    history.write_table(folder / "history.csv", checkpoint.read_figures(folder / "epochs"))
    print(history.describe_epoch(figures), flush=True)


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
    with stage.locked(options.cache):
        train(options, wanted)


if __name__ == "__main__":
    stage.run(main)
