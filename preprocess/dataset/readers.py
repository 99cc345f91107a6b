"""Which reader a data folder wants."""

import argparse
from pathlib import Path

from preprocess.dataset import classes, findings, kaggle, sample_table
from preprocess.dataset.dataset import DataSet


def open_dataset(options: argparse.Namespace) -> DataSet:
    """Return the data set that a command works with, once for all of it.

    Raises InputError for what the reader cannot use, and if a file that the command is to write belongs to the data.
    """
    dataset = read_dataset(options.data)
    check_outputs(options, dataset)
    return dataset


def check_outputs(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError if a file that a command is to write, --out or --sheet, belongs to the data."""
    for name in ("out", "sheet"):
        path = getattr(options, name, None)
        if path:
            dataset.check_out(path)


def read_dataset(folder: Path) -> DataSet:
    """Return the data set that lies in a folder.

    A folder is read by its samples.csv, if it has one; as Kaggle's if it has the labels of it, or photographs of left
    and right eyes; as findings if it has a table of them; else as a folder per class, or, if it is nothing else, as
    Kaggle's. Raises InputError for what the reader cannot use.
    """
    if (folder / sample_table.NAME).exists():
        return sample_table.read_dataset(folder)
    if (folder / kaggle.LABELS["train"]).exists():
        return kaggle.read_dataset(folder)
    if findings.find_table(folder):
        return findings.read_dataset(folder)
    if classes.is_folder_of_classes(folder) and not kaggle.list_folder(folder / "train").paths:
        return classes.read_dataset(folder)
    return kaggle.read_dataset(folder)
