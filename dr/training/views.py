"""The one way in which a net scores views of squares, for training's own checks, prediction and grading alike."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dr.machine import device
from dr.nets.net import Net
from dr.squares import batches, crops, draws, store
from dr.squares.crops import Crops
from dr.squares.source import CachedSquares
from dr.squares.store import Maps, Squares
from dr.tasks.task import Task
from dr.training import learner, runs
from dr.training.checkpoint import Checkpoint
from dr.training.runs import Member, Trained
from preprocess.command import progress
from preprocess.command.progress import Bar


def score_epochs(
    options: argparse.Namespace,
    trained: Trained,
    cached: CachedSquares,
    epochs: Sequence[int],
    file: Path,
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
            yield (
                epoch,
                score_views(net, checkpoint, squares, options.views, options.batch_size, bar),
            )


def put_net(checkpoint: Checkpoint, device: torch.device) -> Net:
    """Return the net of a checkpoint on a device."""
    return learner.load_net(checkpoint).to(device, memory_format=learner.MEMORY_FORMAT)  # type: ignore[call-overload]


def score_views(
    net: Net, checkpoint: Checkpoint, squares: Squares, n_views: int, batch_size: int, bar: Bar
) -> np.ndarray:
    """Return the scores of each view, (n_views, n, k); view 0 is the middle, unflipped."""
    settings = checkpoint.settings
    margin_px = squares.size_px - net.image_px
    scores = []
    for view in range(n_views):
        view_scores = score(
            net,
            squares,
            positions=np.arange(len(squares)),
            cuts=cut_view(view, len(squares), margin_px, settings.seed, settings.flips),
            precision=settings.precision,
            batch_size=batch_size,
            bar=bar,
            task=checkpoint.task,
        )
        scores.append(view_scores)
    return np.stack(scores)


def cut_view(view: int, n: int, margin_px: int, seed: int, flips: str) -> Crops:
    """Return where n squares are cut in a view: all alike, so that no score depends on who else is scored."""
    if view == 0:
        return crops.center_crops(n, margin_px)
    drawn = crops.draw_crops(1, margin_px, seed, view, draws.VIEWS, flips)
    return Crops._make(np.repeat(field, n, axis=0) for field in drawn)


@device.naming_memory()
def score(
    net: Net, squares: Squares | Maps, positions: np.ndarray, cuts: Crops, precision: str, batch_size: int, bar: Bar,
    task: Task,
) -> np.ndarray:  # fmt: skip
    """Return the probabilities of the outputs for the squares at `positions`, (n, k) float64; move the bar on."""
    on = next(net.parameters()).device
    if not device.is_native(precision, on):
        precision = "float32"  # as exact, and many times faster
    # The names of other groups may lie between a group's: a_left, a_b_left, a_right.
    order = np.argsort(squares.eyes[positions] // 2, kind="stable")
    eyes = torch.tensor(squares.eyes, device=on)
    scores = []
    net.eval()
    batch_positions = batches.split_by_group(positions[order], squares.eyes, batch_size)
    with torch.inference_mode():
        for batch, images in batches.iterate_batches(
            squares, batch_positions, cuts, net.image_px, on
        ):
            rows = torch.from_numpy(batch).to(on)
            with device.autocast(on, precision):
                logits = net(images, eyes=eyes[rows])
            scores.append(task.score_logits(logits.cpu().double()).numpy())
            bar.update(len(batch))
    return np.concatenate(scores)[np.argsort(order)]


class Cut(NamedTuple):
    """Where a view is cut from a square, and how it is flipped."""

    top: int
    left: int
    is_flipped_vertically: bool
    is_flipped_horizontally: bool


class MemberViews(NamedTuple):
    """The views of a square that a member of an ensemble scores."""

    share: float  # of each view in the mean of all members and views
    side_px: int
    cuts: list[Cut]


class Averaged(nn.Module):
    """Squares -> the scores that `dr.predict` and `submissions.grade` give them, the mean of nets and views."""

    def __init__(self, members: Sequence[Member]):
        """Take the nets of the checkpoints, whose squares are of one size."""
        super().__init__()
        nets = [learner.load_net(member.checkpoint) for member in members]
        self.nets = nn.ModuleList(nets)
        self.task = members[0].checkpoint.task
        self.views = [
            _list_views(member, net.image_px) for member, net in zip(members, nets, strict=True)
        ]
        for number, member in enumerate(members):
            channels = torch.tensor([member.checkpoint.mean, member.checkpoint.std])
            self.register_buffer(f"channels_{number}", channels)

    def forward(self, squares: torch.Tensor, eyes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores, (n, k), of (n, size_px, size_px, 3) uint8 RGB, lookup tables applied; eyes, see Head."""
        total = torch.zeros(())
        for number, (net, views) in enumerate(zip(self.nets, self.views, strict=True)):
            mean, std = self.get_buffer(f"channels_{number}")
            images = ((squares.float() - mean) / std).permute(0, 3, 1, 2)
            for cut in views.cuts:
                view = images[
                    :, :, cut.top : cut.top + views.side_px, cut.left : cut.left + views.side_px
                ]
                axes = []
                if cut.is_flipped_vertically:
                    axes.append(2)
                if cut.is_flipped_horizontally:
                    axes.append(3)
                if axes:
                    view = view.flip(axes)
                total = total + views.share * self.task.score_logits(net(view, eyes=eyes))
        return total


def _list_views(member: Member, side_px: int) -> MemberViews:
    """Return the views that a member scores, the same of each square."""
    settings = member.checkpoint.settings
    margin_px = member.checkpoint.making.size_px - side_px
    cuts = []
    for view in range(member.n_views):
        crop = cut_view(view, 1, margin_px, settings.seed, settings.flips)
        cut = Cut(
            top=int(crop.top[0]),
            left=int(crop.left[0]),
            is_flipped_vertically=bool(crop.is_flipped_vertically[0]),
            is_flipped_horizontally=bool(crop.is_flipped_horizontally[0]),
        )
        cuts.append(cut)
    return MemberViews(share=member.share / member.n_views, side_px=side_px, cuts=cuts)
