"""What a trained net depends on beside its squares: the settings, and their command-line options."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dr.nets import catalog
from preprocess.cache import files
from preprocess.cache.errors import InputError
from preprocess.cache.stage import number, whole
from preprocess.recipes import recipe
from preprocess.samples import readers

MOST_HIDDEN = 100_000
ORDINARY = "default"  # what the run without a name is called where runs are named
WEIGHTS = ("none", "imagenet")  # to begin with, beside a file's
INPUTS = ("standardized", "0-1")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("drops", "one-cycle", "cosine", "plateau", "constant")
CLASS_WEIGHTS = ("none", "balanced", "positives")
FEATURES = ("none", "file")
UNCHANGED = {"flips": "none", "rotation_deg": 0, "zoom": [1, 1], "shift": 0, "brightness": [1, 1], "jitter": 0}
FLIPS = ("both", "horizontal", "none")
STORAGES = ("auto", "device", "memory", "file")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one training run, an option of `dr.train` each, kept in the checkpoint.

    Their defaults stand in preprocess/recipes/article.toml.
    """

    net: str
    weights: str  # none, imagenet, or the digest of a file
    inputs: str
    squeeze: int
    hidden: int | None
    drop_path: float
    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    body_rate: float
    schedule: str
    drop_epochs: list[int] | None
    warm_up_epochs: float
    plateau_epochs: int
    plateau_factor: float
    least_rate: float
    optimizer: str
    momentum: float
    nesterov: bool
    weight_decay: float
    dropout: float
    class_weights: str
    most_weight: float | None
    label_smoothing: float
    log_loss: float
    squared_error: float
    clip_norm: float | None
    ema: float
    freeze_epochs: int
    thaw_rate: float | None
    patience: int | None
    least_gain: float
    crop_px: int | None
    flips: str
    rotation_deg: float
    zoom: list[float]  # from, to
    shift: float
    brightness: list[float]  # from, to
    jitter: float
    pairs: bool
    folds: int
    fold: int
    seed: int
    precision: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting."""
    group = parser.add_argument_group("settings, kept in the checkpoint")

    def add(option: str, kind: Callable, text: str, **more) -> None:
        group.add_argument(option, type=kind, help=text, **more)

    def switch(option: str, text: str) -> None:  # what a recipe turns on can be turned off
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)

    add("--net", parse_net, f"which body the net has: {catalog.NINE_CONV}, or one of timm that gives feature maps, "
        "like resnet50, convnext_tiny, swin_tiny_patch4_window7_224", metavar="NAME")  # fmt: skip
    add("--weights", parse_weights, "what the net begins with: none, random weights; imagenet, what timm's hub has; or "
        "a file: a checkpoint like CACHE/dr/epochs/0060.pt (for --pairs a single net's will do), or timm's or "
        "torchvision's weights of this net, .safetensors or .pth. Images are then standardized as those weights are "
        "used to; a head of another size is left out", metavar="none|imagenet|FILE")  # fmt: skip
    add("--inputs", str, "pixel values as the net has them: standardized, or only divided by 255", choices=INPUTS)
    add("--squeeze", whole(0, MOST_HIDDEN), "maps to which a convolution of 1×1 reduces the body's, for a head that "
        "looks at every place and not at their mean; 0: none")  # fmt: skip
    add("--hidden", whole(0, MOST_HIDDEN), "units of a layer between features and outputs, 0: none (nine-conv: the "
        "article's 96, other nets: 0)")  # fmt: skip
    add("--drop-path", number(0, 0.99), "most that a block of a net of timm is left out of a step, as often")
    add("--epochs", whole(1), "passes over the training set")
    add("--batch-size", whole(2), "images per step, over all devices")
    add("--accumulate", whole(1), "parts in which a device is given its images of a step, one by one, for want "
        "of memory: the same step, but BatchNorm sees a part")  # fmt: skip
    add("--learning-rate", number(0), "of the first epochs (drops), else the highest")
    add("--body-rate", number(0), "the body's learning rate, as a share of the head's")
    add("--schedule", str, "how the learning rate changes", choices=SCHEDULES)
    add("--drop-epochs", whole(1), "epochs after which the rate drops (60, 80 and 90 %% of all)", nargs="+")
    add("--warm-up-epochs", number(0), "epochs, or part of one, in which the rate of a cosine rises")
    add("--plateau-epochs", whole(1), "epochs without a better validation log loss after which a plateau's rate falls")
    add("--plateau-factor", number(0, 1), "what it is multiplied by then")
    add("--least-rate", number(0), "at which a plateau's rate stays")
    add("--optimizer", str, "adamw: steps that each weight's own gradients scale; --momentum is its first beta",
        choices=OPTIMIZERS)  # fmt: skip
    add("--momentum", number(0, 1), "share of the last step that is taken again")
    switch("--nesterov", "take the gradient where momentum leads")
    add("--weight-decay", number(0), "L2 (of adamw: decoupled) on the weights of convolutions and linear layers")
    add("--dropout", number(0, 0.99), "share of the features dropped before the first linear layer")
    add("--class-weights", str, "balanced: every level counts as much as the others, those who have a finding as much "
        "as those who have not; positives, of findings: N / N_l on the images that have it", 
        choices=CLASS_WEIGHTS)  # fmt: skip
    add("--most-weight", number(0), "what a weight by --class-weights is at most")
    add("--label-smoothing", number(0, 0.99), "share of the target spread over all levels")
    add("--log-loss", number(0), "weight of the log loss; 0: --squared-error alone")
    add("--squared-error", number(0), "weight of the squared error of the expected level, added to the log loss: a "
        "level counts as near to its neighbours, which are grades of one disease")  # fmt: skip
    add("--clip-norm", number(0), "longest gradient that is taken as it is")
    add("--ema", number(0, 0.99999), "share that an average of the weights keeps of itself in each step: it is what is "
        "checked and kept; 0: the weights themselves")  # fmt: skip
    add("--freeze-epochs", whole(0), "epochs in which only the head learns, before all does")
    add("--features", str, "file: if only the head ever learns, from images that nothing changes, the body sees each "
        "once, and its maps are kept in CACHE/dr/features; the result is the same", choices=FEATURES)  # fmt: skip
    add("--thaw-rate", number(0), "the learning rate once all learns: then the schedule begins anew, from this rate")
    add("--patience", whole(1), "epochs without a better validation log loss after which to stop; while only the head "
        "learns, to go on to all, in any case from the best epoch")  # fmt: skip
    add("--least-gain", number(0), "by how much the log loss has to be better to count so")
    _add_image_options(add)
    switch("--pairs", "one net for both eyes of a patient: each eye's features correct the other's scores")
    add("--folds", whole(2), "parts that the patients are divided into")
    add("--fold", whole(0), "the part that is held out for validation")
    add("--seed", whole(0), "of weights, order, crops, flips and dropout")
    add("--precision", str, "of the convolutions; auto: bfloat16 where it is fast, else float16 where it is",
        choices=PRECISIONS)  # fmt: skip


def _add_image_options(add: Callable) -> None:
    """Add those that say how images are cut and changed to learn from."""
    add("--crop-px", whole(32), "side of the random crops (7/8 of the squares)")
    add("--flips", str, "which of the flips each training image, and each view of one to score, has as likely as not",
        choices=FLIPS)  # fmt: skip
    add("--rotation-deg", number(0, 180), "training images are turned by up to so many degrees to either side")
    add("--zoom", number(0.25, 4), "training images are enlarged by a factor from LOW to HIGH; below 1: made smaller",
        nargs=2, metavar=("LOW", "HIGH"))  # fmt: skip
    add("--shift", number(0, 0.5), "training images are moved by up to this share of their side, their edge repeated")
    add("--brightness", number(0, 4), "pixel values of training images are multiplied by a factor from LOW to HIGH, "
        "before they are normalized and standardized", nargs=2, metavar=("LOW", "HIGH"))  # fmt: skip
    add("--jitter", number(0, 1), "each channel of a training image is stretched by up to this share, or compressed "
        "by it, and shifted by up to as many standard deviations")  # fmt: skip


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


def parse_net(text: str) -> str:
    """Return the name of a net, if it can be one; only timm knows all."""
    if not catalog.NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a net")
    return text


def parse_weights(text: str) -> str | Path:
    """Return none, imagenet, or the path of a file."""
    return text if text in WEIGHTS else Path(text)


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
    if isinstance(options.weights, Path):
        values["weights"] = files.hash_file(options.weights)
    if values["drop_epochs"] is not None:
        values["drop_epochs"] = sorted(values["drop_epochs"])
    return options, Settings(**values)


def _check_schedule(options: argparse.Namespace) -> None:
    if options.accumulate > 1 and (options.pairs or options.accumulate > options.batch_size // 2):
        raise InputError("--accumulate: at least 2 images in a part, and no --pairs, which would be torn apart")
    if options.drop_epochs and options.schedule != "drops":
        raise InputError(f"--drop-epochs has no meaning with --schedule {options.schedule}")
    n_thawed, has_thaw_rate = options.epochs - options.freeze_epochs, options.thaw_rate is not None
    if has_thaw_rate and (not options.freeze_epochs or n_thawed <= 0):
        raise InputError("--thaw-rate needs --freeze-epochs, and fewer than --epochs")
    n_scheduled = min(options.freeze_epochs, n_thawed) if has_thaw_rate else options.epochs
    if options.warm_up_epochs and (options.schedule != "cosine" or options.warm_up_epochs >= n_scheduled):
        raise InputError(f"--warm-up-epochs: of --schedule cosine, and fewer than its {n_scheduled} epochs")


def _check(options: argparse.Namespace) -> None:
    changing = [f"--{name.replace('_', '-')}" for name, value in UNCHANGED.items() if getattr(options, name) != value]
    changing += ["--freeze-epochs"] * (options.freeze_epochs < options.epochs)
    if options.features == "file" and changing:
        raise InputError(
            f"--features file: what the body makes of an image differs from epoch to epoch ({changing[0]})"
        )
    _check_schedule(options)
    if options.fold >= options.folds:
        raise InputError(f"--fold {options.fold}: of {options.folds} folds the last is {options.folds - 1}")
    if options.nesterov and options.momentum == 0:
        raise InputError("--nesterov needs a --momentum above 0")
    for name in ("zoom", "brightness"):
        if getattr(options, name)[0] > getattr(options, name)[1]:
            raise InputError(f"--{name}: the lower bound comes first")
    if options.optimizer == "adamw" and (options.nesterov or options.momentum == 1):
        raise InputError("--optimizer adamw: knows no --nesterov, and its --momentum is below 1")
    if not options.log_loss + options.squared_error:
        raise InputError("--log-loss 0 needs a --squared-error above 0")
    if isinstance(options.weights, Path) and not options.weights.is_file():
        kept = "dr.train keeps its checkpoints in CACHE/dr/epochs"
        raise InputError(f"--weights {options.weights}: no such file; {kept}")
    kind = readers.find_layout(options.data).task.kind
    if (options.squared_error or options.pairs) and kind != "levels":
        raise InputError(f"--squared-error and --pairs are for levels of two eyes: {kind} have no order and no pairs")
    catalog.check(options.net, options.drop_path)
    if options.weights == "imagenet":
        catalog.find_source(options.net)
