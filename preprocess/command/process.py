"""How a command runs and ends: a fault is one line and a status, and no stage outlives its script."""

import errno
import os
import signal
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from preprocess.disk import libraries
from preprocess.disk.errors import InputError

EXIT_INPUT = 2  # the user must correct the input
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
MESSAGE = "interrupted; the same command goes on where it stopped"
FOLLOW_S = 0.5  # between two looks whether the parent process is still there
import_libraries = (
    libraries.import_libraries
)  # for commands; rooms below this one have it from there

# What to do about errors of the system, by their number.
ADVICE = {
    errno.ENOSPC: "make room; the same command goes on",
    errno.EDQUOT: "make room within the quota; the same command goes on",
    errno.EROFS: "it cannot be written there: give another place, with --cache, --data or --out",
    errno.EACCES: "this user may not: change its permissions, or give another place",
    errno.EPERM: "this user may not: change its permissions, or give another place",
    errno.EIO: "the disk or its connection fails: the same command goes on when it is back",
    errno.ESTALE: "the network drive was mounted anew: the same command goes on",
    errno.EMFILE: "too many files are open at once: ulimit -n 4096 allows more, or take fewer --jobs",
    errno.ENAMETOOLONG: "give a shorter name",
}


class OptionsChecked(SystemExit):
    """The end of a command with `--check-options`: all `options` can be used."""

    def __init__(self, options: Namespace):
        super().__init__(0)
        self.options = options


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; end with one line and status 2 on bad input or an unusable disk.

    On Ctrl-C the stage unwinds what it has begun and ends with status 130. Where run_all.sh has
    started it, it ends with the script.
    """
    _use_utf8()
    if os.environ.pop("END_WITH_SCRIPT", ""):  # for this process, not for those that it starts
        end_with(os.getppid())
    # A background job does not hear Ctrl-C, and has another handler.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _begin_unwinding)
    try:
        main()
    except InputError as error:
        fail(str(error), EXIT_INPUT)
    except OSError as error:
        fail(describe_os_error(error), EXIT_INPUT)
    except MemoryError as error:
        fail(describe_memory_error(error), EXIT_INPUT)
    except KeyboardInterrupt:
        fail(MESSAGE, EXIT_INTERRUPTED)


def _use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode, if the locale has another encoding for paths and tables."""
    if sys.getfilesystemencoding() != "utf-8":  # LC_ALL=C PYTHONUTF8=0, or Latin-1
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def describe_os_error(error: OSError) -> str:
    """Return one line on what a file or folder could not be used for, and what to do.

    An error in the middle of a file has no name: it is that of the innermost function's path.
    """
    name = error.filename
    if name is None:
        name = _find_path(error.__traceback__) or "the standard output, or a temporary file"
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    message = f"{name}: {error.strerror or error}"
    advice = ADVICE.get(error.errno or 0)
    if advice is None:
        return message
    return f"{message}; {advice}"


def describe_memory_error(error: MemoryError) -> str:
    """Return one line on memory that there is not: how much was asked for, as far as it is known, and what to do."""
    wanted = " ".join(str(error).split())
    if wanted:
        wanted = f" ({wanted})"
    return (
        f"out of memory{wanted}: end other programs, allow the container more, or take fewer --jobs, "
        "--storage squares, smaller squares; the same command goes on"
    )


def _find_path(traceback: TracebackType | None) -> Path | None:
    """Return the path that the innermost function of a traceback works on, of those that have one."""
    found = None
    while traceback is not None:
        values = traceback.tb_frame.f_locals.values()
        found = next((value for value in values if isinstance(value, Path)), found)
        traceback = traceback.tb_next
    return found


def end_with(parent: int) -> None:
    """End this process as soon as `parent`, which started it, is gone, even if it was killed."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(FOLLOW_S)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _begin_unwinding(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one changes nothing
    warnings.simplefilter("ignore")  # joblib counts the tasks that it cancels,
    threading.excepthook = lambda _: None  # and its threads miss those that are gone
    raise KeyboardInterrupt


def fail(message: str, status: int) -> None:
    """Print one line to stderr and exit."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)
