"""The progress of a long loop: a bar on a terminal, a plain line now and then in a log."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from preprocess.disk import clock
from preprocess.disk.clock import FIRST_LINE_S, NEXT_LINE_S

waiting = clock.waiting  # for commands; rooms below this one have it from there


class Bar:
    """Progress in a log: a line is printed when enough time has passed since the last one."""

    def __init__(self, total: int, title: str, is_shown: bool, unit: str = "image"):
        self.total = total
        self.title = title
        self.unit = unit
        self.done = 0
        self.started = time.monotonic()
        self.due_s = FIRST_LINE_S if is_shown else math.inf

    def update(self, n: int = 1) -> None:
        """Count `n` more images, or what else is counted, as done."""
        self.done += n
        elapsed_s = time.monotonic() - self.started
        if elapsed_s >= self.due_s and self.done:
            minutes = (self.total - self.done) * elapsed_s / self.done / 60
            print(
                f"{self.title}: {self.done} of {self.total} {self.unit}s, {minutes:.1f} minutes to go",
                file=sys.stderr,
                flush=True,
            )
            self.due_s = elapsed_s + NEXT_LINE_S


@contextmanager
def tracking(total: int, title: str, is_shown: bool = True, unit: str = "image") -> Iterator[Bar]:
    """Yield a bar to `update`; it is gone when the block ends."""
    if not sys.stderr.isatty():
        yield Bar(total, title, is_shown, unit)
        return
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=title,
        unit=unit,
        mininterval=1,
        leave=False,
        disable=not is_shown,
    ) as bar:
        yield bar
