"""What training lowers, as torch computes it; torch is imported late, where the arrays are already its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings


def measure_level_loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return the mean loss of logits (n, k) and targets (n,) int64: log loss and squared error of the expected level.

    Weights are (k,), what an image of each target counts.
    """
    import torch
    from torch.nn import functional

    log_losses = functional.cross_entropy(
        logits, targets, reduction="none", label_smoothing=settings.label_smoothing
    )
    losses = settings.log_loss * log_losses
    if settings.squared_error:
        levels = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
        losses = losses + settings.squared_error * (logits.softmax(dim=1) @ levels - targets) ** 2
    return (losses * weights[targets]).mean()


def measure_exclusive_log_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean log loss of logits (n, k) and targets (n,) int64."""
    from torch.nn import functional

    return functional.cross_entropy(logits, targets)


def measure_binary_log_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    positive: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean log loss of images and findings, (n, k) each; a target is 1, 0, or NaN where it is unknown.

    An unknown target counts as nothing lost, so that the mean of two halves is that of the whole. `smoothing` is the
    share of a target that is spread over both answers, `positive`, (k,), what an image that has a finding weighs.
    """
    import torch
    from torch.nn import functional

    smoothed = (targets * (1 - smoothing) + smoothing / 2).nan_to_num()
    losses = functional.binary_cross_entropy_with_logits(
        logits, smoothed, reduction="none", pos_weight=positive
    )
    return torch.where(targets.isnan(), 0.0, losses).mean()
