"""What a trained net depends on beside its images: the settings, their command-line options, and named sets of them."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from preprocess import stage
from preprocess.stage import InputError

SCHEDULES = ("drops", "one-cycle", "cosine")
STORAGES = ("auto", "device", "memory", "file")
DROP_SHARES = (0.6, 0.8, 0.9)  # of the epochs; the article dropped the rate "a few times"
NESTEROV_ONE_CYCLE = {"nesterov": True, "schedule": "one-cycle", "learning_rate": 0.05, "weight_decay": 1e-3}
RECIPES = {
    "article": {},
    "nesterov-one-cycle": NESTEROV_ONE_CYCLE,
    "few-photographs": NESTEROV_ONE_CYCLE
    | {"learning_rate": 0.03, "squared_error": 0.5, "local_contrast": True}
    | {"rotation_deg": 180.0, "zoom": 1.15, "jitter": 0.2},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one training run. Every field is an option of `dr.train` and is kept in the checkpoint."""

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 0.02
    schedule: str = "drops"
    drop_epochs: list[int] | None = None
    drop_factor: float = 0.2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    dropout: float = 0.5
    class_weights: str = "none"
    label_smoothing: float = 0.0
    squared_error: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    crop_px: int | None = None
    rotation_deg: float = 0.0
    zoom: float = 1.0
    jitter: float = 0.0
    ready_made: bool = False
    local_contrast: bool = False
    pairs: bool = False
    start_from: str | None = None  # digest of a checkpoint
    folds: int = 7
    fold: int = 0
    seed: int = 0
    precision: str = "auto"

    @property
    def drops(self) -> list[int]:
        """The epochs after which the learning rate drops."""
        if self.drop_epochs is not None:
            return self.drop_epochs
        return [round(share * self.epochs) for share in DROP_SHARES]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting."""
    default = Settings()
    group = parser.add_argument_group("settings, kept in the checkpoint")

    def add(option: str, kind: Callable, text: str, **more) -> None:
        name = option.lstrip("-").replace("-", "_")
        group.add_argument(option, type=kind, default=getattr(default, name), help=text, **more)

    group.add_argument("--recipe", choices=RECIPES, default="article", help="defaults of the options below")
    add("--epochs", whole(1), "passes over the training set")
    add("--batch-size", whole(2), "images per step, over all devices")
    add("--learning-rate", number(0), "of the first epochs (drops), else the highest")
    add("--schedule", str, "how the learning rate changes", choices=SCHEDULES)
    add("--drop-epochs", whole(1), "epochs after which the rate drops (60, 80 and 90 %% of all)", nargs="+")
    add("--drop-factor", number(0, 1), "what a drop multiplies the rate by")
    add("--momentum", number(0, 1), "share of the last step that is taken again")
    switch = argparse.BooleanOptionalAction  # so that what a recipe turns on can be turned off
    group.add_argument("--nesterov", action=switch, default=False, help="take the gradient where momentum leads")
    add("--weight-decay", number(0), "L2 on the weights of convolutions and linear layers")
    add("--dropout", number(0, 0.99), "share of the features dropped before the first linear layer")
    add("--class-weights", str, "balanced: every level counts as much as the others", choices=("none", "balanced"))
    add("--label-smoothing", number(0, 0.99), "share of the target spread over all levels")
    add("--squared-error", number(0), "weight of the squared error of the expected level, added to the log loss: a "
        "level counts as near to its neighbours, which are grades of one disease")  # fmt: skip
    add("--clip-norm", number(0), "longest gradient that is taken as it is")
    add("--patience", whole(1), "epochs without a better validation log loss after which to stop")
    add("--crop-px", whole(32), "side of the random crops (7/8 of the images)")
    add("--rotation-deg", number(0, 180), "training images are turned by up to so many degrees to either side")
    add("--zoom", number(1, 4), "training images are enlarged by up to this factor, or reduced by it")
    add("--jitter", number(0, 1), "each channel of a training image is stretched by up to this share, or compressed "
        "by it, and shifted by up to as many standard deviations")  # fmt: skip
    group.add_argument("--ready-made", action="store_true", help="the photographs in --data are squares, all of one "
                       "size and equalized: train on them as they are, without the preprocess stages")  # fmt: skip
    group.add_argument("--local-contrast", action=switch, default=False, help="give the net each pixel's difference "
                       "from the mean around it instead of the pixel")  # fmt: skip
    group.add_argument("--pairs", action="store_true", help="one net for both eyes of a patient: each eye's features "
                       "correct the other's scores")  # fmt: skip
    group.add_argument("--start-from", type=Path, metavar="FILE", help="checkpoint whose weights to begin with, like "
                       "CACHE/dr/epochs/0060.pt; for --pairs a single net's will do")  # fmt: skip
    add("--folds", whole(2), "parts that the patients are divided into")
    add("--fold", whole(0), "the part that is held out for validation")
    add("--seed", whole(0), "of weights, order, crops, flips and dropout")
    add("--precision", str, "auto: bfloat16 where it is fast", choices=("auto", "float32", "bfloat16"))


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where things are, and change no result."""
    parser.add_argument("--run", type=parse_run, help="name of one of several nets, kept in CACHE/dr/runs/NAME")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first of them at hand")
    parser.add_argument("--storage", choices=STORAGES, default="auto", help="where the squares lie, as uint8: device, "
                        "memory or a memory-mapped file; auto: the first of them with room")  # fmt: skip


def parse_run(text: str) -> str:
    """Return the name of a run, if it is a plain file name."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError("letters, digits, _, - and . only")
    return text


def whole(lowest: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `lowest` on."""

    def parse(text: str) -> int:
        value = int(text)
        if not lowest <= value < 2**63:
            raise argparse.ArgumentTypeError(f"at least {lowest}, and less than 2**63")
        return value

    return parse


def number(lowest: float, highest: float = float("inf")) -> Callable[[str], float]:
    """Return a parser of finite numbers from `lowest` to `highest`."""

    def parse(text: str) -> float:
        value = float(text)
        if not lowest <= value <= highest or value == float("inf"):
            raise argparse.ArgumentTypeError(f"a number from {lowest} to {highest}")
        return value

    return parse


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Return all options, and the settings among them; a recipe's values stand in for the defaults.

    Raises InputError for settings that contradict each other.
    """
    recipe = parser.parse_args(argv).recipe
    parser.set_defaults(**RECIPES[recipe])
    options = parser.parse_args(argv)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    if options.start_from:
        values["start_from"] = hash_start(options.start_from)
    if values["drop_epochs"] is not None:
        values["drop_epochs"] = sorted(values["drop_epochs"])
    settings = Settings(**values)
    check(settings)
    return options, settings


def hash_start(path: Path) -> str:
    """Return the digest of the checkpoint to start from. Raises InputError if there is none."""
    if not path.is_file():
        raise InputError(f"--start-from {path}: no such file; dr.train keeps its checkpoints in CACHE/dr/epochs")
    return stage.hash_file(path)


def check(settings: Settings) -> None:
    """Raise InputError for settings that contradict each other."""
    if settings.fold >= settings.folds:
        raise InputError(f"--fold {settings.fold}: of {settings.folds} folds the last is {settings.folds - 1}")
    if settings.nesterov and settings.momentum == 0:
        raise InputError("--nesterov needs a --momentum above 0")
    if settings.drop_epochs and settings.schedule != "drops":
        raise InputError(f"--drop-epochs has no meaning with --schedule {settings.schedule}")
