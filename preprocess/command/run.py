"""The options of run_all.sh -> its plan: the command lines of all stages, as assignments for bash."""

import argparse
import csv
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from preprocess.command import process, recipe
from preprocess.command.pipeline import BESIDE, FOLDERS, IS_INSTALLED, ROOT, WRITES_HERE
from preprocess.disk.errors import InputError

SHARED = ("data", "layout", "cache", "recipe")
DEMOS = (
    "demo",
    "oct-demo",
    "chest-demo",
)  # recipes that draw their data, each into folders of its own
# The stages in order, and the options of the script that each of them takes.
STAGES: dict[str, tuple[str, ...]] = {
    "preprocess.synthetic": ("data", "recipe", "jobs"),
    "preprocess": (*SHARED, "jobs", "allow_rejected", "size_px"),
    "dr.train": (*SHARED, "epochs", "device"),
    "dr.predict": (*SHARED, "allow_rejected", "views", "device"),
    "blend.train": SHARED,
    "blend.predict": SHARED,
    "kappa.assign": SHARED,
    "submissions.write": (*SHARED, "name"),
    "submissions.score": SHARED,
    "submissions.report": (*SHARED, "name"),
}
BEFORE_FOLDS = (
    "preprocess.synthetic",
    "preprocess",
)  # these work in CACHE, all others in CACHE/folds-N
DEFAULT_RUN = "default"
# The run of the stages that draw eyes, and of the net that learns on them, in CACHE/drawn, for `weights = "drawn"`.
DRAWN_RUN = recipe.DRAWN
DRAWN_STAGES = ("preprocess.synthetic", "preprocess", "dr.train")
# Options of dr.train that shape the net, so that the net of drawn eyes must have them too.
SHAPING = ("--net", "--crop-px", "--hidden", "--squeeze", "--pool", "--precision")
MEAN_RUN = "mean"  # of the runs of all folds
BY_SOURCE = (
    "source"  # of --folds: a fold per source of a joined data set, and the column that names it
)
# What --average has no use for: the scores are those that dr.predict left.
NOT_AVERAGED = ("folds", "epochs", "views")
FOLD_OPTIONS = {"--run", "--folds", "--fold"}  # which --folds gives to the stages by itself

PROGRAM = "dr-pipeline run" if IS_INSTALLED else "./run_all.sh"
USAGE = f"""\
{PROGRAM}   the demo: drawn photographs, submissions/demo.csv and .html
       {PROGRAM} --data DIR [OPTIONS] [STAGE STAGE-OPTIONS]..."""
DESCRIPTION = """\
From a folder in Kaggle's layout (train/*.jpeg, test/*.jpeg, trainLabels.csv, perhaps sampleSubmission.csv) to
submissions/NAME.csv, and NAME.html, a report on it. Photographs are JPEG (.jpeg .jpg .jpe .jfif),
PNG (.png), TIFF (.tif .tiff), BMP (.bmp), PPM (.ppm .pgm), WebP (.webp) or DICOM (.dcm .dicom). Every stage
keeps what it makes in the cache: a second run does only what is new or changed."""
EPILOG = f"""\
A stage's name begins options for that stage alone; `python -m STAGE --help` lists them:
  {PROGRAM} --data data --jobs 8 dr.train --folds 8 --seed 1 blend.train --method linear kappa.assign --method exact

It is software for a competition and for research, not a medical device."""


class Command(NamedTuple):
    """A stage that the run starts, once or once per run of a net."""

    stage: str
    run: str
    options: list[str]

    def quote(self) -> str:
        """Return the stage, the run and the options, as bash and `shlex.split` read them."""
        return shlex.join([self.stage, self.run, *self.options])


class Plan(NamedTuple):
    """What run_all.sh asks of this module."""

    requirements: list[str]  # files with what the interpreter must have
    runs: list[str]  # of dr.train and dr.predict
    folds_cache: str  # of all that follows the squares; "" without --folds and --average
    commands: list[Command]  # none if the interpreter is only set up

    def quote(self) -> str:
        """Return the plan as assignments of bash, whatever characters the paths hold."""
        commands = [command.quote() for command in self.commands]
        return (
            f"requirements=({shlex.join(self.requirements)})\n"
            f"runs=({shlex.join(self.runs)})\n"
            f"folds_cache={shlex.quote(self.folds_cache)}\n"
            f"commands=({shlex.join(commands)})\n"
        )


def begin() -> None:
    """Print the plan of the command line."""
    text = plan_run(sys.argv[1:]).quote()
    sys.stdout.buffer.write(os.fsencode(text))  # a path may be no text


