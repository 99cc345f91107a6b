"""What a net begins with: the weights of a checkpoint, of a file of timm or torchvision, or of timm's hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dr.nets import catalog
from dr.nets.net import Net
from dr.nets.pretrained import Pretrained
from dr.training import checkpoint
from preprocess.command import process
from preprocess.disk.errors import InputError, shorten

Channels = tuple[list[float], list[float]]  # mean and standard deviation of images, 0-255, RGB

HEADS = ("fc", "classifier", "head", "heads", "last_linear", "AuxLogits", "aux1", "aux2")  # of timm and torchvision
WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which training scripts keep weights
MADE_BY = "dr.train, timm or torchvision"
SHOWN_NAMES = 3
CHANNELS = {"mean", "std"}  # of the images that dr.export's weights are used to, (3,) each, 0-255, RGB


def begin(net: Net, source: str | Path) -> Channels | None:
    """Give a net the weights that it begins with, and return what images they are used to; None if it is unknown.

    Raises InputError, naming some tensors, for weights of another net.
    """
    if source == "none":
        return None
    if source == "imagenet":
        assert isinstance(net.body, Pretrained)
        downloaded = catalog.download(net.body.name, net.image_px)
        return _load_foreign(net, downloaded.state_dict(), "--weights imagenet")
    path = Path(source)
    content = read(path)
    if "settings" in content:
        kept = checkpoint.read(path)
        _load_own(net, kept.net, str(path))
        return kept.mean, kept.std
    is_exported = content.keys() >= CHANNELS and any(name.startswith("body.") for name in content)
    if is_exported:  # by dr.export
        mean = content.pop("mean").tolist()
        std = content.pop("std").tolist()
        _load_own(net, content, str(path))
        return mean, std
    for name in WRAPPERS:
        if isinstance(content.get(name), dict):
            content = content[name]
    unwrapped = {name.removeprefix("module."): value for name, value in content.items()}
    return _load_foreign(net, unwrapped, str(path))


def read(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds, name -> tensor, or a checkpoint; no code that it may hold is run."""
    if path.suffix == ".safetensors":
        safetensors, tensors = process.import_libraries(catalog.REQUIREMENTS, "safetensors", "safetensors.torch")
        try:
            return tensors.load_file(path)
        except (safetensors.SafetensorError, ValueError, KeyError):
            raise InputError(f"{path}: not a file of safetensors, or a damaged one") from None
    content = checkpoint.load(path, MADE_BY)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: holds no weights of {MADE_BY}")
    return content


def _load_own(net: Net, given: Mapping[str, torch.Tensor], title: str) -> None:
    """Load a checkpoint's weights; of its head all or nothing, the correction by the fellow eye aside."""
    head = {name: value for name, value in net.state_dict().items() if name.startswith("head.")}
    has_head = True
    for name, value in head.items():
        is_correction = name.startswith("head.joint.")
        if not is_correction and (name not in given or given[name].shape != value.shape):
            has_head = False
    if not has_head:
        print(f"dr.train: {title}: its head is another, and left out")
    loaded = dict(head)
    for name, value in given.items():
        is_of_head = name.startswith("head.")
        if not is_of_head or (has_head and name in head):
            loaded[name] = value
    load(net, loaded, title)


def _load_foreign(net: Net, given: Mapping[str, Any], title: str) -> Channels | None:
    """Load the weights of a body, but not those of a classifier."""
    if not isinstance(net.body, Pretrained):
        load(net.body, given, title)
        return None
    heads = {*HEADS, *net.body.unused}
    load(net.body.model, {name: value for name, value in given.items() if name.split(".")[0] not in heads}, title)
    config = catalog.find_config(net.body.name)
    return [255.0 * value for value in config.mean], [255.0 * value for value in config.std]


def load(module: nn.Module, given: Mapping[str, Any], title: str) -> None:
    """Put weights into a module. Raises InputError, naming some tensors, for those of another one."""
    expected = module.state_dict()
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{title}: {shorten(str(name))} is no tensor, so these are not weights")
    lacking = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    faults = {
        "lacking": lacking,
        "of another shape": [name for name in expected if name in given and given[name].shape != expected[name].shape],
        "unknown": [name for name in given if name not in expected],
    }
    for fault, names in faults.items():
        if names:
            shown = shorten(", ".join(names[:SHOWN_NAMES]))
            if len(names) > SHOWN_NAMES:
                shown += f" and {len(names) - SHOWN_NAMES} more"
            raise InputError(f"{title}: not weights of this net ({fault}: {shown})")
    module.load_state_dict({**expected, **given})
