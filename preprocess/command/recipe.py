"""Recipes: TOML files with a section per stage, whose values are the defaults of its options.

A recipe starts from another one, `based_on = "NAME"`, and in the end from article.toml, which has
every default.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preprocess.command.pipeline import FOLDERS
from preprocess.command.process import OptionsChecked
from preprocess.disk.errors import InputError, suggest

FOLDER = Path(__file__).parents[1] / "recipes"
BASE = "article"
DRAWN = "drawn"  # weights to begin with: those of a net that has learned on drawn eyes
FEW_SHARE = 0.5  # of the photographs that a recipe was made for: with fewer it is another case
MOST_BASES = 10  # a longer chain of recipes is a circle
# Options that are no settings, as those whose value is a path.
PLACES = {"help", "recipe", "check_options", "run", "name", "layout"}


class MadeFor(NamedTuple):
    """What a recipe was made for, as its section [made_for] says."""

    photographs: int  # that it learned from
    reached: str  # a figure, and on how many photographs
    source: str  # of that figure
    fewer: str  # the recipe for fewer photographs; "" if there is none


class Recipe(NamedTuple):
    """A recipe's own values, stage -> option -> value, and the file they come from."""

    path: Path
    sections: dict[str, dict[str, Any]]
    made_for: MadeFor | None = None


def list_names() -> list[str]:
    """Return the names of the recipes that come with the pipeline."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe` and `--check-options`."""
    parser.add_argument(
        "--check-options",
        action="store_true",
        help="only tell whether the options can be used",
    )
    names = ", ".join(list_names())
    parser.add_argument(
        "--recipe",
        default=BASE,
        metavar="NAME|FILE.toml",
        help=f"where the defaults of the options come from: {names}, or a file of your own",
    )


def read_chain(
    name: str, named_by: str = "--recipe", beside: Path = Path(), n_above: int = 0
) -> list[Recipe]:
    """Return the recipe of a name or file and those it is based on, article first.

    `named_by` and the folder `beside` are those of the recipe above. Raises InputError for what is
    no recipe.
    """
    if name.endswith(".toml"):
        path = beside / name
    elif name in list_names():
        path = FOLDER / f"{name}.toml"
    else:
        near = suggest(name, list_names())
        raise InputError(f"{named_by} {name}: no such recipe{near}; or give a file, NAME.toml")
    if n_above > MOST_BASES:
        raise InputError(f"{path}: based_on is circular")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    base = content.pop("based_on", BASE)
    if not isinstance(base, str):
        raise InputError(f"{path}: based_on is {base!r}, not the name of a recipe")
    made_for = _read_made_for(path, content.pop("made_for", None))
    recipe = Recipe(path=path, sections=_list_sections(path, content), made_for=made_for)
    if path == FOLDER / f"{BASE}.toml":
        return [recipe]
    chain = read_chain(base, f"{path}: based_on", beside=path.parent, n_above=n_above + 1)
    return [*chain, recipe]


def _read_made_for(path: Path, content: Any) -> MadeFor | None:
    """Return what [made_for] says; None without it. Raises InputError for keys or values that do not fit."""
    if content is None:
        return None
    kinds = {"photographs": int, "reached": str, "source": str, "fewer": str}
    values: dict[str, Any] = {"fewer": ""}
    if isinstance(content, dict):
        values |= content
    for key in kinds.keys() | values.keys():
        if type(values.get(key)) is not kinds.get(key):
            raise InputError(
                f"{path}: [made_for] {key}: wants photographs, a whole number, and reached, source and perhaps fewer, "
                "texts"
            )
    return MadeFor(**values)


def describe_few(name: str, n_photographs: int) -> list[str]:
    """Return lines that warn of fewer photographs than a recipe was made for; none if there are enough.

    They say what it reached with how many, and which recipe is for fewer.
    """
    recipe = read_chain(name)[-1]
    made_for = recipe.made_for
    if made_for is None or n_photographs >= FEW_SHARE * made_for.photographs:
        return []
    lines = [_describe_experience(recipe.path.stem, made_for, n_photographs)]
    if made_for.fewer:
        smaller = read_chain(made_for.fewer)[-1].made_for
        lines.append(f"for few photographs of eyes: --recipe {made_for.fewer}")
        if smaller is not None:
            lines[-1] += (
                f", which reached {smaller.reached}, after learning from {smaller.photographs:,} ({smaller.source})"
            )
    return lines


