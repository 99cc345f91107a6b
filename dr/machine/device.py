"""Where the net runs: picks device and precision, and sets the process up for large, short-lived arrays."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch

from dr.machine import workers
from preprocess.disk.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # what convolutions may run in beside float32
PASCAL_P100, VOLTA, AMPERE = (6, 0), (7, 0), (8, 0)  # CUDA capabilities: fast float16, its tensor cores, bfloat16's


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
    """Return the named precision, or for `auto` the first that the device multiplies natively: what bfloat16 and
    float16 cost is less than what chance does, `python -m tests.benchmarks.precision`.
    """
    return next(known for known in (*KINDS, "float32") if is_native(known, device)) if name == "auto" else name


def is_native(precision: str, device: torch.device) -> bool:
    """Tell whether a device multiplies numbers of a precision itself: others emulate it, slower than float32."""
    if precision == "float32":
        return True
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return capability >= AMPERE or (precision == "float16" and (capability >= VOLTA or capability == PASCAL_P100))
    if device.type != "cpu" or not getattr(torch.backends.cpu, "get_cpu_capability", str)().startswith("AVX512"):
        return False
    with open("/proc/cpuinfo") as handle:
        flags = next((line for line in handle if line.startswith("flags")), "").split()
    needed = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
    return not needed[precision].isdisjoint(flags)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which convolutions run in `precision`."""
    kind = KINDS.get(precision)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


@contextlib.contextmanager
def naming_memory() -> Iterator[None]:
    """Have a batch that memory does not hold end in one line: InputError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()  # of the processor's memory torch says it in words alone
        if isinstance(error, RuntimeError) and "out of memory" not in words and "allocate memory" not in words:
            raise
        raise InputError(
            "out of memory: try a smaller --batch-size, dr.train --accumulate, or smaller --crop-px"
        ) from None


def prepare(device: torch.device) -> None:
    """Set the process up for training or scoring: images of one size, feature maps of 100 MB that come and go."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the algorithms once per size of image
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32, as on the processor
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc: freed memory is kept for the next step, where the kernel would have to zero its pages again
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
