"""A body from timm: its convolutions or its windows, without its classifier, which is ours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dr.nets import catalog
from dr.nets.nine_conv import Activations
from preprocess.disk.errors import InputError

FINE_STRIDE = 8  # pixels between two locations of the maps of "fine", at most
SAMPLERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # the layers that make maps smaller


class Pretrained(nn.Module):
    """A net of timm up to its last feature maps: standardized images (n, 3, px, px) -> (n, n_features, h, w).

    Its weights are timm's own random ones, a function of the seed, until others are loaded into `model`.
    """

    def __init__(self, name: str, image_px: int, drop_path: float, seed: int):
        """Make it without the parts of its own classifier. Raises InputError for images too small for it."""
        super().__init__()
        self.name = name
        with torch.random.fork_rng(devices=[]):
            trace = _trace(name, image_px)
            torch.manual_seed(seed)
            self.model = catalog.create(name, image_px, drop_path)
        self.grids = {"last": trace.last, "fine": trace.fine}
        self.maps_px = trace.maps_px
        self.n_features = trace.last.n_channels
        self.unused = trace.unused
        for child in self.unused:
            setattr(self.model, child, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps."""
        maps = self.model.forward_features(images)  # type: ignore[operator]
        return _move_channels_first(maps, self.n_features)

    def record_activations(self, images: torch.Tensor, layer: str | int) -> Activations:
        """Return the activations of "last", for Grad-CAM proper, or "fine", with more locations."""
        grid = self.grids[str(layer)]
        recorded: list[torch.Tensor] = []

        def start_gradients(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            torch.set_grad_enabled(True)  # from here on, and only here; no_grad's end puts it back
            maps = _move_channels_first(output.detach(), grid.n_channels).requires_grad_()
            recorded.append(maps)
            if output.shape[1] != grid.n_channels:
                maps = maps.permute(0, 2, 3, 1)
            return maps.clone()  # the next layer may work in place

        module = self.model.get_submodule(grid.module) if grid.module else self
        hook = module.register_forward_hook(start_gradients)
        try:
            with torch.no_grad():
                features = self(images)
        finally:
            hook.remove()
        return Activations(
            maps=recorded[0],
            features=features,
            stride=grid.stride,
            is_local=layer != "last",
            offset=grid.offset,
        )


class Grid(NamedTuple):
    """Where the maps of a module lie on the image."""

    module: str  # its path in timm's net; "" for the last maps
    n_channels: int
    stride: int  # pixels of the image between two locations
    offset: float  # the pixel of the first location


class _Trace(NamedTuple):
    """What is known of a net from a forward pass without numbers."""

    last: Grid
    fine: Grid
    maps_px: int  # side of the last maps
    unused: list[str]  # children that only the classifier needs


def _move_channels_first(maps: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return maps as (n, channels, h, w); some transformers have the channels last."""
    return maps if maps.shape[1] == n_channels else maps.permute(0, 3, 1, 2)


class _Ruler:
    """Follows where the locations of maps lie on the image, layer by layer.

    Branches of other sizes are ignored.
    """

    def __init__(self, image_px: int):
        self.px = image_px
        self.stride = 1
        self.offset = 0.0

    def pass_layer(
        self, layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, inputs: tuple[torch.Tensor], output: torch.Tensor
    ) -> None:
        """Take a layer into account, as a forward hook."""
        before_px = inputs[0].shape[-1]
        px = output.shape[-1]
        if before_px != self.px or px >= self.px:
            return
        kernel = _find_side(layer.kernel_size)
        stride = _find_side(layer.stride)
        padding = _find_side(layer.padding)
        dilation = _find_side(getattr(layer, "dilation", 1))
        span = (kernel - 1) * dilation + 1
        if not padding:  # TensorFlow's padding adds what is lacking, half of it on this side
            padding = max(0, (px - 1) * stride + span - before_px) // 2
        self.offset += self.stride * ((span - 1) / 2 - padding)
        self.stride *= stride
        self.px = px

    def make_grid(self, module: str, n_channels: int, px: int) -> Grid:
        """Return the grid of maps of `px`; what no layer explains comes from joining patches."""
        patch = max(1, round(self.px / px))
        return Grid(
            module=module,
            n_channels=n_channels,
            stride=self.stride * patch,
            offset=self.offset + self.stride * (patch - 1) / 2,
        )


def _find_side(size: int | tuple[int, ...] | str) -> int:
    if isinstance(size, str):  # padding "same"
        return 0
    return size[0] if isinstance(size, tuple) else size


def _trace(name: str, image_px: int) -> _Trace:
    """Follow an image without numbers through a net. Raises InputError for an image that is too small."""
    ruler = _Ruler(image_px)
    called: set[str] = set()
    grids: list[Grid] = []
    with torch.device("meta"):
        model = catalog.create(name, image_px, 0.0).eval()
    for path, module in model.named_modules():
        child = path.partition(".")[0]
        module.register_forward_pre_hook(lambda *_, child=child: called.add(child))
        if isinstance(module, SAMPLERS):
            module.register_forward_hook(ruler.pass_layer)
    for stage in getattr(model, "feature_info", None) or []:

        def add_grid(_module: nn.Module, _inputs: object, output: torch.Tensor, stage: dict = stage) -> None:
            n_channels = stage["num_chs"]
            if output.ndim == 4 and n_channels in (output.shape[1], output.shape[3]):
                px = _move_channels_first(output, n_channels).shape[-1]
                grids.append(ruler.make_grid(stage["module"], n_channels, px))

        model.get_submodule(stage["module"]).register_forward_hook(add_grid)
    try:
        image = torch.empty(1, 3, image_px, image_px, device="meta")
        n_features = int(model.num_features)  # type: ignore[arg-type]
        maps = _move_channels_first(model.forward_features(image), n_features)  # type: ignore[operator]
        last = ruler.make_grid("", n_features, maps.shape[-1])
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, IndexError) as error:
        shown = " ".join(str(error).split())[:100]
        raise InputError(f"--net {name}: images of {image_px} px do not fit it, or are too small ({shown})") from None
    fine = last
    for grid in grids:
        if grid.stride <= FINE_STRIDE:
            fine = grid
    unused = [child for child, _ in model.named_children() if child not in called]
    return _Trace(last=last, fine=fine, maps_px=maps.shape[-1], unused=unused)
