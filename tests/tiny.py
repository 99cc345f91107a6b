"""A data folder of tiny squares for the tests of dr.train and dr.predict, and how to run the two on it."""

import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from dr.training import settings
from preprocess import __main__ as preprocess
from preprocess.command import cli

ROOT = Path(__file__).parents[1]
SIZE_PX = 37  # the crops are 32, the net's least
N_TRAIN, N_TEST = 12, 3  # patients
TRAIN_OPTIONS = (
    "--batch-size 8 --folds 4 --learning-rate 0.05 --device cpu --precision float32".split()
)


def draw_squares(data: Path, cache: Path) -> list[str]:
    """Draw a data folder of noise, the brighter the higher the level, and preprocess it; return the options for it."""
    rng = np.random.default_rng(0)
    lines = ["image,level"]
    for split, n_patients in (("train", N_TRAIN), ("test", N_TEST)):
        (data / split).mkdir(parents=True)
        for image, level in (
            (f"{n}_{side}", n % 5) for n in range(n_patients) for side in ("left", "right")
        ):
            square = rng.integers(0, 120, (SIZE_PX, SIZE_PX, 3)) + 30 * level
            cv2.imwrite(str(data / split / f"{image}.png"), square.astype(np.uint8))
            lines += [f"{image},{level}"] * (split == "train")
    (data / "trainLabels.csv").write_text("\n".join(lines) + "\n")
    return prepare(data, cache)


def prepare(data: Path, cache: Path, normalize: str = "none") -> list[str]:
    """Preprocess squares, which are taken as they are; return the options that name both folders."""
    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main(
        [*places, *f"--crop whole --size-px {SIZE_PX} --normalize {normalize} --jobs 1".split()]
    )
    return places


def make_settings(**changes) -> settings.Settings:
    """Return the article's settings, but for some."""
    parser = cli.make_parser("dr.train", "", "")
    settings.add_options(parser)
    return dataclasses.replace(settings.parse(parser, [])[1], **changes)


# In place of an interpreter: it notes what it was to run, but for the plan, which the real one makes.
NOTE = f"""\
#!/bin/bash
if [[ $2 == -m ]]; then
  case $3 in
    preprocess.command.run) exec {shlex.quote(sys.executable)} "$@" ;;
    preprocess.command.check) ;;
    *) printf "%q " "${{@:3}}" >>"$0.told"; echo >>"$0.told" ;;
  esac
fi
"""


def run_stages(folder: Path, *options: object) -> None:
    """Run in this process, which has torch already, the stages that run_all.sh starts with some options, in order."""
    python = folder / "python"
    python.write_text(NOTE)
    python.chmod(0o755)
    command, environment = (
        [ROOT / "run_all.sh", *map(str, options)],
        os.environ | {"PIPELINE_PYTHON": str(python)},
    )
    subprocess.run(command, env=environment, capture_output=True, check=True)
    for line in python.with_suffix(".told").read_text().splitlines():
        name, *words = shlex.split(line)
        module = f"{name}.__main__" if find_spec(name).submodule_search_locations else name
        importlib.import_module(module).main(words)


def digest_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, but for the lock."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
