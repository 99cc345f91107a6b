"""Where the net runs: picks device and precision, and sets the process up for large, short-lived arrays."""

import ctypes

import torch

from dr.machine import workers
from preprocess.cache.errors import InputError

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
        return torch.device("cuda", workers.local_rank())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(name: str, device: torch.device) -> str:
    """Return the named precision, or for `auto` bfloat16 where the processor multiplies it natively, else float32."""
    if name != "auto":
        return name
    has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE
    if device.type == "cpu" and getattr(torch.backends.cpu, "get_cpu_capability", str)().startswith("AVX512"):
        with open("/proc/cpuinfo") as handle:  # without these, AVX512-BF16 or AMX, it is emulated and slower
            flags = next((line for line in handle if line.startswith("flags")), "")
        has_bfloat16 = "avx512_bf16" in flags or "amx_bf16" in flags
    return "bfloat16" if has_bfloat16 else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which convolutions run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def prepare(device: torch.device) -> None:
    """Set the process up for training or scoring: images of one size, feature maps of 100 MB that come and go."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the algorithms once per size of image
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc: freed memory is kept for the next step, where the kernel would have to zero its pages again
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
