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
    net: str = _option(parse_net, f"which body the net has: {catalog.NINE_CONV}, or one of timm that gives feature "
                       "maps, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224, or patch tokens, such "
                       "as vit_large_patch16_224", metavar="NAME")
    weights: str = _option(str, "what the net begins with: none, random weights; imagenet, what timm's hub has; or a "
                           "file, of which the digest is kept: a checkpoint such as CACHE/dr/epochs/0060.pt (for "
                           "--pairs a single net's will do), or weights of this net, .safetensors, .pth or .bin, as "
                           "timm, torchvision, Lightning or a foundation model's authors keep them; or a folder of "
                           f"the Hugging Face hub, or {weight_files.HUB}OWNER/NAME. Images are then standardized as "
                           "those weights are used to; a head of another size is left out",
                           metavar="none|imagenet|FILE")
    mean: list[float] | None = _option(number(0, 1), "mean of the pixels that --weights were trained on, 0-1, red, "
                                       "green and blue (what their file or timm's record of the net says)",
                                       nargs=3, metavar=("R", "G", "B"))
    std: list[float] | None = _option(number(1e-3, 1), "their standard deviation, likewise", nargs=3,
                                      metavar=("R", "G", "B"))
    inputs: str = _option(str, "pixel values as the net has them: standardized, or only divided by 255",
                          choices=("standardized", "0-1"))
    pool: str = _option(str, "what the head is given of a plain transformer: the mean of its patch tokens, or its "
                        "class token", choices=("mean", "token"))
    squeeze: int = _option(whole(0, MOST_HIDDEN), "maps to which a convolution of 1×1 reduces the body's, for a head "
                           "that looks at every place and not at their mean; 0: none")
    hidden: int | None = _option(whole(0, MOST_HIDDEN), "units of a layer between features and outputs, 0: none "
                                 "(nine-conv: the article's 96, other nets: 0)")
    drop_path: float = _option(number(0, 0.99), "most that a block of a net of timm is left out of a step, as often")
    epochs: int = _option(whole(1), "passes over the training set")
    batch_size: int = _option(whole(2), "images per step, over all devices")
    accumulate: int = _option(whole(1), "parts in which a device is given its images of a step, one by one, for want "
                              "of memory: the same step, but BatchNorm sees a part")
    learning_rate: float = _option(number(0), "of the first epochs (drops), else the highest")
    body_rate: float = _option(number(0), "the body's learning rate, as a share of the head's")
    layer_decay: float = _option(number(0.01, 1), "how fast a layer of a net of timm learns, as a share of the one "
                                 "behind it; 1: all alike")
    schedule: str = _option(str, "how the learning rate changes",
                            choices=("drops", "one-cycle", "cosine", "plateau", "constant"))
    drop_epochs: list[int] | None = _option(whole(1), "epochs after which the rate drops (60, 80 and 90 %% of all)",
                                            nargs="+")
    warm_up_epochs: float = _option(number(0), "epochs, or part of one, in which the rate of a cosine rises")
    plateau_epochs: int = _option(whole(1), "epochs without a better validation log loss after which a plateau's rate "
                                  "falls")
    plateau_factor: float = _option(number(0, 1), "what it is multiplied by then")
    least_rate: float = _option(number(0), "at which a plateau's rate stays")
    optimizer: str = _option(str, "adamw: steps that each weight's own gradients scale; --momentum is its first beta",
                             choices=("sgd", "adamw"))
    momentum: float = _option(number(0, 1), "share of the last step that is taken again")
    nesterov: bool = _switch("take the gradient where momentum leads")
    weight_decay: float = _option(number(0), "L2 (of adamw: decoupled) on the weights of convolutions and linear "
                                  "layers")
    dropout: float = _option(number(0, 0.99), "share of the features dropped before the first linear layer")
    class_weights: str = _option(str, "balanced: every level counts as much as the others, those who have a finding as "
                                 "much as those who have not; positives, of findings: N / N_l on the images that have "
                                 "it", choices=("none", "balanced", "positives"))
    most_weight: float | None = _option(number(0), "what a weight by --class-weights is at most")
    label_smoothing: float = _option(number(0, 0.99), "share of the target spread over all levels")
    log_loss: float = _option(number(0), "weight of the log loss; 0: --squared-error alone")
    squared_error: float = _option(number(0), "weight of the squared error of the expected level, added to the log "
                                   "loss: a level counts as near to its neighbours, which are grades of one disease")
    clip_norm: float | None = _option(number(0), "longest gradient that is taken as it is")
    ema: float = _option(number(0, 0.99999), "share that an average of the weights keeps of itself in each step: it is "
                         "what is checked and kept; 0: the weights themselves")
    freeze_epochs: int = _option(whole(0), "epochs in which only the head learns, before all does")
    thaw_rate: float | None = _option(number(0), "the learning rate once all learns: then the schedule begins anew, "
                                      "from this rate")
    patience: int | None = _option(whole(1), "epochs without a better validation log loss after which to stop; while "
                                   "only the head learns, to go on to all, in any case from the best epoch")
    least_gain: float = _option(number(0), "by how much the log loss has to be better to count so")
    crop_px: int | None = _option(whole(32), "side of the random crops (7/8 of the squares)")
    flips: str = _option(str, "which of the flips each training image, and each view of one to score, has as likely as "
                         "not", choices=("both", "horizontal", "none"))
    rotation_deg: float = _option(number(0, 180), "training images are turned by up to so many degrees to either side")
    zoom: list[float] = _option(number(0.25, 4), "training images are enlarged by a factor from LOW to HIGH; below 1: "
                                "made smaller", nargs=2, metavar=("LOW", "HIGH"))
    shift: float = _option(number(0, 0.5), "training images are moved by up to this share of their side, their edge "
                           "repeated")
    brightness: list[float] = _option(number(0, 4), "pixel values of training images are multiplied by a factor from "
                                      "LOW to HIGH, before they are normalized and standardized", nargs=2,
                                      metavar=("LOW", "HIGH"))
    jitter: float = _option(number(0, 1), "each channel of a training image is stretched by up to this share, or "
                            "compressed by it, and shifted by up to as many standard deviations")
    pairs: bool = _switch("one net for both eyes of a patient: each eye's features correct the other's scores")
    folds: int | str = _option(parse_folds, "parts that the patients are divided into; source: one of each source of "
                               "a joined set, see preprocess.join", metavar="N|source")
    fold: int = _option(whole(0), "the part that is held out for validation")
    seed: int = _option(whole(0), "of weights, order, crops, flips and dropout")
    precision: str = _option(str, "of the convolutions; auto: bfloat16 where it is fast, else float16 where it is",
                             choices=PRECISIONS)
    # fmt: on


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting, and `--features`."""
    group = parser.add_argument_group("settings, kept in the checkpoint")
    for field in dataclasses.fields(Settings):
        group.add_argument(f"--{field.name.replace('_', '-')}", **field.metadata)
    parser.add_argument("--features", choices=("none", "file"), help="file: if only the head ever learns, from images "
                        "that nothing changes, the body sees each once, and its maps are kept in CACHE/dr/features; "
                        "the result is the same")  # fmt: skip


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
    parser.add_argument("--run", type=parse_run, help="name of one of several nets, kept in CACHE/dr/runs/NAME "
                        f"({ORDINARY}: the one in CACHE/dr)")  # fmt: skip
    add_device_option(parser)
    parser.add_argument("--storage", choices=("auto", "device", "memory", "file"), default="auto", help="where the "
                        "squares lie, as uint8: device, memory or a memory-mapped file; auto: the first of them with "
                        "room")  # fmt: skip


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", type=parse_device, default="auto", help="cuda, mps or cpu; auto: the first of "
                        "them at hand")  # fmt: skip


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
