"""A net over several processes: BatchNorm over all their samples, as torch's SyncBatchNorm does on GPUs only."""

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce  # whose gradients are summed, too

from dr.machine import workers


def connect(net: nn.Module, device: torch.device, is_ever_frozen: bool) -> nn.Module:
    """Return an untrained net as training calls it: with gradients averaged over the processes, of the whole batch's
    BatchNorm, whose layers are put in the place of the net's. If it is ever frozen, not all parameters have gradients.
    """
    if workers.count() == 1:
        return net
    kind = nn.SyncBatchNorm if device.type == "cuda" else SharedBatchNorm
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                shared = kind(layer.num_features, layer.eps, layer.momentum, layer.affine).to(device)
                shared.load_state_dict(layer.state_dict())
                for own, before in zip(shared.parameters(), layer.parameters(), strict=True):
                    own.requires_grad_(before.requires_grad)
                if isinstance(activate := getattr(layer, "act", None), nn.Module):  # timm's BatchNormAct2d
                    shared.register_forward_hook(lambda _layer, _given, made, activate=activate: activate(made))
                setattr(parent, name, shared)
    return nn.parallel.DistributedDataParallel(net, find_unused_parameters=is_ever_frozen)


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
        mean = all_reduce(values.sum(axes)) / n
        centered = values - mean.view(shape)
        variance = all_reduce((centered**2).sum(axes)) / n
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum or 1 / self.num_batches_tracked.item()  # without momentum: the mean over all batches
        self.running_mean.lerp_(mean.detach(), share)
        self.running_var.lerp_(variance.detach() * n / (n - 1), share)
        normalized = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(features.dtype)
