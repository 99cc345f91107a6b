"""One pass of a net over squares to learn: from an epoch's crops of them, and to settle its BatchNorm after it."""

import numpy as np
import torch
from torch import nn

from dr.machine import workers
from dr.machine.device import autocast
from dr.nets.net import set_training
from dr.squares import batches, crops, draws
from dr.squares.store import Squares
from dr.training.learner import Learner, average
from dr.training.settings import Settings
from preprocess.cache import progress
from preprocess.cache.errors import InputError

CHANGES = ("rotation_deg", "zoom", "jitter")  # settings that change images beside crops and flips
SETTLING_IMAGES, SETTLING_SHARE = 1024, 0.5  # at most, also of an epoch; more gave no lower log loss
STEPS_BETWEEN_LOOKS = 20  # at the loss: each look waits for the device


def train_epoch(
    learner: Learner, squares: Squares, targets: np.ndarray, positions: np.ndarray, epoch: int
) -> tuple[float, int]:
    """Train for one epoch on the squares at `positions`.

    Returns the mean log loss of what the net said meanwhile, and how many steps were skipped, see `Learner.scaler`.

    Raises InputError, naming the step, if the loss is no longer a finite number.
    """
    settings, on = learner.settings, learner.device
    ordered = _order_batches(squares, positions, settings, epoch)
    changes = {name: getattr(settings, name) for name in CHANGES}
    margin_px = squares.size_px - learner.net.image_px
    cuts = crops.draw_crops(len(squares), margin_px, settings.seed, epoch, **changes)
    targets_there, eyes = torch.tensor(targets, device=on), torch.tensor(squares.eyes, device=on)
    losses, mean_loss, n_skipped = torch.full((len(ordered),), torch.nan, device=on), float("nan"), 0
    set_training(learner.net, is_frozen=epoch <= settings.freeze_epochs)
    images_of = batches.iterate_batches(squares, ordered, cuts, learner.net.image_px, on)
    n_images = workers.count() * sum(map(len, ordered))
    with progress.tracking(n_images, f"epoch {epoch}", is_shown=workers.rank() == 0) as bar:
        for step, (chosen, images) in enumerate(images_of):
            for group in learner.optimizer.param_groups:
                group["lr"] = group["factor"] * settings.find_rate(epoch, step / len(ordered))
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
                mean_loss = _check_losses(workers.average(losses[: step + 1]), learner, epoch)
    return mean_loss, n_skipped


def settle_batch_norm(learner: Learner, squares: Squares, positions: np.ndarray, epoch: int) -> None:
    """Give BatchNorm the statistics that it meets in prediction: of the weights as they are now, nothing dropped.

    Those of training lag behind the weights, and are of features some of which are dropped and of images that may be
    turned, which takes sharpness away. These are the mean over some of the squares at `positions`, the first of the
    epoch ("precise BatchNorm", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm").
    """
    settings = learner.settings
    net = learner.kept
    set_training(net, is_frozen=epoch <= settings.freeze_epochs)
    layers = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    layers = [layer for layer in layers if layer.training]
    if not layers:
        return
    n_images = min(SETTLING_IMAGES, round(SETTLING_SHARE * len(positions)))
    ordered = _order_batches(squares, positions, settings, epoch)[: max(1, n_images // settings.batch_size)]
    cuts = crops.draw_crops(len(squares), squares.size_px - learner.net.image_px, settings.seed, epoch)
    momenta = [layer.momentum for layer in layers]
    net.eval()  # the rest of it drops nothing
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        images_of = batches.iterate_batches(squares, ordered, cuts, learner.net.image_px, learner.device)
        for _, images in images_of:
            with autocast(learner.device, settings.precision):
