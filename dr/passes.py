"""One pass of the net over a set of photographs: to learn from them, or to score them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dr import dataset, draws, workers
from dr.dataset import Crops, Photographs
from dr.device import autocast
from dr.model import NineConvNet
from dr.schedule import find_rate
from dr.settings import Settings
from preprocess.eyes import N_LEVELS
from preprocess.stage import InputError

MEMORY_FORMAT = torch.channels_last  # 7.8 against 4.2 images/s at 448 px in float32 (2 Zen 5 cores, torch 2.13)
CHANGES = ("rotation_deg", "zoom", "jitter")  # what training may do to the images beside crops and flips
SETTLING_IMAGES = 1024  # all 3,942 of a training set gave no lower log loss
STEPS_BETWEEN_LOOKS = 20  # at the loss: each look waits for the device


class Learner(NamedTuple):
    """A net in training and what it is trained with."""

    net: NineConvNet
    forward: nn.Module  # the net as training calls it, see workers.connect
    optimizer: torch.optim.Optimizer
    settings: Settings  # precision and crop_px resolved
    level_weights: torch.Tensor  # (5,)
    device: torch.device


class Batch(NamedTuple):
    """What one step learns from: n images, all on the device."""

    images: torch.Tensor  # (n, 3, h, w)
    targets: torch.Tensor  # (n,) int64, their levels
    eyes: torch.Tensor  # (n,) int64, see Photographs
    rows: torch.Tensor  # (n,) int64, their positions in the dataset


def train_epoch(
    learner: Learner, photographs: Photographs, levels: np.ndarray, positions: np.ndarray, epoch: int
) -> float:
    """Train for one epoch on the photographs at `positions`; return the mean log loss of what the net said meanwhile.

    Raises InputError, naming the step, if the loss is no longer a finite number.
    """
    settings = learner.settings
    batches = order_batches(photographs, positions, settings, epoch)
    crops = draw_crops(photographs, settings, epoch, is_plain=False)
    targets = torch.tensor(levels, device=learner.device)
    eyes = torch.tensor(photographs.eyes, device=learner.device)
    losses = torch.full((len(batches),), torch.nan, device=learner.device)
    learner.net.train()
    images_of = dataset.iterate_batches(photographs, batches, crops, settings.crop_px, learner.device)
    n_images = workers.count() * sum(map(len, batches))
    with tqdm(total=n_images, desc=f"epoch {epoch}", unit="image", leave=False, disable=workers.rank() > 0) as bar:
        for step, (chosen, images) in enumerate(images_of):
            set_rate(learner.optimizer, find_rate(settings, epoch, step / len(batches)))
            rows = torch.from_numpy(chosen).to(learner.device)
            losses[step] = take_step(learner, Batch(images, targets[rows], eyes[rows], rows), epoch)
            bar.update(workers.count() * len(chosen))
            if (step + 1) % STEPS_BETWEEN_LOOKS == 0 or step + 1 == len(batches):
                mean_loss = check_losses(workers.average(losses[: step + 1]), learner, epoch)
                bar.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)
    return mean_loss


def draw_crops(photographs: Photographs, settings: Settings, epoch: int, is_plain: bool) -> Crops:
    """Return an epoch's random crops; the plain ones of the same corners and flips are as prediction shows images."""
    changes = {} if is_plain else {name: getattr(settings, name) for name in CHANGES}
    margin_px = photographs.size_px - settings.crop_px
    return dataset.draw_crops(len(photographs.images), margin_px, settings.seed, epoch, **changes)


def settle_batch_norm(learner: Learner, photographs: Photographs, positions: np.ndarray, epoch: int) -> None:
    """Give BatchNorm the statistics of images as prediction shows them, if training shows them turned or changed.

    Interpolation takes sharpness away, so the net finds other statistics in turned images. These are the mean over some
    of the photographs at `positions`, the first of the epoch ("precise BatchNorm", Wu and Johnson 2021, "Rethinking
    'Batch' in BatchNorm").
    """
    settings = learner.settings
    if all(getattr(settings, name) == getattr(Settings, name) for name in CHANGES):
        return
    batches = order_batches(photographs, positions, settings, epoch)[: max(1, SETTLING_IMAGES // settings.batch_size)]
    crops = draw_crops(photographs, settings, epoch, is_plain=True)
    layers = [layer for layer in learner.net.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momentum = layers[0].momentum
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    learner.net.train()
    with torch.no_grad():
        for chosen, images in dataset.iterate_batches(photographs, batches, crops, settings.crop_px, learner.device):
            rows = torch.from_numpy(chosen).to(learner.device)
            keys = draws.make_keys(settings.seed, draws.DROPOUT, epoch, rows)
            with autocast(learner.device, settings.precision):
                learner.net(images, keys)
    for layer in layers:
        layer.momentum = momentum


def order_batches(photographs: Photographs, positions: np.ndarray, settings: Settings, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch, positions in the dataset: this process's part of them."""
    if settings.pairs:
        return dataset.order_pairs(positions, photographs.eyes, settings.batch_size, settings.seed, epoch)
    batches = dataset.order_epoch(positions, settings.batch_size, settings.seed, epoch)
    return [workers.take_share(batch) for batch in batches]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def take_step(learner: Learner, batch: Batch, epoch: int) -> torch.Tensor:
    """Take one step of gradient descent; return the batch's plain log loss, still on the device."""
    settings, targets = learner.settings, batch.targets
    keys = draws.make_keys(settings.seed, draws.DROPOUT, epoch, batch.rows)
    with autocast(learner.device, settings.precision):
        logits = learner.forward(batch.images, keys, batch.eyes)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=settings.label_smoothing)
    if settings.squared_error:
        losses = losses + settings.squared_error * (expect_levels(logits) - targets) ** 2
    learner.optimizer.zero_grad(set_to_none=True)
    (losses * learner.level_weights[targets]).mean().backward()
    if settings.clip_norm:
        nn.utils.clip_grad_norm_(learner.net.parameters(), settings.clip_norm)
    learner.optimizer.step()
    return nn.functional.cross_entropy(logits.detach(), targets)


def expect_levels(logits: torch.Tensor) -> torch.Tensor:
    """Return the expected level (n,) of logits (n, 5)."""
    return logits.softmax(dim=1) @ torch.arange(N_LEVELS, dtype=logits.dtype, device=logits.device)


def check_losses(losses: torch.Tensor, learner: Learner, epoch: int) -> float:
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


def score(
    net: NineConvNet,
    photographs: Photographs,
    positions: np.ndarray,
    crops: Crops,
    precision: str,
    batch_size: int,
    bar: tqdm,
) -> np.ndarray:
    """Return the probabilities of the levels for the photographs at `positions`, (n, 5) float64; move the bar on.

    A patient's positions lie together.
    """
    device = next(net.parameters()).device
    batches = dataset.split_by_patient(positions, photographs.eyes, batch_size)
    eyes = torch.tensor(photographs.eyes, device=device)
    scores = []
    net.eval()
    with torch.inference_mode():
        for chosen, images in dataset.iterate_batches(photographs, batches, crops, net.image_px, device):
            with autocast(device, precision):
                logits = net(images, eyes=eyes[torch.from_numpy(chosen).to(device)])
            scores.append(logits.cpu().double().softmax(dim=1).numpy())
            bar.update(len(chosen))
    return np.concatenate(scores)
