"""The command that pip installs, dr-pipeline: it runs run_all.sh or one stage."""

import os
import sys
import textwrap

from preprocess.command import pipeline, process
from preprocess.command.pipeline import BESIDE, FOLDERS, IS_INSTALLED, ROOT, VERSION

STAGES = textwrap.fill(f"stages: {', '.join(FOLDERS)}; beside them {', '.join(BESIDE)}", 110)
USAGE = f"""\
usage: dr-pipeline run [--data DIR] [OPTIONS]   photographs -> submissions/NAME.csv and .html; without --data the demo
       dr-pipeline STAGE [OPTIONS]              one stage, as python -m STAGE does
       dr-pipeline --version

{STAGES}

Each lists its options with --help. What run writes without a path lies below the working directory.
{pipeline.NOTICE}"""


def begin() -> None:
    """Become the process that the command line names."""
    words = sys.argv[1:] or ["--help"]
    name = words[0]
    options = words[1:]
    if name in {"--help", "-h"}:
        print(USAGE)
    elif name == "--version":
        print(VERSION)
    elif name == "run":
        folder = ROOT
        if IS_INSTALLED:
            folder = ROOT / "diabetic_retinopathy_pipeline"
        os.environ["PIPELINE_PYTHON"] = sys.executable
        os.execvp("bash", ["bash", str(folder / "run_all.sh"), *options])
    elif name in {*FOLDERS, *BESIDE}:
        os.execv(sys.executable, [sys.executable, "-P", "-m", name, *options])
    else:
        process.fail(f"{name}: no such stage; see dr-pipeline --help", process.EXIT_INPUT)
