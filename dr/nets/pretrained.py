"""A body from timm: its convolutions or its windows, without its classifier, which is ours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dr.nets import catalog
from dr.nets.nine_conv import Look
from preprocess.disk.errors import InputError

FINE_STRIDE = 8  # pixels between two places of the maps at which "fine" looks, at most
SAMPLERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # what makes maps smaller


class Pretrained(nn.Module):
    """A net of timm up to its last feature maps: standardized images (n, 3, px, px) -> (n, n_features, h, w).

    Its weights are timm's own random ones, a function of the seed, until others are loaded into `model`.
    """

    def __init__(self, name: str, image_px: int, drop_path: float, seed: int):
        """Make it without what only its own classifier needs. Raises InputError for images too small for it."""
        super().__init__()
        self.name = name
        with torch.random.fork_rng(devices=[]):
            self.grids, self.maps_px, self.unused = _trace(name, image_px)
            torch.manual_seed(seed)
            self.model = catalog.create(name, image_px, drop_path)
        self.n_features = self.grids["last"].n_channels
        for child in self.unused:
            setattr(self.model, child, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps."""
        return _order(self.model.forward_features(images), self.n_features)  # type: ignore[operator]

    def look(self, images: torch.Tensor, layer: str | int) -> Look:
        """Return a forward pass seen at "last", Grad-CAM proper, or "fine", with more places."""
        grid, seen = self.grids[str(layer)], []

        def begin(_module: nn.Module, _given: object, made: torch.Tensor) -> torch.Tensor:
            torch.set_grad_enabled(True)  # from here on, and only here; no_grad's end puts it back
            seen.append(_order(made.detach(), grid.n_channels).requires_grad_())
            is_same = made.shape[1] == grid.n_channels
            return (seen[0] if is_same else seen[0].permute(0, 2, 3, 1)).clone()  # the next layer may work in place

        hook = (self.model.get_submodule(grid.module) if grid.module else self).register_forward_hook(begin)
        try:
            with torch.no_grad():
                features = self(images)
        finally:
            hook.remove()
        return Look(seen[0], features, grid.stride, layer != "last", grid.offset)


class Grid(NamedTuple):
    """The maps of a module ("": the last): pixels between two of their places, and the pixel of the first place."""

    module: str
    n_channels: int
    stride: int
    offset: float


def _order(maps: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return maps as (n, channels, h, w); some transformers have the channels last."""
    return maps if maps.shape[1] == n_channels else maps.permute(0, 3, 1, 2)


class _Ruler:
    """Follows where on the image the places of maps lie, from layer to layer; branches of other sizes are left out."""

    def __init__(self, image_px: int):
        self.px, self.stride, self.offset = image_px, 1, 0.0

    def pass_layer(self, layer: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        """Take a layer into account, as a forward hook."""
        before_px, px = given[0].shape[-1], made.shape[-1]
        if before_px != self.px or px >= self.px:
            return
        kernel, stride, padding = (_first(getattr(layer, name)) for name in ("kernel_size", "stride", "padding"))
        span = (kernel - 1) * _first(getattr(layer, "dilation", 1)) + 1
        lacking = max(0, (px - 1) * stride + span - before_px)  # where TensorFlow's padding is asked for, half of it
        self.offset += self.stride * ((span - 1) / 2 - (padding or lacking // 2))
        self.stride, self.px = self.stride * stride, px

    def measure(self, module: str, n_channels: int, px: int) -> Grid:
        """Return the grid of maps of `px`; what no layer has explained is patches put together."""
        patch = max(1, round(self.px / px))
        return Grid(module, n_channels, self.stride * patch, self.offset + self.stride * (patch - 1) / 2)


def _first(size: int | tuple[int, ...] | str) -> int:
    if isinstance(size, str):  # padding "same"
        return 0
    return size[0] if isinstance(size, tuple) else size


def _trace(name: str, image_px: int) -> tuple[dict[str, Grid], int, list[str]]:
    """Return, of a forward pass without numbers, the last maps' grid and the fine one's, the side of the last, and the
    children that only the classifier needs. Raises InputError for an image that is too small.
    """
    ruler, called, grids = _Ruler(image_px), set(), []
    with torch.device("meta"):
        model = catalog.create(name, image_px, 0.0).eval()
    for path, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, path=path: called.add(path.partition(".")[0]))
        if isinstance(module, SAMPLERS):
            module.register_forward_hook(ruler.pass_layer)
    for stage in getattr(model, "feature_info", None) or []:

        def see(_module: nn.Module, _given: object, made: torch.Tensor, stage: dict = stage) -> None:
            if made.ndim == 4 and stage["num_chs"] in (made.shape[1], made.shape[3]):
                maps = _order(made, stage["num_chs"])
                grids.append(ruler.measure(stage["module"], stage["num_chs"], maps.shape[-1]))

        model.get_submodule(stage["module"]).register_forward_hook(see)
    try:
        made = model.forward_features(torch.empty(1, 3, image_px, image_px, device="meta"))  # type: ignore[operator]
        n_features = int(model.num_features)  # type: ignore[arg-type]
        maps = _order(made, n_features)
        last = ruler.measure("", n_features, maps.shape[-1])
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, IndexError) as error:
        shown = " ".join(str(error).split())[:100]
        raise InputError(f"--net {name}: images of {image_px} px do not fit it, or are too small ({shown})") from None
    unused = [child for child, _ in model.named_children() if child not in called]
    fine = [grid for grid in grids if grid.stride <= FINE_STRIDE]
    return {"last": last, "fine": fine[-1] if fine else last}, maps.shape[-1], unused
