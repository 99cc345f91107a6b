"""Tell what a run would do and do nothing: each stage's own code runs up to the first thing it would change.

python -m submissions.dry_run STAGE OPTION... [-- STAGE OPTION...]...        (what ./run_all.sh --dry-run calls)

A stage knows best whether what it once made is still what it would make. So its own `main` runs here, between stand-ins
for the few functions through which all stages lock, decide, make folders and write. Where something differs the
stand-in raises Decided; what is as it should be goes on. A stage that reaches its end had nothing to do.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr import train
from preprocess import per_image, stage

STAGES = ("preprocess.synthetic", "preprocess", "dr.train", "dr.predict", "blend.train", "blend.predict",
          "kappa.assign", "submissions.write", "submissions.score", "submissions.report")  # fmt: skip
SPEAKER = "submissions.score"  # keeps nothing: it has its say every time
FOOTNOTE = "What runs after another stage stays cached if that one ends in the same bytes as before."
FIND_CHANGE, DUE = stage.find_change, per_image.Journal.due  # the decisions themselves


class Decided(Exception):  # noqa: N818  not an error
    """The stage would now change something; the message says what, or why."""


class Outlook(NamedTuple):
    """What a stage would do: `cached`, `will run` or `will stop`, and the reason."""

    state: str
    reason: str = ""


# --- stand-ins: the signatures are those of what they stand in for ----------------------------------------------------


def lock_nothing(folder: Path, tree: Path | None = None) -> contextlib.AbstractContextManager:
    """Hold nothing: who changes nothing is in nobody's way."""
    return contextlib.nullcontext()


def find_change(folder: Path, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Raise Decided if the stage would make the files in `folder` again."""
    change = FIND_CHANGE(folder, parameters, inputs)
    if change:
        raise Decided(change)


def find_due(journal: per_image.Journal, keys: Mapping[str, list]) -> list[str]:
    """Raise Decided if images are due."""
    due = DUE(journal, keys)
    if due:
        change = f" ({journal.change})" if journal.change else ""
        raise Decided(f"{len(due)} of {len(keys)} images of {journal.path.stem} are due{change}")
    return due


@contextlib.contextmanager
def compare_file(path: Path) -> Iterator[Path]:
    """Yield a path elsewhere; raise Decided if what is written there is not what lies at `path`."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"written{path.suffix}"
        yield written
        if not path.is_file() or path.read_bytes() != written.read_bytes():
            raise Decided(f"{path.name} would be written")


def compare_manifest(
    folder: Path, stage_name: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Raise Decided if the manifest in `folder` says something else; other versions of libraries change nothing."""
    manifest = stage.read_manifest(folder)
    if manifest is None:
        raise Decided("not made yet")
    for key, new in (("parameters", parameters), ("inputs", inputs), ("outputs", outputs)):
        change = stage.describe_change(manifest[key], new)
        if change:
            raise Decided(change)


def make_no_folder(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
    """Raise Decided if the folder is not there."""
    if not path.is_dir():
        raise Decided(f"{path.name}/ is not there yet")


def train_nothing(options: Any, wanted: Any, folder: Path, training_set: Any, start: int) -> None:
    """Raise Decided: the stage would train now."""
    raise Decided(f"goes on after epoch {start}" if start else "not made yet")


STAND_INS: tuple[tuple[Any, str, Callable], ...] = (
    (stage, "locked", lock_nothing),
    (stage, "find_change", find_change),
    (per_image.Journal, "due", find_due),
    (stage, "replacing", compare_file),
    (stage, "write_manifest", compare_manifest),
    (stage, "remove_partials", lambda folder: None),
    (Path, "mkdir", make_no_folder),
    (train, "train_epochs", train_nothing),
)


@contextlib.contextmanager
def only_looking() -> Iterator[None]:
    """Put the stand-ins in place while the block runs."""
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in STAND_INS]
    try:
        for owner, name, stand_in in STAND_INS:
            setattr(owner, name, stand_in)
        yield
    finally:
        for owner, name, original in kept:
            setattr(owner, name, original)


# --- the outlook ------------------------------------------------------------------------------------------------------


def look_ahead(name: str, options: Sequence[str]) -> Outlook:
    """Return what a stage with these options would do now. Wrong options end the process as in the stage itself."""
    module = importlib.import_module("preprocess.__main__" if name == "preprocess" else name)
    said = io.StringIO()
    try:
        with only_looking(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            module.main(list(options))
    except Decided as decided:
        return Outlook("will run", str(decided))
    except stage.InputError as error:
        return Outlook("will stop", str(error))
    except SystemExit:
        sys.stderr.write(said.getvalue())
        raise
    return Outlook("will run", "prints its table") if name == SPEAKER else Outlook("cached")


def describe_run(commands: Sequence[Sequence[str]]) -> Iterator[tuple[str, Outlook]]:
    """Yield each stage's name and outlook; behind one that will change something, nobody can know more than that.

    Parameters
    ----------
    commands : of each stage its name and its options
    """
    first: tuple[str, Outlook] | None = None
    for name, *options in commands:
        outlook = look_ahead(name, options)  # behind the first too: wrong options come to light
        if first is None:
            if outlook.state != "cached" and name != SPEAKER:
                first = (name, outlook)
        else:
            outlook = Outlook("not reached" if first[1].state == "will stop" else "will run", f"after {first[0]}")
        yield name, outlook


def split_commands(words: Sequence[str]) -> list[list[str]]:
    """Return each stage's name and options, from words in which `--` stands between the stages.

    Raises InputError for what is no stage.
    """
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    commands = [command for command in commands if command]
    unknown = [command[0] for command in commands if command[0] not in STAGES]
    if unknown:
        raise stage.InputError(f"{unknown[0]}: no such stage; the stages are {', '.join(STAGES)}")
    return commands


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per stage; end with status 2 if a stage would stop."""
    parser = stage.make_bare_parser(
        "submissions.dry_run",
        "List what the given stages would do, each `cached` or `will run` and why, and change nothing.",
        "preprocess --data data --cache cache -- dr.train --data data --cache cache --epochs 60",
    )
    parser.add_argument("stage", nargs="*", help="a stage's name and its options; -- stands between two stages")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        parser.parse_args(words or ["--help"])
    stopped = ""
    for name, outlook in describe_run(split_commands(words)):
        between = " " if outlook.reason.startswith("after ") else ": "
        print(f"{name:22}{outlook.state}{between + outlook.reason if outlook.reason else ''}", flush=True)
        stopped = outlook.reason if outlook.state == "will stop" else stopped
    print(FOOTNOTE)
    if stopped:
        raise stage.InputError(stopped)


if __name__ == "__main__":
    stage.run(main)
