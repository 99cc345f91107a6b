"""The head of any body: dropout, linear layers, and the correction by the fellow eye."""

import torch
from torch import nn

from dr.squares import draws


class Head(nn.Module):
    """Feature maps -> logits, by the article's two fully connected layers.

    Parameters
    ----------
    n_features : of the maps, all places together
    n_hidden : units of the first layer
    n_outputs : logits
    dropout : probability that a feature is dropped before the first layer
    is_paired : whether the features of a patient's other eye correct what an eye's own say. The article names a single
        network for both as its untried idea. What is added starts at 0, so that untrained it changes nothing.
    """

    def __init__(self, n_features: int, n_hidden: int, n_outputs: int, dropout: float, is_paired: bool):
        super().__init__()
        self.dropout = KeyedDropout(dropout)
        self.hidden = nn.Sequential(nn.Linear(n_features, n_hidden), nn.BatchNorm1d(n_hidden, affine=False), nn.ReLU())
        self.outputs = nn.Linear(n_hidden, n_outputs)
        joint = nn.Linear(2 * n_hidden, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_outputs)
        self.joint = nn.Sequential(*joint) if is_paired else None

    def forward(
        self, maps: torch.Tensor, keys: torch.Tensor | None = None, eyes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n, n_outputs), in float32 at least.

        Parameters
        ----------
        maps : (n, channels, h, w)
        keys : (n,) int64, one per sample: decides what dropout drops; without keys torch's own generator does
        eyes : (n,) int64, 2 * group + side; without them each image is its own fellow
        """
        with torch.autocast(maps.device.type, enabled=False):  # 0.1 % of the work, and probabilities need digits
            features = self.hidden(self.dropout(maps.flatten(1).to(self.outputs.weight.dtype), keys))
            logits = self.outputs(features)
            if self.joint is not None:
                fellow = features if eyes is None else weigh_fellows(eyes) @ features
                logits = logits + self.joint(torch.cat([features, fellow], dim=1))
            return logits


def weigh_fellows(eyes: torch.Tensor) -> torch.Tensor:
    """Return which images show each image's fellow eye, (n, n) float32 with rows that sum to 1.

    Several pictures of the fellow count alike; an eye without a fellow is its own, as in blend.pairs.

    Parameters
    ----------
    eyes : (n,) int64, 2 * group + side
    """
    is_fellow = eyes[:, None] ^ 1 == eyes[None, :]
    is_alone = ~is_fellow.any(dim=1, keepdim=True)
    weights = torch.where(is_alone, torch.eye(len(eyes), device=eyes.device), is_fellow.float())
    return weights / weights.sum(dim=1, keepdim=True)


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
