"""The article's body: nine convolutions with BatchNorm; with the article's head 925,013 parameters at 448 px."""

from typing import NamedTuple

import torch
from torch import nn

# The article's table of layers: output channels of each convolution; True where a max-pool follows.
CONVOLUTIONS = (
    (16, False),
    (16, True),
    (32, False),
    (32, True),
    (64, False),
    (64, True),
    (96, True),
    (96, True),
    (128, True),
)
LEAST_PX = 32  # six poolings leave one pixel
# The blocks for Grad-CAM: the last convolution, as Grad-CAM is defined, and one with more locations.
# With a weight for each location, the hottest one of each of blocks 2 to 5 lies on a lesion in 98 of
# 100 drawn eyes or more; among these the fifth (112 x 112 locations at 448 px) sees most of its
# surroundings: `python -m tests.benchmarks.explain --blocks`.
LAST = len(CONVOLUTIONS) - 1
FINE = 5


class Activations(NamedTuple):
    """The maps of one layer in a body's forward pass, and the features that follow from them."""

    maps: torch.Tensor  # (n, channels, h, w), the layer's, the first that need gradients
    features: torch.Tensor  # (n, n_features, ...), the body's last maps
    stride: int  # pixels between two locations; location i lies on pixel stride * i + offset
    # Whether each location is weighed by its own gradient, not by the map's mean gradient. The mean
    # suits nets that end in an average over locations; a linear layer over all locations tells them
    # apart. Source: R. L. Draelos and L. Carin, Use HiResCAM instead of Grad-CAM for faithful
    # explanations, arXiv:2011.08891, 2020.
    is_local: bool
    offset: float = 0.0
    # Whether the heat is how much the output may change without a location, one way or the other: the length of its
    # gradient times its own. So inside a plain transformer: each block reads the tokens through a norm that takes out
    # their length, so that a token's gradient stands nearly at right angles to it, and their product is mostly noise.
    is_unsigned: bool = False


class NineConv(nn.Module):
    """Nine 3x3 convolutions.

    Standardized images (n, 3, px, px) -> feature maps (n, n_features, maps_px, maps_px).
    """

    n_features = CONVOLUTIONS[-1][0]

    def __init__(self, image_px: int) -> None:
        """Stack the blocks: convolution, BatchNorm, perhaps a max-pool, and ReLU.

        A max-pool halves the maps, rounded up. The article pools after ReLU. Both orders give the same
        numbers and gradients, and this one rectifies a quarter.
        """
        super().__init__()
        if image_px < LEAST_PX:
            raise ValueError(f"image_px is {image_px}, must be at least {LEAST_PX}")
        self.blocks = nn.Sequential()
        self.maps_px = image_px
        n_in = 3
        for n_out, is_pooled in CONVOLUTIONS:
            block = nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out))
            if is_pooled:
                block.append(nn.MaxPool2d(3, stride=2, padding=1))
                self.maps_px = (self.maps_px + 1) // 2
            block.append(nn.ReLU(inplace=True))
            self.blocks.append(block)
            n_in = n_out

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps."""
        return self.blocks(images)

    def record_activations(self, images: torch.Tensor, layer: str | int) -> Activations:
        """Return the activations of a layer: "last", for Grad-CAM proper, "fine", or a block's number.

        "fine" has more locations. The maps are those of the article's order, convolution, BatchNorm,
        ReLU, then max-pool.
        """
        if layer == "last":
            number = LAST
        elif layer == "fine":
            number = FINE
        else:
            number = int(layer)
        convolution, norm, *pooling, _ = self.blocks[number].children()
        with torch.no_grad():
            before = self.blocks[:number](images)
            maps = norm(convolution(before)).relu()
        maps.requires_grad_()  # from here on, and only here, gradients are needed
        features = maps
        for layer_after in [*pooling, *self.blocks[number + 1 :]]:
            features = layer_after(features)
        n_poolings = sum(1 for _, is_pooled in CONVOLUTIONS[:number] if is_pooled)
        return Activations(
            maps=maps, features=features, stride=2**n_poolings, is_local=layer != "last"
        )
