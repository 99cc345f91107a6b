"""What a trained net depends on beside its squares: the settings, and their command-line options."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dr.nets import catalog, weight_files
from preprocess.command import recipe
from preprocess.command.cli import number, whole
from preprocess.dataset import folds
from preprocess.disk.errors import InputError

MOST_HIDDEN = 100_000
ORDINARY = "default"  # what the run without a name is called where runs are named
WEIGHTS = ("none", "imagenet", recipe.DRAWN)  # to begin with, beside a file's
UNCHANGED = {
    "flips": "none",
    "rotation_deg": 0,
    "zoom": [1, 1],
    "shift": 0,
    "brightness": [1, 1],
    "jitter": 0,
}
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
# The options of dr.train as its help groups them.
GROUPS = {
    "model": ("net", "weights", "pairs", "pool", "squeeze", "hidden", "dropout", "drop_path"),
    "data": ("folds", "fold", "seed", "inputs", "mean", "std", "crop_px"),
    "schedule": (
        "epochs",
        "learning_rate",
        "schedule",
        "drop_epochs",
        "warm_up_epochs",
        "plateau_epochs",
        "plateau_factor",
        "least_rate",
        "freeze_epochs",
        "thaw_rate",
        "patience",
        "least_gain",
    ),
    "optimizer": (
        "optimizer",
        "batch_size",
        "accumulate",
        "momentum",
        "nesterov",
        "weight_decay",
        "body_rate",
        "layer_decay",
        "clip_norm",
        "ema",
        "log_loss",
        "squared_error",
        "label_smoothing",
        "class_weights",
        "most_weight",
    ),
    "augmentation": ("flips", "rotation_deg", "zoom", "shift", "brightness", "jitter"),
    "device": ("precision",),
}


def parse_net(text: str) -> str:
    """Return the name of a net, if it can be one; only timm knows all."""
    if not catalog.NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a net")
    return text


def parse_folds(text: str) -> int | str:
    """Return a number of folds, or the word for a fold of each source."""
    if text == folds.BY_SOURCE:
        return text
    return whole(2)(text)


def _option(kind: Callable[[str], Any], text: str, **more: Any) -> Any:
    """Return a setting that is the option of `dr.train` of its name."""
    return dataclasses.field(metadata={"type": kind, "help": text, **more})


def _switch(text: str) -> Any:
    """Return a setting that is an option, and turned off again by --no-NAME."""
    return dataclasses.field(metadata={"action": argparse.BooleanOptionalAction, "help": text})


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one training run, an option of `dr.train` each, kept in the checkpoint.

    Their defaults stand in preprocess/recipes/article.toml; what is in no recipe and not given is None.
    """

    # fmt: off
    net: str = _option(parse_net, f"the body of the net: {catalog.NINE_CONV}, or a model of timm that gives feature "
                       "maps, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224, or patch tokens, such "
                       "as vit_large_patch16_224", metavar="NAME")
    weights: str = _option(str, "initial weights: none (random); imagenet (from timm's hub); drawn (of a net trained "
                           "on drawn eyes, which ./run_all.sh trains first); or a file, whose digest is kept: a "
                           "checkpoint such as CACHE/dr/epochs/0060.pt (for --pairs one of a single-eye net will do), "
                           "or weights of this net, .safetensors, .pth or .bin, as timm, torchvision, Lightning or the "
                           "authors of a foundation model store them; or a folder of the Hugging Face hub, or "
                           f"{weight_files.HUB}OWNER/NAME. Images are then standardized as these weights expect; a "
                           "head of another size is left out", metavar="none|imagenet|drawn|FILE")
    mean: list[float] | None = _option(number(0, 1), "mean of the pixels that --weights were trained on, 0-1, for red, "
                                       "green and blue (default: as stored with the weights, or in timm's record)",
                                       nargs=3, metavar=("R", "G", "B"))
    std: list[float] | None = _option(number(1e-3, 1), "standard deviation of these pixels", nargs=3,
                                      metavar=("R", "G", "B"))
    inputs: str = _option(str, "pixel values given to the net: standardized, or only divided by 255",
                          choices=("standardized", "0-1"))
    pool: str = _option(str, "what a plain transformer passes to the head: the mean of its patch tokens, or its class "
                        "token", choices=("mean", "token"))
    squeeze: int = _option(whole(0, MOST_HIDDEN), "reduce the feature maps to this many by a 1×1 convolution, for a "
                           "head that sees every location instead of the mean over them; 0: do not")
    hidden: int | None = _option(whole(0, MOST_HIDDEN), "units of the hidden layer between features and outputs; 0: no "
                                 "such layer (default: the article's 96 for nine-conv, 0 for other nets)")
    drop_path: float = _option(number(0, 0.99), "maximum stochastic-depth rate (models of timm)")
    epochs: int = _option(whole(1), "passes over the training set")
    batch_size: int = _option(whole(2), "images per step, over all devices together")
    accumulate: int = _option(whole(1), "gradient accumulation: split each batch into this many parts to save memory. "
                              "The step stays the same, but BatchNorm sees one part at a time")
    learning_rate: float = _option(number(0), "the initial learning rate for --schedule drops, the highest one for the "
                                   "other schedules")
    body_rate: float = _option(number(0), "learning rate of the body, as a fraction of the head's")
    layer_decay: float = _option(number(0.01, 1), "learning rate of each layer as a fraction of the next layer's "
                                 "(models of timm); 1: the same for all")
    schedule: str = _option(str, "how the learning rate changes during training",
                            choices=("drops", "one-cycle", "cosine", "plateau", "constant"))
    drop_epochs: list[int] | None = _option(whole(1), "with --schedule drops: epochs after which the rate drops "
                                            "(default: after 60, 80 and 90 %% of all epochs)", nargs="+")
    warm_up_epochs: float = _option(number(0), "with --schedule cosine: number of epochs, or fraction of one, over "
                                    "which the rate first rises")
    plateau_epochs: int = _option(whole(1), "with --schedule plateau: epochs without a better validation log loss "
                                  "after which the rate is lowered")
    plateau_factor: float = _option(number(0, 1), "with --schedule plateau: factor by which the rate is lowered")
    least_rate: float = _option(number(0), "with --schedule plateau: the rate is never lowered below this")
    optimizer: str = _option(str, "sgd, or adamw, for which --momentum is beta1", choices=("sgd", "adamw"))
    momentum: float = _option(number(0, 1), "momentum (AdamW: beta1)")
    nesterov: bool = _switch("use Nesterov momentum")
    weight_decay: float = _option(number(0), "L2 penalty (AdamW: decoupled weight decay) on the weights of "
                                  "convolutions and linear layers")
    dropout: float = _option(number(0, 0.99), "dropout rate before the first linear layer of the head")
    class_weights: str = _option(str, "weights of the loss: balanced gives every level or class the same total weight, "
                                 "and images with a finding the same as images without it; positives (findings only) "
                                 "weights images with a finding by N / N_l", choices=("none", "balanced", "positives"))
    most_weight: float | None = _option(number(0), "upper limit of the weights of --class-weights")
    label_smoothing: float = _option(number(0, 0.99), "fraction of the target that is spread over all levels")
    log_loss: float = _option(number(0), "weight of the log loss; 0: use --squared-error alone")
    squared_error: float = _option(number(0), "weight of the squared error of the expected level, added to the log "
                                   "loss, so that a neighbouring level is a smaller mistake than a distant one")
    clip_norm: float | None = _option(number(0), "clip the gradient norm to this value")
    ema: float = _option(number(0, 0.99999), "decay of the exponential moving average of the weights, which is then "
                         "evaluated and kept; 0: no average")
    freeze_epochs: int = _option(whole(0), "epochs in which only the head is trained, before the whole net is")
    thaw_rate: float | None = _option(number(0), "learning rate once the whole net is trained, after --freeze-epochs; "
                                      "the schedule starts again from this rate")
    patience: int | None = _option(whole(1), "early stopping: end after this many epochs without a better validation "
                                   "log loss. While only the head is trained, go on to the whole net instead, from the "
                                   "best epoch")
    least_gain: float = _option(number(0), "smallest decrease of the validation log loss that counts as better")
    crop_px: int | None = _option(whole(32), "side of the random crops in pixels (default: 7/8 of the squares)")
    flips: str = _option(str, "flips that are applied, each with probability 0.5, to training images and to the views "
                         "that prediction averages", choices=("both", "horizontal", "none"))
    rotation_deg: float = _option(number(0, 180), "rotate training images by up to this many degrees either way")
    zoom: list[float] = _option(number(0.25, 4), "zoom training images by a factor between LOW and HIGH; below 1 they "
                                "become smaller", nargs=2, metavar=("LOW", "HIGH"))
    shift: float = _option(number(0, 0.5), "shift training images by up to this fraction of their side; their edge is "
                           "repeated")
    brightness: list[float] = _option(number(0, 4), "multiply the pixels of training images by a factor between LOW "
                                      "and HIGH, before normalization", nargs=2, metavar=("LOW", "HIGH"))
    jitter: float = _option(number(0, 1), "color jitter: scale each channel of training images by up to this fraction, "
                            "and shift it by up to this many standard deviations")
    pairs: bool = _switch("one net for both eyes of a patient: the features of each eye correct the other's scores")
    folds: int | str = _option(parse_folds, "number of parts that the patients are divided into; source: one part per "
                               "source of a joined data set, see preprocess.join", metavar="N|source")
    fold: int = _option(whole(0), "which part is held out for validation, counted from 0")
    seed: int = _option(whole(0), "random seed of initial weights, order, crops, flips and dropout")
    precision: str = _option(str, "number format of the convolutions; auto: bfloat16 where it is fast, else float16 "
                             "where that is fast, else float32", choices=PRECISIONS)
    # fmt: on


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting, and `--features`, each to its group of GROUPS."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for title, names in GROUPS.items():
        group = find_group(parser, title)
        for name in names:
            group.add_argument(f"--{name.replace('_', '-')}", **fields[name].metadata)
    find_group(parser, "data").add_argument("--features", choices=("none", "file"), help="file: compute the feature "
                        "maps of each image once and keep them in CACHE/dr/features. Possible if the body is never "
                        "trained and no augmentation changes the images; the result is the same")  # fmt: skip


