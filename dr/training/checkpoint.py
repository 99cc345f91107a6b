"""A checkpoint: a typed record of a net after an epoch, written to one file and read and checked here alone.

A checkpoint outlives the code that wrote it. Its settings may lack some that were added since: each of these takes its
default, of preprocess/recipes/article.toml, and a new setting's default does what the code did before. So every
checkpoint gives the scores that it gave. A setting that this code does not know is refused: it may change the net.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr.tasks.kinds import TASKS, make_task
from dr.tasks.task import Task
from dr.training.settings import Settings, are_possible, complete
from preprocess.dataset.question import Question
from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten
from preprocess.picture import outline, photograph
from preprocess.picture.square import NORMALIZATIONS, Making

if TYPE_CHECKING:
    import torch

MOST_SIZE_PX = 4096  # what preprocess.resize allows; the net's size hangs on it
UNREADABLE = (  # what torch.load raises, depending on where a file is torn or what else it is
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, OSError, ValueError,
    LookupError, AttributeError, TypeError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
KEYS = {
    "distribution": "likeness"
}  # field of a checkpoint -> its key in the file, where it has another name


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A net after an epoch, and all that is needed to go on training it or to score any photograph with it."""

    epoch: int
    settings: Settings  # with crop_px and precision decided
    task: Task
    making: Making  # how its squares are made
    mean: list[float]  # of the channels over the squares learned from, RGB, 0-255
    std: list[float]
    prior: list[float]  # the share of each output among them
    net: dict[str, torch.Tensor]  # its weights, or their average, see Settings.ema
    optimizer: dict[str, dict[str, torch.Tensor]]  # parameter -> what the optimizer keeps of it
    scaler: dict[str, float]  # of float16's gradients, see Learner
    n_images: int  # how many it learned from
    distribution: dict[
        str, torch.Tensor
    ]  # summary of them, see dr.training.distribution; {} of too few
    raw: (
        dict[str, torch.Tensor] | None
    )  # the weights that training goes on with, if `net` is their average


def write(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, whole or not at all, and return its digest. The same tensors give the same bytes."""
    import torch

    content = {KEYS.get(name, name): value for name, value in vars(checkpoint).items()}
    content["settings"] = dataclasses.asdict(checkpoint.settings)
    content["task"] = checkpoint.task.describe()
    content["making"] = checkpoint.making.describe()
    buffer = io.BytesIO()  # given a path, torch writes its name into the file
    torch.save(content, buffer)
    files.write_bytes(path, buffer.getvalue())
    return files.hash_file(path)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint, see `load`. Raises InputError if it is missing, truncated, or no checkpoint of dr.train."""
    content = load(path, "dr.train")
    keys = {KEYS.get(field.name, field.name) for field in dataclasses.fields(Checkpoint)}
    if (
        not isinstance(content, dict)
        or content.keys() != keys
        or not isinstance(content["settings"], dict)
    ):
        raise InputError(f"{path}: not a checkpoint of this version of dr.train; train again")
    known = {field.name for field in dataclasses.fields(Settings)}
    unknown = [name for name in content["settings"] if name not in known]
    if unknown:
        differs = f"which differs in {shorten(str(unknown[0]))}"
        raise InputError(
            f"{path}: made by another version of dr.train, {differs}; train again here"
        )
    settings = complete(content["settings"])
    content["settings"] = settings
    try:
        checkpoint = _build(content)
        is_sound = are_possible(settings) and _makes_sense(checkpoint)
    except (TypeError, AttributeError):  # a part is of another type altogether
        is_sound = False
    if not is_sound:
        raise InputError(
            f"{path}: a checkpoint of dr.train whose content makes no sense; train again"
        )
    return checkpoint


def _build(content: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint that a file's content describes, its values unchecked."""
    fields = dict(content)
    for name, key in KEYS.items():
        fields[name] = fields.pop(key)
    question = Question(**content["task"])
    if question.kind not in TASKS or not isinstance(question.names, list | tuple):
        raise TypeError(f"no task: {question}")
    fields["settings"] = Settings(**content["settings"])
    fields["task"] = make_task(question)
    fields["making"] = Making(**content["making"])
    return Checkpoint(**fields)


def load(path: Path, made_by: str) -> Any:
    """Return what torch saved in a file, tensors on the CPU, without running any code that it may hold. Raises
    InputError, naming the stage that makes such a file, if it is missing or cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles: they are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; run python -m {made_by} first") from None
    except UNREADABLE:  # torch's own words advise to run what code the file holds
        raise InputError(
            f"{path}: not a checkpoint of {made_by}, or a damaged one; make it again"
        ) from None


def _makes_sense(checkpoint: Checkpoint) -> bool:
    """Tell whether the parts of a checkpoint have possible values, those that decide how a net is built above all."""
    return (
        _are_counts(checkpoint.epoch, checkpoint.n_images)
        and _is_possible_making(checkpoint.making, checkpoint.settings.crop_px)
        and _are_names(checkpoint.task.names)
        and _are_numbers(checkpoint.mean, 3)
        and _are_numbers(checkpoint.std, 3)
        and min(checkpoint.std) > 0
        and _are_numbers(checkpoint.prior, len(checkpoint.task.names))
        and _are_tensors(checkpoint.net)
        and _are_tensors(checkpoint.raw or {})
        and all(_are_tensors(state) for state in checkpoint.optimizer.values())
        and all(isinstance(value, int | float) for value in checkpoint.scaler.values())
        and (not checkpoint.distribution or _is_distribution(**checkpoint.distribution))
    )


def _are_counts(*values: object) -> bool:
    return all(type(value) is int for value in values)  # no bool


def _is_possible_making(making: Making, crop_px: int | None) -> bool:
    """Tell whether crops of `crop_px`, which a checkpoint has decided, can be cut from squares made in this way."""
    if crop_px is None or not _are_counts(crop_px, making.size_px):
        return False
    if making.crop not in outline.METHODS or making.normalize not in NORMALIZATIONS:
        return False
    ranges: tuple[int, ...] = ()
    if isinstance(making.bits, tuple):
        ranges = making.bits
    elif making.bits is not None:
        ranges = (making.bits,)
    if not _are_counts(*ranges) or making.bits == ():
        return False
    if any(bits < 8 or bits > photograph.MOST_BITS for bits in ranges):
        return False
    return crop_px <= making.size_px <= MOST_SIZE_PX


def _are_names(names: tuple[Any, ...]) -> bool:
    return len(names) > 0 and all(isinstance(name, str) for name in names)


def _are_tensors(values: dict[str, Any]) -> bool:
    import torch

    return all(isinstance(value, torch.Tensor) for value in values.values())


def _are_numbers(values: object, n: int) -> bool:
    """Tell whether something is a list of n finite floats."""
    if not isinstance(values, list) or len(values) != n:
        return False
    return all(isinstance(value, float) and math.isfinite(value) for value in values)


def _is_distribution(known: torch.Tensor, scale: torch.Tensor) -> bool:
    """Tell whether they are the features of some squares and the scale of each feature, finite numbers."""
    if known.ndim != 2 or scale.shape != known.shape[1:]:
        return False
    are_finite = known.isfinite().all() and scale.isfinite().all()
    return bool(are_finite and (scale > 0).all())