def plan_run(argv: Sequence[str]) -> Plan:
    """Return what run_all.sh is to do.

    Raises InputError for options that are unknown or contradict each other.
    """
    options = parse(argv)
    requirements = [str(ROOT / "requirements.txt")]
    if options.python is not None:
        return Plan([*requirements, *options.python], runs=[], folds_cache="", commands=[])
    is_drawn = _is_drawn(options)
    _fill_in(options)
    stages = list(STAGES)
    if not is_drawn:
        stages.remove("preprocess.synthetic")
    if options.average:
        stages.remove("dr.train")
    words = _split_words(options.words, stages)
    folds_cache = ""
    runs = [DEFAULT_RUN]
    if options.average:
        names = "+".join(Path(name).name for name in options.average)
        folds_cache = f"{options.cache}/average-{names}"
    elif options.folds:
        folds_cache = f"{options.cache}/folds-{options.folds}"
        runs = [f"fold-{fold}" for fold in _list_folds(options)]
    commands = _plan_drawn(options, words)
    for stage in stages:
        cache = options.cache
        if folds_cache and stage not in BEFORE_FOLDS:
            cache = folds_cache
        common = _list_options(stage, {**vars(options), "cache": cache})
        averaged = [_find_run(options.cache, name) for name in options.average or []]
        for run, run_options in _list_runs(stage, options.folds, runs, averaged).items():
            commands.append(Command(stage, run, [*common, *run_options, *words.get(stage, [])]))
    return Plan(requirements, runs, folds_cache, commands)


def _plan_drawn(options: argparse.Namespace, words: dict[str, list[str]]) -> list[Command]:
    """Return the stages that train a net on drawn eyes, if the recipe begins with such a net; else none."""
    is_begun_otherwise = any(
        word.partition("=")[0] == "--weights" for word in words.get("dr.train", [])
    )
    if options.average or is_begun_otherwise:
        return []
    drawn = recipe.find_drawn(options.recipe)
    if drawn is None:
        return []
    cache = f"{options.cache}/{DRAWN_RUN}"
    values = vars(options) | {
        "data": f"{cache}/data",
        "cache": cache,
        "recipe": drawn,
        "layout": None,
        "epochs": None,
    }
    more = {
        "preprocess": words.get("preprocess", []),
        "dr.train": _take_options(words.get("dr.train", []), SHAPING),
    }
    return [
        Command(stage, DRAWN_RUN, [*_list_options(stage, values), *more.get(stage, [])])
        for stage in DRAWN_STAGES
    ]


