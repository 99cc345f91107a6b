"""Divide a data set by patient: DATA/Data_Entry_2017.csv -> train_val_list.txt, val_list.txt, test_list.txt.

The lists name images; those of val_list.txt are held out as fold 0. For any other data set, the
command writes DATA/samples.csv with the column split. sorted-70-10-20: patients in the order of
their numbers. official-...: the test patients stay, and validation gets an eighth of the other
patients, the last ones or drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.command import cli, process
from preprocess.dataset import findings, readers, sample_table
from preprocess.dataset.dataset import SPLITS, DataSet, make_table
from preprocess.disk import tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TENTHS = (7, 8)  # of the patients, where validation and test begin: 70 %, 10 %, 20 %
VALID_SHARE = 1 / 8  # of the official train_val patients: 10 of its 80 %
HOW = ("sorted-70-10-20", "official-sorted", "official-drawn")


def divide_patients(patients: Sequence[str], how: str, seed: int = 0) -> tuple[set[str], set[str]]:
    """Return the patients to validate and to test by; all others are learned from, and nobody is lost at a boundary.

    They are divided from all by sorted-70-10-20, else from the official train_val list, of which none is tested by.
    """
    ordered = tables.sort_images(set(patients))
    if how == HOW[0]:
        valid_at, test_at = (len(ordered) * tenths // 10 for tenths in TENTHS)
        return set(ordered[valid_at:test_at]), set(ordered[test_at:])
    if how == "official-drawn":
        ordered = np.random.default_rng(seed).permutation(np.array(ordered, dtype=object)).tolist()
    return set(ordered[len(ordered) - round(VALID_SHARE * len(ordered)) :]), set()


def split(data: Path, how: str, seed: int, is_overwriting: bool) -> None:
    """Write the lists and say how many images and patients each part has."""
    path = findings.find_table(data)
    assert path is not None, data
    table = findings.read_table(path)
    groups = table.patients
    written_as = read_names(path)
    lists = {part: findings.find_list(data, part) for part in findings.LISTS}
    written = list(lists) if how == HOW[0] else ["valid"]
    for part in written:
        if lists[part].exists() and not is_overwriting:
            raise InputError(f"{lists[part]}: is there already; --overwrite replaces it")
    test: list[str] | None = []
    if how != HOW[0] and (test := findings.read_list(lists["test"])) is None:
        raise InputError(f"{lists['test']}: no such list; --how {HOW[0]} makes one")
    tested = {groups[image] for image in test or () if image in groups}
    valid, more = divide_patients(
        [group for group in groups.values() if group not in tested], how, seed
    )
    patients = {
        "train": {*groups.values()} - tested - more - valid,
        "valid": valid,
        "test": tested | more,
    }
    empty = [findings.LISTS[part] for part in ("train", *written) if not patients[part]]
    if empty:
        raise InputError(
            f"{path}: too few patients, {len({*groups.values()})}: {empty[0]} would have none"
        )
    for part in written:
        named = patients[part] | (valid if part == "train" else set())  # as train_val_list.txt does
        tables.write_csv(
            lists[part],
            "".join(f"{written_as[image]}\n" for image, group in groups.items() if group in named),
        )
    for part, of in zip(("train", "validation", "test"), patients.values(), strict=True):
        n_images = sum(group in of for group in groups.values())
        print(f"preprocess.split: {part}: {n_images:,} images of {len(of):,} patients")
        is_in_part = [group in of for group in groups.values()]
        lacking = list_absent(table.targets, is_in_part)
        if lacking:
            print(
                f"preprocess.split: {part}: nobody has {', '.join(lacking)}: nothing can be measured of it there"
            )


def split_samples(dataset: DataSet, how: str, seed: int, is_overwriting: bool) -> None:
    """Write a data set's samples.csv with the splits, and say how many images and patients each has.

    sorted-70-10-20 divides all patients anew; the others leave those to test by. Raises InputError if there is such a
    table already, or too few patients.
    """
    path = dataset.folder / sample_table.NAME
    samples = dataset.samples.copy()
    if not len(samples):
        raise InputError(f"{dataset.folder}: no image to divide")
    if path.exists() and not is_overwriting:
        raise InputError(f"{path}: is there already; --overwrite replaces it")
    tested: set[str] = set()
    if how != HOW[0]:
        tested = set(samples.loc[samples["split"] == "test", "patient"])
        if not tested:
            raise InputError(f"{dataset.folder}: no test images; --how {HOW[0]} makes some")
    others = [patient for patient in samples["patient"] if patient not in tested]
    valid, more = divide_patients(others, how, seed)
    samples["split"] = "train"
    samples.loc[samples["patient"].isin(valid), "split"] = "valid"
    samples.loc[samples["patient"].isin(tested | more), "split"] = "test"
    for part in SPLITS:
        rows = samples[samples["split"] == part]
        n_patients = rows["patient"].nunique()
        if not n_patients:
            raise InputError(f"{dataset.folder}: too few patients: {part} would have none")
        print(f"preprocess.split: {part}: {len(rows):,} images of {n_patients:,} patients")
    divided = dataclasses.replace(dataset, samples=make_table(samples, dataset.question))
    sample_table.write_table(path, divided)
    print(
        f"preprocess.split: {len(samples):,} rows -> {path}, by which the folder is read from now on"
    )


def read_names(path: Path) -> dict[str, str]:
    """Return the images of a table as it writes them, id -> text, so that tables and lists can be compared."""
    header, *rows = tables.read_csv(path)
    column = findings.IMAGE if findings.IMAGE in header else "image"
    position = header.index(column)
    return {findings.normalize_id(row[position]): row[position] for row in rows}


def list_absent(targets: pd.DataFrame, is_in_part: Sequence[bool]) -> list[str]:
    """Return the findings that no image of a part has, of those that some image has."""
    is_present = (targets == 1).any()
    is_present_here = (targets[np.array(is_in_part)] == 1).any()
    return list(targets.columns[is_present & ~is_present_here])


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "preprocess.split", __doc__, "--data data/chest --how official-drawn"
    )
    cli.add_data_options(parser, "data folder")
    parser.add_argument("--how", choices=HOW, default=HOW[0], help="how the patients are divided")
    parser.add_argument(
        "--seed", type=cli.whole(0), default=0, help="random seed of official-drawn"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing lists")
    options = parser.parse_args(argv)
    if not options.layout and findings.find_table(options.data):
        split(options.data, options.how, options.seed, options.overwrite)
        return
    dataset = readers.read_dataset(options.data, options.layout)
    split_samples(dataset, options.how, options.seed, options.overwrite)


if __name__ == "__main__":
    process.run(main)
