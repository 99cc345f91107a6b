"""Which reader a data folder wants."""

import argparse
from dataclasses import replace
from pathlib import Path

from preprocess.dataset import classes, declared, findings, kaggle, listing, recognise, sample_table
from preprocess.dataset.dataset import DataSet
from preprocess.dataset.layouts import declaration as layouts
from preprocess.disk import clock
from preprocess.disk.errors import InputError


def open_dataset(options: argparse.Namespace) -> DataSet:
    """Return the data set that a command works with, once for all of it.

    Raises InputError for what the reader cannot use, and if a file that the command is to write belongs to the data.
    """
    with clock.waiting(f"{options.data}: reading"):
        dataset = read_dataset(options.data, options.layout)
    check_outputs(options, dataset)
    return dataset


def check_outputs(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError if a file that a command is to write, --out or --sheet, belongs to the data."""
    for name in ("out", "sheet"):
        path = getattr(options, name, None)
        if path:
            dataset.check_out(path)


def read_dataset(folder: Path, layout: str | None = None) -> DataSet:
    """Return the data set that lies in a folder.

    A folder is read by the layout that is named; else by its samples.csv or its data.toml; as Kaggle's if it has the
    labels of it, or photographs of left and right eyes; as findings if it has a table of them; by the shipped layout,
    if it has one; else as a folder per class, or, if it is nothing else, as Kaggle's. Raises InputError for what the
    reader cannot use, and if two shipped layouts fit.
    """
    if layout:
        return declared.read_dataset(folder, layouts.find(layout))
    if (folder / sample_table.NAME).exists():
        return sample_table.read_dataset(folder)
    if (folder / layouts.NAME).exists():
        return declared.read_dataset(folder, layouts.read(folder / layouts.NAME))
    if kaggle.has_photographs(folder) and not _is_stray(folder):
        return kaggle.read_dataset(folder)
    if findings.find_table(folder):
        return findings.read_dataset(folder)
    tree = listing.walk(folder)  # of a folder that is not there nothing
    fits = recognise.find_fits(tree)
    if len(fits) > 1:
        names = " or ".join(fit.name for fit in fits)
        raise InputError(
            f"{folder}: fits {recognise.describe_fits(fits)}; say which by --layout {names}"
        )
    if fits:
        dataset = declared.read_dataset(folder, fits[0].declaration, tree)
        note = f"recognised as layout {fits[0].name}: {fits[0].reason}"
        return replace(dataset, notes=[note, *dataset.notes[1:]])
    if classes.is_folder_of_classes(folder) and not (folder / kaggle.LABELS["train"]).exists():
        return classes.read_dataset(folder)
    return kaggle.read_dataset(folder)


def _is_stray(folder: Path) -> bool:
    """Return whether photographs of left and right eyes lie beside folders of classes that hold more of them."""
    if (folder / kaggle.LABELS["train"]).exists() or not classes.is_folder_of_classes(folder):
        return False
    n_beside = len(listing.list_files(folder / "train"))
    n_in_classes = sum(
        len(listing.list_files(path)) for path in classes.list_classes(folder / "train")
    )
    return n_beside < n_in_classes
