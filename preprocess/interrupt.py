"""Ends a stage within a moment of Ctrl-C, whatever it is doing: no worker and no temporary file stays behind.

Every stage may be killed at any instant without harm, so nothing is unwound. SIGINT is blocked in all threads and in
the worker processes, which would print tracebacks, and taken by a thread of its own, which does not have to wait for a
long computation of the main thread: it ends the workers, removes what is half written, says how to go on, and exits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
MESSAGE = "interrupted; the same command goes on where it stopped"
PARTIAL = ".partial-"  # prefix of every temporary file: a name no image id may have
FOLLOW_S = 0.5  # how often a worker looks whether the process that started it is still there
KILLED_S = 1.0  # a worker that was killed and lives longer hangs in the kernel, in a dead disk

_ending = threading.Event()  # an interruption has come
_gate = threading.Lock()  # taken for good by it: no temporary file is begun any more
_partials: set[Path] = set()  # the temporary files that this process is writing
_held: list[Path] = []  # the folders that this process has locked, in which its workers write


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answer SIGINT while the block runs; in a stage, which has held it back since it was imported, until the end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: Ctrl-C is not meant for it
        yield
        return
    was_held_back = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=_end).start())  # if a library unblocks it
    if signal.SIGINT in signal.sigpending():  # it came while the stage was imported
        _end()
    is_over = threading.Event()
    watcher = threading.Thread(target=_wait, args=(is_over,), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        if _ending.is_set():  # it failed because its workers and files were taken away
            threading.Event().wait()
        raise
    finally:
        if not was_held_back:
            is_over.set()
            signal.pthread_kill(watcher.ident, signal.SIGINT)
            watcher.join()
            signal.signal(signal.SIGINT, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _wait(is_over: threading.Event) -> None:
    signal.sigwait({signal.SIGINT})
    if not is_over.is_set():
        _end()


def _end() -> None:
    """End the workers, remove temporary files, print one line, exit: whatever happens meanwhile."""
    _ending.set()
    _gate.acquire()
    message = MESSAGE
    try:
        _tidy_up()
    except Exception as error:
        message = f"{MESSAGE} (it could not be tidied up here: {error})"
    is_bar_open = bool(getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", None))
    os.write(_take_stderr(), f"{'' if not is_bar_open else chr(10)}error: {message}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _take_stderr() -> int:
    """Return a descriptor that writes where stderr did; what other threads write from now on, of a bar say, is lost."""
    try:
        own = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except OSError:  # no descriptor is left: then others may have the last word
        return 2
    return own


def _tidy_up() -> None:
    _kill_children()
    for folder in _held:
        remove_partials_below(folder)
    for path in list(_partials):
        path.unlink(missing_ok=True)


def _kill_children() -> None:
    # The main thread may be importing multiprocessing at this moment; then it has started no process.
    children = getattr(sys.modules.get("multiprocessing"), "active_children", list)()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    for child in children:
        child.join(KILLED_S)


def remove_partials_below(folder: Path) -> None:
    """Remove all temporary files in a folder and the folders below it."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(PARTIAL):
                Path(place, name).unlink(missing_ok=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep an interruption waiting while the block runs; once one has begun, never enter the block."""
    with _gate:
        yield


@contextlib.contextmanager
def begun(partial: Path) -> Iterator[Path]:
    """Yield a temporary path; remove the file if it is still there after the block, or at an interruption."""
    with _gate:
        _partials.add(partial)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
        _partials.discard(partial)


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """While the block runs, an interruption removes what workers have half written in a folder or below it."""
    _held.append(folder)
    try:
        yield
    finally:
        _held.remove(folder)


def shield_workers() -> None:
    """Have the workers that joblib starts next begin with SIGINT blocked, if it is blocked here.

    joblib's helper processes, which are started with the first worker, unblock it: so they are started before.
    """
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as joblib_tracker

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    resource_tracker.ensure_running()
    joblib_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def follow_parent(pid: int) -> None:
    """End this worker process soon after its parent `pid` is gone, killed by SIGKILL even: the start of a worker."""

    def follow() -> None:
        while os.getppid() == pid:
            time.sleep(FOLLOW_S)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
