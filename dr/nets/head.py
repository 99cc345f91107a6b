"""The head of any body: maps squeezed or averaged, dropout, linear layers, and the correction by the fellow eye."""

import torch
from torch import nn

from dr.squares import draws

HIDDEN = 96  # units of the article's first fully connected layer


class Head(nn.Module):
    """Feature maps -> logits, by the article's two fully connected layers, or by the second alone.

    They may first be squeezed by a convolution of 1×1 with BatchNorm without scale. The features are what lies at all
    places of the maps, or if `is_averaged` the means over them, as pretrained nets have it. If `is_paired`, the
    features of a patient's other eye correct what an eye's own say: the article names a single network for both as its
    untried idea. What is added starts at 0, so that untrained it changes nothing.
    """

    def __init__(
        self, n_maps: int, n_places: int, n_squeezed: int, n_hidden: int, n_outputs: int, dropout: float,
        is_paired: bool, is_averaged: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.dropout, self.is_averaged = KeyedDropout(dropout), is_averaged
        self.squeeze, self.hidden = nn.Sequential(), nn.Sequential()
        n_features = (n_squeezed or n_maps) * (1 if is_averaged else n_places)
        if n_squeezed:
            norm = nn.BatchNorm2d(n_squeezed)
            norm.weight.requires_grad_(False)  # no scale: ReLU lets one through to the next layer's weights
            self.squeeze.extend((nn.Conv2d(n_maps, n_squeezed, 1, bias=False), norm, nn.ReLU()))
        if n_hidden:
            layers = nn.Linear(n_features, n_hidden), nn.BatchNorm1d(n_hidden, affine=False), nn.ReLU()
            self.hidden.extend(layers)
        n_own, n_joint = n_hidden or n_features, n_hidden or HIDDEN
        self.outputs = nn.Linear(n_own, n_outputs)
        joint = nn.Linear(2 * n_own, n_joint), nn.ReLU(), nn.Linear(n_joint, n_outputs)
        self.joint = nn.Sequential(*joint) if is_paired else None

    def forward(
        self, maps: torch.Tensor, keys: torch.Tensor | None = None, eyes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n, n_outputs), in float32 at least, of maps (n, channels, h, w).

        Keys, (n,) int64, decide what dropout drops, nothing without them. Eyes, (n,) int64, are 2 * group + side;
        without them each image is its own fellow.
        """
        with torch.autocast(maps.device.type, enabled=False):  # 0.1 % of the work, and probabilities need digits
            maps = self.squeeze(maps.to(self.outputs.weight.dtype))
            features = maps.mean(dim=(2, 3)) if self.is_averaged else maps.flatten(1)
            features = self.hidden(self.dropout(features, keys))
            logits = self.outputs(features)
            if self.joint is not None:
                fellow = features if eyes is None else weigh_fellows(eyes) @ features
                logits = logits + self.joint(torch.cat([features, fellow], dim=1))
            return logits


def weigh_fellows(eyes: torch.Tensor) -> torch.Tensor:
    """Return which images show each image's fellow eye, (n, n) float32 with rows that sum to 1; eyes are as in Head.

    Several pictures of the fellow count alike; an eye without a fellow is its own, as in blend.pairs.
    """
    is_fellow = (eyes + 1 - 2 * (eyes % 2))[:, None] == eyes[None, :]
    is_alone = ~is_fellow.any(dim=1, keepdim=True)
    weights = torch.where(is_alone, torch.eye(eyes.shape[0], device=eyes.device), is_fellow.float())
    return weights / weights.sum(dim=1, keepdim=True)


class KeyedDropout(nn.Module):
    """Dropout whose choice is a function of one key per sample, so that it needs no generator's state."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, features: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features (n, k), some set to 0 and the others scaled up; unchanged in prediction."""
        if keys is None or not self.training or self.probability == 0:
            return features
        is_kept = draws.draw(keys, features.shape[1]) >= self.probability * 2**draws.BITS
        return features * is_kept / (1 - self.probability)
