"""Processes that train one net together, as torchrun starts them: one per device, the first of them writes the files.
Alone, without torchrun, everything here does nothing, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import torch

JOIN_S = 120  # the processes of a launcher start together; one that waits longer for the others waits in vain


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says otherwise: spinning, they steal the time
    of the very threads they wait for. Training at 448 px, images/s on 2 Zen 5 cores, torch 2.13, three runs each:
    sleeping 30.7 to 31.6, spinning 32.9 and 33.6 alone, but 7.8 beside another process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def count() -> int:
    """Return how many processes train together."""
    return _read_number("WORLD_SIZE", 1)


def rank() -> int:
    """Return which of them this is, from 0 on."""
    return _read_number("RANK", 0)


def local_rank() -> int:
    """Return which of this machine's processes, and so of its GPUs, this is."""
    return _read_number("LOCAL_RANK", 0)


def _read_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r} in the environment, not a whole number; torchrun sets it")
    return int(text)


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the others, NCCL between GPUs and Gloo else, to train on the device of this name. Raises InputError if the
    environment does not say who and where they are, or they do not come within JOIN_S.
    """
    if count() == 1:
        yield
        return
    if rank() >= count():
        raise InputError(f"RANK is {rank()} in the environment: of {count()} processes the last is {count() - 1}")
    import torch
    from torch import distributed

    is_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if is_gpu:
        torch.cuda.set_device(local_rank())
    try:  # the limit is for meeting alone: later one process may well work while the others wait
        store, own, all_of_them = next(distributed.rendezvous("env://", timeout=timedelta(seconds=JOIN_S)))
    except ValueError as error:  # a variable of the environment is not set
        raise InputError(f"WORLD_SIZE is {count()}, but {str(error).rpartition(': ')[2]}; torchrun sets it") from None
    except RuntimeError as error:
        shown = shorten(" ".join(str(error).split()))
        raise InputError(f"{count()} processes (WORLD_SIZE) did not meet within {JOIN_S} s: {shown}") from None
    distributed.init_process_group("nccl" if is_gpu else "gloo", store=store, rank=own, world_size=all_of_them)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(find: Callable[[], Any]) -> Any:
    """Return, in all processes, what the first one finds."""
    if count() == 1:
        return find()
    from torch import distributed

    values = [find() if rank() == 0 else None]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


@contextlib.contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find what it left."""
    if rank() > 0:
        _meet()
    yield
    if rank() == 0:
        _meet()


def _meet() -> None:
    if count() > 1:
        from torch import distributed

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
    """Return this process's part of a batch. Raises InputError for unequal parts: the mean of the gradients would not
    be the batch's.
    """
    if len(batch) % count():
        raise InputError(f"a batch of {len(batch)} images cannot be divided evenly among {count()} processes")
    return batch[rank() :: count()]
