"""A stage that works in the cache or on explicit files: blend.train, blend.predict and kappa.assign."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr.scores import NORMALIZE
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from preprocess.cache import stage
from preprocess.command import recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files

# Options that say how explicit files are to be read.
READING: dict[str, dict[str, Any]] = {
    "known-only": {
        "action": "store_true",
        "help": "leave out images that --labels has no level of",
    },
    "normalize": NORMALIZE,
    "pairs-from": {
        "type": Path,
        "metavar": "TABLE",
        "help": "CSV of image, group and side (left or right): whose eyes the images of --scores are (default: their "
        "names tell, PATIENT_left and PATIENT_right)",
    },
}


class Work(NamedTuple):
    """What a stage works with: its options, the data set and its task."""

    options: argparse.Namespace
    dataset: DataSet
    task: Task


def parse(
    name: str,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    explicit: Mapping[str, str],
    reading: Sequence[str],
) -> argparse.Namespace:
    """Return a stage's options, with those that name explicit files, option -> help, and some of READING.

    Explicit files come all or none, and options on how to read them only with them: anything else ends the command.
    """
    group = parser.add_argument_group("explicit files, in place of those in --data and --cache")
    for option, text in explicit.items():
        group.add_argument(f"--{option}", type=Path, help=text)
    for option in reading:
        group.add_argument(f"--{option}", **READING[option])
    options = recipe.parse(parser, argv, name)
    paths = [getattr(options, option) for option in explicit]
    if any(paths) and not all(paths):
        parser.error(f"{_join(explicit)} come together")
    are_read = [getattr(options, option.replace("-", "_")) for option in reading]
    if not options.scores and any(are_read):
        verb = "comes" if len(are_read) == 1 else "come"
        parser.error(f"{_join(reading)} {verb} with --scores")
    for source in ("scores", "labels", "model", "pairs_from"):
        files.check_out(options.out, getattr(options, source, None))
    return options


def run(
    name: str,
    options: argparse.Namespace,
    on_files: Callable[[Work], str],
    in_cache: Callable[[Work], str],
) -> None:
    """Do a stage's work on explicit files, if there are some, else in the cache; print the line that it returns."""
    dataset = readers.open_dataset(options)
    task = make_task(dataset.question)
    absence = task.explain_absence()
    if absence:
        print(f"{name}: {absence}")
        return
    work = Work(options, dataset, task)
    if len(dataset.samples) and not (dataset.samples["side"] != "").any():
        print(
            f"{name}: no image has a side: each is its own fellow",
            file=files.summary_stream(options.out),
        )
    if options.scores:
        summary = on_files(work)
    else:
        with stage.working(options.cache, name):
            summary = in_cache(work)
    print(f"{name}: {summary}", file=files.summary_stream(options.out))


def _join(options: Iterable[str]) -> str:
    *most, last = [f"--{option}" for option in options]
    return f"{', '.join(most)} and {last}" if most else last
