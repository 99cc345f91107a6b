"""The files of a trained net: CACHE/dr/epochs/0001.pt (weights, momentum, settings) and 0001.json, its figures."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr.settings import Settings
from preprocess import stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    from dr.model import NineConvNet

NEEDED_SETTINGS = {"crop_px": (int,), "dropout": (float, int), "ready_made": (bool,), "seed": (int,)}
LEAST_CROP_PX, MOST_CROP_PX = 32, 4096  # what dr.train and preprocess.resize allow; the net's size hangs on it
# What torch.load raises, depending on where a file is torn or what else it is.
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, OSError, ValueError),
    *(LookupError, AttributeError, TypeError, ArithmeticError, AssertionError, MemoryError),
)
# The last two tell how the squares were made: their side, and how the eyes were found, None if they were ready-made.
KEYS = {"epoch", "settings", "net", "momentum", "prior", "mean", "std", "size_px", "crop_method"}


def folder_of(cache: Path, run: str | None) -> Path:
    """Return the folder of a run's files: CACHE/dr, or CACHE/dr/runs/NAME for a named one."""
    return cache / "dr" / "runs" / run if run else cache / "dr"


def path_of(folder: Path, epoch: int, suffix: str) -> Path:
    """Return the path of an epoch's checkpoint (.pt) or figures (.json)."""
    return folder / f"{epoch:04}{suffix}"


def write(path: Path, content: Mapping[str, Any]) -> str:
    """Write a checkpoint, whole or not at all, and return its digest. The same tensors give the same bytes."""
    import torch

    buffer = io.BytesIO()  # given a path, torch writes its name into the file
    torch.save(dict(content), buffer)
    stage.write_bytes(path, buffer.getvalue())
    return stage.hash_file(path)


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, tensors on the CPU, without running any code that it may hold.

    Raises InputError if it is missing, truncated, or no checkpoint of this net.
    """
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles: they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; run python -m dr.train first") from None
    except UNREADABLE:  # torch's own words advise to run what code the file holds
        raise InputError(f"{path}: not a checkpoint of dr.train, or a damaged one; train again") from None
    fault = find_fault(content)
    if fault:
        raise InputError(f"{path}: {fault}")
    return content


def find_fault(content: Any) -> str | None:
    """Return why what was read is no checkpoint of dr.train that can be used here; None if it is one."""
    import torch

    from preprocess.crop import METHODS

    if not isinstance(content, dict) or not content.keys() >= KEYS or not isinstance(content["settings"], dict):
        return "not a checkpoint of dr.train"
    kept, known = content["settings"], dataclasses.asdict(Settings())
    unknown = [name for name in kept if name not in known]
    if unknown:
        return f"made by another version of dr.train, with a setting {stage.shorten(str(unknown[0]))}; train again here"
    whole = (
        all(name in kept and type(kept[name]) in kinds for name, kinds in NEEDED_SETTINGS.items())
        and LEAST_CROP_PX <= kept["crop_px"] <= MOST_CROP_PX
        and 0 <= kept["dropout"] < 1
        and all(_are_numbers(content[name], length) for name, length in (("prior", 5), ("mean", 3), ("std", 3)))
        and min(content["std"]) > 0
        and isinstance(content["size_px"], int)
        and kept["crop_px"] <= content["size_px"] <= MOST_CROP_PX
        and content["crop_method"] in (None, *METHODS)
        and isinstance(content["net"], dict)
        and isinstance(content["momentum"], list)
        and all(isinstance(part, torch.Tensor) for part in (*content["net"].values(), *content["momentum"]))
    )
    return None if whole else "a checkpoint of dr.train whose content makes no sense; train again"


def _are_numbers(values: Any, length: int) -> bool:
    """Tell whether a value is a list of so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == length
        and all(isinstance(value, float) and math.isfinite(value) for value in values)
    )


def make_net(content: Mapping[str, Any]) -> NineConvNet:
    """Return the net of a checkpoint's content, on the CPU. Raises InputError if the weights are another net's."""
    from dr import model

    settings = content["settings"]
    net = model.make_net(settings["crop_px"], settings["dropout"], settings.get("pairs", False))
    try:
        net.load_state_dict(content["net"])
    except RuntimeError as error:
        raise InputError(f"the checkpoint's weights are not this net's ({_shorten(error)})") from None
    return net


def start_net(net: NineConvNet, path: Path) -> None:
    """Give a net the weights of a checkpoint; the correction of a paired net stays as it is if they have none.

    Raises InputError if the weights are of another net, or of one for other sizes of crops.
    """
    weights = read(path)["net"]
    own = {name: value for name, value in net.state_dict().items() if name.startswith("joint.")}
    try:
        net.load_state_dict(own | weights)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights are not this net's ({_shorten(error)})") from None


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def read_figures(folder: Path) -> list[dict[str, Any]]:
    """Return the figures of the finished epochs 1, 2, ... as far as they go without a gap."""
    figures = []
    while (path := path_of(folder, len(figures) + 1, ".json")).exists():
        try:
            figures.append(json.loads(path.read_text()))
        except ValueError:  # damaged: that epoch and those after it are done again
            break
    return figures


def count_finished(folder: Path) -> int:
    """Return the newest epoch whose checkpoint is whole, 0 if there is none."""
    for figures in reversed(read_figures(folder)):
        path = path_of(folder, figures["epoch"], ".pt")
        if path.exists() and stage.hash_file(path) == figures["checkpoint"]:
            return figures["epoch"]
    return 0


def remove_after(folder: Path, epoch: int) -> None:
    """Remove all files of later epochs, figures first, so that a kill leaves no figures without a checkpoint."""
    for suffix in (".json", ".pt"):
        for path in sorted(folder.glob(f"[0-9]*{suffix}"), reverse=True):
            if path.stem.isdigit() and int(path.stem) > epoch:
                path.unlink()
