"""A net in training: made anew, from a checkpoint's weights, or as it was when a checkpoint was written."""

import copy
import dataclasses
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from dr.machine import batch_norm, device, trial, workers
from dr.nets import net
from dr.nets.net import Net
from dr.nets.nine_conv import NineConv
from dr.tasks.task import Task
from dr.training import weights
from dr.training.checkpoint import Checkpoint
from dr.training.settings import Settings
from preprocess.disk.errors import InputError

CROP_SHARE = 7 / 8  # of the squares' side is the side of a random crop: 448 of 512 px
ADAM_BETA = 0.999  # the second of Adam's, torch's default
MEMORY_FORMAT = (
    torch.channels_last
)  # 7.8 against 4.2 images/s at 448 px in float32 (2 Zen 5 cores, torch 2.13)


class Learner(NamedTuple):
    """A net in training and what it is trained with."""

    net: Net
    forward: nn.Module  # the net as training calls it, see batch_norm.connect
    optimizer: torch.optim.Optimizer
    scaler: (
        torch.amp.GradScaler
    )  # keeps the gradients within float16's range, if that is the precision; else idle
    settings: Settings  # with precision and crop_px decided
    weights: torch.Tensor  # (k,), what an image of each target counts
    device: torch.device
    task: Task
    averaged: Net | None = None  # the average of its weights

    @property
    def kept(self) -> Net:
        """The net whose BatchNorm statistics are updated after an epoch, and which is checked and kept."""
        return self.averaged or self.net


def resolve(wanted: Settings, size_px: int, on: torch.device, is_seen_once: bool) -> Settings:
    """Return the settings with crop and precision decided for squares of `size_px` and a device.

    Raises InputError for settings that cannot be.
    """
    if wanted.pairs and workers.count() > 1:
        raise InputError("--pairs trains in one process: a patient's eyes have to meet in it")
    crop_px = wanted.crop_px or round(CROP_SHARE * size_px)
    if crop_px > size_px:
        raise InputError(f"--crop-px {crop_px}: the squares are only {size_px} px wide")
    if is_seen_once and crop_px != size_px:
        raise InputError(
            f"--features file: crops of {crop_px} px of {size_px} differ from epoch to epoch (--crop-px)"
        )
    return dataclasses.replace(
        wanted, crop_px=crop_px, precision=device.choose_precision(wanted.precision, on)
    )


def make_learner(resolved: Settings, task: Task, targets: np.ndarray, on: torch.device) -> Learner:
    """Return an untrained net and its optimizer; `targets` are those of the images learned from."""
    untrained = make_untrained(resolved, task)
    net.initialize_weights(untrained, resolved.seed)
    untrained = _put(untrained, on)
    forward = batch_norm.connect(untrained, on, is_ever_frozen=resolved.freeze_epochs > 0)
    target_weights = task.weigh_targets(targets, resolved.class_weights, resolved.most_weight)
    return Learner(
        net=untrained,
        forward=forward,
        optimizer=_make_optimizer(untrained, resolved),
        scaler=_make_scaler(resolved, on),
        settings=resolved,
        weights=torch.tensor(target_weights, dtype=torch.float32, device=on),
        device=on,
        task=task,
        averaged=copy.deepcopy(untrained) if resolved.ema else None,
    )


def _put(untrained: Net, on: torch.device) -> Net:
    """Return a net on a device, with its weights in the order in memory in which it trains fastest there."""
    memory_format = MEMORY_FORMAT
    is_nine_conv = isinstance(untrained.body, NineConv)
    if on.type == "cpu" and not is_nine_conv and not trial.survives(untrained, MEMORY_FORMAT):
        memory_format = torch.contiguous_format
        untrained.memory_format = memory_format
        if workers.rank() == 0:
            print(
                "dr.train: torch dies of this net's gradient with channels last on this processor: it trains without"
            )
    return untrained.to(on, memory_format=memory_format)  # type: ignore[call-overload]  # unknown to torch's stubs


