"""Which shipped layout does a data folder have, and why; and if none fits, a data.toml to finish by hand."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from preprocess.dataset import declared, listing
from preprocess.dataset.layouts import declaration as layouts
from preprocess.dataset.layouts.declaration import Declaration, simplify_cell
from preprocess.dataset.listing import Tree
from preprocess.disk import any_table
from preprocess.disk.any_table import AnyTable
from preprocess.disk.errors import InputError, shorten

MOST_SHOWN = 20  # tables and folders that are listed
MOST_LOOKED_AT = 300  # rows of a table that a draft is guessed from
MOST_TARGETS = 20  # different cells of a column that may be a target
TARGET_WORDS = re.compile(
    r"level|grade(?!r)|diagnos|label|class|target|stage|severity|dr\b|retinopathy", re.IGNORECASE
)
PATIENT_WORDS = re.compile(r"patient|subject|person|pid\b", re.IGNORECASE)
SIDE_WORDS = re.compile(r"side|eye|lateral", re.IGNORECASE)


class Fit(NamedTuple):
    """A shipped layout that a folder has."""

    declaration: Declaration
    reason: str

    @property
    def name(self) -> str:
        return self.declaration.path.stem


def find_fits(tree: Tree) -> list[Fit]:
    """Return the shipped layouts whose train part a folder has: the table with its columns, and the photographs."""
    fits = []
    for name in layouts.list_shipped():
        declaration = layouts.find(name)
        reason = _explain_fit(tree, declaration)
        if reason:
            fits.append(Fit(declaration, reason))
    return fits


def describe_fits(fits: Sequence[Fit]) -> str:
    """Return what fits, and why, in one line."""
    return "; ".join(f"{fit.name} ({fit.reason})" for fit in fits)


def _explain_fit(tree: Tree, declaration: Declaration) -> str:
    """Return why a folder has a layout; "" if it has not."""
    part = declaration.parts["train"]
    try:
        images = declared.find_images(tree, declaration, "train", part)
        if images is None or not any(map(tree.is_photograph, tree.list_below(images))):
            return ""
        if not part.tables:
            return _explain_folders(tree, declaration, images)
        table = declared.find_table(tree, declaration, "train", part)
    except (
        InputError
    ):  # a table of this name that has other columns, two folders of one name: another layout
        return ""
    if table is None:
        return ""
    wanted = [declared.squeeze(column) for column in (*declaration.images, *declaration.targets)]
    columns = ", ".join([column for column in wanted if column in table.columns][:4])
    where = table.path.relative_to(tree.folder)
    return f"{where} has {columns}; {_name_folder(tree, images)} holds photographs"


def _explain_folders(tree: Tree, declaration: Declaration, images: str) -> str:
    top = declared.find_top(tree, declaration, images)
    names = _list_right_below(tree, top)
    levels = {declaration.values.get(simplify_cell(name), "") for name in names}
    numbers = sorted(int(level) for level in levels if level.isdecimal())
    is_scale = "" not in levels and len(levels) > 1 and numbers == list(range(len(levels)))
    if not is_scale:
        return ""
    return f"the folders in {_name_folder(tree, top)} are levels: {', '.join(sorted(names))}"


def _name_folder(tree: Tree, folder: str) -> str:
    return str(tree.folder) if folder == "." else f"{folder}/"


def _list_right_below(tree: Tree, top: str) -> list[str]:
    """Return the names of the folders right below one that hold photographs."""
    prefix = "" if top == "." else f"{top}/"
    names = set()
    for path in tree.list_below(top):
        folder, slash, _ = path.removeprefix(prefix).partition("/")
        if slash and tree.is_photograph(path):
            names.add(folder)
    return sorted(names)


# --- nothing fits -----------------------------------------------------------------------------------------------------


def describe_tree(tree: Tree) -> list[str]:
    """Return lines on what lies in a folder: its tables with their columns, its folders with what they hold."""
    lines = []
    paths = _list_tables(tree)
    for path in paths[:MOST_SHOWN]:
        try:
            table = any_table.read_any_table(tree.folder / path)
        except InputError as error:
            lines.append(f"table {path}: {error}")
            continue
        columns = ", ".join(column or "(no name)" for column in table.columns)
        lines.append(f"table {path}: {len(table.rows):,} rows; {shorten(columns)}")
    counts: dict[str, Counter[str]] = {}
    for path in tree.files:
        if path not in paths:
            folder, _, name = path.rpartition("/")
            suffix = (
                listing.split_suffix(name)[1] or f".{name.rpartition('.')[2].lower()}"
                if "." in name
                else "no suffix"
            )
            counts.setdefault(folder or ".", Counter())[suffix] += 1
    for folder in list(counts)[:MOST_SHOWN]:
        held = ", ".join(f"{n:,} {suffix}" for suffix, n in counts[folder].most_common())
        lines.append(f"folder {folder}: {held}")
    n_more = len(counts) - MOST_SHOWN
    if n_more > 0:
        lines.append(f"and {n_more:,} folders more")
    return lines or ["nothing"]


def _list_tables(tree: Tree) -> list[str]:
    return [path for path in tree.files if any_table.is_table(path)]


class _Guess(NamedTuple):
    """A table whose cells name photographs."""

    path: str
    table: AnyTable
    images: list[str]  # the columns that do
    folder: str  # of the photographs
    n_found: int


def draft(tree: Tree) -> str:
    """Return a data.toml to finish by hand: what can be guessed of a folder, and what has to be said, in comments."""
    guesses = []
    photographs = declared.Photographs(tree, ".")
    for path in _list_tables(tree):
        guess = _guess_table(tree, photographs, path)
        if guess:
            guesses.append(guess)
    if guesses:
        guesses.sort(key=lambda guess: -guess.n_found)
        return _draft_tables(tree, guesses)
    return _draft_folders(tree)


def _guess_table(tree: Tree, photographs: declared.Photographs, path: str) -> _Guess | None:
    """Return the columns of a table that name photographs, None if no column does."""
    try:
        table = any_table.read_any_table(tree.folder / path, most_rows=MOST_LOOKED_AT)
    except InputError:
        return None
    part = _guess_part(path)
    found: dict[str, list[str]] = {}
    for column, at in table.named.items():
        for cells in table.rows:
            candidates = photographs.list_candidates(cells[at]) if cells[at] else []
            if candidates:  # of several the one in a folder of this table's part
                best = next((one for one in candidates if _guess_part(one) == part), candidates[0])
                found.setdefault(column, []).append(best)
    if not found:
        return None
    first = max(found, key=lambda column: len(found[column]))
    columns = [first]
    for column, named in found.items():  # a wide table has a column for each of two eyes
        is_like = len(named) > len(found[first]) / 2
        if is_like and not set(named) & set(found[first]):
            columns.append(column)
    paths = [path for column in columns for path in found[column]]
    ordered = [column for column in table.named if column in columns]
    return _Guess(path, table, ordered, _find_common(paths), len(paths))


def _find_common(paths: Sequence[str]) -> str:
    """Return the deepest folder that all paths lie below."""
    parents = [path.split("/")[:-1] for path in paths]
    common = []
    for names in zip(*parents, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return "/".join(common) or "."


def _draft_tables(tree: Tree, guesses: Sequence[_Guess]) -> str:
    first = guesses[0]
    columns = {
        name: _list_cells(first.table, at)
        for name, at in first.table.named.items()
        if name not in first.images
    }
    patient = _find_named(columns, PATIENT_WORDS)
    side = _find_named(
        {name: cells for name, cells in columns.items() if len(cells) <= 4}, SIDE_WORDS
    )
    others = {name: cells for name, cells in columns.items() if name not in (patient, side)}
    lines = [
        f"# A draft of how {tree.folder.name} lies; finish it, and run python -m preprocess.describe --data again.",
        f"# {first.path}: {', '.join(first.table.named)}",
    ]
    lines += _draft_target(others, len(first.table.rows))
    lines.append(f"image = {_quote_all(first.images)}")
    if patient:
        lines.append(f"patient = {_quote(patient)}")
    else:
        lines.append(
            "# patient = \"COLUMN\", or patient_from = '(REGULAR EXPRESSION)' over the path"
        )
    if side:
        lines.append(f"side = {_quote(side)}")
        words = [cell for cell in columns[side] if simplify_cell(cell) not in declared.SIDE_WORDS]
        if words:
            said = ", ".join(f'{_quote(word)} = "left"' for word in words)
            lines.append(f"sides = {{ {said} }}  # say which is right")
    else:
        lines.append(
            '# side = "COLUMN", sides = { "1" = "right" }, or side_from = \'_(left|right)\''
        )
    used: set[str] = set()
    for guess in guesses:
        name = _guess_part(guess.path)
        if name in used:
            continue
        used.add(name)
        if name != "train" and "train" not in used and len(guesses) == 1:
            name = "train"
        lines += [
            "",
            f"[{name}]",
            f"table = {_quote(guess.path)}",
            f"images = {_quote(guess.folder)}",
        ]
    return "\n".join(lines) + "\n"


def _draft_target(columns: dict[str, list[str]], n_rows: int) -> list[str]:
    """Return the lines of a draft on what is asked, by the column that is most like a target.

    What differs in every row is no target, but a number or an id.
    """
    binary = [
        name
        for name, cells in columns.items()
        if {simplify_cell(cell) for cell in cells} == {"0", "1"}
    ]
    candidates = {}
    for name, cells in columns.items():
        if 1 < len(cells) <= MOST_TARGETS and (len(cells) < n_rows or TARGET_WORDS.search(name)):
            candidates[name] = cells
    column = _find_named(candidates, TARGET_WORDS) or next(iter(candidates), None)
    if len(binary) > 2 or column is None:
        listed = ", ".join(map(_quote, binary))
        return [
            'kind = "findings"  # or levels, or classes',
            f"target = [{listed}]  # the columns of 0 and 1",
        ]
    same = [name for name in candidates if _omit_side(name) == _omit_side(column)]
    cells = sorted({cell for name in same for cell in candidates[name]})
    if all(cell.isdecimal() for cell in map(simplify_cell, cells)):
        highest = max(int(simplify_cell(cell)) for cell in cells)
        names = ", ".join(_quote(f"level {level}") for level in range(highest + 1))
        return [
            'kind = "levels"  # classes, if the numbers have no order',
            f"names = [{names}]  # in their order",
            f"target = {_quote_all(same)}",
            '# unknown = ["5"], if a number means that an image cannot be graded',
        ]
    words = ", ".join(map(_quote, cells))
    return [
        'kind = "levels"  # classes, if the words have no order',
        f"names = [{words}]  # put them into their order",
        f"target = {_quote_all(same)}",
        '# values = { WORD = NUMBER }, if several words mean one level; unknown = ["WORD"], if one means none',
    ]


def _draft_folders(tree: Tree) -> str:
    """Return a draft for photographs that no table names: a folder per target, perhaps in a folder per part."""
    tops: dict[str, list[str]] = {}
    shallow = [path for path in tree.folders if path.count("/") < 2]
    for path in [".", *shallow[:MOST_LOOKED_AT]]:
        below = _list_right_below(tree, path)
        if len(below) > 1:
            tops[path] = below
    parts: dict[str, str] = {}
    for path in tops:
        guessed = _guess_part(path, "")
        if guessed and path != ".":
            parts.setdefault(guessed, path)
    if not parts:
        widest = max(tops, key=lambda path: len(tops[path]), default=".")
        parts = {"train": widest}
    folders = tops.get(next(iter(parts.values())), ["normal", "mild"])
    names = ", ".join(map(_quote, folders))
    lines = [
        f"# A draft of how {tree.folder.name} lies; finish it, and run python -m preprocess.describe --data again.",
        'kind = "levels"  # classes, if the folders have no order',
        f"names = [{names}]  # put the folders into their order",
        '# values = { FOLDER = NUMBER }, if several folders mean one level; unknown = ["FOLDER"], if one means none',
        "# patient_from = '(REGULAR EXPRESSION)' over the path; side_from = '_(left|right)'",
    ]
    for part in ("train", "valid", "test"):
        if part in parts:
            lines += ["", f"[{part}]", f"images = {_quote(parts[part])}"]
    return "\n".join(lines) + "\n"


def _guess_part(path: str, otherwise: str = "train") -> str:
    """Return the part that a file or folder is of, by its name."""
    name = path.casefold()
    if "test" in name:
        return "test"
    if "val" in name:
        return "valid"
    if "train" in name:
        return "train"
    return otherwise


def _list_cells(table: AnyTable, at: int) -> list[str]:
    """Return the different cells of a column, but for empty ones."""
    return sorted({cells[at] for cells in table.rows if cells[at]})


def _find_named(columns: dict[str, list[str]], words: re.Pattern[str]) -> str | None:
    return next((name for name in columns if words.search(name)), None)


def _omit_side(column: str) -> str:
    """Return a column's name without the side in it: the same for OD grade and OS grade."""
    if not declared.find_column_side(column):
        return column.casefold()
    words = re.split(r"([^a-z]+)", column.casefold())
    return "".join(word for word in words if word not in declared.SIDE_WORDS)


def _quote_all(names: Sequence[str]) -> str:
    """Return one name as a text of TOML, several as a list."""
    if len(names) == 1:
        return _quote(names[0])
    return f"[{', '.join(map(_quote, names))}]"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
