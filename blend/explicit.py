"""What blend.train, blend.predict and kappa.assign have in common: they work in the cache, or on explicit files."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dr.scores import NORMALIZE
from dr.tasks.task import explain_absence
from preprocess.cache import stage
from preprocess.command import recipe
from preprocess.dataset import find
from preprocess.dataset.dataset import Layout
from preprocess.disk import files

# Options that say how explicit files are to be read.
EXTRAS: dict[str, dict[str, Any]] = {
    "known-only": {"action": "store_true", "help": "leave out images that --labels has no level of"},
    "normalize": NORMALIZE,
    "pairs-from": {"type": Path, "metavar": "TABLE", "help": "CSV of image, group and side (left or right): whose eyes "
                   "the images of --scores are (default: their names tell, PATIENT_left and PATIENT_right)"},
}  # fmt: skip


def run(
    name: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None, given: Mapping[str, str],
    extras: Sequence[str], work: Callable[..., str], work_in_cache: Callable[[argparse.Namespace, Layout], str],
) -> None:  # fmt: skip
    """Do a stage's work on explicit files, options `given`, name -> help, or in the cache; print the line it returns.

    `work` is called with the options, the layout, and the paths of `given` in their order.
    """
    explicit = parser.add_argument_group("explicit files, in place of those in --data and --cache")
    for option, told in given.items():
        explicit.add_argument(f"--{option}", type=Path, help=told)
    for option in extras:
        explicit.add_argument(f"--{option}", **EXTRAS[option])
    options = recipe.parse(parser, argv, name)
    values = {option.replace("_", "-"): value for option, value in vars(options).items()}
    paths = {option: values[option] for option in given}
    if any(paths.values()) and not all(paths.values()):
        parser.error(f"{_join(given)} come together")
    if not options.scores and any(values[option] for option in extras):
        parser.error(f"{_join(extras)} come{'s' * (len(extras) == 1)} with --scores")
    files.check_out(options.out, *(values.get(option) for option in ("scores", "labels", "model", "pairs-from")))
    layout = find.find_layout(options.data)
    if why := explain_absence(layout.task):
        print(f"{name}: {why}")
        return
    if options.scores:
        summary = work(options, layout, *paths.values())
    else:
        with stage.working(options.cache, name):
            summary = work_in_cache(options, layout)
    print(f"{name}: {summary}", file=files.summary_stream(options.out))


def _join(options: Iterable[str]) -> str:
    *most, last = [f"--{option}" for option in options]
    return f"{', '.join(most)} and {last}" if most else last
