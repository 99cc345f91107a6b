"""What every stage's command has: options, a recipe behind them, the cache held while it works, one-line errors."""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from preprocess.cache import files
from preprocess.cache.errors import InputError
from preprocess.cache.pipeline import FOLDERS
from preprocess.recipes import recipe

NOTICE = "For competition and research: not a medical device, no diagnosis."  # beside all that grades an eye
EXIT_INPUT = 2  # the input must be mended
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
MESSAGE = "interrupted; the same command goes on where it stopped"
FOLLOW_S = 0.5  # how often a process looks whether the one that started it is still there


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values; what happens without an option that has none, its help tells."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_value = action.default not in (None, []) and action.default is not False
        return super()._get_help_string(action) if has_value else action.help


def make_bare_parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """Return a parser without options, whose help begins with a description, such as `__doc__`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"example: python -m {module} {example}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def make_parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """Return a parser with the options all stages share: `--data`, `--cache` and `--recipe`."""
    parser = make_bare_parser(module, description, example)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder in Kaggle's layout, or "
                        "{train,val,test}/CLASS (.jpeg, .jpg, .png), or a table of findings and images*/")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder that keeps what the stages make")
    recipe.add_option(parser)
    return parser


def add_rejected_option(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-rejected`."""
    parser.add_argument(
        "--allow-rejected", action="store_true", help="go on although some photographs are listed in rejected.csv"
    )


def whole(lowest: int, highest: int = 2**63 - 1) -> Callable[[str], int]:
    """Return a parser of whole numbers from `lowest` to `highest`."""
    most = f" to {highest}" if highest < 2**63 - 1 else " on, and less than 2**63"
    return _make_parse(int, f"a whole number from {lowest}{most}", lowest, highest)


def number(lowest: float, highest: float = sys.float_info.max) -> Callable[[str], float]:
    """Return a parser of finite numbers from `lowest` to `highest`."""
    most = f" to {highest:g}" if highest < sys.float_info.max else " on"
    return _make_parse(float, f"a number from {lowest:g}{most}", lowest, highest)


def _make_parse(kind: type, what: str, lowest: float, highest: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        is_plain = kind is float or re.fullmatch("-?[0-9]+", text)  # int takes 1_000 and other scripts' digits, too
        try:
            value = kind(text) if is_plain else None
        except ValueError:
            value = None
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


def import_libraries(requirements: Path, *names: str) -> list[ModuleType]:
    """Return what one command alone needs. Raises InputError, with the line that installs it, if it is not there."""
    try:
        return [importlib.import_module(name) for name in names]
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # the last three: made for another torch
        reason = str(error).partition("\n")[0]
        raise InputError(f"{reason}: {sys.executable} -m pip install -r {requirements}") from None


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; end with one line and status 2 on bad input or an unusable disk, 130 on Ctrl-C.

    On Ctrl-C what it has begun is unwound. Where run_all.sh has started it, it ends with the script.
    """
    if os.environ.pop("END_WITH_SCRIPT", ""):  # for this process, not for those that it starts
        end_with(os.getppid())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job does not hear Ctrl-C
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
    """Have this process end as soon as `parent`, which started it, is gone, even killed."""

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


@contextlib.contextmanager
def working(cache: Path, name: str, folders: Sequence[Path] = ()) -> Iterator[None]:
    """Hold the cache while the stage `name` works, and keep the time it took if it has made something.

    Its manifests are in `folders`, if not in the one that FOLDERS names.
    """
    manifests = [folder / "manifest.json" for folder in folders or [cache / str(FOLDERS[name])]]
    with files.locked(cache):
        before, started = [path.exists() and path.read_bytes() for path in manifests], time.monotonic()
        yield
        if [path.exists() and path.read_bytes() for path in manifests] != before:
            with open(cache / "times.csv", "a", encoding="utf-8") as table:
                table.write(f"{name},{time.monotonic() - started:.1f}\n")


def read_times(cache: Path) -> dict[str, float]:
    """Return the seconds that each stage took when it last had work to do; a torn row is left out."""
    path = cache / "times.csv"
    rows = path.read_text(errors="replace") if path.exists() else ""
    return {name: float(elapsed_s) for name, elapsed_s in re.findall(r"^([^,]+),(\d+(?:\.\d+)?)$", rows, re.MULTILINE)}