def _take_options(words: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return those of a stage's words that are wanted options and their values."""
    taken = []
    is_taken = False
    for word in words:
        if word.startswith("--"):
            is_taken = word.partition("=")[0] in wanted
        if is_taken:
            taken.append(word)
    return taken


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of the script; `words` are the stages' own.

    Raises InputError for an option that is unknown or has no value.
    """
    parser = _make_parser()
    try:
        options, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name} needs a value; see {PROGRAM} --help") from None
    if unknown:
        _refuse(unknown[0])
    if options.words and options.words[0] not in {*FOLDERS, *BESIDE}:
        _refuse(options.words[0])
    if options.average:
        for name in NOT_AVERAGED:
            if getattr(options, name) is not None:
                raise InputError(
                    f"--{name} cannot be combined with --average, which takes the scores of finished runs"
                )
    if options.folds is not None:
        if not re.fullmatch(f"{BY_SOURCE}|[2-9]|[1-9][0-9]", options.folds):
            raise InputError(f"--folds {options.folds}: a number from 2 to 99, or {BY_SOURCE}")
        if any(word.partition("=")[0] in FOLD_OPTIONS for word in options.words):
            raise InputError(
                f"--folds {options.folds} sets --run, --folds and --fold of dr.train itself; leave these out"
            )
    for word in options.words:
        option = word.partition("=")[0]
        if option in {"--data", "--layout", "--cache", "--recipe"}:
            raise InputError(
                f"{option}: belongs to the whole run; give it before the first stage's name"
            )
    return options


def _refuse(word: str) -> NoReturn:
    name = word.partition("=")[0]
    raise InputError(f"unknown option or stage {name}; see {PROGRAM} --help")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )

    def add(name: str, metavar: str, text: str) -> None:
        parser.add_argument(name, metavar=metavar, type=_take_value, help=text)

    add(
        "--data",
        "DIR",
        "the data folder (default: data/demo, which is drawn first): as above, or with a folder per "
        "class, {train,val,test}/CLASS/, or with a table of findings and images*/; with --recipe "
        "oct-demo or chest-demo it is drawn first, if it does not exist",
    )
    add(
        "--layout",
        "NAME|FILE.toml",
        "layout of the data folder, if it is not to be recognized: a shipped one, or a file of your own",
    )
    add(
        "--cache",
        "DIR",
        "folder for the results of the stages (default: cache, or cache/demo for the demo)",
    )
    add("--name", "NAME", "the submission's name (default: submission, or demo for the demo)")
    add(
        "--recipe",
        "NAME",
        "recipe that gives the defaults of all options, by name or as FILE.toml (default: article, or demo)",
    )
    add(
        "--jobs",
        "N",
        "processes for the stages that read or draw photographs (default: one per core)",
    )
    parser.add_argument(
        "--allow-rejected",
        action="store_true",
        help="continue without the photographs that cannot be used, which CACHE/rejected.csv lists",
    )
    add("--size-px", "N", "side of the cropped squares in pixels")
    add("--epochs", "N", "epochs of training")
    add("--views", "N", "views averaged per image in prediction")
    add(
        "--folds",
        "N|source",
        "train one model per fold of N, or per source of a joined set, and average them; the blend and "
        "all figures then use all training patients, each scored by the model that did not see them "
        "(kept in CACHE/folds-N, beside the single model)",
    )
    parser.add_argument(
        "--average",
        metavar="RUN",
        type=_take_value,
        action="append",
        help="train nothing: submit the mean of finished runs (repeat the option; default: the run without a name; "
        "with a slash: the folder of a run), with a blend and labels of its own (kept in CACHE/average-RUN+RUN)",
    )
    add(
        "--device",
        "NAME",
        "device for training and prediction: cuda, mps or cpu (default: the first that is available)",
    )
    parser.add_argument(
        "--python",
        metavar="FILE",
        nargs="*",
        help="only install the requirements, those in FILE as well, and print the path of the Python interpreter",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _take_value(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("needs a value")
    return text


def _is_drawn(options: argparse.Namespace) -> bool:
    """Return whether the run draws its data first.

    It does for the demos, where there is no data folder yet, or one that was drawn before: perhaps
    not to its end.
    """
    if options.data is None:
        return True
    if options.recipe is None or not options.recipe.endswith("demo"):
        return False
    data = Path(options.data)
    return not data.exists() or (data / "synthetic").is_dir()


def _fill_in(options: argparse.Namespace) -> None:
    """Give the options without a value their defaults, which without --data are the demo's."""
    if options.data is None:
        home = Path.cwd() if WRITES_HERE else ROOT
        recipe = options.recipe or "demo"
        name = recipe if recipe in DEMOS else "demo"
        options.data = f"{home}/data/{name}"
        cache = f"{home}/cache/{name}"
    else:
        cache = "cache"
        name = "submission"
        recipe = "article"
    if options.folds:
        name += "-folds"
    if options.average:
        name += "-average"
    options.cache = options.cache or cache
    options.name = options.name or name
    options.recipe = options.recipe or recipe


def _split_words(words: Sequence[str], stages: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of each stage's own. Raises InputError for a stage that has no part in the run."""
    options: dict[str, list[str]] = {}
    stage = ""
    for word in words:
        if word in {*FOLDERS, *BESIDE}:
            if word not in stages:
                raise InputError(f"{word} is not a stage of this run")
            stage = word
            options.setdefault(stage, [])
        elif word in {"--help", "-h"}:
            raise InputError(
                f"{stage} {word}: for the options of a stage, use python -m {stage} --help"
            )
        else:
            options[stage].append(word)
    return options


def _list_options(stage: str, values: dict[str, str | bool | None]) -> list[str]:
    """Return those of the script's options, and their values, that a stage takes."""
    words = []
    for name in STAGES[stage]:
        option = f"--{name.replace('_', '-')}"
        value = values[name]
        if value is True:
            words.append(option)
        elif isinstance(value, str):
            words += [option, value]
    return words


def _list_folds(options: argparse.Namespace) -> list[str]:
    """Return the names of the folds: numbers, or the sources in a joined data set's samples.csv, in their order."""
    if options.folds != BY_SOURCE:
        return [str(fold) for fold in range(int(options.folds))]
    path = Path(options.data) / "samples.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            sources = {row.get(BY_SOURCE) for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise InputError(
            f"--folds {BY_SOURCE}: no {path}; python -m preprocess.join writes one"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table ({error})") from None
    names = sorted(source for source in sources if source)
    if len(names) < 2 or len(names) < len(sources):
        raise InputError(
            f"{path}: column {BY_SOURCE} names {len(names)} sources; --folds {BY_SOURCE} needs two, in all rows"
        )
    return names


def _find_run(cache: str, name: str) -> str:
    """Return the folder of a run in a cache, by its name; a name with a slash is the folder."""
    if "/" in name:
        return name
    if name == DEFAULT_RUN:
        return f"{cache}/dr"
    return f"{cache}/dr/runs/{name}"


def _list_runs(
    stage: str, folds: str | None, runs: Sequence[str], averaged: Sequence[str]
) -> dict[str, list[str]]:
    """Return the runs for which a stage is started, and the options that tell these apart.

    `averaged` are the folders of the runs of --average.
    """
    if averaged and stage == "dr.predict":
        return {MEAN_RUN: ["--average", *averaged]}
    if folds is None or stage not in {"dr.train", "dr.predict"}:
        return {DEFAULT_RUN: []}
    options = {}
    for fold, run in enumerate(runs):
        options[run] = ["--run", run]
        if stage == "dr.train":
            options[run] += ["--folds", folds, "--fold", str(fold)]
    if stage == "dr.predict":
        options[MEAN_RUN] = ["--average", *runs]
    return options


if __name__ == "__main__":
    process.run(begin)
