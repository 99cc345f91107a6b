"""The planned command lines of run_all.sh -> one line on the first mistake, before the first stage."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from preprocess.command import process
from preprocess.command.process import OptionsChecked
from preprocess.command.run import DRAWN_RUN, Command
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files
from preprocess.disk.errors import InputError

LEAST_TOLD_BYTES = 10**9  # nobody needs to know of less


def begin() -> None:
    """Check the commands of the command line, each quoted as one word."""
    commands = []
    for text in sys.argv[1:]:
        stage, run, *options = shlex.split(text)
        commands.append(Command(stage, run, options))
    check_options(commands)


def check_options(commands: Sequence[Command]) -> None:
    """Raise InputError for options that a stage would refuse or that contradict another stage's.

    Every stage's module parses its own options and stops there: a mistake ends the run now, not after
    hours.
    """
    options: dict[str, Namespace] = {}
    modules: dict[str, ModuleType] = {}
    for command in commands:
        name = command.stage
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:  # a package
            name += ".__main__"
        module = import_module(name)
        try:
            module.main([*command.options, "--check-options"])
        except OptionsChecked as checked:
            if command.run != DRAWN_RUN:  # whose data are not there yet
                options[command.stage] = checked.options
                modules[command.stage] = module
    dataset = _check_data(options, modules)
    if "dr.train" not in options:  # with --average, which trains nothing
        return
    _check_together(options["preprocess"], train=options["dr.train"], predict=options["dr.predict"])
    are_drawn = "preprocess.synthetic" in options  # the photographs, which are not there yet
    if not are_drawn:
        _check_photographs(options, modules, dataset)
    _check_machine(
        options, modules, dataset
    )  # last but one: it may ask another computer for weights
    if not are_drawn:
        n_runs = sum(command.stage == "dr.train" for command in commands)
        _check_space(options, modules, dataset, n_runs)


def _check_data(options: dict[str, Namespace], modules: dict[str, ModuleType]) -> DataSet:
    """Return the data set. Raises InputError if it cannot be read, or options contradict what it asks."""
    dataset = readers.read_dataset(options["preprocess"].data, options["preprocess"].layout)
    for stage, options_of_stage in options.items():
        readers.check_outputs(options_of_stage, dataset)
        check = getattr(modules[stage], "check", None)  # of the stages that have something to check
        if check:
            check(options_of_stage, dataset)
    return dataset


def _check_photographs(
    options: dict[str, Namespace], modules: dict[str, ModuleType], dataset: DataSet
) -> None:
    """Raise InputError if photographs, labels and the sample of a submission are not of the same images."""
    for stage, options_of_stage in options.items():
        check = getattr(modules[stage], "check_data", None)
        if check:
            check(options_of_stage, dataset)


def _check_machine(
    options: dict[str, Namespace], modules: dict[str, ModuleType], dataset: DataSet
) -> None:
    """Raise InputError for a device that is not at hand, and weights that do not fit or cannot be had."""
    for stage, options_of_stage in options.items():
        check = getattr(modules[stage], "check_machine", None)
        if check:
            check(options_of_stage, dataset, options["preprocess"].size_px)


def _check_space(
    options: dict[str, Namespace], modules: dict[str, ModuleType], dataset: DataSet, n_runs: int
) -> None:
    """Say how much room the cache will take and how much there is. Raises InputError if that is not enough."""
    cache = options["preprocess"].cache
    needed = modules["preprocess"].estimate_space(options["preprocess"], dataset)
    size_px = options["preprocess"].size_px
    needed |= modules["dr.train"].estimate_space(options["dr.train"], dataset, size_px, n_runs)
    total = sum(needed.values())
    free = files.measure_free_space(cache)
    parts = [f"{name} {_show_size(size)}" for name, size in needed.items() if size]
    summary = (
        f"{cache}: about {_show_size(total)} to write ({', '.join(parts)}), {_show_size(free)} free"
    )
    if total > free:
        raise InputError(f"{summary}; make room, or give another --cache or a smaller --size-px")
    if total >= LEAST_TOLD_BYTES:
        print(summary)


def _show_size(size_bytes: int) -> str:
    if size_bytes >= 10**9:
        return f"{size_bytes / 1e9:,.1f} GB"
    return f"{max(1, round(size_bytes / 1e6)):,} MB"


def _check_together(preprocess: Namespace, train: Namespace, predict: Namespace) -> None:
    """Raise InputError for what each stage takes by itself, but no run of all of them."""
    if predict.run or (train.run and not predict.average):
        raise InputError(
            "--run: the stages behind use the net without a name; run dr.train and dr.predict by themselves"
        )
    crop_px = train.crop_px or 0
    size_px = preprocess.size_px
    if crop_px > size_px:
        raise InputError(
            f"dr.train --crop-px {crop_px}: the squares are only {size_px} px wide (--size-px)"
        )
    if train.features == "file" and crop_px != size_px:
        raise InputError(
            f"dr.train --features file: needs crops of whole squares (--crop-px {size_px})"
        )
    if predict.epochs_averaged[0].isdigit():
        last = max(int(epoch) for epoch in predict.epochs_averaged.split(","))
        if last > train.epochs:
            raise InputError(
                f"dr.predict --epochs-averaged {predict.epochs_averaged}: "
                f"training ends after epoch {train.epochs} (--epochs)"
            )


if __name__ == "__main__":
    process.run(begin)