def find_group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Return the group of options with this title; it is made if there is none yet."""
    for group in parser._action_groups:
        if group.title == title:
            return group
    return parser.add_argument_group(title)


def are_possible(kept: Mapping[str, Any]) -> bool:
    """Tell whether settings, all of them, have values that their options could have given them."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    actions = {action.dest: action for action in parser._actions}
    for field in dataclasses.fields(Settings):
        value = kept[field.name]
        is_optional = type(None) in typing.get_args(field.type)
        if value is None and is_optional:
            continue
        try:
            taken = recipe.take(actions[field.name], value)
        except (argparse.ArgumentTypeError, ValueError):
            return False
        if taken != value:
            return False
    return True


def complete(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that were kept before some of today's existed: those that lack take the article's defaults.

    So a new setting's default must do what the code did before there was one.
    """
    defaults = recipe.read_chain(recipe.BASE)[0].sections["dr.train"]
    completed = {field.name: defaults.get(field.name) for field in dataclasses.fields(Settings)}
    return completed | dict(kept)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the net is and runs, and change no result."""
    parser.add_argument("--run", type=parse_run, help="name of the run, to keep several nets side by side: it lies in "
                        f"CACHE/dr/runs/NAME ({ORDINARY}: the one in CACHE/dr)")  # fmt: skip
    add_device_option(parser)
    find_group(parser, "device").add_argument(
                        "--storage", choices=("auto", "device", "memory", "squares", "file"), default="auto",
                        help="where the squares are kept, as uint8: on the device, in memory, in a memory-mapped file "
                        "that runs share, or only as PNG in CACHE/resize, decoded for each batch; auto: the first of "
                        "device and memory with room, else PNG for a processor, a file for a GPU if the disk has "
                        "room")  # fmt: skip


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    find_group(parser, "device").add_argument("--device", type=parse_device, default="auto", help="cuda, mps or cpu; "
                        "auto: the first that is available")  # fmt: skip


def parse_device(text: str) -> str:
    """Return the name of a device, if it can be one; only torch knows whether it is at hand."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of auto, cuda, cuda:1 (and so on), mps, cpu"
        )
    return text


def parse_run(text: str) -> str | None:
    """Return the name of a run, if it is a plain file name; None for the one that has none."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", text):
        raise argparse.ArgumentTypeError("letters, digits, _, - and . only")
    return None if text == ORDINARY else text


