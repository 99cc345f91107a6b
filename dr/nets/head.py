"""The head of any body: squeezed or averaged maps, dropout, linear layers, the fellow eye's correction."""

import torch
from torch import nn

from dr.squares import draws

HIDDEN = 96  # units of the article's first fully connected layer


class Head(nn.Module):
    """Feature maps -> logits, by the article's two fully connected layers, or by the second alone.

    The maps may first be squeezed by a convolution of 1×1 with BatchNorm without scale. The features
    are the values at all locations of the maps, or if `is_averaged` the means over them, as in
    pretrained nets. If `is_paired`, the features of a patient's other eye correct the logits: the
    article names a single network for both eyes as its untried idea. The correction starts at 0, so
    that an untrained one changes nothing.
    """

    def __init__(
        self, n_maps: int, n_locations: int, n_squeezed: int, n_hidden: int, n_outputs: int, dropout: float,
        is_paired: bool, is_averaged: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.is_averaged = is_averaged
        self.dropout = KeyedDropout(dropout)
        self.squeeze = nn.Sequential()
        if n_squeezed:
            convolution = nn.Conv2d(n_maps, n_squeezed, 1, bias=False)
            norm = nn.BatchNorm2d(n_squeezed)
            norm.weight.requires_grad_(
                False
            )  # no scale: ReLU lets one through to the next layer's weights
            self.squeeze.extend([convolution, norm, nn.ReLU()])
        n_features = n_squeezed or n_maps
        if not is_averaged:
            n_features *= n_locations
        self.hidden = nn.Sequential()
        if n_hidden:
            self.hidden.append(nn.Linear(n_features, n_hidden))
            self.hidden.append(nn.BatchNorm1d(n_hidden, affine=False))
            self.hidden.append(nn.ReLU())
            n_features = n_hidden
        self.outputs = nn.Linear(n_features, n_outputs)
        self.joint: nn.Sequential | None = None
        if is_paired:
            n_joint = n_hidden or HIDDEN
            self.joint = nn.Sequential(
                nn.Linear(2 * n_features, n_joint), nn.ReLU(), nn.Linear(n_joint, n_outputs)
            )

    def forward(
        self, maps: torch.Tensor, keys: torch.Tensor | None = None, eyes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n, n_outputs), in float32 at least, of maps (n, channels, h, w).

        Keys, (n,) int64, decide which features dropout drops; without them it drops none. Eyes, (n,)
        int64, are 2 * group + side; without them each image is its own fellow.
        """
        # In float32, because probabilities need the digits and the head is 0.1 % of the work.
        with torch.autocast(maps.device.type, enabled=False):
            maps = self.squeeze(maps.to(self.outputs.weight.dtype))
            features = maps.mean(dim=(2, 3)) if self.is_averaged else maps.flatten(1)
            features = self.hidden(self.dropout(features, keys))
            logits = self.outputs(features)
            if self.joint is None:
                return logits
            fellows = features if eyes is None else weigh_fellows(eyes) @ features
            return logits + self.joint(torch.cat([features, fellows], dim=1))


def weigh_fellows(eyes: torch.Tensor) -> torch.Tensor:
    """Return which images show each image's fellow eye, (n, n) float32 with rows that sum to 1.

    Eyes are as in Head. Several pictures of the fellow count alike; an eye without a fellow is its
    own, as in blend.pairs.
    """
    fellow_eyes = eyes + 1 - 2 * (eyes % 2)
    is_fellow = fellow_eyes[:, None] == eyes[None, :]
    is_alone = ~is_fellow.any(dim=1, keepdim=True)
    itself = torch.eye(eyes.shape[0], device=eyes.device)
    weights = torch.where(is_alone, itself, is_fellow.float())
    return weights / weights.sum(dim=1, keepdim=True)


class KeyedDropout(nn.Module):
    """Dropout whose choice is a function of one key per sample: it needs no generator's state."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, features: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features (n, k), some set to 0 and the others scaled up; unchanged in prediction."""
        if keys is None or not self.training or self.probability == 0:
            return features
        drawn = draws.draw(keys, features.shape[1])
        is_kept = drawn >= self.probability * 2**draws.BITS
        return features * is_kept / (1 - self.probability)
