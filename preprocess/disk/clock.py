"""How long work has taken that nobody can count: shown on a terminal, a plain line now and then in a log."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_LINE_S = 30.0  # what takes less prints nothing in a log
NEXT_LINE_S = 120.0
SHOWN_AFTER_S = 2.0  # what takes less is not shown on a terminal
REFRESHED_S = 1.0


@contextmanager
def waiting(title: str, is_shown: bool = True) -> Iterator[None]:
    """Show how long the block has been at work: on a terminal each second, in a log now and then.

    It is for what nobody can count; what is shown on a terminal is gone when the block ends.
    """
    if not is_shown:
        yield
        return
    is_over = threading.Event()
    show = _show_clock if sys.stderr.isatty() else _print_clock
    thread = threading.Thread(target=show, args=(title, is_over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _show_clock(title: str, is_over: threading.Event) -> None:
    """Show on a terminal how long a block has been at work, until it is over."""
    started = time.monotonic()
    if is_over.wait(SHOWN_AFTER_S):
        return
    from tqdm import tqdm

    with tqdm(desc=title, bar_format="{desc}", leave=False) as line:
        while True:
            elapsed_s = time.monotonic() - started
            line.set_description_str(f"{title}: {elapsed_s:.0f} s")
            if is_over.wait(REFRESHED_S):
                return


def _print_clock(title: str, is_over: threading.Event) -> None:
    """Print into a log how long a block has been at work, now and then, until it is over."""
    started = time.monotonic()
    pause_s = FIRST_LINE_S
    while not is_over.wait(pause_s):
        elapsed_s = time.monotonic() - started
        print(f"{title}: {elapsed_s:.0f} s so far", file=sys.stderr, flush=True)
        pause_s = NEXT_LINE_S
