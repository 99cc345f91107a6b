"""A checkpoint: a typed record of a net after an epoch, written to one file and read and checked here alone."""

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
from dr.training.settings import Settings, are_possible
from preprocess.dataset.question import Question
from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten
from preprocess.picture import outline
from preprocess.picture.square import NORMALIZATIONS, Making

if TYPE_CHECKING:
    import torch

MOST_SIZE_PX = 4096  # what preprocess.resize allows; the net's size hangs on it
# What torch.load raises, depending on where a file is torn or what else it is.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, OSError, ValueError),
    *(LookupError, AttributeError, TypeError, ArithmeticError, AssertionError, MemoryError),
)


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
    likeness: dict[str, torch.Tensor]  # what they look like, see dr.training.distribution; {} of too few
    raw: dict[str, torch.Tensor] | None  # the weights that training goes on with, if `net` is their average


def write(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, whole or not at all, and return its digest. The same tensors give the same bytes."""
    import torch

    task, making = checkpoint.task.describe(), checkpoint.making._asdict()
    plain = {"settings": dataclasses.asdict(checkpoint.settings), "task": task, "making": making}
    buffer = io.BytesIO()  # given a path, torch writes its name into the file
    torch.save(vars(checkpoint) | plain, buffer)
    files.write_bytes(path, buffer.getvalue())
    return files.hash_file(path)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint, see `load`. Raises InputError if it is missing, truncated, or no checkpoint of dr.train."""
    content, parts = load(path, "dr.train"), {field.name for field in dataclasses.fields(Checkpoint)}
    if not isinstance(content, dict) or content.keys() != parts or not isinstance(content["settings"], dict):
        raise InputError(f"{path}: not a checkpoint of this version of dr.train; train again")
    kept, known = content["settings"], {field.name: None for field in dataclasses.fields(Settings)}
    differing = [name for name in {**kept, **known} if name not in kept or name not in known]
    if differing:
        differs = f"which differs in {shorten(str(differing[0]))}"
        raise InputError(f"{path}: made by another version of dr.train, {differs}; train again here")
    try:
        question = Question(**content["task"])
        is_sound = question.kind in TASKS and isinstance(question.names, list | tuple) and are_possible(kept)
        if is_sound:
            typed = {
                "settings": Settings(**kept),
                "task": make_task(question),
                "making": Making(**content["making"]),
            }
            made = Checkpoint(**content | typed)
            is_sound = _makes_sense(made)
    except (TypeError, AttributeError):  # a part is of another type altogether
        is_sound = False
    if not is_sound:
        raise InputError(f"{path}: a checkpoint of dr.train whose content makes no sense; train again")
    return made


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
        raise InputError(f"{path}: not a checkpoint of {made_by}, or a damaged one; make it again") from None


def _makes_sense(of: Checkpoint) -> bool:
    """Tell whether the parts of a checkpoint have possible values, those that decide how a net is built above all."""
    import torch

    tensors = [*of.net.values(), *(of.raw or {}).values()]
    for state in of.optimizer.values():
        tensors += state.values()
    crop_px, size_px, names = of.settings.crop_px, of.making.size_px, of.task.names
    counts_are_whole = all(type(count) is int for count in (of.epoch, of.n_images, crop_px, size_px))  # no bool
    return (
        counts_are_whole
        and (crop_px or 0) <= size_px <= MOST_SIZE_PX
        and of.making.crop in outline.METHODS
        and of.making.normalize in NORMALIZATIONS
        and len(names) > 0
        and all(isinstance(name, str) for name in names)
        and _are_numbers(of.mean, 3)
        and _are_numbers(of.std, 3)
        and min(of.std) > 0
        and _are_numbers(of.prior, len(names))
        and all(isinstance(part, torch.Tensor) for part in tensors)
        and all(isinstance(value, int | float) for value in of.scaler.values())
        and (not of.likeness or _is_likeness(**of.likeness))
    )


def _are_numbers(values: object, n: int) -> bool:
    """Tell whether something is a list of n finite floats."""
    if not isinstance(values, list) or len(values) != n:
        return False
    return all(isinstance(value, float) and math.isfinite(value) for value in values)


def _is_likeness(known: torch.Tensor, scale: torch.Tensor) -> bool:
    """Tell whether they are some descriptions and the scale of their parts, finite numbers."""
    fits = known.ndim == 2 and scale.shape == known.shape[1:]
    return fits and bool(known.isfinite().all() and scale.isfinite().all() and (scale > 0).all())
