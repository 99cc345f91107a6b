"""What a net begins with: the weights of a checkpoint, of a file of another's, or of timm's hub."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dr.machine import workers
from dr.nets import catalog, layouts, weight_files
from dr.nets.net import Net
from dr.nets.pretrained import Pretrained
from dr.nets.weight_files import Located
from dr.training import checkpoint
from preprocess.command import process
from preprocess.disk.errors import InputError, shorten

Channels = tuple[list[float], list[float]]  # mean and standard deviation of images, 0-255, RGB

MADE_BY = "dr.train, timm or torchvision"
SHOWN_NAMES = 3
CHANNELS = {
    "mean",
    "std",
}  # of the images that dr.export's weights are used to, (3,) each, 0-255, RGB
# The only class that a file of weights may hold beside tensors and plain values: timm's train.py keeps its options so.
SAFE_CLASSES: list[Any] = [argparse.Namespace]
# Tensors that may be drawn anew: a norm behind the pooling, which begins as one that only centres and scales.
DRAWN_ANEW = {"fc_norm.weight", "fc_norm.bias"}


def begin(net: Net, source: str, are_channels_given: bool = False) -> Channels | None:
    """Give a net the weights that it begins with, and return what images they are used to; None if it is unknown.

    What is left out, drawn anew or assumed is printed, a line each; nothing is assumed of images whose channels are
    given otherwise. Raises InputError, naming some tensors, for weights of another net.
    """
    if source == "none":
        return None
    if source == "imagenet":
        assert isinstance(net.body, Pretrained)
        downloaded = catalog.download(net.body.name, net.image_px)
        title = "--weights imagenet"
        _load_foreign(net, downloaded.state_dict(), title)
        return _find_channels(net.body.name, None, title, is_told=False)
    located = weight_files.locate(str(source))
    title = str(located.file)
    content = read(located.file)
    if "settings" in content:
        kept = checkpoint.read(located.file)
        _load_own(net, kept.net, title)
        return kept.mean, kept.std
    is_exported = content.keys() >= CHANNELS and any(name.startswith("body.") for name in content)
    if is_exported:  # by dr.export
        mean = content.pop("mean").tolist()
        std = content.pop("std").tolist()
        _load_own(net, content, title)
        return mean, std
    if not isinstance(net.body, Pretrained):
        load(net.body, content, title)
        return None
    _check_architecture(net.body.name, located)
    tensors, notes = layouts.unwrap(content)
    for note in notes:
        _say(title, note)
    _load_foreign(net, tensors, title)
    return _find_channels(net.body.name, located, title, is_told=not are_channels_given)


def _say(title: str, note: str) -> None:
    """Print, once for all processes, what became of weights."""
    if workers.rank() == 0:
        print(f"dr.train: {title}: {note}")


def read(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds, name -> tensor, or a checkpoint; no code that it may hold is run."""
    if path.suffix == ".safetensors":
        safetensors, tensors = process.import_libraries(
            catalog.REQUIREMENTS, "safetensors", "safetensors.torch"
        )
        try:
            return tensors.load_file(path)
        except (safetensors.SafetensorError, ValueError, KeyError):
            raise InputError(f"{path}: not a file of safetensors, or a damaged one") from None
    with torch.serialization.safe_globals(SAFE_CLASSES):
        foreign = _list_foreign_classes(path)
        if foreign:
            shown = shorten(", ".join(foreign[:SHOWN_NAMES]))
            raise InputError(
                f"{path}: not opened: it holds more than weights ({shown}), which only its own code could read, or a "
                "damaged one; whoever made it can keep its state_dict alone"
            )
        content = checkpoint.load(path, MADE_BY)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: holds no weights of {MADE_BY}")
    return content


