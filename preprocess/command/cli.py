"""The parser of a command's options: what all commands share, and numbers within bounds."""

import argparse
import contextlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

from preprocess.command import recipe


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the defaults that are values; the help of all other options says what happens without them."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, []) or action.default is False:
            return action.help
        return super()._get_help_string(action)


def make_bare_parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """Return a parser without options; its help begins with a description, such as `__doc__`."""
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
    add_data_options(
        parser,
        "data folder: Kaggle's layout, {train,val,test}/CLASS, a table of findings and images*/, one of the shipped "
        "layouts, or with a samples.csv or data.toml",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("cache"), help="folder for the results of the stages"
    )
    recipe.add_option(parser)
    return parser


def add_data_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--data`, with a help text, and `--layout`."""
    parser.add_argument("--data", type=Path, default=Path("data"), help=text)
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE.toml",
        help="layout of the data folder, if it is not to be recognized: a shipped one, such as aptos, or a "
        "file of your own; python -m preprocess.describe shows which fits, and drafts one",
    )


def add_rejected_option(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-rejected`."""
    parser.add_argument(
        "--allow-rejected",
        action="store_true",
        help="continue without the photographs that cannot be used, which rejected.csv lists",
    )


def whole(lowest: int, highest: int = 2**63 - 1) -> Callable[[str], int]:
    """Return a parser of whole numbers from `lowest` to `highest`."""
    end = " on, and less than 2**63"
    if highest < 2**63 - 1:
        end = f" to {highest}"
    wanted = f"a whole number from {lowest}{end}"

    def parse(text: str) -> int:
        value = None
        if re.fullmatch("-?[0-9]+", text):  # int() also takes 1_000 and the digits of other scripts
            with contextlib.suppress(ValueError):  # thousands of digits
                value = int(text)
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


def number(lowest: float, highest: float = sys.float_info.max) -> Callable[[str], float]:
    """Return a parser of finite numbers from `lowest` to `highest`."""
    end = " on"
    if highest < sys.float_info.max:
        end = f" to {highest:g}"
    wanted = f"a number from {lowest:g}{end}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan  # which is in no bounds
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse
