"""One pass of a net over squares: to learn from an epoch's crops of them, and to update BatchNorm's statistics."""

import numpy as np
import torch
from torch import nn

from dr.machine import workers
from dr.machine.device import autocast, naming_memory
from dr.nets.net import set_training
from dr.squares import batches, crops, draws
from dr.squares.crops import Crops
from dr.squares.store import Maps, Squares
from dr.training.learner import Learner, average
from dr.training.schedule import Epoch, find_rate
from dr.training.settings import UNCHANGED, Settings
from preprocess.command import progress
from preprocess.disk.errors import InputError

# BatchNorm's statistics are updated from at most so many images, and at most this share of an epoch's: more gave no
# lower log loss.
STATISTICS_IMAGES = 1024
STATISTICS_SHARE = 0.5
STEPS_BETWEEN_CHECKS = 20  # of the loss: each check waits for the device


@naming_memory()
def train_epoch(
    learner: Learner,
    squares: Squares | Maps,
    targets: np.ndarray,
    positions: np.ndarray,
    due: Epoch,
) -> dict[str, float]:
    """Train for the epoch that is due on the squares at `positions`.

    Returns the mean log loss of the net's answers meanwhile, and how many steps float16 could not hold, if any. Raises
    InputError, naming the step, if the loss is no longer a finite number.
    """
    settings = learner.settings
    on = learner.device
    epoch = due.number
    batch_positions = _order_batches(squares, positions, settings, epoch)
    n_steps = len(batch_positions)
    cuts = _draw_crops(learner, squares, epoch)
    device_targets = torch.tensor(
        targets, device=on, dtype=torch.float32 if targets.ndim == 2 else torch.int64
    )
    eyes = torch.tensor(squares.eyes, device=on)
    known_share = 1 - float(np.isnan(targets[positions]).mean())
    losses = torch.full((n_steps,), torch.nan, device=on)
    mean_loss = float("nan")
    n_skipped = 0
    set_training(learner.net, due.is_frozen)
    image_batches = batches.iterate_batches(
        squares, batch_positions, cuts, learner.net.image_px, on
    )
    n_images = workers.count() * sum(len(batch) for batch in batch_positions)
    with progress.tracking(n_images, f"epoch {epoch}", is_shown=workers.rank() == 0) as bar:
        for step, (batch, images) in enumerate(image_batches):
            _set_rate(learner, find_rate(settings, due, step / n_steps))
            if settings.drop_path:
                _seed_drop_path(settings, epoch, step)
            rows = torch.from_numpy(batch).to(on)
            keys = draws.make_keys(settings.seed, draws.DROPOUT, epoch, rows)
            scale = learner.scaler.get_scale()
            losses[step] = take_step(learner, images, device_targets[rows], keys, eyes[rows])
            if learner.scaler.get_scale() < scale:
                n_skipped += 1
            average(learner, (epoch - 1) * n_steps + step + 1)
            bar.update(workers.count() * len(batch))
            if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == n_steps:
                mean_loss = (
                    _check_losses(workers.average(losses[: step + 1]), learner, epoch) / known_share
                )
    figures: dict[str, float] = {"train_log_loss": mean_loss}
    if n_skipped:
        figures["skipped_steps"] = n_skipped
    return figures


def _draw_crops(learner: Learner, squares: Squares | Maps, epoch: int) -> Crops:
    """Return the random crops of an epoch, with all the augmentation that the settings ask for."""
    settings = learner.settings
    augmentation = {name: getattr(settings, name) for name in UNCHANGED}
    margin_px = squares.size_px - learner.net.image_px
    return crops.draw_crops(len(squares), margin_px, settings.seed, epoch, **augmentation)


def _set_rate(learner: Learner, rate: float) -> None:
    for group in learner.optimizer.param_groups:
        group["lr"] = group["factor"] * rate


def _seed_drop_path(settings: Settings, epoch: int, step: int) -> None:
    """Seed torch's own generator, from which timm draws, by the step and the process."""
    number = torch.tensor(step * workers.count() + workers.rank())
    key = draws.make_keys(settings.seed, draws.DROP_PATH, epoch, number)
    torch.manual_seed(int(key))


