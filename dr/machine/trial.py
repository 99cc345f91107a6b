"""Does a processor bear a net? A forward and a backward pass of two images, in a process that may die of it.

Torch 2.14.1 dies of a convolution of 1×1 with a stride of 2 of three channels, `Conv2d(3, 48, 1, stride=2)`, with
channels last on a processor, in its backward pass: of repvgg_a0, fastvit_t8 and mobileone_s0 in timm.
"""

import copy
import faulthandler
import multiprocessing
import os
import sys
from typing import Any

import torch
from torch import nn

N_IMAGES = 2
STDERR = 2  # its file descriptor
LONGEST_S = (
    300  # two images of a large net take seconds; a process that hangs does not bear it either
)


def survives(net: nn.Module, memory_format: torch.memory_format) -> bool:
    """Return whether a step of a net, which tells its `image_px`, ends otherwise than in the death of the process.

    A fault that is an exception does not count: the training itself will raise it, where it can be told.
    """
    kind = (
        "fork" if sys.platform == "linux" else "spawn"
    )  # a fork shares torch and the net, and takes no time to start
    context: Any = multiprocessing.get_context(kind)
    child = context.Process(target=_take_step, args=(net, memory_format), daemon=True)
    sys.stdout.flush()
    child.start()
    child.join(LONGEST_S)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode is not None and child.exitcode >= 0


def _take_step(net: nn.Module, memory_format: torch.memory_format) -> None:
    """Compute the gradients of a net for two images of noise, without a word on its death."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    torch.set_num_threads(1)  # OpenMP's threads are not there in a forked process
    tried = copy.deepcopy(net).to(memory_format=memory_format).train()  # type: ignore[call-overload]
    tried.requires_grad_(True)
    side = int(net.image_px)  # type: ignore[arg-type]
    images = torch.randn(N_IMAGES, 3, side, side).contiguous(memory_format=memory_format)
    tried(images).sum().backward()
