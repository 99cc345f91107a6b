"""How a command runs and ends: a fault is one line and a status, and no stage outlives its script."""

import os
import signal
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable

from preprocess.disk import libraries
from preprocess.disk.errors import InputError

EXIT_INPUT = 2  # the user must correct the input
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
MESSAGE = "interrupted; the same command goes on where it stopped"
FOLLOW_S = 0.5  # between two looks whether the parent process is still there
import_libraries = libraries.import_libraries  # for commands; rooms below this one have it from there


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
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}", EXIT_INPUT)
    except KeyboardInterrupt:
        fail(MESSAGE, EXIT_INTERRUPTED)


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