def make_untrained(settings: Settings, task: Task) -> Net:
    """Return a net whose weights are still to be drawn or loaded."""
    return net.make_net(
        settings.net,
        image_px=settings.crop_px or 0,  # decided: it is a checkpoint's, or resolved
        n_outputs=len(task.names),
        dropout=settings.dropout,
        is_paired=settings.pairs,
        n_hidden=settings.hidden,
        n_squeezed=settings.squeeze,
        drop_path=settings.drop_path,
        seed=settings.seed,
        pool=settings.pool,
    )


def _make_optimizer(untrained: Net, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer; `factor` is what the learning rate of a group of its parameters is multiplied by."""
    groups: list[dict[str, Any]] = []
    scales = net.find_layer_scales(untrained.body, settings.layer_decay)
    for part, factor in ((untrained.head, 1.0), (untrained.body, settings.body_rate)):
        decayed, others = net.split_parameters(part)
        for parameters, weight_decay in ((decayed, settings.weight_decay), (others, 0.0)):
            for scale, alike in net.group_by_scale(parameters, scales).items():
                groups.append(
                    {"params": alike, "weight_decay": weight_decay, "factor": factor * scale}
                )
    rate = settings.learning_rate
    momentum = settings.momentum
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, ADAM_BETA))
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=settings.nesterov)


def begin(learner: Learner, source: str) -> weights.Channels | None:
    """Give an untrained net the weights that it begins with, see `weights.begin`."""
    channels = weights.begin(
        learner.net, source, are_channels_given=learner.settings.mean is not None
    )
    if learner.averaged:
        learner.averaged.load_state_dict(learner.net.state_dict())
    return channels


def average(learner: Learner, n_steps: int) -> None:
    """Update the average of the weights, if there is one, after a step, the `n_steps`-th.

    In the first steps it keeps less of itself, or it would long hold the weights that training began with (as
    TensorFlow's ExponentialMovingAverage does).
    """
    if learner.averaged is None:
        return
    share = min(learner.settings.ema, n_steps / (9 + n_steps))
    with torch.no_grad():
        for kept, new in zip(learner.averaged.parameters(), learner.net.parameters(), strict=True):
            kept.lerp_(new, 1 - share)


def load_net(checkpoint: Checkpoint) -> Net:
    """Return the net of a checkpoint, on the CPU. Raises InputError if the weights are another net's."""
    loaded = make_untrained(checkpoint.settings, checkpoint.task)
    weights.load(loaded, checkpoint.net, "the checkpoint")
    return loaded


def restore(learner: Learner, checkpoint: Checkpoint) -> Learner:
    """Return the learner as it was when the checkpoint was written.

    On a processor that would emulate the checkpoint's float16 it goes on in float32.
    """
    title = f"epoch {checkpoint.epoch}"
    weights.load(learner.net, checkpoint.raw or checkpoint.net, title)
    if learner.averaged:
        weights.load(learner.averaged, checkpoint.net, title)
    for name, parameter in learner.net.named_parameters():
        for key, value in checkpoint.optimizer.get(name, {}).items():
            is_counted_on_host = key == "step"  # of AdamW
            learner.optimizer.state[parameter][key] = (
                value if is_counted_on_host else value.to(parameter)
            )
    # The precision is the checkpoint's: this machine might choose another.
    precision = device.avoid_emulation(checkpoint.settings.precision, learner.device)
    settings = dataclasses.replace(learner.settings, precision=precision)
    scaler = _make_scaler(settings, learner.device)
    scaler.load_state_dict(checkpoint.scaler)
    return learner._replace(settings=settings, scaler=scaler)


def _make_scaler(settings: Settings, on: torch.device) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(on.type, enabled=settings.precision == "float16")


def collect_optimizer(learner: Learner) -> dict[str, dict[str, torch.Tensor]]:
    """Return the optimizer's state of each parameter that has one: the parameter's name -> the state's -> value."""
    collected = {}
    for name, parameter in learner.net.named_parameters():
        if parameter in learner.optimizer.state:
            state = learner.optimizer.state[parameter]
            # One object per word: a file would show which of them came from a checkpoint.
            collected[name] = {sys.intern(key): value for key, value in state.items()}
    return collected
