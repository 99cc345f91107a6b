"""Where the net runs: picks device and precision, and sets the process up for large, short-lived arrays."""

from __future__ import annotations

import ctypes

import torch

from preprocess.stage import InputError

PRECISIONS = ("float32", "bfloat16")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
AMPERE = (8, 0)  # the first CUDA capability whose tensor cores take bfloat16


def choose_device(name: str) -> torch.device:
    """Return the named device, or for `auto` the best at hand: cuda, mps, cpu."""
    if name != "auto":
        try:
            return torch.zeros(1, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(name: str, device: torch.device) -> str:
    """Return the named precision, or for `auto` bfloat16 where the processor multiplies it natively, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= AMPERE
    else:
        has_bfloat16 = device.type == "cpu" and cpu_multiplies_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Tell whether the processor has instructions that multiply bfloat16 (AVX512-BF16, AMX)."""
    capabilities = getattr(torch.backends.cpu, "get_cpu_capability", str)()
    if not capabilities.startswith("AVX512"):
        return False  # emulated, bfloat16 is slower than float32
    with open("/proc/cpuinfo") as handle:
        flags = next((line for line in handle if line.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which convolutions run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def prepare(device: torch.device) -> None:
    """Set the process up for training or scoring: images of one size, arrays of 100 MB that come and go."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the algorithms once per size of image
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step, instead of having the kernel zero its pages again.

    Feature maps of 100 MB come and go in every step. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
