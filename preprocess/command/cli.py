"""The parser of a command's options: what all commands share, and numbers within bounds."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preprocess.command import recipe


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