def _describe_experience(name: str, made_for: MadeFor, n_photographs: int) -> str:
    return (
        f"{n_photographs:,} photographs to learn from, and recipe {name} was made for {made_for.photographs:,}: with "
        f"them it reached {made_for.reached} ({made_for.source}); expect less"
    )


def find_drawn(name: str) -> str | None:
    """Return the recipe by which a net learns on drawn eyes what a recipe begins with; None if it begins otherwise.

    Where `weights` of [dr.train] is "drawn", it is the one called NAME-drawn beside the recipe, or beside the nearest
    of those that it is based on. Raises InputError if there is none.
    """
    chain = read_chain(name)
    weights = None
    for recipe in chain:
        weights = recipe.sections.get("dr.train", {}).get("weights", weights)
    if weights != DRAWN:
        return None
    for recipe in reversed(chain):
        path = recipe.path.with_name(f"{recipe.path.stem}-{DRAWN}.toml")
        if path.exists():
            return path.stem if path.parent == FOLDER else str(path)
    path = chain[-1].path
    raise InputError(f"{path}: weights = {DRAWN!r} needs {path.stem}-{DRAWN}.toml beside it")


def _list_sections(path: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of a recipe by stage: TOML nests `[dr.train]` in `dr`.

    Raises InputError for a section of no stage.
    """
    sections: dict[str, Any] = {}
    for package, stages in content.items():
        if isinstance(stages, dict) and stages:
            for stage, values in stages.items():
                sections[f"{package}.{stage}"] = values
        else:
            sections[package] = stages
    for section, values in sections.items():
        if section not in FOLDERS or not isinstance(values, dict):
            raise InputError(f"{path}: [{section}] is not a stage{suggest(section, FOLDERS)}")
    return sections


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *stages: str,
    renamed: Mapping[str, str] | None = None,
    check: Callable[[argparse.Namespace], object] = bool,
) -> argparse.Namespace:
    """Return a stage's options: the command line's, else the recipe's, else those of article.toml.

    The recipe's sections of `stages` count here; `renamed` maps its "STAGE.option" to the option's
    name in `parser`, where they differ. `check` is called with the options, and raises InputError if
    they contradict each other.

    Raises InputError, naming file and key, for what the parser would not take; OptionsChecked after
    `--check-options`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", default=BASE)
    chosen, _ = early.parse_known_args(argv)
    for recipe in read_chain(chosen.recipe):
        for stage in stages:
            _set_defaults(parser, recipe, stage, renamed or {})
    options = parser.parse_args(argv)
    _check_paths(options)
    check(options)
    if options.check_options:
        raise OptionsChecked(options)
    return options


def _set_defaults(
    parser: argparse.ArgumentParser, recipe: Recipe, stage: str, renamed: Mapping[str, str]
) -> None:
    """Make the values of a recipe's section the parser's defaults."""
    actions = {}
    for action in parser._actions:
        if action.type is not Path and action.dest not in PLACES:
            actions[action.dest] = action
    for key, value in recipe.sections.get(stage, {}).items():
        named = f"{recipe.path}: [{stage}] {key}"
        name = renamed.get(f"{stage}.{key}", key)
        if name not in actions:
            raise InputError(f"{named}: no such option{suggest(key, actions)}")
        try:
            parser.set_defaults(**{name: take(actions[name], value)})
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise InputError(f"{named}: {error}") from None


def _check_paths(options: argparse.Namespace) -> None:
    """Raise InputError, before a run begins, for labels that are not there, and for writing what is no file."""
    labels, out = getattr(options, "labels", None), getattr(options, "out", None)
    if labels and not labels.exists():
        raise InputError(f"{labels}: no such file")
    if out and out.is_dir():
        raise InputError(f"{out}: is a folder; name a file to write")


def take(action: argparse.Action, value: Any) -> Any:
    """Return a TOML value as an option's.

    Raises ValueError or ArgumentTypeError for a value that does not fit.
    """
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value
    if action.nargs is None:
        return _take_one(action, value)
    wanted = "values" if action.nargs == "+" else f"{action.nargs} values"
    if not isinstance(value, list) or not value or action.nargs not in ("+", len(value)):
        raise ValueError(f"{value!r} is no list of {wanted}")
    return [_take_one(action, item) for item in value]


def _take_one(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        raise ValueError(f"{value!r} is neither a number nor a word")
    taken: Any = str(value)
    if callable(action.type):
        taken = action.type(taken)
    if action.choices is not None and taken not in action.choices:
        raise ValueError(f"{value!r} is none of {', '.join(map(str, action.choices))}")
    return taken