def parse_run_anywhere(text: str) -> str | None:
    """Return the name of a run, likewise, or the path of a folder, which has a slash."""
    if "/" not in text:
        return parse_run(text)
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return text


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, Settings]:
    """Return all options of `dr.train`, and the settings among them.

    Raises InputError for settings that contradict each other.
    """
    options = recipe.parse(parser, argv, "dr.train", check=_check)
    if options.weights == recipe.DRAWN:
        options.weights = str(weight_files.locate_drawn(options.cache))
    wanted = collect(options)
    if options.weights not in WEIGHTS:
        wanted = dataclasses.replace(wanted, weights=weight_files.locate(options.weights).digest)
    return options, wanted


def collect(options: argparse.Namespace) -> Settings:
    """Return the settings among the options of `dr.train`; a file of weights by its path."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    if options.drop_epochs is not None:
        values["drop_epochs"] = sorted(options.drop_epochs)
    return Settings(**values)


def _check(of: argparse.Namespace) -> None:  # noqa: C901  one branch per contradiction
    """Raise InputError for settings that contradict each other."""
    n_thawed = of.epochs - of.freeze_epochs  # epochs in which the whole net learns
    if of.features == "file":
        _check_features_never_change(of)
    if of.accumulate > 1 and (of.pairs or of.accumulate > of.batch_size // 2):
        raise InputError(
            "--accumulate: at least 2 images in a part, and no --pairs, which would be torn apart"
        )
    if of.drop_epochs and of.schedule != "drops":
        raise InputError(f"--drop-epochs has no meaning with --schedule {of.schedule}")
    if of.thaw_rate is not None and (of.freeze_epochs == 0 or n_thawed <= 0):
        raise InputError("--thaw-rate needs --freeze-epochs, and fewer than --epochs")
    if of.warm_up_epochs:
        n_scheduled = of.epochs if of.thaw_rate is None else min(of.freeze_epochs, n_thawed)
        if of.schedule != "cosine" or of.warm_up_epochs >= n_scheduled:
            raise InputError(
                f"--warm-up-epochs: of --schedule cosine, and fewer than its {n_scheduled} epochs"
            )
    if of.folds != folds.BY_SOURCE and of.fold >= of.folds:
        raise InputError(f"--fold {of.fold}: of {of.folds} folds the last is {of.folds - 1}")
    if of.nesterov and of.momentum == 0:
        raise InputError("--nesterov needs a --momentum above 0")
    for name in ("zoom", "brightness"):
        low, high = getattr(of, name)
        if low > high:
            raise InputError(f"--{name}: the lower bound comes first")
    if of.optimizer == "adamw" and (of.nesterov or of.momentum == 1):
        raise InputError("--optimizer adamw: knows no --nesterov, and its --momentum is below 1")
    if of.log_loss == 0 and of.squared_error == 0:
        raise InputError("--log-loss 0 needs a --squared-error above 0")
    if (of.mean is None) != (of.std is None):
        raise InputError("--mean and --std: give both")
    if of.mean is not None and of.inputs != "standardized":
        raise InputError(f"--mean: has no meaning with --inputs {of.inputs}")
    if of.pool == "token" and of.squeeze:
        raise InputError(
            "--pool token: with --squeeze the head looks at every place, and nothing is pooled"
        )
    if of.layer_decay != 1 and of.net == catalog.NINE_CONV:
        raise InputError(f"--layer-decay: is for nets of timm, not for {catalog.NINE_CONV}")
    if of.weights not in WEIGHTS:
        weight_files.locate(of.weights)
    catalog.check(of.net, of.drop_path, of.pool)
    if of.weights == "imagenet":
        catalog.find_source(of.net)


def _check_features_never_change(of: argparse.Namespace) -> None:
    """Raise InputError for `--features file` where the body learns, or sees an image differently in each epoch."""
    changing = [name for name, value in UNCHANGED.items() if getattr(of, name) != value]
    if of.freeze_epochs < of.epochs:
        changing.append("freeze_epochs")
    if changing:
        option = f"--{changing[0].replace('_', '-')}"
        raise InputError(
            f"--features file: what the body makes of an image differs from epoch to epoch ({option})"
        )
