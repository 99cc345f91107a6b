"""A net over several processes: BatchNorm over all their samples; torch's SyncBatchNorm needs GPUs."""

from typing import Any

import torch
from torch import distributed, nn

from dr.machine import workers


def connect(net: nn.Module, device: torch.device, is_ever_frozen: bool) -> nn.Module:
    """Return an untrained net as training calls it, with gradients averaged over the processes.

    The net's BatchNorm layers are replaced by ones over the batches of all processes. If the net is
    ever frozen, not all parameters have gradients.
    """
    if workers.count() == 1:
        return net
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, _share_statistics(layer, device))
    return nn.parallel.DistributedDataParallel(net, find_unused_parameters=is_ever_frozen)


def _share_statistics(layer: nn.BatchNorm1d | nn.BatchNorm2d, device: torch.device) -> nn.Module:
    """Return a copy of a layer whose statistics are those of all processes' samples."""
    kind = nn.SyncBatchNorm if device.type == "cuda" else SharedBatchNorm
    shared = kind(layer.num_features, layer.eps, layer.momentum, layer.affine).to(device)
    shared.load_state_dict(layer.state_dict())
    for copied, original in zip(shared.parameters(), layer.parameters(), strict=True):
        copied.requires_grad_(original.requires_grad)
    activation = getattr(layer, "act", None)  # of timm's BatchNormAct2d
    if isinstance(activation, nn.Module):
        shared.register_forward_hook(lambda _layer, _inputs, output: activation(output))
    return shared


class _Sum(torch.autograd.Function):
    """The sum of the processes' values, in all of them; a gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(_context: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose statistics are those of all processes' samples, on any device."""

    def _check_input_dim(self, features: torch.Tensor) -> None:
        """Take any number of dimensions; the second one is the channels."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features (n, channels, ...), normalized by all processes' mean and variance."""
        if not self.training:
            return super().forward(features)
        axes = [0, *range(2, features.ndim)]
        shape = [1, -1] + [1] * (features.ndim - 2)
        n = workers.count() * features.numel() // self.num_features
        values = features.to(torch.promote_types(features.dtype, torch.float32))
        mean = _Sum.apply(values.sum(axes)) / n
        centered = values - mean.view(shape)
        variance = _Sum.apply((centered**2).sum(axes)) / n
        self._update_statistics(mean.detach(), variance.detach() * n / (n - 1))
        normalized = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(features.dtype)

    def _update_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if not momentum:  # the mean over all batches
            momentum = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
