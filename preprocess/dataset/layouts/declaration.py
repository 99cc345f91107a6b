"""A declared layout: data.toml, or one of the shipped *.toml beside this file -> what its keys say, each checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from preprocess.disk.any_table import Format
from preprocess.disk.errors import InputError, suggest

FOLDER = Path(__file__).parent
NAME = "data.toml"  # of the declaration in a data folder
KINDS = ("levels", "classes", "findings")
PARTS = ("train", "valid", "test")
SIDES = ("left", "right")
KEYS = (
    "kind",
    "names",
    "image",
    "target",
    "joined",
    "patient",
    "patient_from",
    "side",
    "sides",
    "side_from",
    "unknown",
    "values",
    "none",
    "keep",
    "columns",
    "separator",
    "encoding",
    "note",
)
SAID = {
    "tab": "\t",
    "blanks": " ",
    "blank": " ",
    "semicolon": ";",
    "comma": ",",
}  # words for a separator


class Part(NamedTuple):
    """Where a part's targets and photographs are; of several names the first that is there."""

    tables: tuple[str, ...]  # none: a folder per target
    images: tuple[str, ...]


@dataclass(frozen=True)
class Declaration:
    """What a layout's file says. Cells are compared by `simplify_cell`."""

    path: Path
    is_shipped: (
        bool  # then what a download lacks may be missing, and of alternative columns one is enough
    )
    kind: str
    names: tuple[str, ...]  # () where the data tells them
    images: tuple[str, ...]  # columns: each that the table has names a photograph
    targets: tuple[str, ...]  # columns; () where the folders or all columns of 0 and 1 tell
    joined: str  # what joins the findings that a cell names; "": a column each
    patient: str
    patient_from: re.Pattern[str] | None
    side: str
    sides: Mapping[str, str]
    side_from: re.Pattern[str] | None
    unknown: frozenset[str]
    values: Mapping[str, str]
    none: str  # column that says that an image has no finding: what is empty there is 0
    keep: Mapping[str, frozenset[str]]
    format: Format
    parts: Mapping[str, Part]
    note: str

    @property
    def title(self) -> str:
        """The layout's name, or its file."""
        return self.path.stem if self.is_shipped else str(self.path)


def list_shipped() -> list[str]:
    """Return the names of the layouts that come with the pipeline."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str) -> Declaration:
    """Return the layout of a name or file. Raises InputError if it is neither, and for what is wrong in it."""
    if name.endswith(".toml"):
        return read(Path(name))
    if name in list_shipped():
        return read(FOLDER / f"{name}.toml", is_shipped=True)
    raise InputError(
        f"--layout {name}: no such layout{suggest(name, list_shipped())}; or give a file, FILE.toml"
    )


def read(path: Path, is_shipped: bool = False) -> Declaration:
    """Return the layout that a file declares. Raises InputError, naming file and key, for what cannot be."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    for key in content:
        if key in ("table", "images"):
            raise InputError(
                f"{path}: {key}: belongs into a part, below [train], [valid] or [test]"
            )
        if key not in (*KEYS, *PARTS):
            raise InputError(f"{path}: {key}: no such key{suggest(key, (*KEYS, *PARTS))}")
    reader = _Reader(path, content)
    kind = reader.read_text("kind")
    if kind not in KINDS:
        raise InputError(f"{path}: kind: {kind!r} is none of {', '.join(KINDS)}")
    declaration = Declaration(
        path=path,
        is_shipped=is_shipped,
        kind=kind,
        names=reader.read_texts("names"),
        images=reader.read_texts("image"),
        targets=reader.read_texts("target"),
        joined=reader.read_text("joined"),
        patient=reader.read_text("patient"),
        patient_from=reader.read_pattern("patient_from"),
        side=reader.read_text("side"),
        sides=reader.read_mapping("sides"),
        side_from=reader.read_pattern("side_from"),
        unknown=frozenset(
            simplify_cell(text) for text in reader.read_texts("unknown", can_be_empty=True)
        ),
        values=reader.read_mapping("values"),
        none=reader.read_text("none"),
        keep=reader.read_keep(),
        format=Format(
            columns=reader.read_texts("columns", can_be_empty=True),
            separator=reader.read_separator(),
            encoding=reader.read_text("encoding") or None,
        ),
        parts=reader.read_parts(),
        note=reader.read_text("note"),
    )
    _check(declaration)
    return declaration


def simplify_cell(text: str) -> str:
    """Return a cell as it is compared: in lower case, and 2 for 2.0 or 02."""
    text = text.strip().casefold()
    if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        return str(int(text.partition(".")[0]))
    return text


def _check(declaration: Declaration) -> None:
    """Raise InputError for keys that contradict each other."""
    path = declaration.path
    if 0 < len(declaration.names) < 2 and declaration.kind != "findings":
        raise InputError(f"{path}: names: at least two {declaration.kind} are needed")
    if len(set(declaration.names)) < len(declaration.names):
        raise InputError(f"{path}: names: a name is repeated")
    has_table = any(part.tables for part in declaration.parts.values())
    if has_table and not declaration.images:
        raise InputError(
            f"{path}: image is missing: the column of the table that names the photographs"
        )
    if has_table and not declaration.targets and declaration.kind != "findings":
        raise InputError(
            f"{path}: target is missing: the column of the table that holds the {declaration.kind}"
        )
    if declaration.joined and (
        declaration.kind != "findings" or len(declaration.targets) != 1 or not declaration.names
    ):
        raise InputError(
            f"{path}: joined: is for findings in one column, target, whose names stand in names"
        )
    if declaration.kind == "findings" and not has_table:
        raise InputError(f"{path}: kind: findings need a table; folders hold levels or classes")
    _check_subjects(declaration)
    for key, value in declaration.values.items():
        _check_value(declaration, key, value)


