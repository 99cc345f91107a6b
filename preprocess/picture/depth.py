"""How many bits the values of a data set's photographs have: one rule for all of a source, from a sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


def read_bits(folder: Path) -> photograph.Bits | None:
    """Return the range of values of more than 8 bits that a stage, crop or resize, has worked with in its folder.

    Where the sources of a joined set differ in it, it is all of their ranges.
    """
    written = manifest.read_manifest(folder)
    bits = written["parameters"].get("bits") if written else None
    if isinstance(bits, dict):
        return tuple(sorted(set(bits.values())))
    return bits


def find_depths(paths: Mapping[str, Sequence[Path]]) -> dict[str, Depth]:
    """Return the range of each source's values, of those whose photographs have 16 bits; see `find_depth`."""
    depths = {}
    for name, of_source in paths.items():
        found = find_depth(of_source)
        if found:
            depths[name] = found
    return depths


def describe_depths(depths: Mapping[str, Depth]) -> list[str]:
    """Return a line for people on the rule of each source, or of the data set."""
    lines = []
    for name, found in depths.items():
        title = f"{name}: " if name else ""
        lines.append(f"{title}{found.describe()}")
    return lines


def make_parameters(depths: Mapping[str, Depth]) -> dict[str, Any]:
    """Return the rule as a parameter of a stage, which there is only where photographs have more than 8 bits.

    It is a number of bits, or, where sources differ, source -> number.
    """
    bits = {name: found.bits for name, found in depths.items()}
    if not bits:
        return {}
    if len(set(bits.values())) == 1:
        return {"bits": next(iter(bits.values()))}
    return {"bits": bits}


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
