"""The installed command, dr-pipeline, which runs a stage or run_all.sh; and that script's look at all options."""

import itertools
import os
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from preprocess.command import pipeline, process
from preprocess.command.pipeline import BESIDE, FOLDERS, IS_INSTALLED, ROOT, VERSION
from preprocess.command.recipe import OptionsChecked
from preprocess.disk.errors import InputError

STAGES = textwrap.fill(f"stages: {', '.join(FOLDERS)}; beside them {', '.join(BESIDE)}", 110)
USAGE = f"""\
usage: dr-pipeline run [--data DIR] [OPTIONS]   photographs -> submissions/NAME.csv and .html; without --data the demo
       dr-pipeline STAGE [OPTIONS]              one stage, as python -m STAGE does
       dr-pipeline --version

{STAGES}

Each lists its options with --help. What run writes without a path lies below the working directory.
{pipeline.NOTICE}"""


def begin() -> None:
    """Become what the command line names."""
    name, *options = sys.argv[1:] or ["--help"]
    if name in {"--help", "-h"}:
        print(USAGE)
    elif name == "--version":
        print(VERSION)
    elif name == "run":
        folder = ROOT / "diabetic_retinopathy_pipeline" if IS_INSTALLED else ROOT
        os.environ["PIPELINE_PYTHON"] = sys.executable
        os.execvp("bash", ["bash", str(folder / "run_all.sh"), *options])
    elif name in {*FOLDERS, *BESIDE}:
        os.execv(sys.executable, [sys.executable, "-P", "-m", name, *options])
    else:
        process.fail(f"{name}: no such stage; see dr-pipeline --help", process.EXIT_INPUT)


def check_options(words: Sequence[str]) -> None:
    """Look at all options of a run, "==", STAGE, OPTION... for each stage: a mistake ends it now, not after hours."""
    of: dict[str, Namespace] = {}
    for is_mark, stage_words in itertools.groupby(words, "==".__eq__):
        if not is_mark:
            name, *options = stage_words
            package = find_spec(name)
            module = import_module(f"{name}.__main__" if package and package.submodule_search_locations else name)
            try:
                module.main([*options, "--check-options"])
            except OptionsChecked as checked:
                of[name] = checked.options
    train, predict = of["dr.train"], of["dr.predict"]
    if predict.run or (train.run and not predict.average):
        raise InputError(
            "--run: the stages behind use the net without a name; run dr.train and dr.predict by themselves"
        )
    crop_px, size_px = train.crop_px or 0, of["preprocess"].size_px
    if crop_px > size_px:
        raise InputError(f"dr.train --crop-px {crop_px}: the squares are only {size_px} px wide (--size-px)")
    if train.features == "file" and crop_px != size_px:
        raise InputError(f"dr.train --features file: needs crops of whole squares (--crop-px {size_px})")
    averaged, n_epochs = predict.epochs_averaged, train.epochs
    if averaged[0].isdigit() and max(map(int, averaged.split(","))) > n_epochs:
        raise InputError(f"dr.predict --epochs-averaged {averaged}: training ends after epoch {n_epochs} (--epochs)")
