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

from dr.training.settings import Settings, are_possible
from preprocess.cache import files
from preprocess.cache.errors import InputError, shorten
from preprocess.picture import outline
from preprocess.picture.square import NORMALIZATIONS, Making
from preprocess.samples.layout import Task

if TYPE_CHECKING:
    import torch

TASK_KINDS = ("levels", "classes", "findings")  # that a net can be trained for
MOST_SIZE_PX = 4096  # what preprocess.resize allows; the net's size hangs on it
# What torch.load raises, depending on where a file is torn or what else it is.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, OSError, ValueError),
    *(LookupError, AttributeError, TypeError, ArithmeticError, AssertionError, MemoryError),
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A net after an epoch, and all that is needed to go on training it or to score any photograph with it.

    settings : with crop_px and precision decided
    task : what the net answers
    making : how its squares are made
    mean, std : of the channels over the squares learned from, RGB, 0-255
    prior : the share of each output among them
    net : its weights, or their average, see Settings.ema
    optimizer : parameter -> what the optimizer keeps of it
    scaler : of float16's gradients, see Learner; None if an older version made it
    n_images : how many it learned from; None if an older version made it, which did not say
    likeness : what they look like, see dr.training.likeness; None if an older version made it, {} if they are too few
    raw : the weights that training goes on with, if `net` is their average
    """

    epoch: int
    settings: Settings
    task: Task
    making: Making
    mean: list[float]
    std: list[float]
    prior: list[float]
    net: dict[str, torch.Tensor]
    optimizer: dict[str, dict[str, torch.Tensor]]
    scaler: dict[str, float] | None = None
    n_images: int | None = None
    likeness: dict[str, torch.Tensor] | None = None
    raw: dict[str, torch.Tensor] | None = None


def write(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, whole or not at all, and return its digest. The same tensors give the same bytes."""
    import torch

    task, making = checkpoint.task._asdict(), checkpoint.making._asdict()
    plain = {"settings": dataclasses.asdict(checkpoint.settings), "task": task, "making": making}
    buffer = io.BytesIO()  # given a path, torch writes its name into the file
    torch.save(vars(checkpoint) | plain, buffer)
    files.write_bytes(path, buffer.getvalue())
    return files.hash_file(path)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint, tensors on the CPU, without running any code that the file may hold.

    Raises InputError if it is missing, truncated, or no checkpoint of dr.train.
    """
    content = load(path, "dr.train")
    fault = _find_fault(content)
    if fault:
        raise InputError(f"{path}: {fault}")
    task = Task(content["task"]["kind"], tuple(content["task"]["names"]))
    typed = {"settings": Settings(**content["settings"]), "task": task, "making": Making(**content["making"])}
    return Checkpoint(**content | typed)


def load(path: Path, made_by: str) -> Any:
    """Return what torch saved in a file, tensors on the CPU, without running any code that it may hold.

    Raises InputError, naming the stage that makes such a file, if it is missing or cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles: they are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; run python -m {made_by} first") from None
    except UNREADABLE:  # torch's own words advise to run what code the file holds
        raise InputError(f"{path}: not a checkpoint of {made_by}, or a damaged one; make it again") from None


def _find_fault(content: Any) -> str | None:
    """Return why what was read is no checkpoint of dr.train that can be used here; None if it is one."""
    fields = dataclasses.fields(Checkpoint)
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    is_ours = isinstance(content, dict) and needed <= content.keys() <= {field.name for field in fields}
    if not is_ours or not isinstance(content["settings"], dict):
        return "not a checkpoint of this version of dr.train; train again"
    kept, known = content["settings"], {field.name for field in dataclasses.fields(Settings)}
    odd = [*(name for name in kept if name not in known), *(name for name in known if name not in kept)]
    if odd:
        return f"made by another version of dr.train, which differs in {shorten(str(odd[0]))}; train again here"
    try:
        is_sound = _makes_sense(**content)
    except (TypeError, KeyError, AttributeError):  # a part is of another type altogether
        is_sound = False
    return None if is_sound else "a checkpoint of dr.train whose content makes no sense; train again"


def _makes_sense(
    epoch, settings, task, making, mean, std, prior, net, optimizer, scaler=None, n_images=1, likeness=None, raw=None
) -> bool:
    """Tell whether the parts of a checkpoint have possible values, those that decide how a net is built above all."""
    import torch

    numbers, kept = [*mean, *std, *prior], [part for parts in optimizer.values() for part in parts.values()]
    return (
        {type(epoch), type(settings["crop_px"]), type(making["size_px"])} == {int}
        and are_possible(settings)
        and all(isinstance(value, int | float) for value in (scaler or {}).values())
        and (n_images is None or type(n_images) is int)
        and (not likeness or _is_likeness(**likeness))
        and settings["crop_px"] <= making["size_px"] <= MOST_SIZE_PX
        and task.keys() == set(Task._fields)
        and task["kind"] in TASK_KINDS
        and isinstance(task["names"], list | tuple)
        and bool(task["names"])
        and all(isinstance(name, str) for name in task["names"])
        and making.keys() == set(Making._fields)
        and making["crop"] in outline.METHODS
        and making["normalize"] in NORMALIZATIONS
        and [type(values) for values in (mean, std, prior)] == [list] * 3
        and [len(mean), len(std), len(prior)] == [3, 3, len(task["names"])]
        and all(isinstance(value, float) and math.isfinite(value) for value in numbers)
        and min(std) > 0
        and all(isinstance(part, torch.Tensor) for part in (*net.values(), *(raw or {}).values(), *kept))
    )


def _is_likeness(known: torch.Tensor, scale: torch.Tensor) -> bool:
    """Tell whether they are some descriptions and the scale of their parts, finite numbers."""
    fits = known.ndim == 2 and scale.shape == known.shape[1:]
    return fits and bool(known.isfinite().all() and scale.isfinite().all() and (scale > 0).all())
