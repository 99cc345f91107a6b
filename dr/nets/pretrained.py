"""A body from timm: its convolutions, windows or patch tokens, without its classifier, which is ours."""

from __future__ import annotations

import torch
from torch import nn

from dr.nets import catalog, tokens
from dr.nets.nine_conv import Activations
from dr.nets.trace import Grid, trace_net


class Pretrained(nn.Module):
    """A net of timm up to its last feature maps: standardized images (n, 3, px, px) -> (n, n_features, h, w).

    Of a plain transformer the maps are its patch tokens on their grid. If it pools, by the mean of these or by its
    class token, and its own norm behind that, its map has one location.

    Its weights are timm's own random ones, a function of the seed, until others are loaded into `model`.
    """

    def __init__(
        self, name: str, image_px: int, drop_path: float, seed: int, pool: str | None = "mean"
    ):
        """Make it without the parts of its own classifier; `pool` is "mean" or "token", or None for the whole grid.

        Raises InputError for images that do not fit it, and for a class token that it does not have.
        """
        super().__init__()
        self.name = name
        with torch.random.fork_rng(devices=[]):
            trace = trace_net(name, image_px, pool)
            torch.manual_seed(seed)
            self.model = catalog.create(name, image_px, drop_path)
        self.grids = {"last": trace.last, "fine": trace.fine}
        self.n_features = trace.last.n_channels
        self.n_prefix = trace.n_prefix
        self.pool = pool if trace.has_tokens else None
        self.maps_px = 1 if self.pool else trace.maps_px
        self.unused = trace.unused
        for child in self.unused:
            setattr(self.model, child, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps."""
        return self._finish(self.model.forward_features(images))  # type: ignore[operator]

    def _finish(self, output: torch.Tensor) -> torch.Tensor:
        """Return the feature maps of what the net makes of images: its last maps or tokens."""
        if self.pool:
            return self._pool(output)
        return tokens.take_maps(output, self.n_features, self.n_prefix)

    def _pool(self, output: torch.Tensor) -> torch.Tensor:
        """Return what tokens (n, tokens, channels) are pooled to, (n, channels, 1, 1)."""
        if self.pool == "token":
            pooled = output[:, 0]
        else:
            precise = torch.promote_types(output.dtype, torch.float32)
            pooled = output[:, self.n_prefix :].mean(dim=1, dtype=precise)
        norm = getattr(self.model, "fc_norm", None)
        if norm is not None:
            pooled = norm(pooled)
        return pooled[:, :, None, None]

    def record_activations(self, images: torch.Tensor, layer: str | int) -> Activations:
        """Return the activations of "last", for Grad-CAM proper, or "fine", with more locations or earlier ones."""
        grid = self.grids[str(layer)]
        recorded: list[torch.Tensor] = []

        def start_gradients(
            _module: nn.Module, _inputs: object, output: torch.Tensor
        ) -> torch.Tensor:
            torch.set_grad_enabled(True)  # from here on, and only here; no_grad's end puts it back
            maps = tokens.take_maps(
                output.detach(), grid.n_channels, grid.n_prefix
            ).requires_grad_()
            recorded.append(maps)
            return _put_maps(output.detach(), maps, grid)

        with torch.no_grad():
            if grid.module:
                hook = self.model.get_submodule(grid.module).register_forward_hook(start_gradients)
                try:
                    features = self(images)
                finally:
                    hook.remove()
            else:
                output = self.model.forward_features(images)  # type: ignore[operator]
                features = self._finish(start_gradients(self, images, output))
        return Activations(
            maps=recorded[0],
            features=features,
            stride=grid.stride,
            is_local=layer != "last",
            offset=grid.offset,
            is_unsigned=grid.has_tokens and grid.module != "",
        )


def _put_maps(output: torch.Tensor, maps: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return maps in the form of the output that they were taken from, as a copy: the next layer may work in place."""
    if output.ndim == 3:
        return tokens.replace_patches(output, grid.n_prefix, maps)
    if output.shape[1] != grid.n_channels:
        maps = maps.permute(0, 2, 3, 1)
    return maps.clone()
