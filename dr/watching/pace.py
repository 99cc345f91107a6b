"""How fast a training goes, and when it will be done: the seconds of its last epochs."""

from typing import NamedTuple

import numpy as np

RECENT = 5  # epochs whose median is the pace: those of the head alone are faster, and a busy machine changes


class EpochTime(NamedTuple):
    """How long an epoch took."""

    training_s: float  # of the pass that learns
    whole_s: float  # with BatchNorm's statistics, the images held out, and the checkpoint


def estimate_left(times: list[EpochTime], n_left: int) -> float:
    """Return the seconds that the epochs left will take, at the pace of the last ones."""
    return n_left * float(np.median([time.whole_s for time in times[-RECENT:]]))


def show_duration(seconds: float) -> str:
    """Return a duration in words: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"
