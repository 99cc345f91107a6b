"""One pass of a net over squares to learn: from an epoch's crops of them, and to settle its BatchNorm after it."""

import numpy as np
import torch
from torch import nn

from dr.machine import workers
from dr.machine.device import autocast, naming_memory
from dr.nets.net import set_training
from dr.squares import batches, crops, draws
from dr.squares.store import Maps, Squares
from dr.training.learner import Learner, average
from dr.training.schedule import Epoch, find_rate
from dr.training.settings import UNCHANGED, Settings
from preprocess.command import progress
from preprocess.disk.errors import InputError

SETTLING_IMAGES, SETTLING_SHARE = 1024, 0.5  # at most, also of an epoch; more gave no lower log loss
STEPS_BETWEEN_LOOKS = 20  # at the loss: each look waits for the device


@naming_memory()
def train_epoch(
    learner: Learner, squares: Squares | Maps, targets: np.ndarray, positions: np.ndarray, due: Epoch
) -> dict[str, float]:
    """Train for the epoch that is due on the squares at `positions`.

    Returns the mean log loss of what the net said meanwhile, and how many steps float16 could not hold, if any. Raises
    InputError, naming the step, if the loss is no longer a finite number.
    """
    settings, on, epoch = learner.settings, learner.device, due.number
    ordered = _order_batches(squares, positions, settings, epoch)
    changes = {name: getattr(settings, name) for name in UNCHANGED}
    margin_px = squares.size_px - learner.net.image_px
    cuts = crops.draw_crops(len(squares), margin_px, settings.seed, epoch, **changes)
    targets_there = torch.tensor(targets, device=on, dtype=torch.float32 if targets.ndim == 2 else torch.int64)
    eyes, known = torch.tensor(squares.eyes, device=on), 1 - float(np.isnan(targets[positions]).mean())
    losses, mean_loss, n_skipped = torch.full((len(ordered),), torch.nan, device=on), float("nan"), 0
    set_training(learner.net, due.is_frozen)
    images_of = batches.iterate_batches(squares, ordered, cuts, learner.net.image_px, on)
    n_images = workers.count() * sum(map(len, ordered))
    with progress.tracking(n_images, f"epoch {epoch}", is_shown=workers.rank() == 0) as bar:
        for step, (chosen, images) in enumerate(images_of):
            for group in learner.optimizer.param_groups:
                group["lr"] = group["factor"] * find_rate(settings, due, step / len(ordered))
            if settings.drop_path:  # timm draws from torch's own generator
                number = torch.tensor(step * workers.count() + workers.rank())
                torch.manual_seed(int(draws.make_keys(settings.seed, draws.DROP_PATH, epoch, number)))
            rows = torch.from_numpy(chosen).to(on)
            keys = draws.make_keys(settings.seed, draws.DROPOUT, epoch, rows)
            scale = learner.scaler.get_scale()
            losses[step] = take_step(learner, images, targets_there[rows], keys, eyes[rows])
            n_skipped += learner.scaler.get_scale() < scale
            average(learner, (epoch - 1) * len(ordered) + step + 1)
            bar.update(workers.count() * len(chosen))
            if (step + 1) % STEPS_BETWEEN_LOOKS == 0 or step + 1 == len(ordered):
                mean_loss = _check_losses(workers.average(losses[: step + 1]), learner, epoch) / known
    return {"train_log_loss": mean_loss} | ({"skipped_steps": n_skipped} if n_skipped else {})


def settle_batch_norm(learner: Learner, squares: Squares | Maps, positions: np.ndarray, due: Epoch) -> None:
    """Give BatchNorm the statistics that it meets in prediction: of the weights as they are now, nothing dropped.

    Those of training lag behind, and are of images that may be turned. These are the mean over some of the squares at
    `positions`, the first of the epoch ("precise BatchNorm", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm").
    """
    settings, epoch = learner.settings, due.number
    net = learner.kept
    set_training(net, due.is_frozen)
    norms = (part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    momenta = {layer: layer.momentum for layer in norms if layer.training}
    if not momenta:
        return
    n_images = min(SETTLING_IMAGES, round(SETTLING_SHARE * len(positions)))
    ordered = _order_batches(squares, positions, settings, epoch)[: max(1, n_images // settings.batch_size)]
    margin_px = squares.size_px - net.image_px
    cuts = crops.draw_crops(len(squares), margin_px, settings.seed, epoch, flips=settings.flips)
    net.eval()  # the rest of it drops nothing
    for layer in momenta:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        images_of = batches.iterate_batches(squares, ordered, cuts, learner.net.image_px, learner.device)
        for _, images in images_of:
            with autocast(learner.device, settings.precision):
                net(images)
    for layer, momentum in momenta.items():
        layer.momentum = momentum


def _order_batches(squares: Squares | Maps, positions: np.ndarray, settings: Settings, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch, positions in the dataset: this process's part of them."""
    if settings.pairs:
        return batches.order_pairs(positions, squares.eyes, settings.batch_size, settings.seed, epoch)
    ordered = batches.order_epoch(positions, settings.batch_size, settings.seed, epoch)
    return [workers.take_share(batch) for batch in ordered]


def take_step(
    learner: Learner, images: torch.Tensor, targets: torch.Tensor, keys: torch.Tensor, eyes: torch.Tensor
) -> torch.Tensor:
    """Take one step of gradient descent; return the batch's plain log loss, still on the device.

    The net is given the batch in parts, one after the other, whose gradients add up to the batch's. Images are
    (n, 3, h, w), keys and eyes as in Head, all of it on the device.
    """
    settings, total = learner.settings, torch.zeros((), device=learner.device)
    learner.optimizer.zero_grad(set_to_none=True)
    parts = (of.chunk(settings.accumulate) for of in (images, targets, keys, eyes))
    for images_of, targets_of, keys_of, eyes_of in zip(*parts, strict=True):
        with autocast(learner.device, settings.precision):
            logits = learner.forward(images_of, keys_of, eyes_of)
        share = len(targets_of) / len(targets)
        learner.scaler.scale(
            share * learner.task.measure_loss(logits, targets_of, learner.weights, settings)
        ).backward()
        total += share * learner.task.measure_log_loss(logits.detach(), targets_of)
    if settings.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.net.parameters(), settings.clip_norm)
    learner.scaler.step(learner.optimizer)  # not if float16 could not hold a gradient: then the scale is halved
    learner.scaler.update()
    return total


def _check_losses(losses: torch.Tensor, learner: Learner, epoch: int) -> float:
    """Return the mean loss so far. Raises InputError, naming the first bad step, if one is not finite."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        step = int(bad[0]) + 1
        rate = learner.optimizer.param_groups[0]["lr"]
        kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "there is no checkpoint yet"
        raise InputError(
            f"epoch {epoch}, step {step}, learning rate {rate:g}: the loss is {losses[step - 1].item()}; {kept}; "
            "try a lower --learning-rate"
        )
    return losses.mean().item()