def _list_foreign_classes(path: Path) -> list[str]:
    """Return the names of the classes and functions in a file that torch would not load; none of them is run.

    A file that is no archive of torch's has none that can be listed: `checkpoint.load` refuses it.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (*checkpoint.UNREADABLE, pickle.PickleError):
        return []


def _load_own(net: Net, given: Mapping[str, torch.Tensor], title: str) -> None:
    """Load a checkpoint's weights; of its head all or nothing, the correction by the fellow eye aside."""
    head = {name: value for name, value in net.state_dict().items() if name.startswith("head.")}
    has_head = True
    for name, value in head.items():
        is_correction = name.startswith("head.joint.")
        if not is_correction and (name not in given or given[name].shape != value.shape):
            has_head = False
    if not has_head:
        _say(title, "its head is another, and left out")
    loaded = dict(head)
    for name, value in given.items():
        is_of_head = name.startswith("head.")
        if not is_of_head or (has_head and name in head):
            loaded[name] = value
    load(net, loaded, title)


def _check_architecture(name: str, located: Located) -> None:
    """Raise InputError for weights that lie beside the record of another net."""
    architecture = located.architecture
    if architecture is not None and architecture.partition(".")[0] != name.partition(".")[0]:
        raise InputError(
            f"{located.file}: of {shorten(architecture)} by its config.json, not of --net {name}"
        )


def _load_foreign(net: Net, given: Mapping[str, Any], title: str) -> None:
    """Load the weights of a body, under whatever names these are known, but not those of a classifier."""
    assert isinstance(net.body, Pretrained)
    model = net.body.model
    try:
        fitted = layouts.fit(model, given, net.body.unused)
    except InputError as error:
        raise InputError(f"{title}: {error}") from None
    expected = model.state_dict()
    tensors = dict(fitted.tensors)
    drawn_anew = ["the head"]
    for name in sorted(DRAWN_ANEW & expected.keys()):
        if name not in tensors:
            tensors[name] = expected[name]
            drawn_anew.append(name)
    load(model, tensors, title)
    for note in fitted.notes:
        _say(title, note)
    _say(title, f"drawn anew: {', '.join(drawn_anew)}")


def _find_channels(name: str, located: Located | None, title: str, is_told: bool) -> Channels:
    """Return the mean and deviation of the images that weights are used to: as is written beside them, or timm's.

    If `is_told`, it is printed where the two differ, and where nothing is written.
    """
    config = catalog.find_config(name)
    mean = [float(value) for value in config.mean]
    std = [float(value) for value in config.std]
    timms = f"mean {_show_numbers(mean)}, std {_show_numbers(std)}"
    if located is not None and located.mean is not None and located.std is not None:
        if is_told and (located.mean, located.std) != (mean, std):
            written = f"mean {_show_numbers(located.mean)}, std {_show_numbers(located.std)}"
            _say(
                title,
                f"images are standardized by its config.json, {written}, where timm's record has {timms}",
            )
        mean = located.mean
        std = located.std
    elif is_told:
        note = f"it does not tell its pixels: they are taken for those of timm's {name}, {timms}"
        _say(title, f"{note}; if they were others, give --mean and --std")
    return [255.0 * value for value in mean], [255.0 * value for value in std]


def _show_numbers(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def load(module: nn.Module, given: Mapping[str, Any], title: str) -> None:
    """Put weights into a module. Raises InputError, naming some tensors, for those of another one."""
    expected = module.state_dict()
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{title}: {shorten(str(name))} is no tensor, so these are not weights"
            )
    lacking = [
        name for name in expected if name not in given and not name.endswith("num_batches_tracked")
    ]
    faults = {
        "lacking": lacking,
        "of another shape": [
            name for name in expected if name in given and given[name].shape != expected[name].shape
        ],
        "unknown": [name for name in given if name not in expected],
    }
    for fault, names in faults.items():
        if names:
            shown = shorten(", ".join(names[:SHOWN_NAMES]))
            if len(names) > SHOWN_NAMES:
                shown += f" and {len(names) - SHOWN_NAMES} more"
            raise InputError(f"{title}: not weights of this net ({fault}: {shown})")
    module.load_state_dict({**expected, **given})
