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

HEADS = ("fc", "classifier", "head", "heads", "last_linear", "AuxLogits", "aux1", "aux2")  # of timm and torchvision
WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which training scripts keep weights
MADE_BY = "dr.train, timm or torchvision"
SHOWN_NAMES = 3
CHANNELS = ("mean", "std")  # of the images that weights are used to, (3,) each, 0-255, RGB

Channels = tuple[list[float], list[float]]


def begin(net: Net, source: str | Path) -> Channels | None:
    """Give a net the weights that it begins with, and return what images they are used to; None if it is unknown.

    Raises InputError, naming some tensors, for weights of another net.
    """
    if source == "none":
        return None
    if source == "imagenet":
        assert isinstance(net.body, Pretrained)
        return _take_foreign(net, catalog.download(net.body.name, net.image_px).state_dict(), "--weights imagenet")
    path = Path(source)
    content = read(path)
    if "settings" in content:
        kept = checkpoint.read(path)
        _take_own(net, kept.net, str(path))
        return kept.mean, kept.std
    if any(name.startswith("body.") for name in content) and content.keys() >= {*CHANNELS}:  # of dr.export
        mean, std = (content.pop(name).tolist() for name in CHANNELS)
        _take_own(net, content, str(path))
        return mean, std
    for name in WRAPPERS:
        content = content[name] if isinstance(content.get(name), dict) else content
    return _take_foreign(net, {name.removeprefix("module."): value for name, value in content.items()}, str(path))


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


def _take_own(net: Net, given: Mapping[str, torch.Tensor], named: str) -> None:
    """Load a checkpoint's weights; of its head all or nothing, the correction by the fellow eye aside."""
    own = net.state_dict()
    heads = {name: value for name, value in own.items() if name.startswith("head.")}
    needed = [name for name in heads if not name.startswith("head.joint.")]
    is_another = any(name not in given or given[name].shape != own[name].shape for name in needed)
    if is_another:
        print(f"dr.train: {named}: its head is another, and left out")
    taken = {
        name: value for name, value in given.items()
        if not name.startswith("head.") or (name in heads and not is_another)
    }  # fmt: skip
    load(net, heads | taken, named)


def _take_foreign(net: Net, given: Mapping[str, Any], named: str) -> Channels | None:
    """Load the weights of a body, but not those of a classifier."""
    if not isinstance(net.body, Pretrained):
        load(net.body, given, named)
        return None
    heads = (*HEADS, *net.body.unused)
    load(net.body.model, {name: value for name, value in given.items() if name.split(".")[0] not in heads}, named)
    mean, std = ([255.0 * value for value in getattr(catalog.find_config(net.body.name), name)] for name in CHANNELS)
    return mean, std


def load(into: nn.Module, given: Mapping[str, Any], named: str) -> None:
    """Put weights into a module. Raises InputError, naming some tensors, for those of another one."""
    own = into.state_dict()
    if alien := [name for name, value in given.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(f"{named}: {shorten(str(alien[0]))} is no tensor, so these are not weights")
    faults = {
        "lacking": [name for name in own if name not in given and not name.endswith("num_batches_tracked")],
        "of another shape": [name for name in own if name in given and given[name].shape != own[name].shape],
        "unknown": [name for name in given if name not in own],
    }
    for fault, names in faults.items():
        if names:
            more = f" and {len(names) - SHOWN_NAMES} more" * (len(names) > SHOWN_NAMES)
            shown = shorten(", ".join(names[:SHOWN_NAMES]))
            raise InputError(f"{named}: not weights of this net ({fault}: {shown}{more})")
    into.load_state_dict({**own, **given})
