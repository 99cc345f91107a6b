"""Processes that train one net, or score images, together, as torchrun starts them: one per device.

The first process writes the files; in scoring each keeps what it has scored. Without torchrun there
is one process: nothing here does anything then, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from preprocess.command import resources
from preprocess.disk.errors import InputError, shorten

if TYPE_CHECKING:
    import torch

JOIN_S = 120  # a launcher's processes start together; one that waits longer waits in vain
LONGEST_SHARE_S = (
    30 * 24 * 3600
)  # of scoring: some processes may be done with theirs days before others


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment sets another policy.

    There are no more of them than a container's quota of processors allows.

    Spinning threads take the time of the very threads they wait for. Training at 448 px, images/s on
    2 Zen 5 cores, torch 2.13, three runs each: sleeping 30.7 to 31.6, spinning 32.9 and 33.6 alone,
    but 7.8 beside another process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if resources.has_quota():  # OpenMP itself goes by the affinity alone
        os.environ.setdefault("OMP_NUM_THREADS", str(resources.count_processors()))


def count() -> int:
    """Return how many processes work together."""
    return _read_number("WORLD_SIZE", 1)


def rank() -> int:
    """Return the number of this process among all, from 0 on."""
    return _read_number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process, and of its GPU, on this machine, from 0 on."""
    return _read_number("LOCAL_RANK", 0)


def _read_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(
            f"{name} is {text!r} in the environment, not a whole number; torchrun sets it"
        )
    return int(text)


@contextlib.contextmanager
def first_prints() -> Iterator[None]:
    """Let the first process alone print: all find the same, and say it in the same words."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        yield


@contextlib.contextmanager
def joined(device: str, longest_s: float | None = None) -> Iterator[None]:
    """Connect the processes on the named device: by NCCL between GPUs, else by Gloo.

    `longest_s` is how long one may wait for another later (torch's own limit, 10 or 30 minutes).
    Raises InputError if the environment lacks their numbers or their address, or if they do not meet
    within JOIN_S.
    """
    if count() == 1:
        yield
        return
    if rank() >= count():
        raise InputError(
            f"RANK is {rank()} in the environment: of {count()} processes the last is {count() - 1}"
        )
    import torch
    from torch import distributed

    is_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if is_gpu:
        torch.cuda.set_device(local_rank())
    limit = timedelta(seconds=JOIN_S)  # for meeting alone: later one may work while the others wait
    try:
        store, own_rank, n_processes = next(distributed.rendezvous("env://", timeout=limit))
    except ValueError as error:  # a variable of the environment is not set
        raise InputError(
            f"WORLD_SIZE is {count()}, but {str(error).rpartition(': ')[2]}; torchrun sets it"
        ) from None
    except RuntimeError as error:
        shown = shorten(" ".join(str(error).split()))
        raise InputError(
            f"{count()} processes (WORLD_SIZE) did not meet within {JOIN_S} s: {shown}"
        ) from None
    backend = "nccl" if is_gpu else "gloo"
    distributed.init_process_group(
        backend,
        store=store,
        rank=own_rank,
        world_size=n_processes,
        timeout=None if longest_s is None else timedelta(seconds=longest_s),
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(find: Callable[[], Any]) -> Any:
    """Return in all processes the result of the first one, which alone calls `find`."""
    if count() == 1:
        return find()
    from torch import distributed

    values = [None]
    if rank() == 0:
        values[0] = find()
    distributed.broadcast_object_list(values, src=0)
    return values[0]


@contextlib.contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in the first process, then in the others, which read the files of the first."""
    if rank() > 0:
        meet()
    yield
    if rank() == 0:
        meet()


def meet() -> None:
    """Wait until all processes have come so far."""
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
    """Return this process's part of a batch.

    Raises InputError for unequal parts: the mean of the gradients would not be the batch's.
    """
    if len(batch) % count():
        raise InputError(
            f"a batch of {len(batch)} images cannot be divided evenly among {count()} processes"
        )
    return batch[rank() :: count()]


def take_part(ordered: Sequence[Any]) -> list[Any]:
    """Return this process's part of some pieces of work, which follow each other; parts may be empty."""
    start = rank() * len(ordered) // count()
    end = (rank() + 1) * len(ordered) // count()
    return list(ordered[start:end])
