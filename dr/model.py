"""The net of the article: nine convolutions, two fully connected layers, BatchNorm, 925,013 parameters at 448 px."""

from __future__ import annotations

import torch
from torch import nn

from dr import draws
from preprocess.eyes import N_LEVELS

IMAGE_PX = 448  # the article's crop
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
HIDDEN = 96  # units of the first fully connected layer
DROPOUT = 0.5  # before the first fully connected layer; the article gives no number
MIN_IMAGE_PX = 32  # six poolings leave one pixel


class NineConvNet(nn.Module):
    """Nine 3x3 convolutions and two fully connected layers: photographs -> logits of the five levels.

    Parameters
    ----------
    image_px : side of the square images
    dropout : probability that a feature is dropped before the first fully connected layer
    """

    def __init__(self, image_px: int = IMAGE_PX, dropout: float = DROPOUT):
        super().__init__()
        if image_px < MIN_IMAGE_PX:
            raise ValueError(f"image_px is {image_px}, must be at least {MIN_IMAGE_PX}")
        self.image_px = image_px
        widths = [3, *(width for width, _ in CONVOLUTIONS)]
        self.blocks = nn.Sequential(
            *(make_block(widths[i], width, is_pooled) for i, (width, is_pooled) in enumerate(CONVOLUTIONS))
        )
        self.dropout = KeyedDropout(dropout)
        self.head = nn.Sequential(
            nn.Linear(widths[-1] * find_pooled_px(image_px) ** 2, HIDDEN),
            nn.BatchNorm1d(HIDDEN, affine=False),
            nn.ReLU(),
            nn.Linear(HIDDEN, N_LEVELS),
        )

    def forward(
        self, images: torch.Tensor, keys: torch.Tensor | None = None, eyes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n, 5).

        Parameters
        ----------
        images : (n, 3, image_px, image_px), standardized
        keys : (n,) int64, one per sample: decides what dropout drops; without keys torch's own generator does
        eyes : (n,) int64, whose eyes these are, for the net that looks at both (PairedNet); this one does not ask
        """
        maps = self.blocks(images).flatten(1)
        with torch.autocast(maps.device.type, enabled=False):  # 0.1 % of the work, and probabilities need digits
            features = self.head[:-1](self.dropout(maps.to(self.head[0].weight.dtype), keys))
            return self.classify(features, eyes)

    def classify(self, features: torch.Tensor, _eyes: torch.Tensor | None) -> torch.Tensor:
        """Return logits (n, 5) of the images' features (n, 96)."""
        return self.head[-1](features)


class PairedNet(NineConvNet):
    """The net with the blend built in: the features of a patient's other eye correct what an eye's own say.

    The article names a single network for both as its untried idea. All of NineConvNet is shared by both eyes; what is
    added starts at 0, so that an untrained correction changes nothing.
    """

    def __init__(self, image_px: int = IMAGE_PX, dropout: float = DROPOUT):
        super().__init__(image_px, dropout)
        self.joint = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, N_LEVELS))

    def classify(self, features: torch.Tensor, eyes: torch.Tensor | None) -> torch.Tensor:
        """Return logits (n, 5) of the images' features (n, 96) and of their fellows among the same images."""
        fellow = features if eyes is None else weigh_fellows(eyes) @ features
        return super().classify(features, eyes) + self.joint(torch.cat([features, fellow], dim=1))


def weigh_fellows(eyes: torch.Tensor) -> torch.Tensor:
    """Return which images show each image's fellow eye, (n, n) float32 with rows that sum to 1.

    Several pictures of the fellow count alike; an eye without a fellow is its own, as in blend.pairs.

    Parameters
    ----------
    eyes : (n,) int64, 2 * patient + side
    """
    is_fellow = eyes[:, None] ^ 1 == eyes[None, :]
    is_alone = ~is_fellow.any(dim=1, keepdim=True)
    weights = torch.where(is_alone, torch.eye(len(eyes), device=eyes.device), is_fellow.float())
    return weights / weights.sum(dim=1, keepdim=True)


def make_net(image_px: int, dropout: float, is_paired: bool) -> NineConvNet:
    """Return a net whose weights are still to be drawn or loaded."""
    return (PairedNet if is_paired else NineConvNet)(image_px, dropout)


def make_block(channels_in: int, channels_out: int, is_pooled: bool) -> nn.Sequential:
    """Return convolution, BatchNorm, perhaps a max-pool, and ReLU.

    The article pools after ReLU. Both orders give the same numbers and gradients, and this one rectifies a quarter.
    """
    layers = [nn.Conv2d(channels_in, channels_out, 3, stride=1, padding=1), nn.BatchNorm2d(channels_out)]
    if is_pooled:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def find_pooled_px(image_px: int) -> int:
    """Return the side of the last feature map: 7 for 448."""
    for _, is_pooled in CONVOLUTIONS:
        image_px = (image_px + 1) // 2 if is_pooled else image_px
    return image_px


class KeyedDropout(nn.Module):
    """Dropout whose choice is a function of one key per sample, so that it needs no generator's state."""

    def __init__(self, probability: float):
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout is {probability}, must be in [0, 1)")
        self.probability = probability

    def forward(self, features: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features (n, k), some set to 0 and the others scaled up; unchanged in prediction."""
        if not self.training or self.probability == 0:
            return features
        if keys is None:
            return nn.functional.dropout(features, self.probability)
        is_kept = draws.draw(keys, features.shape[1]) >= self.probability * 2**draws.BITS
        return features * is_kept / (1 - self.probability)


def initialize_weights(net: nn.Module, seed: int) -> None:
    """Draw the weights anew, uniform within 1 / sqrt(fan-in) of 0, torch's own range; biases 0.

    BatchNorm takes the scale of the weights out, so that smaller ones learn faster at the same rate. The last layer of
    a paired net's correction is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            drawn = torch.rand(layer.weight.shape, generator=generator) * 2 - 1
            with torch.no_grad():
                layer.weight.copy_(drawn / fan_in**0.5)
                layer.bias.zero_()
    if isinstance(net, PairedNet):
        nn.init.zeros_(net.joint[-1].weight)


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the weights of convolutions and linear layers, which L2 holds down, and all other parameters."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    chosen = {id(weight) for weight in weights}
    return weights, [parameter for parameter in net.parameters() if id(parameter) not in chosen]
