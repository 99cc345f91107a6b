"""The tokens of a plain transformer as a map: which of them stand for patches, and on what grid these lie."""

import math
from typing import NamedTuple

import torch

MOST_PREFIX = 16  # tokens of no patch in front: the class token and registers


class TokenGrid(NamedTuple):
    """The square grid of a net's patch tokens, behind those that stand for no patch."""

    side: int
    n_prefix: int


def find_grid(n_tokens: int, n_prefix: int | None) -> TokenGrid | None:
    """Return the grid of tokens, of which `n_prefix` stand for no patch; None if the others fill no square.

    Where the net does not tell how many do (None), it is none or one, a class token.
    """
    prefixes = [0, 1] if n_prefix is None else [n_prefix]
    for prefix in prefixes:
        n_patches = n_tokens - prefix
        side = math.isqrt(max(n_patches, 0))
        if side > 1 and side**2 == n_patches:
            return TokenGrid(side, prefix)
    return None


def describe_lack(output: object, n_prefix: int | None) -> str | None:
    """Return why what a net makes of an image is no map of features; None if it is one."""
    if not isinstance(output, torch.Tensor):
        return f"gives several outputs for an image ({type(output).__name__}), not one map"
    if output.ndim == 4:
        return None
    if output.ndim == 2 or (output.ndim == 3 and output.shape[1] == 1):
        return "gives one vector for an image, and no map of places"
    if output.ndim == 3 and find_grid(output.shape[1], n_prefix) is not None:
        return None
    return f"gives an output of shape {tuple(output.shape)}, whose places lie on no square grid"


def take_maps(output: torch.Tensor, n_channels: int, n_prefix: int) -> torch.Tensor:
    """Return what a module gives as maps (n, channels, h, w).

    Some transformers have the channels last, plain ones tokens, (n, tokens, channels).
    """
    if output.ndim == 3:
        side = math.isqrt(output.shape[1] - n_prefix)
        return output[:, n_prefix:].transpose(1, 2).unflatten(2, (side, side))
    if output.shape[1] == n_channels:
        return output
    return output.permute(0, 3, 1, 2)


def replace_patches(tokens: torch.Tensor, n_prefix: int, maps: torch.Tensor) -> torch.Tensor:
    """Return tokens whose patch tokens are those of maps, see `take_maps`."""
    return torch.cat([tokens[:, :n_prefix], maps.flatten(2).transpose(1, 2)], dim=1)
