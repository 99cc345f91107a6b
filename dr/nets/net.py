"""A net: any body and our head. Makes it, draws its weights, freezes its body."""

import torch
from torch import nn

from dr.nets.catalog import NINE_CONV
from dr.nets.head import HIDDEN, Head
from dr.nets.nine_conv import NineConv
from dr.nets.pretrained import Pretrained


class Net(nn.Module):
    """Standardized images of `image_px`, or if it `is_given_maps` those of its body -> logits of a task's outputs."""

    is_given_maps = False

    def __init__(self, body: NineConv | Pretrained, head: Head, image_px: int):
        super().__init__()
        self.body, self.head, self.image_px = body, head, image_px

    def forward(
        self, images: torch.Tensor, keys: torch.Tensor | None = None, eyes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n, n_outputs); `keys` and `eyes` are the head's, see Head."""
        return self.head(images if self.is_given_maps else self.body(images), keys, eyes)


def make_net(
    name: str, image_px: int, n_outputs: int, dropout: float, is_paired: bool,
    n_hidden: int | None = None, n_squeezed: int = 0, drop_path: float = 0.0, seed: int = 0,
) -> Net:  # fmt: skip
    """Return a net whose weights are still to be drawn or loaded; those of a body from timm are drawn by the seed.

    Without a number of hidden units nine-conv has the article's, and other nets have no hidden layer; of these the head
    takes the mean over all places, unless it squeezes the maps. Raises ValueError for images too small for nine-conv,
    InputError for what timm cannot make.
    """
    body: NineConv | Pretrained
    if name == NINE_CONV:
        body, own_hidden, is_averaged = NineConv(image_px), HIDDEN, False
    else:
        body, own_hidden, is_averaged = Pretrained(name, image_px, drop_path, seed), 0, n_squeezed == 0
    head = Head(
        n_maps=body.n_features,
        n_places=body.maps_px**2,
        n_squeezed=n_squeezed,
        n_hidden=own_hidden if n_hidden is None else n_hidden,
        n_outputs=n_outputs,
        dropout=dropout,
        is_paired=is_paired,
        is_averaged=is_averaged,
    )
    return Net(body, head, image_px)


def initialize_weights(net: Net, seed: int) -> None:
    """Draw the weights anew, but for a body from timm: uniform within 1 / sqrt(fan-in) of 0, torch's own range.

    BatchNorm takes their scale out, so that smaller ones learn faster at the same rate. Biases are 0, and so is the
    last layer of a paired head's correction.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn_here = net if isinstance(net.body, NineConv) else net.head
    for layer in drawn_here.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            drawn = torch.rand(layer.weight.shape, generator=generator) * 2 - 1
            layer.weight.data.copy_(drawn / layer.weight[0].numel() ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if net.head.joint is not None:
        for parameter in net.head.joint[-1].parameters():
            nn.init.zeros_(parameter)


def split_parameters(net: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the weights of convolutions and linear layers, which L2 holds down, and all other parameters."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    chosen = {id(weight) for weight in weights}
    return weights, [parameter for parameter in net.parameters() if id(parameter) not in chosen]


def set_training(net: Net, is_frozen: bool) -> None:
    """Put a net into training; a frozen body learns nothing, and its BatchNorm keeps the statistics it has."""
    net.train()
    net.body.train(not is_frozen)
    net.body.requires_grad_(not is_frozen)