def _check_subjects(declaration: Declaration) -> None:
    """Raise InputError for keys on patients and sides that contradict each other."""
    path = declaration.path
    for key, side in declaration.sides.items():
        if side not in SIDES:
            raise InputError(f"{path}: sides: {key!r} is {side!r}, not left or right")
    if declaration.sides and not (declaration.side or declaration.side_from):
        raise InputError(f"{path}: sides needs side, a column, or side_from, a regular expression")
    for one, other in (("patient", "patient_from"), ("side", "side_from")):
        if getattr(declaration, one) and getattr(declaration, other):
            raise InputError(f"{path}: {one} and {other}: give one of them, not both")


def _check_value(declaration: Declaration, key: str, value: str) -> None:
    """Raise InputError for a target that a value cannot stand for."""
    where = f"{declaration.path}: values: {key!r} is {value!r}"
    names = declaration.names
    if declaration.kind == "findings":
        if value not in ("0", "1"):
            raise InputError(f"{where}, not 0 or 1")
    elif declaration.kind == "levels":
        is_level = value.isdecimal() and (not names or int(value) < len(names))
        if not is_level and value not in names:
            allowed = (
                f"a level from 0 to {len(names) - 1}, or one of {', '.join(names)}"
                if names
                else "a level, 0 on"
            )
            raise InputError(f"{where}, not {allowed}")
    elif names and value not in names:
        raise InputError(f"{where}, none of the classes{suggest(value, names)}")


class _Reader:
    """The values of a file's keys, each with its type checked."""

    def __init__(self, path: Path, content: Mapping[str, Any]):
        self.path = path
        self.content = content

    def read_text(self, key: str) -> str:
        value = self.content.get(key, "")
        if not isinstance(value, str):
            raise InputError(f"{self.path}: {key}: {value!r} is no text")
        return value

    def read_texts(self, key: str, can_be_empty: bool = False) -> tuple[str, ...]:
        return self._list_texts(key, self.content.get(key, []), can_be_empty)

    def _list_texts(self, key: str, value: Any, can_be_empty: bool = False) -> tuple[str, ...]:
        """Return a text, or a list of them, as a tuple."""
        values = value if isinstance(value, list) else [value]
        texts = []
        for item in values:
            is_text = isinstance(item, str | int | float) and not isinstance(item, bool)
            if not is_text or (item == "" and not can_be_empty):
                raise InputError(
                    f"{self.path}: {key}: {item!r} is neither a string nor a list of strings"
                )
            texts.append(str(item))
        return tuple(texts)

    def read_pattern(self, key: str) -> re.Pattern[str] | None:
        text = self.read_text(key)
        if not text:
            return None
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InputError(
                f"{self.path}: {key}: {text!r} is not a regular expression ({error})"
            ) from None
        if pattern.groups != 1:
            raise InputError(
                f"{self.path}: {key}: {text!r} has {pattern.groups} groups; put what is meant, and only that, in ( )"
            )
        return pattern

    def read_mapping(self, key: str) -> dict[str, str]:
        """Return a table of TOML, its keys as cells are compared."""
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.path}: {key}: {value!r} is no table, such as {{ one = 1 }}")
        mapping = {}
        for name, item in value.items():
            if not isinstance(item, str | int) or isinstance(item, bool):
                raise InputError(
                    f"{self.path}: {key}: {name!r} is {item!r}, neither a number nor a word"
                )
            mapping[simplify_cell(name)] = str(item)
        return mapping

    def read_keep(self) -> dict[str, frozenset[str]]:
        value = self.content.get("keep", {})
        if not isinstance(value, dict):
            raise InputError(
                f"{self.path}: keep: {value!r} is no table, such as {{ quality = ['good'] }}"
            )
        kept = {}
        for column, cells in value.items():
            texts = self._list_texts(f"keep: {column}", cells, can_be_empty=True)
            kept[column] = frozenset(simplify_cell(text) for text in texts)
        return kept

    def read_separator(self) -> str | None:
        text = self.read_text("separator")
        text = SAID.get(text, text)
        if len(text) > 1:
            raise InputError(
                f"{self.path}: separator: {text!r} is no single character, nor {', '.join(SAID)}"
            )
        return text or None

    def read_parts(self) -> dict[str, Part]:
        parts = {}
        for name in PARTS:
            if name not in self.content:
                continue
            value = self.content[name]
            if not isinstance(value, dict):
                raise InputError(
                    f"{self.path}: {name}: {value!r} is not a part; write [{name}] with table and images"
                )
            for key in value:
                if key not in ("table", "images"):
                    near = suggest(key, ("table", "images"))
                    hint = (
                        "; keys of the whole layout stand above the parts" if key in KEYS else near
                    )
                    raise InputError(f"{self.path}: [{name}] {key}: no key of a part{hint}")
            tables = self._list_texts(f"[{name}] table", value.get("table", []))
            images = self._list_texts(f"[{name}] images", value.get("images", []))
            parts[name] = Part(tables, images or (".",))
        if not parts:
            raise InputError(
                f"{self.path}: [train] is missing: table and images of the part to learn from"
            )
        return parts


def describe_parts(parts: Sequence[str]) -> str:
    """Return the names of parts as a file writes them."""
    return ", ".join(f"[{part}]" for part in parts)
