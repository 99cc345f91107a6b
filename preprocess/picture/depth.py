"""How many bits the values of a data set's photographs have: one rule for all of them, from a sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess.cache import manifest
from preprocess.disk.errors import Unusable
from preprocess.picture import photograph

N_SAMPLED = 32  # photographs, evenly spread: where they have 8 bits only their headers are read


class Depth(NamedTuple):
    """The range of a data set's values of more than 8 bits."""

    bits: int
    highest: int  # value that was seen
    n_seen: int  # photographs of 16 bits among those sampled

    def describe(self) -> str:
        """Return the rule for people."""
        return (
            f"values of 16 bits are scaled by the range of {self.bits} bits, 0 to {2**self.bits - 1:,}: the highest of "
            f"{self.n_seen} photographs that were sampled is {self.highest:,}"
        )


def read_bits(folder: Path) -> int | None:
    """Return the range of values of more than 8 bits that a stage, crop or resize, has worked with in its folder."""
    written = manifest.read_manifest(folder)
    return written["parameters"].get("bits") if written else None


def find_depth(paths: Sequence[Path]) -> Depth | None:
    """Return the range of the values of 16 bits in photographs; None if those sampled have 8, or say it themselves.

    It is the highest value of the sample, rounded up to a number of bits: 12 for a scanner's 4,000 in files of 16.
    """
    step = max(1, len(paths) // N_SAMPLED)
    highest = -1
    n_seen = 0
    for path in paths[::step]:
        try:
            values = photograph.read_values(path)
        except Unusable:  # the stage that reads all of them says why
            continue
        if values is not None:
            highest = max(highest, int(values.max()))
            n_seen += 1
    if not n_seen:
        return None
    return Depth(bits=max(8, highest.bit_length()), highest=highest, n_seen=n_seen)
