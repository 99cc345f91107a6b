"""A table of findings, ChestX-ray14's Data_Entry_2017.csv or findings.csv; pictures in DATA/images*/ or below it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from preprocess.dataset import listing
from preprocess.dataset.dataset import Layout, Listing, Owner, Task
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, shorten, suggest

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("findings.csv", "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
LISTS = {"train": "train_val_list.txt", "valid": "val_list.txt", "test": "test_list.txt"}
# ChestX-ray14's fourteen, in the order of the article: X. Wang et al., "ChestX-ray8", CVPR 2017, and its later edition.
NAMES = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
NONE = "No Finding"
JOINED = ("Image Index", "Patient ID", "Finding Labels")  # columns of a table whose findings are joined by |
SPREAD = ("image", "group")  # of one with a column of 0, 1 or nothing per finding
BOXES = "BBox_List_2017.csv"
VALUES = {"": np.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}


class Table(NamedTuple):
    """Whom each image shows, and what: 1, 0, or NaN where it is not known, a row per image, a column per finding."""

    groups: dict[str, str]
    targets: pd.DataFrame


def find_table(data: Path) -> Path | None:
    """Return the data folder's table of findings, the first of TABLES, perhaps gzipped; None if it has none."""
    paths = (data / f"{name}{suffix}" for name in TABLES for suffix in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def make_layout(data: Path) -> Layout:
    """Return the layout of a data folder with a table of findings; those that no image has are left out.

    What has not changed is not read again. Raises InputError for a table that cannot be used, or divided patients.
    """
    sources = [find_table(data), *(find_list(data, part) for part in LISTS)]
    return _make_layout(data, *((path, *files.describe_source(path)) for path in sources if path))


@functools.lru_cache(maxsize=4)
def _make_layout(data: Path, *versions: tuple) -> Layout:
    path = versions[0][0]
    table = read_table(path)
    present = (table.targets == 1).any()
    if not present.any():
        raise InputError(f"{path}: no image has any finding; there is nothing to learn")
    task = Task("findings", tuple(table.targets.columns[present]))
    test, held_out = _read_division(data, path, table)
    told = []
    if not present.all():
        told.append(f"{path.name}: nobody has {', '.join(table.targets.columns[~present])}: left out")
    if held_out:
        told.append(f"{LISTS['valid']} is held out as fold 0: {len(held_out)} images")
    return Layout(
        task, partial(list_images, table, test), spell, partial(find_owner, table.groups),
        partial(read_labels, task, path, table.targets, test),
        {"train": path.name, "test": find_list(data, "test").name}, held_out, lambda _: told,
    )  # fmt: skip


def _read_division(data: Path, path: Path, table: Table) -> tuple[frozenset[str], frozenset[str]]:
    """Return the images to test by and those held out, as the lists say. Raises InputError for lists that are wrong."""
    lists = {part: read_list(find_list(data, part)) for part in LISTS}
    _check_known(data, "valid", lists["valid"] or [], path, table)
    if lists["train"] is None:  # else the table may be a part of what the lists name, as of ChestX-ray14
        _check_known(data, "test", lists["test"] or [], path, table)
    test = frozenset(lists["test"] or ()) & table.groups.keys()
    held_out = frozenset(lists["valid"] or ()) - test
    others = table.groups.keys() - test
    divided = {table.groups[image] for image in test} & {table.groups[image] for image in others}
    if divided:
        patient = min(divided, key=tables.order_of)
        raise InputError(f"{data / LISTS['test']}: divides patient {patient}; list all or none")
    if lists["train"] is not None:
        in_none = others - set(lists["train"]) - held_out
        if in_none:
            raise InputError(f"{path}: image {min(in_none)} is in neither {LISTS['train']} nor {LISTS['test']}")
    return test, held_out


def _check_known(data: Path, part: str, listed: list[str], path: Path, table: Table) -> None:
    """Raise InputError, naming the first, if a list names images that the table lacks."""
    unknown = [(row, image) for row, image in enumerate(listed, 1) if image not in table.groups]
    if unknown:
        row, image = unknown[0]
        lacks = f"{path.name} has no image {image} nor {len(unknown) - 1} more of these"
        raise InputError(f"{find_list(data, part)}, row {row}: {lacks}")


def spell(image: str) -> str:
    """Return an image id: the file's name without its suffix."""
    stem, suffix = os.path.splitext(image)
    return stem if tables.EXTENSION.fullmatch(suffix) else image


def read_table(path: Path) -> Table:
    """Return a table of findings. Raises InputError, naming file and row, for what is unknown and missing patients."""
    import pandas as pd

    header = tables.read_csv(path)[0]
    if JOINED[2] in header:
        table = tables.read_table(path, JOINED, spell, JOINED[0])
        group, parse, names = JOINED[1], _parse_joined, list(NAMES)
    else:
        names = [name for name in header if name not in SPREAD]
        table = tables.read_table(path, [*SPREAD, *names], spell)
        if not all(map(str.strip, names or [""])):
            raise InputError(f"{path}: {'a column has no name' if names else 'no column with a finding'}")
        group, parse = SPREAD[1], _parse_spread
    nobody = table[group].str.strip() == ""
    if nobody.any():
        raise InputError(f"{path}, row {int(nobody.argmax()) + 2}: {group} is '': whom does the image show?")
    targets = pd.DataFrame(parse(path, table, names), pd.Index(table["image"], name="image"), names)
    groups = dict(zip(table["image"], table[group].str.strip(), strict=True))
    return Table(groups, targets.loc[tables.sort_images(targets.index)])


def _parse_joined(path: Path, table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return targets (n, k) of findings joined by |; an empty cell is unknown altogether."""
    cells = table[JOINED[2]].str.strip()
    rows: dict[str, np.ndarray] = {}
    for cell in cells.unique():
        found = {name.strip() for name in cell.split("|")}
        wrong = sorted(found - {NONE, *names}) if cell else []
        if wrong or (NONE in found and len(found) > 1):
            where = f"{path}, row {int((cells == cell).argmax()) + 2}: "
            told = f"{NONE} and findings"
            if wrong:
                told = f"{shorten(wrong[0])!r} is no finding{suggest(wrong[0], (NONE, *names))}"
            raise InputError(where + told)
        rows[cell] = np.array([name in found for name in names], float) if cell else np.full(len(names), np.nan)
    return np.stack([rows[cell] for cell in cells]) if len(cells) else np.empty((0, len(names)))


def _parse_spread(path: Path, table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return targets (n, k) of a column per finding."""
    cells = table[names].apply(lambda column: column.str.strip())
    wrong = np.argwhere(~cells.isin(list(VALUES)).to_numpy())
    if len(wrong):
        row, column = wrong[0].tolist()
        value = shorten(cells.iloc[row, column])
        raise InputError(f"{path}, row {row + 2}: {names[column]} is {value!r}, not 0, 1 or nothing, which is unknown")
    return np.array([[VALUES[cell] for cell in row] for row in cells.to_numpy()]).reshape(len(cells), len(names))


def find_list(data: Path, part: str) -> Path:
    """Return where the list of a part's images lies beside the table, perhaps gzipped, or would lie."""
    plain = data / LISTS[part]
    return zipped if (zipped := plain.with_name(f"{plain.name}.gz")).exists() and not plain.exists() else plain


def read_list(path: Path) -> list[str] | None:
    """Return the images that a list names, a line each; None if there is none."""
    return [spell(row[0]) for row in tables.read_csv(path)] if path.exists() else None


def read_boxes(data: Path) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    """Return what the table BOXES marks, if there is one: image -> finding -> boxes (left, top, width, height), px."""
    path, boxes = data / BOXES, dict[str, dict[str, list[tuple[float, ...]]]]()
    for row, (image, name, *numbers) in enumerate(tables.read_csv(path)[1:] if path.exists() else [], 2):
        try:
            left, top, width, height = map(float, numbers[:4])
        except ValueError:
            raise InputError(f"{path}, row {row}: no box of four numbers") from None
        known = {"Infiltrate": "Infiltration"}.get(name, name)  # as that table calls it
        boxes.setdefault(spell(image), {}).setdefault(known, []).append((left, top, width, height))
    return boxes


def list_images(table: Table, test: frozenset[str], data: Path, split: str) -> Listing:
    """Return the split's images, see `Layout`; those of the table alone. Raises InputError if an image lies twice.

    They lie in the folders of DATA that are called images..., or in images/ below those.
    """
    found = [path for path in sorted(data.glob("images*")) if path.is_dir()]
    parts = [folder for path in found for folder in (path, path / "images")]
    wanted = [image for image in table.groups if (image in test) == (split == "test")]
    lacks = "the table of findings lacks it"
    listed = listing.list_folders(parts, str, partial(find_owner, table.groups), lacks)
    if not listed.paths:
        return Listing({}, {})
    paths = {image: listed.paths.get(image, parts[0] / f"{image}.png") for image in tables.sort_images(wanted)}
    return Listing(paths, listed.misnamed if split == "train" else {})


def find_owner(groups: Mapping[str, str], image: str) -> Owner:
    """Return the patient of an image. Raises InputError for one that the table lacks."""
    if image not in groups:
        raise InputError(f"image {shorten(image)!r} is not in the table of findings")
    return Owner(groups[image])


def read_labels(
    task: Task, own: Path, known: pd.DataFrame, test: frozenset[str], path: Path, known_only: bool = False
) -> pd.DataFrame:
    """Return the findings of each image, see `Layout`.

    The path is `own`, the data folder's table, which holds what is `known`, of whose images those of the test list are
    left out; the test list, whose images' findings are that table's; or another table.
    """
    is_list = path == find_list(own.parent, "test")
    targets = known[known.index.isin(test) == is_list] if is_list or path == own else read_table(path).targets
    lacking = [name for name in task.names if name not in targets]
    if lacking:
        raise InputError(f"{path}: no column {lacking[0]}")
    return targets.loc[targets.notna().any(axis=1) if known_only else slice(None), list(task.names)]
