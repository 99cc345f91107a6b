"""What a trained net depends on beside its squares: the settings, and their command-line options."""

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from preprocess.cache import files
from preprocess.cache.errors import InputError
from preprocess.cache.stage import number, whole
from preprocess.recipes import recipe
from preprocess.samples import readers

ORDINARY = "default"  # what the run without a name is called where runs are named
NETS = ("nine-conv",)  # of dr.nets.net
SCHEDULES = ("drops", "one-cycle", "cosine")
STORAGES = ("auto", "device", "memory", "file")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
DROP_SHARES = (0.6, 0.8, 0.9)  # of the epochs; the article dropped the rate "a few times"
DROP_FACTOR = 0.2  # what a drop multiplies the rate by; the article gives no number
WARM_UP_SHARE = 0.3  # of a one-cycle schedule (Smith and Topin 2019, "Super-convergence"; torch's default)
WARM_UP_FROM = 1 / 25  # of the highest rate; torch's default


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one training run, an option of `dr.train` each, kept in the checkpoint.

    Their defaults stand in preprocess/recipes/article.toml.
    """

    net: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    drop_epochs: list[int] | None
    momentum: float
    nesterov: bool
    weight_decay: float
    dropout: float
    class_weights: str
    label_smoothing: float
    squared_error: float
    clip_norm: float | None
    freeze_epochs: int
    patience: int | None
    crop_px: int | None
    rotation_deg: float
    zoom: float
    jitter: float
    pairs: bool
    start_from: str | None  # digest of a checkpoint
    folds: int
    fold: int
    seed: int
    precision: str

    def find_rate(self, epoch: int, share: float) -> float:
        """Return the learning rate at a `share` (0-1) of an epoch, counted from 1."""

        def fall(progress: float) -> float:  # half a cosine
            return (1 + math.cos(math.pi * progress)) / 2

        if self.schedule == "drops":
            drops = self.drop_epochs
            drops = [round(part * self.epochs) for part in DROP_SHARES] if drops is None else drops
            return self.learning_rate * DROP_FACTOR ** sum(epoch > drop for drop in drops)
        progress = (epoch - 1 + share) / self.epochs
        if self.schedule == "cosine":
            return self.learning_rate * fall(progress)
        if progress < WARM_UP_SHARE:
            return self.learning_rate * (1 - (1 - WARM_UP_FROM) * fall(progress / WARM_UP_SHARE))
        return self.learning_rate * fall((progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting."""
    group = parser.add_argument_group("settings, kept in the checkpoint")

    def add(option: str, kind: Callable, text: str, **more) -> None:
        group.add_argument(option, type=kind, help=text, **more)

    def switch(option: str, text: str) -> None:  # what a recipe turns on can be turned off
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)

    add("--net", str, "which body the net has", choices=NETS)
    add("--epochs", whole(1), "passes over the training set")
    add("--batch-size", whole(2), "images per step, over all devices")
    add("--learning-rate", number(0), "of the first epochs (drops), else the highest")
    add("--schedule", str, "how the learning rate changes", choices=SCHEDULES)
    add("--drop-epochs", whole(1), "epochs after which the rate drops (60, 80 and 90 %% of all)", nargs="+")
    add("--momentum", number(0, 1), "share of the last step that is taken again")
    switch("--nesterov", "take the gradient where momentum leads")
    add("--weight-decay", number(0), "L2 on the weights of convolutions and linear layers")
    add("--dropout", number(0, 0.99), "share of the features dropped before the first linear layer")
    add("--class-weights", str, "balanced: every level counts as much as the others", choices=("none", "balanced"))
    add("--label-smoothing", number(0, 0.99), "share of the target spread over all levels")
    add("--squared-error", number(0), "weight of the squared error of the expected level, added to the log loss: a "
        "level counts as near to its neighbours, which are grades of one disease")  # fmt: skip
    add("--clip-norm", number(0), "longest gradient that is taken as it is")
    add("--freeze-epochs", whole(0), "epochs in which only the head learns, before all does")
    add("--patience", whole(1), "epochs without a better validation log loss after which to stop")
    add("--crop-px", whole(32), "side of the random crops (7/8 of the squares)")
    add("--rotation-deg", number(0, 180), "training images are turned by up to so many degrees to either side")
    add("--zoom", number(1, 4), "training images are enlarged by up to this factor, or reduced by it")
    add("--jitter", number(0, 1), "each channel of a training image is stretched by up to this share, or compressed "
        "by it, and shifted by up to as many standard deviations")  # fmt: skip
    switch("--pairs", "one net for both eyes of a patient: each eye's features correct the other's scores")
    group.add_argument("--start-from", type=Path, metavar="FILE", help="checkpoint whose weights to begin with, like "
                       "CACHE/dr/epochs/0060.pt; for --pairs a single net's will do")  # fmt: skip
    add("--folds", whole(2), "parts that the patients are divided into")
    add("--fold", whole(0), "the part that is held out for validation")
    add("--seed", whole(0), "of weights, order, crops, flips and dropout")
    add("--precision", str, "of the convolutions; auto: bfloat16 where it is fast, else float16 where it is",
        choices=PRECISIONS)  # fmt: skip


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the net is and runs, and change no result."""
    parser.add_argument("--run", type=parse_run, help="name of one of several nets, kept in CACHE/dr/runs/NAME "
                        f"({ORDINARY}: the one in CACHE/dr)")  # fmt: skip
    add_device_option(parser)
    parser.add_argument("--storage", choices=STORAGES, default="auto", help="where the squares lie, as uint8: device, "
                        "memory or a memory-mapped file; auto: the first of them with room")  # fmt: skip


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", type=parse_device, default="auto", help="cuda, mps or cpu; auto: the first of "
                        "them at hand")  # fmt: skip


def parse_device(text: str) -> str:
    """Return the name of a device, if it can be one; only torch knows whether it is at hand."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cuda, cuda:1 (and so on), mps, cpu")
    return text


def parse_run(text: str) -> str | None:
    """Return the name of a run, if it is a plain file name; None for the one that has none."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError("letters, digits, _, - and . only")
    return None if text == ORDINARY else text


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Return all options of `dr.train`, and the settings among them.

    Raises InputError for settings that contradict each other.
    """
    options = recipe.parse(parser, argv, "dr.train", check=_check)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    if options.start_from:
        values["start_from"] = files.hash_file(options.start_from)
    if values["drop_epochs"] is not None:
        values["drop_epochs"] = sorted(values["drop_epochs"])
    return options, Settings(**values)


def _check(options: argparse.Namespace) -> None:
    if options.fold >= options.folds:
        raise InputError(f"--fold {options.fold}: of {options.folds} folds the last is {options.folds - 1}")
    if options.nesterov and options.momentum == 0:
        raise InputError("--nesterov needs a --momentum above 0")
    if options.drop_epochs and options.schedule != "drops":
        raise InputError(f"--drop-epochs has no meaning with --schedule {options.schedule}")
    if options.start_from and not options.start_from.is_file():
        kept = "dr.train keeps its checkpoints in CACHE/dr/epochs"
        raise InputError(f"--start-from {options.start_from}: no such file; {kept}")
    if (options.squared_error or options.pairs) and readers.find_layout(options.data).task.kind == "classes":
        raise InputError("--squared-error and --pairs are for levels of two eyes: classes have no order and no pairs")
