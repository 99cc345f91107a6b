"""BatchNorm over the samples of several processes; torch's own SyncBatchNorm does that on GPUs only."""

from __future__ import annotations

import torch
from torch import distributed, nn

from dr import workers


def replace_layers(net: nn.Module, kind: type[nn.Module]) -> None:
    """Replace the BatchNorm layers of an untrained net by others, under the same names."""
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, kind(layer.num_features, affine=layer.affine).to(layer.running_mean))


class SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' tensors, in all of them; so each gets the sum of their gradients."""

    @staticmethod
    def forward(_context, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context, gradient: torch.Tensor) -> torch.Tensor:
        """Return the sum of the gradients."""
        return SumOverProcesses.forward(_context, gradient)


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose statistics are those of all processes' samples, on any device."""

    def _check_input_dim(self, features: torch.Tensor) -> None:
        """Take any number of dimensions; the second one is the channels."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features (n, channels, ...), normalized by all processes' mean and variance."""
        if not self.training:
            return super().forward(features)
        axes = [0, *range(2, features.ndim)]
        shape = (1, -1, *[1] * (features.ndim - 2))
        n = workers.count() * features.numel() // self.num_features
        values = features.to(torch.promote_types(features.dtype, torch.float32))
        mean = SumOverProcesses.apply(values.sum(axes)) / n
        centered = values - mean.view(shape)
        variance = SumOverProcesses.apply((centered**2).sum(axes)) / n
        self._follow(mean.detach(), variance.detach() * n / (n - 1))
        normalized = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(features.dtype)

    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        self.num_batches_tracked.add_(1)
        share = self.momentum or 1 / self.num_batches_tracked.item()  # without momentum: the mean over all batches
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
