"""A forward pass of an image without numbers through a net of timm: where its maps lie, and what it never calls."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dr.nets import catalog, tokens
from preprocess.disk.errors import InputError

FINE_STRIDE = 8  # pixels between two locations of the maps of "fine", at most
# All blocks of a plain transformer have the same grid. "fine" is the block at this share of its depth. There the
# hottest place lies on a drawn spot in 78 to 100 of 100 images (test_vit, eight trainings, both ways of pooling, chance
# 25); of the block at two thirds in 48 to 100: later the class token has looked already.
FINE_DEPTH = 1 / 2
SAMPLERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # the layers that make maps smaller
# Children that a net uses though it never calls them as a whole: rotary position embeddings, and the norm behind the
# pooling, which `Pretrained` calls.
USED_UNCALLED = {"rope", "fc_norm"}


class Grid(NamedTuple):
    """Where the maps of a module lie on the image."""

    module: str  # its path in timm's net; "" for the last maps
    n_channels: int
    stride: int  # pixels of the image between two locations
    offset: float  # the pixel of the first location
    n_prefix: int = 0  # tokens in front that stand for no patch
    has_tokens: bool = False  # whether its places are those of tokens


class Trace(NamedTuple):
    """What is known of a net from a forward pass without numbers."""

    last: Grid
    fine: Grid
    maps_px: int  # side of the last maps
    n_prefix: int  # tokens in front of the last ones that stand for no patch
    has_tokens: bool  # whether it is a plain transformer, and gives tokens
    unused: list[str]  # children that only the classifier needs


class _Output(NamedTuple):
    """The shape of what a module gives."""

    module: str
    n_channels: int
    shape: torch.Size


class Ruler:
    """Follows where the locations of maps lie on the image, layer by layer.

    Branches of other sizes are ignored.
    """

    def __init__(self, image_px: int):
        self.px = image_px
        self.stride = 1
        self.offset = 0.0

    def pass_layer(
        self,
        layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d,
        inputs: tuple[torch.Tensor],
        output: torch.Tensor,
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

    def make_grid(self, module: str, n_channels: int, px: int, n_prefix: int = 0) -> Grid:
        """Return the grid of maps of `px`; what no layer explains comes from joining patches."""
        patch = max(1, round(self.px / px))
        return Grid(
            module=module,
            n_channels=n_channels,
            stride=self.stride * patch,
            offset=self.offset + self.stride * (patch - 1) / 2,
            n_prefix=n_prefix,
        )


def _find_side(size: int | tuple[int, ...] | list[int] | str) -> int:
    if isinstance(size, str):  # padding "same"
        return 0
    return size[0] if isinstance(size, tuple | list) else size


class _Watch:
    """Notes, by hooks on a net, which children are called, and what its stages and blocks give."""

    def __init__(self, model: nn.Module, image_px: int):
        self.ruler = Ruler(image_px)
        self.called: set[str] = set()
        self.grids: list[Grid] = []  # of stages that give maps
        self.token_outputs: list[_Output] = []  # of blocks that give tokens
        for path, module in model.named_modules():
            child = path.partition(".")[0]
            module.register_forward_pre_hook(lambda *_, child=child: self.called.add(child))
            if isinstance(module, SAMPLERS):
                module.register_forward_hook(self.ruler.pass_layer)
        paths = {path for path, _ in model.named_modules()}
        for stage in getattr(model, "feature_info", None) or []:
            if (
                stage["module"] in paths
            ):  # timm's record of some nets, as hrnet and twins, names stages that they lack
                self._watch_stage(model, stage["module"], stage["num_chs"])

    def _watch_stage(self, model: nn.Module, path: str, n_channels: int) -> None:
        def add_output(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, torch.Tensor):
                return
            if output.ndim == 4 and n_channels in (output.shape[1], output.shape[3]):
                px = tokens.take_maps(output, n_channels, 0).shape[-1]
                self.grids.append(self.ruler.make_grid(path, n_channels, px))
            elif output.ndim == 3 and n_channels == output.shape[2]:
                self.token_outputs.append(_Output(path, n_channels, output.shape))

        model.get_submodule(path).register_forward_hook(add_output)

    def find_blocks(self, side: int) -> list[Grid]:
        """Return the blocks whose tokens lie on the grid of the last ones, as all those of plain transformers do."""
        blocks = []
        for output in self.token_outputs:
            n_prefix = output.shape[1] - side**2
            if 0 <= n_prefix <= tokens.MOST_PREFIX:
                grid = self.ruler.make_grid(output.module, output.n_channels, side, n_prefix)
                blocks.append(grid._replace(has_tokens=True))
        return blocks

    def find_fine(self, last: Grid, blocks: list[Grid]) -> Grid:
        """Return the last maps with locations close together, or an earlier block of a plain transformer."""
        close = [grid for grid in self.grids if grid.stride <= FINE_STRIDE]
        if close:
            return close[-1]
        if blocks:
            return blocks[int(FINE_DEPTH * len(blocks))]
        return last


def trace_net(name: str, image_px: int, pool: str | None) -> Trace:
    """Follow an image without numbers through a net. Raises InputError for an image that does not fit it, and for a
    class token (`pool`) that the net lacks.
    """
    with torch.device("meta"):
        model = catalog.create(name, image_px, 0.0).eval()
    watch = _Watch(model, image_px)
    n_features = int(model.num_features)  # type: ignore[arg-type]
    known_prefix = getattr(model, "num_prefix_tokens", None)
    n_prefix = 0
    try:
        image = torch.empty(1, 3, image_px, image_px, device="meta")
        output = model.forward_features(image)  # type: ignore[operator]
        lack = tokens.describe_lack(output, known_prefix)
        if lack is not None:
            raise ValueError(lack)
        if output.ndim == 3:
            unfilled = _describe_unfilled(model, image_px)
            if unfilled is not None:
                raise ValueError(unfilled)
            token_grid = tokens.find_grid(output.shape[1], known_prefix)
            assert token_grid is not None  # or something would lack
            n_prefix = token_grid.n_prefix
        maps = tokens.take_maps(output, n_features, n_prefix)
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, IndexError) as error:
        shown = _describe_unfilled(model, image_px) or " ".join(str(error).split())[:100]
        raise InputError(
            f"--net {name}: images of {image_px} px do not fit it, or are too small ({shown})"
        ) from None
    last = watch.ruler.make_grid("", n_features, maps.shape[-1], n_prefix)
    blocks: list[Grid] = []
    if output.ndim == 3:
        blocks = watch.find_blocks(maps.shape[-1])
    fine = watch.find_fine(last, blocks)
    if pool == "token":
        last = _find_last_before_pooling(name, model, blocks)
    return Trace(
        last=last,
        fine=fine,
        maps_px=maps.shape[-1],
        n_prefix=n_prefix,
        has_tokens=output.ndim == 3,
        unused=[
            child
            for child, _ in model.named_children()
            if child not in watch.called | USED_UNCALLED
        ],
    )


def _find_last_before_pooling(name: str, model: nn.Module, blocks: list[Grid]) -> Grid:
    """Return the last patch tokens that a class token still looks at: those behind the last block but one.

    Raises InputError if there is none.
    """
    if getattr(model, "cls_token", None) is None or len(blocks) < 2:
        raise InputError(f"--pool token: {name} has no class token, or does not tell its blocks")
    return blocks[-2]


def _describe_unfilled(model: nn.Module, image_px: int) -> str | None:
    """Return that a plain transformer's patches leave out a strip of images, and which sizes they fill; else None."""
    patch_px = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch_px, tuple):
        patch_px = patch_px[0]
    is_plain = getattr(model, "num_prefix_tokens", None) is not None
    if not is_plain or not isinstance(patch_px, int) or image_px % patch_px == 0:
        return None
    below = image_px // patch_px * patch_px
    return f"its patches have {patch_px} px; try --crop-px {below} or {below + patch_px}"
