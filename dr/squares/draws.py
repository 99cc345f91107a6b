"""Random numbers as a function of (seed, stream, epoch, position): the same on every device, in any order.

A counter-based generator: the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", OOPSLA, section 4) hashes the purpose of the number. Integers only,
so that no device rounds differently.
"""

import torch

BITS = 24  # of a draw: float32 and float64 hold all of them

# Streams: the purposes of the numbers.
CROPS = 0
VIEWS = 1
DROPOUT = 2
DROP_PATH = 3

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio, as a signed number
FIRST_FACTOR = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND_FACTOR = 0x94D049BB133111EB - (1 << 64)


def hash_numbers(numbers: torch.Tensor) -> torch.Tensor:
    """Return a hash of each int64, any shape: all 64 bits of it depend on all bits of the number."""
    numbers = (numbers ^ _shift_right(numbers, 30)) * FIRST_FACTOR
    numbers = (numbers ^ _shift_right(numbers, 27)) * SECOND_FACTOR
    return numbers ^ _shift_right(numbers, 31)


def _shift_right(numbers: torch.Tensor, count: int) -> torch.Tensor:
    return (numbers >> count) & ((1 << (64 - count)) - 1)  # torch's own shift keeps the sign


def make_keys(seed: int, stream: int, epoch: int, positions: torch.Tensor) -> torch.Tensor:
    """Return one key per position in the dataset, (n,) int64 on the positions' device."""
    key = torch.zeros((), dtype=torch.int64, device=positions.device)
    for number in (seed, stream, epoch):
        key = hash_numbers(key + number + GOLDEN)
    return hash_numbers(key + positions * GOLDEN)


def draw(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` draws per key, uniform integers 0..2**BITS - 1: (n, count) int64."""
    counters = torch.arange(1, count + 1, device=keys.device) * GOLDEN
    hashes = hash_numbers(keys[:, None] + counters)
    return _shift_right(hashes, 64 - BITS)
