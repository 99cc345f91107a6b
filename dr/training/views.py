"""The one way in which a net scores squares, for training's own checks, prediction and grading alike: views of each."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dr.machine import device
from dr.nets.net import Net
from dr.squares import batches, crops, draws, store
from dr.squares.crops import Crops
from dr.squares.source import CachedSquares
from dr.squares.store import Maps, Squares
from dr.training import learner, runs
from dr.training.checkpoint import Checkpoint
from dr.training.runs import Member, Trained
from preprocess.command import progress
from preprocess.command.progress import Bar


def score_epochs(
    options: argparse.Namespace, trained: Trained, cached: CachedSquares, epochs: Sequence[int], file: Path
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each epoch's scores of the squares of a cache, (n_views, n, k)."""
    on = device.choose_device(options.device)
    device.prepare(on)
    newest = runs.read_checkpoint(trained, epochs[-1])  # all epochs of a run have its mean and std
    squares = store.load(cached, newest.mean, newest.std, on, options.storage, file)
    for epoch in epochs:
        checkpoint = runs.read_checkpoint(trained, epoch)
        with progress.tracking(options.views * len(squares), f"epoch {epoch}") as bar:
            net = put_net(checkpoint, on)
            yield epoch, score_views(net, checkpoint, squares, options.views, options.batch_size, bar)


def put_net(checkpoint: Checkpoint, device: torch.device) -> Net:
    """Return the net of a checkpoint on a device."""
    return learner.load_net(checkpoint).to(device, memory_format=learner.MEMORY_FORMAT)  # type: ignore[call-overload]


def score_views(
    net: Net, checkpoint: Checkpoint, squares: Squares, n_views: int, batch_size: int, bar: Bar
) -> np.ndarray:
    """Return the scores of each view, (n_views, n, k); view 0 is the middle, unflipped."""
    settings, rows, kind = checkpoint.settings, np.arange(len(squares)), checkpoint.task.kind
    margin_px = squares.size_px - net.image_px
    views = [cut_view(view, len(squares), margin_px, settings.seed, settings.flips) for view in range(n_views)]
    return np.stack([score(net, squares, rows, cuts, settings.precision, batch_size, bar, kind) for cuts in views])


def score_logits(kind: str, logits: torch.Tensor) -> torch.Tensor:
    """Return the probabilities that logits (n, k) stand for: a distribution in each row, of findings each by itself."""
    return logits.sigmoid() if kind == "findings" else logits.softmax(dim=1)


def cut_view(view: int, n: int, margin_px: int, seed: int, flips: str) -> Crops:
    """Return where n squares are cut in a view: all alike, so that no score depends on who else is scored."""
    if view == 0:
        return crops.center_crops(n, margin_px)
    drawn = crops.draw_crops(1, margin_px, seed, view, draws.VIEWS, flips)
    return Crops(*(np.repeat(field, n, axis=0) for field in drawn))


@device.naming_memory()
def score(
    net: Net, squares: Squares | Maps, positions: np.ndarray, cuts: Crops, precision: str, batch_size: int, bar: Bar,
    kind: str,
) -> np.ndarray:  # fmt: skip
    """Return the probabilities of the outputs for the squares at `positions`, (n, k) float64; move the bar on."""
    on = next(net.parameters()).device
    precision = precision if device.is_native(precision, on) else "float32"  # as exact, and many times faster
    order = np.argsort(squares.eyes[positions] // 2, kind="stable")  # names may part a group: a_left, a_b_left, a_right
    eyes = torch.tensor(squares.eyes, device=on)
    scores = []
    net.eval()
    parts = batches.split_by_group(positions[order], squares.eyes, batch_size)
    with torch.inference_mode():
        for chosen, images in batches.iterate_batches(squares, parts, cuts, net.image_px, on):
            with device.autocast(on, precision):
                logits = net(images, eyes=eyes[torch.from_numpy(chosen).to(on)])
            scores.append(score_logits(kind, logits.cpu().double()).numpy())
            bar.update(len(chosen))
    return np.concatenate(scores)[np.argsort(order)]


class Averaged(nn.Module):
    """Squares -> the scores that `dr.predict` and `submissions.grade` give them, the mean of nets and views."""

    def __init__(self, members: Sequence[Member]):
        """Take the nets of the checkpoints, whose squares are of one size."""
        super().__init__()
        nets = [learner.load_net(member.checkpoint) for member in members]
        self.nets = nn.ModuleList(nets)
        self.kind = members[0].checkpoint.task.kind
        self.views: list[tuple[float, int, list[tuple[int, ...]]]] = []  # share of each view, side, where they are cut
        for number, (member, net) in enumerate(zip(members, nets, strict=True)):
            of, side = member.checkpoint, net.image_px
            fixed = 1, of.making.size_px - side, of.settings.seed, of.settings.flips
            cuts = [tuple(int(field[0]) for field in cut_view(view, *fixed)[:4]) for view in range(member.n_views)]
            self.views.append((member.share / member.n_views, side, cuts))
            self.register_buffer(f"channels_{number}", torch.tensor([of.mean, of.std]))

    def forward(self, squares: torch.Tensor, eyes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores, (n, k), of (n, size_px, size_px, 3) uint8 RGB, lookup tables applied; eyes, see Head."""
        total = torch.zeros(())
        for number, (net, (share, side, cuts)) in enumerate(zip(self.nets, self.views, strict=True)):
            mean, std = self.get_buffer(f"channels_{number}")
            images = ((squares.float() - mean) / std).permute(0, 3, 1, 2)
            for top, left, is_down, is_right in cuts:
                view = images[:, :, top : top + side, left : left + side]
                turned = [axis for axis, is_flipped in ((2, is_down), (3, is_right)) if is_flipped]
                view = view.flip(turned) if turned else view
                total = total + share * score_logits(self.kind, net(view, eyes=eyes))
        return total
