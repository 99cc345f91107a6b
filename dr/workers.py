"""Processes that train one net together, as torchrun starts them: one per device, the first of them writes the files.

Alone, without torchrun, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of them this is, from 0 on."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the others, NCCL between GPUs and Gloo else; yield the device of this process."""
    if count() == 1:
        yield device
        return
    import torch
    from torch import distributed

    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def share(value: Any) -> Any:
    """Return the first process's value, in all of them."""
    if count() == 1:
        return value
    from torch import distributed

    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


@contextlib.contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find what it left."""
    from torch import distributed

    if count() > 1 and rank() > 0:
        distributed.barrier()
    yield
    if count() > 1 and rank() == 0:
        distributed.barrier()


def average(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over the processes, in all of them."""
    if count() == 1:
        return values
    from torch import distributed

    total = values.clone()
    distributed.all_reduce(total)
    return total / count()


def take_share(batch: Any) -> Any:
    """Return this process's part of a batch.

    Raises InputError if the batch cannot be divided evenly: the mean of the gradients would not be the batch's.
    """
    if len(batch) % count():
        raise InputError(f"a batch of {len(batch)} images cannot be divided evenly among {count()} processes")
    return batch[rank() :: count()]


def connect(net: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the net as training calls it: with gradients averaged over the processes.

    Changes the net's BatchNorm layers to ones that see the whole batch, under the same names.
    """
    if count() == 1:
        return net
    from torch import nn

    from dr import batch_norm

    batch_norm.replace_layers(net, nn.SyncBatchNorm if device.type == "cuda" else batch_norm.SharedBatchNorm)
    return nn.parallel.DistributedDataParallel(net)
