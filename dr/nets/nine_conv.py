"""The article's body: nine convolutions with BatchNorm; with the article's head 925,013 parameters at 448 px."""

from typing import NamedTuple

import torch
from torch import nn

# The article's table of layers: output channels of each convolution; True where a max-pool follows.
CONVOLUTIONS = (
    *((16, False), (16, True), (32, False), (32, True), (64, False), (64, True)),
    *((96, True), (96, True), (128, True)),
)
LEAST_PX = 32  # six poolings leave one pixel
# Where Grad-CAM looks: the last convolution, as Grad-CAM is defined, and one whose places are finer. With a weight for
# each place the hottest place of each of blocks 2 to 5 lies on a lesion in 98 of 100 drawn eyes or more; of these the
# fifth (112 x 112 places at 448 px) has seen most around it: `python -m tests.benchmarks.explain --blocks`.
LAST, FINE = len(CONVOLUTIONS) - 1, 5


class Look(NamedTuple):
    """A body's forward pass, seen at one of its layers."""

    maps: torch.Tensor  # (n, channels, h, w), the layer's, the first thing that needs gradients
    features: torch.Tensor  # (n, n_features, ...), the body's last maps, which follow from them
    stride: int  # pixels of the image between two places of a map; place i lies on pixel stride * i + offset
    # Whether each place is weighed by its own gradient, not by the map's mean one. The mean is for nets that end in an
    # average over places; a linear layer over all places tells them apart. Source: R. L. Draelos and L. Carin, Use
    # HiResCAM instead of Grad-CAM for faithful explanations, arXiv:2011.08891, 2020.
    is_local: bool
    offset: float = 0.0


class NineConv(nn.Module):
    """Nine 3x3 convolutions: standardized images (n, 3, px, px) -> feature maps (n, n_features, maps_px, maps_px)."""

    n_features = CONVOLUTIONS[-1][0]

    def __init__(self, image_px: int) -> None:
        """Stack the blocks: convolution, BatchNorm, perhaps a max-pool, which halves the maps, rounded up, and ReLU.

        The article pools after ReLU. Both orders give the same numbers and gradients, and this one rectifies a quarter.
        """
        super().__init__()
        if image_px < LEAST_PX:
            raise ValueError(f"image_px is {image_px}, must be at least {LEAST_PX}")
        self.blocks, width, self.maps_px = nn.Sequential(), 3, image_px
        for wider, is_pooled in CONVOLUTIONS:
            pooling = [nn.MaxPool2d(3, stride=2, padding=1)] if is_pooled else []
            layers = nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider), *pooling, nn.ReLU(inplace=True)
            self.blocks.append(nn.Sequential(*layers))
            width, self.maps_px = wider, (self.maps_px + is_pooled) // (1 + is_pooled)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps."""
        return self.blocks(images)

    def look(self, images: torch.Tensor, layer: str | int) -> Look:
        """Return a forward pass seen at "last", Grad-CAM proper, "fine", with more places, or a block of this number.

        The maps are those of the article's order, convolution, BatchNorm, ReLU, then max-pool.
        """
        block = {"last": LAST, "fine": FINE}.get(str(layer), layer)
        convolution, norm, *pooling, _ = self.blocks[int(block)].children()
        with torch.no_grad():
            maps = norm(convolution(self.blocks[: int(block)](images))).relu()
        maps.requires_grad_()  # from here on, and only here, gradients are needed
        features = nn.Sequential(*pooling)(maps)
        stride = 2 ** sum(is_pooled for _, is_pooled in CONVOLUTIONS[: int(block)])
        return Look(maps, self.blocks[int(block) + 1 :](features), stride, is_local=layer != "last")
