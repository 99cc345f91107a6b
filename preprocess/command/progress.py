"""How far a long loop is: a bar where a person watches a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_LINE_S, NEXT_LINE_S = 30.0, 120.0  # a loop shorter than the first says nothing in a log


class Bar:
    """What a loop moves on as it goes; in a log it prints a line when enough time has passed since the last one."""

    def __init__(self, total: int, title: str, is_shown: bool):
        self.total, self.title, self.done, self.started = total, title, 0, time.monotonic()
        self.due_s = FIRST_LINE_S if is_shown else float("inf")

    def update(self, n: int = 1) -> None:
        """Tell that `n` more images are done."""
        self.done += n
        elapsed_s = time.monotonic() - self.started
        if elapsed_s >= self.due_s and self.done:
            minutes = (self.total - self.done) * elapsed_s / self.done / 60
            text = f"{self.title}: {self.done} of {self.total} images, {minutes:.1f} minutes to go"
            print(text, file=sys.stderr, flush=True)
            self.due_s = elapsed_s + NEXT_LINE_S


@contextmanager
def tracking(total: int, title: str, is_shown: bool = True) -> Iterator[Bar]:
    """Yield a bar to `update`; it is gone when the block ends."""
    if not sys.stderr.isatty():
        yield Bar(total, title, is_shown)
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit="image", mininterval=1, leave=False, disable=not is_shown) as bar:
        yield bar
