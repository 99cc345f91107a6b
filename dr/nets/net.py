"""A net: any body and our head. Makes it, draws its weights, freezes its body."""

import torch
from torch import nn

from dr.nets.catalog import NINE_CONV
from dr.nets.head import HIDDEN, Head
from dr.nets.nine_conv import LEAST_PX, NineConv
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
    takes the mean over all places, unless it squeezes the maps. Raises ValueError
    for images too small for nine-conv, InputError for what timm cannot make.
    """
    if name != NINE_CONV:
        body = Pretrained(name, image_px, drop_path, seed)
        shape = body.n_features, body.maps_px**2, n_squeezed, n_hidden or 0
        return Net(body, Head(*shape, n_outputs, dropout, is_paired, is_averaged=not n_squeezed), image_px)
    if image_px < LEAST_PX:
        raise ValueError(f"image_px is {image_px}, must be at least {LEAST_PX}")
    own = NineConv()
    shape = own.n_features, own.find_pooled_px(image_px) ** 2, n_squeezed, HIDDEN if n_hidden is None else n_hidden
    return Net(own, Head(*shape, n_outputs, dropout, is_paired), image_px)


def initialize_weights(net: Net, seed: int) -> None:
    """Draw the weights anew, uniform within 1 / sqrt(fan-in) of 0, torch's own range; biases 0.

    A body from timm keeps those that it was made with.

    BatchNorm takes the scale of the weights out, so that smaller ones learn faster at the same rate. The last layer of
    a paired head's correction is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn_here = net if isinstance(net.body, NineConv) else net.head
    with torch.no_grad():
        for layer in drawn_here.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                drawn = torch.rand(layer.weight.shape, generator=generator) * 2 - 1
                layer.weight.copy_(drawn / layer.weight[0].numel() ** 0.5)
                if layer.bias is not None:
                    layer.bias.zero_()
        if net.head.joint is not None:
            for parameter in net.head.joint[-1].parameters():
                parameter.zero_()


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