def update_batch_norm(
    learner: Learner, squares: Squares | Maps, positions: np.ndarray, due: Epoch
) -> None:
    """Give BatchNorm the statistics that it meets in prediction: of the weights as they are now, nothing dropped.

    Those of training lag behind, and are of images that may be turned. These are the mean over some of the squares at
    `positions`, the first of the epoch ("precise BatchNorm", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm").
    """
    settings = learner.settings
    epoch = due.number
    net = learner.kept
    set_training(net, due.is_frozen)
    norms = [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
    ]
    if not norms:
        return
    n_images = min(STATISTICS_IMAGES, round(STATISTICS_SHARE * len(positions)))
    n_batches = max(1, n_images // settings.batch_size)
    batch_positions = _order_batches(squares, positions, settings, epoch)[:n_batches]
    margin_px = squares.size_px - net.image_px
    cuts = crops.draw_crops(len(squares), margin_px, settings.seed, epoch, flips=settings.flips)
    momenta = [layer.momentum for layer in norms]
    net.eval()  # the rest of it drops nothing
    for layer in norms:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    n_shown = workers.count() * sum(len(batch) for batch in batch_positions)
    title = f"epoch {epoch}, BatchNorm"
    with (
        progress.tracking(n_shown, title, is_shown=workers.rank() == 0) as bar,
        torch.no_grad(),
    ):
        for batch, images in batches.iterate_batches(
            squares, batch_positions, cuts, net.image_px, learner.device
        ):
            with autocast(learner.device, settings.precision):
                net(images)
            bar.update(workers.count() * len(batch))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _order_batches(
    squares: Squares | Maps, positions: np.ndarray, settings: Settings, epoch: int
) -> list[np.ndarray]:
    """Return the batches of an epoch, positions in the dataset: this process's part of them."""
    if settings.pairs:
        return batches.order_pairs(
            positions, squares.eyes, settings.batch_size, settings.seed, epoch
        )
    ordered = batches.order_epoch(positions, settings.batch_size, settings.seed, epoch)
    return [workers.take_share(batch) for batch in ordered]


def take_step(
    learner: Learner,
    images: torch.Tensor,
    targets: torch.Tensor,
    keys: torch.Tensor,
    eyes: torch.Tensor,
) -> torch.Tensor:
    """Take one step of gradient descent; return the batch's plain log loss, still on the device.

    The net is given the batch in parts, one after the other, whose gradients add up to the batch's. Images are
    (n, 3, h, w), keys and eyes as in Head, all of it on the device.
    """
    settings = learner.settings
    log_loss = torch.zeros((), device=learner.device)
    learner.optimizer.zero_grad(set_to_none=True)
    split = [tensor.chunk(settings.accumulate) for tensor in (images, targets, keys, eyes)]
    for part_images, part_targets, part_keys, part_eyes in zip(*split, strict=True):
        with autocast(learner.device, settings.precision):
            logits = learner.forward(part_images, part_keys, part_eyes)
        share = len(part_targets) / len(targets)
        loss = share * learner.task.measure_loss(logits, part_targets, learner.weights, settings)
        learner.scaler.scale(loss).backward()
        log_loss += share * learner.task.measure_log_loss(logits.detach(), part_targets)
    if settings.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.net.parameters(), settings.clip_norm)
    learner.scaler.step(
        learner.optimizer
    )  # not if float16 could not hold a gradient: then the scale is halved
    learner.scaler.update()
    return log_loss


def _check_losses(losses: torch.Tensor, learner: Learner, epoch: int) -> float:
    """Return the mean loss so far. Raises InputError, naming the first bad step, if one is not finite."""
    bad_steps = torch.nonzero(~torch.isfinite(losses))
    if len(bad_steps):
        step = int(bad_steps[0]) + 1
        rate = learner.optimizer.param_groups[0]["lr"]
        kept = "there is no checkpoint yet"
        if epoch > 1:
            kept = f"the checkpoint of epoch {epoch - 1} is kept"
        raise InputError(
            f"epoch {epoch}, step {step}, learning rate {rate:g}: the loss is {losses[step - 1].item()}; {kept}; "
            "try a lower --learning-rate"
        )
    return losses.mean().item()
