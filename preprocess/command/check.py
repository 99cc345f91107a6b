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
from preprocess.command.run import Command
from preprocess.dataset import readers
from preprocess.disk.errors import InputError


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
            options[command.stage] = checked.options
            modules[command.stage] = module
    _check_data(options, modules)
    if "dr.train" in options:  # not with --average, which trains nothing
        _check_together(options["preprocess"], train=options["dr.train"], predict=options["dr.predict"])


def _check_data(options: dict[str, Namespace], modules: dict[str, ModuleType]) -> None:
    """Raise InputError for data that cannot be read, and options that contradict what the data set asks."""
    dataset = readers.read_dataset(options["preprocess"].data, options["preprocess"].layout)
    for stage, options_of_stage in options.items():
        readers.check_outputs(options_of_stage, dataset)
        check = getattr(modules[stage], "check", None)  # of the stages that have something to check
        if check:
            check(options_of_stage, dataset)


def _check_together(preprocess: Namespace, train: Namespace, predict: Namespace) -> None:
    """Raise InputError for what each stage takes by itself, but no run of all of them."""
    if predict.run or (train.run and not predict.average):
        raise InputError(
            "--run: the stages behind use the net without a name; run dr.train and dr.predict by themselves"
        )
    crop_px = train.crop_px or 0
    size_px = preprocess.size_px
    if crop_px > size_px:
        raise InputError(f"dr.train --crop-px {crop_px}: the squares are only {size_px} px wide (--size-px)")
    if train.features == "file" and crop_px != size_px:
        raise InputError(f"dr.train --features file: needs crops of whole squares (--crop-px {size_px})")
    if predict.epochs_averaged[0].isdigit():
        last = max(int(epoch) for epoch in predict.epochs_averaged.split(","))
        if last > train.epochs:
            raise InputError(
                f"dr.predict --epochs-averaged {predict.epochs_averaged}: "
                f"training ends after epoch {train.epochs} (--epochs)"
            )


if __name__ == "__main__":
    process.run(begin)
