"""The one way in which a net scores views of squares, for training's own checks, prediction and grading alike."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dr.machine import device, workers
from dr.nets.net import Net
from dr.squares import batches, crops, draws, store
from dr.squares.batches import Batch
from dr.squares.crops import Crops
from dr.squares.source import CachedSquares
from dr.squares.store import Maps, Squares
from dr.tasks.task import Task
from dr.training import learner, runs
from dr.training.checkpoint import Checkpoint
from dr.training.runs import Member, Trained
from preprocess.command import progress
from preprocess.command.progress import Bar


class Scored(NamedTuple):
    """The scores of a batch by the net of an epoch, (n_views, n, k), and the positions of its images."""

    epoch: int
    positions: np.ndarray
    scores: np.ndarray


def score_epochs(
    options: argparse.Namespace,
    trained: Trained,
    cached: CachedSquares,
    due: Mapping[int, Sequence[Batch]],
    file: Path,
) -> Iterator[Scored]:
    """Yield the scores of the batches of squares that are due of each epoch, as they come.

    Only the squares of these batches are read. Pixels for which the memory has no room go to `file`.
    """
    on = device.choose_device(options.device)
    device.prepare(on)
    epochs = list(due)
    newest = runs.read_checkpoint(trained, epochs[-1])  # all epochs of a run have its mean and std
    rows = np.unique(
        [row for planned in due.values() for batch in planned for row in batch.positions]
    )
    chosen = cached
    if len(rows) < len(cached.paths):
        chosen = cached.select(rows)
    squares = store.load(chosen, newest.mean, newest.std, on, options.storage, file)
    for epoch in epochs:
        checkpoint = runs.read_checkpoint(trained, epoch)
        n_images = sum(len(batch.positions) for batch in due[epoch])
        is_shown = workers.rank() == 0
        with progress.tracking(options.views * n_images, f"epoch {epoch}", is_shown) as bar:
            net = put_net(checkpoint, on)
            for batch in due[epoch]:
                chosen_batch = batch._replace(positions=np.searchsorted(rows, batch.positions))
                scores = _score_batch_views(
                    net, checkpoint, squares, options.views, chosen_batch, bar
                )
                yield Scored(epoch, batch.positions, scores)


def _score_batch_views(
    net: Net, checkpoint: Checkpoint, squares: Squares, n_views: int, batch: Batch, bar: Bar
) -> np.ndarray:
    """Return the scores of each view of a batch, (n_views, n, k)."""
    settings = checkpoint.settings
    margin_px = squares.size_px - net.image_px
    scores = []
    for view in range(n_views):
        view_scores = score_batches(
            net,
            squares,
            planned=[batch],
            cuts=cut_view(view, len(squares), margin_px, settings.seed, settings.flips),
            precision=settings.precision,
            bar=bar,
            task=checkpoint.task,
        )
        scores.append(view_scores)
    return np.stack(scores)


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


def score(
    net: Net, squares: Squares | Maps, positions: np.ndarray, cuts: Crops, precision: str, batch_size: int, bar: Bar,
    task: Task,
) -> np.ndarray:  # fmt: skip
    """Return the probabilities of the outputs for the squares at `positions`, (n, k) float64; move the bar on."""
    ordered = batches.order_groups(positions, squares.eyes)
    whole = batches.split_by_group(ordered, squares.eyes, batch_size)
    planned = [Batch(batch, len(batch)) for batch in whole]
    scores = score_batches(net, squares, planned, cuts, precision, bar, task)
    order = np.argsort(squares.eyes[positions] // 2, kind="stable")
    return scores[np.argsort(order)]


@device.naming_memory()
def score_batches(
    net: Net, squares: Squares | Maps, planned: Sequence[Batch], cuts: Crops, precision: str, bar: Bar, task: Task,
) -> np.ndarray:  # fmt: skip
    """Return the probabilities for the squares of batches, one batch after the other, (n, k) float64."""
    on = next(net.parameters()).device
    scores = []
    net.eval()
    positions = [batch.fill() for batch in planned]
    with torch.inference_mode():
        image_batches = batches.iterate_batches(squares, positions, cuts, net.image_px, on)
        for batch, (_, images) in zip(planned, image_batches, strict=True):
            eyes = torch.from_numpy(batch.find_eyes(squares.eyes)).to(on)
            with device.autocast(on, find_precision(precision, on)):
                logits = net(images, eyes=eyes)
            wanted = logits[: len(batch.positions)]
            scores.append(task.score_logits(wanted.cpu().double()).numpy())
            bar.update(len(batch.positions))
    return np.concatenate(scores)


def find_precision(precision: str, on: torch.device) -> str:
    """Return the precision in which a device scores: float32, as exact and many times faster, if it is not native."""
    return precision if device.is_native(precision, on) else "float32"


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
