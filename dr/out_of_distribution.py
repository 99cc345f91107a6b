"""What commands make of the out-of-distribution check, see dr.training.distribution: option, decision and words."""

import argparse

from preprocess.disk.errors import Unusable

OUTSIDE = "unlike what the net was trained on"
UNKNOWN = "what the net was trained on looks like is not known: too few images"


def add_strict_option(parser: argparse.ArgumentParser) -> None:
    """Add `--strict`."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help=f"refuse photographs that are {OUTSIDE}; else it is said",
    )


def is_outside(distance: float | None) -> bool:
    """Return whether a photograph is out of distribution: farther away than 1; False if the distance is unknown."""
    return distance is not None and not distance <= 1


def check_inside(distance: float | None, is_strict: bool) -> None:
    """Raise Unusable if `--strict` refuses a photograph."""
    if is_strict and is_outside(distance):
        raise Unusable(
            f"{OUTSIDE}: {distance:.1f} times as far from it as new ones of its kind may lie"
        )
