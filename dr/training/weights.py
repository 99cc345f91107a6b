"""What a net begins with: the weights of a checkpoint, of a file of timm or torchvision, or of timm's hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dr.nets import catalog
from dr.nets.net import Net
from dr.nets.pretrained import Pretrained
from dr.training import checkpoint
from preprocess.cache import stage
from preprocess.cache.errors import InputError, shorten

HEADS = ("fc", "classifier", "head", "heads", "last_linear", "AuxLogits", "aux1", "aux2")  # of timm and torchvision
WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which training scripts keep weights
MADE_BY = "dr.train, timm or torchvision"
SHOWN_NAMES = 3


class Channels(NamedTuple):
    """Mean and standard deviation, (3,) each, 0-255, RGB, of the images that weights are used to."""

    mean: list[float]
    std: list[float]


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
        return Channels(kept.mean, kept.std)
    if any(name.startswith("body.") for name in content) and content.keys() >= set(Channels._fields):  # of dr.export
        channels = Channels(*(content.pop(name).tolist() for name in Channels._fields))
        _take_own(net, content, str(path))
        return channels
    for name in WRAPPERS:
        content = content[name] if isinstance(content.get(name), dict) else content
    return _take_foreign(net, {name.removeprefix("module."): value for name, value in content.items()}, str(path))


def read(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds, name -> tensor, or a checkpoint; no code that it may hold is run.

    Raises InputError for what is neither, and for a damaged file.
    """
    if path.suffix == ".safetensors":
        safetensors, tensors = stage.import_libraries(catalog.REQUIREMENTS, "safetensors", "safetensors.torch")
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
    heads = {name for name in own if name.startswith("head.")}
    needed = [name for name in heads if not name.startswith("head.joint.")]
    if any(name not in given or given[name].shape != own[name].shape for name in needed):
        print(f"dr.train: {named}: its head is another, and left out")
        given = {name: value for name, value in given.items() if not name.startswith("head.")}
    else:
        given = {name: value for name, value in given.items() if name in heads or not name.startswith("head.")}
    kept = {name: own[name] for name in heads if name not in given}
    _load(net, {**kept, **given}, named)


def _take_foreign(net: Net, given: Mapping[str, Any], named: str) -> Channels | None:
    """Load the weights of a body, but not those of a classifier."""
    if not isinstance(net.body, Pretrained):
        _load(net.body, given, named)
        return None
    heads = (*HEADS, *net.body.unused)
    _load(net.body.model, {name: value for name, value in given.items() if name.split(".")[0] not in heads}, named)
    config = catalog.find_config(net.body.name)
    return Channels(*([255.0 * value for value in part] for part in (config.mean, config.std)))


def _load(into: nn.Module, given: Mapping[str, Any], named: str) -> None:
    own = into.state_dict()
    if alien := [name for name, value in given.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(f"{named}: {shorten(str(alien[0]))} is no tensor, so these are not weights")
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    other = [name for name in own if name in given and given[name].shape != own[name].shape]
    unknown = [name for name in given if name not in own]
    for fault, names in (("lacking", missing), ("of another shape", other), ("unknown", unknown)):
        if names:
            shown = shorten(", ".join(names[:SHOWN_NAMES])) + f" and {len(names) - SHOWN_NAMES} more" * (
                len(names) > SHOWN_NAMES
            )
            raise InputError(f"{named}: not weights of this net ({fault}: {shown})")
    into.load_state_dict({**own, **given})
