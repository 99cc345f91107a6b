"""A net is any body and our head: makes it, draws its weights, freezes its body."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dr.nets.catalog import NINE_CONV
from dr.nets.head import HIDDEN, Head
from dr.nets.nine_conv import NineConv
from dr.nets.pretrained import Pretrained


class Net(nn.Module):
    """Standardized images of `image_px`, or if it `is_given_maps` those of its body -> logits of a task's outputs."""

    is_given_maps = False
    memory_format = torch.channels_last  # in which the body is given images, which are cut in it

    def __init__(self, body: NineConv | Pretrained, head: Head, image_px: int):
        super().__init__()
        self.body = body
        self.head = head
        self.image_px = image_px

    def forward(
        self,
        images: torch.Tensor,
        keys: torch.Tensor | None = None,
        eyes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits, (n, n_outputs); `keys` and `eyes` are the head's, see Head."""
        if self.is_given_maps:
            return self.head(images, keys, eyes)
        if self.memory_format is torch.contiguous_format:
            images = images.contiguous()
        return self.head(self.body(images), keys, eyes)


def make_net(
    name: str, image_px: int, n_outputs: int, dropout: float, is_paired: bool,
    n_hidden: int | None = None, n_squeezed: int = 0, drop_path: float = 0.0, seed: int = 0,
    pool: str = "mean",
) -> Net:  # fmt: skip
    """Return a net whose weights are still to be drawn or loaded; those of a body from timm are drawn by the seed.

    If `n_hidden` is None, nine-conv has the article's hidden units, and other nets have no hidden
    layer. The head of other nets averages the maps over all locations, unless it squeezes them; of a
    plain transformer it is given the mean of the patch tokens, or the class token, by `pool`.
    Raises ValueError for images too small for nine-conv, InputError for a net that timm cannot make.
    """
    body: NineConv | Pretrained
    if name == NINE_CONV:
        body = NineConv(image_px)
        default_hidden = HIDDEN
        is_averaged = False
    else:
        is_averaged = n_squeezed == 0
        body = Pretrained(name, image_px, drop_path, seed, pool if is_averaged else None)
        default_hidden = 0
    head = Head(
        n_maps=body.n_features,
        n_locations=body.maps_px**2,
        n_squeezed=n_squeezed,
        n_hidden=default_hidden if n_hidden is None else n_hidden,
        n_outputs=n_outputs,
        dropout=dropout,
        is_paired=is_paired,
        is_averaged=is_averaged,
    )
    return Net(body, head, image_px)


def initialize_weights(net: Net, seed: int) -> None:
    """Draw the weights anew, except a timm body's: uniform within 1 / sqrt(fan-in) of 0, as in torch.

    BatchNorm takes their scale out, so that smaller ones learn faster at the same rate. Biases are 0,
    and so is the last layer of a paired head's correction.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn_part = net if isinstance(net.body, NineConv) else net.head
    for layer in drawn_part.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            uniform = torch.rand(layer.weight.shape, generator=generator) * 2 - 1
            fan_in = layer.weight[0].numel()
            layer.weight.data.copy_(uniform / fan_in**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if net.head.joint is not None:
        for parameter in net.head.joint[-1].parameters():
            nn.init.zeros_(parameter)


def split_parameters(net: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the weights of convolutions and linear layers, which L2 holds down, and all other parameters."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    weight_ids = {id(weight) for weight in weights}
    others: list[torch.Tensor] = [
        parameter for parameter in net.parameters() if id(parameter) not in weight_ids
    ]
    return weights, others


def find_layer_scales(body: NineConv | Pretrained, layer_decay: float) -> dict[int, float]:
    """Return the learning rate of each parameter of a body, by its id, as a share of the body's.

    Each layer learns `layer_decay` times as fast as the one behind it, the head being behind the last one, by timm's
    own order of a net's layers (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2022). Returns {} for a decay of 1: all
    learn alike.
    """
    if layer_decay == 1 or isinstance(body, NineConv):
        return {}
    from timm.optim import param_groups_layer_decay  # is installed: the body is of timm

    scales = {}
    for group in param_groups_layer_decay(body.model, layer_decay=layer_decay):
        for parameter in group["params"]:
            scales[id(parameter)] = layer_decay * float(
                group["lr_scale"]
            )  # the head is a layer of its own
    return scales


def group_by_scale(
    parameters: Sequence[torch.Tensor], scales: Mapping[int, float]
) -> dict[float, list[torch.Tensor]]:
    """Return parameters by their share of the learning rate, 1 where none is known: at least one group, if empty."""
    groups: dict[float, list[torch.Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
    return groups or {1.0: []}


def set_training(net: Net, is_frozen: bool) -> None:
    """Put a net into training; a frozen body learns nothing, and its BatchNorm keeps the statistics it has."""
    net.train()
    net.body.train(not is_frozen)
    net.body.requires_grad_(not is_frozen)
