"""Picks the net's device and precision, and sets the process up for large, short-lived arrays."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch

from dr.machine import workers
from preprocess.disk.errors import InputError

M_TRIM_THRESHOLD = -1  # this and the next: of glibc's malloc.h
M_MMAP_MAX = -4
# What convolutions may run in beside float32.
KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
EMULATED = "this processor would emulate it, many times slower"
PASCAL_P100 = (6, 0)  # CUDA capabilities: fast float16, ...
VOLTA = (7, 0)  # ... float16's tensor cores, ...
AMPERE = (8, 0)  # ... and bfloat16's
# The flags in /proc/cpuinfo, either of which says that the processor multiplies such numbers.
CPU_FLAGS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}


def choose_device(name: str) -> torch.device:
    """Return the named device, or for `auto` the best one present: cuda, mps, cpu."""
    if name != "auto":
        try:
            return torch.zeros(1, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if torch.cuda.is_available():
        return torch.device("cuda", workers.local_rank())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_precision(name: str, device: torch.device) -> str:
    """Return the named precision, or for `auto` the first that the device multiplies natively.

    A processor that would emulate float16 takes float32, and says so.

    The loss by bfloat16 and float16 is smaller than the spread between seeds:
    `python -m tests.benchmarks.precision`.
    """
    if name != "auto":
        precision = avoid_emulation(name, device)
        if precision != name and workers.rank() == 0:
            print(f"--precision {name}: {EMULATED}: {precision} is taken")
        return precision
    for precision in KINDS:
        if is_native(precision, device):
            return precision
    return "float32"


def avoid_emulation(precision: str, device: torch.device) -> str:
    """Return a precision, or float32 in the place of float16 that a processor would emulate."""
    if precision == "float16" and device.type == "cpu" and not is_native(precision, device):
        return "float32"
    return precision


def is_native(precision: str, device: torch.device) -> bool:
    """Return whether a device multiplies numbers of a precision itself.

    Other devices emulate it, which is slower than float32.
    """
    if precision == "float32":
        return True
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if precision == "float16":
            return capability >= VOLTA or capability == PASCAL_P100
        return capability >= AMPERE
    if device.type != "cpu" or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    return not CPU_FLAGS[precision].isdisjoint(_read_cpu_flags())


def _read_cpu_flags() -> list[str]:
    with open("/proc/cpuinfo") as handle:
        for line in handle:
            if line.startswith("flags"):
                return line.split()
    return []


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which convolutions run in `precision`."""
    if precision in KINDS:
        return torch.autocast(device.type, KINDS[precision])
    return torch.autocast(device.type, torch.bfloat16, enabled=False)


@contextlib.contextmanager
def naming_memory() -> Iterator[None]:
    """Turn running out of memory into InputError with one line of advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise InputError(
            "out of memory: try a smaller --batch-size, dr.train --accumulate, or smaller --crop-px"
        ) from None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    message = str(error).lower()  # for the processor's memory torch has no class of errors
    return "out of memory" in message or "allocate memory" in message


def prepare(device: torch.device) -> None:
    """Set the process up for training or scoring.

    Images have one size, and feature maps of 100 MB are made and freed all the time.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the algorithms once per size of image
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32, as on the processor
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc: keep freed memory for the next step, or the kernel zeroes its pages again
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
