"""What a reader of a data folder offers to all stages, none of which knows what a file name means."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPLITS = ("train", "test")
TARGETS = {"levels": "level", "classes": "class", "findings": "finding"}  # kind of a task -> one of its targets


class Task(NamedTuple):
    """What a data set asks of each image: a declaration; what follows from it stands in dr.task."""

    kind: (
        str  # "levels", grades of a disease, or "classes", in no order: one is true; "findings": any may be, or unknown
    )
    names: tuple[str, ...]  # of the outputs, for people


class Owner(NamedTuple):
    """Whom an image shows, and which of two eyes, if it is one."""

    group: str  # a patient, whom no fold or split divides
    side: str = ""  # "left", "right", or "" where a group has no pairs


class Listing(NamedTuple):
    """The images of a split: image id -> path, in their order, and the files with a wrong name, with the reason."""

    paths: dict[str, Path]
    misnamed: dict[str, str]


class Layout(NamedTuple):
    """How a data folder is laid out and what it asks."""

    task: Task
    # (data, split) -> Listing. An image that a table names is listed even if its file is missing, so that the stage
    # that wants to read it finds out; a missing or empty folder gives an empty listing.
    list_images: Callable[[Path, str], Listing]
    spell: Callable[[str], str]  # an image as a table or a file's name writes it -> its id
    find_owner: Callable[[str], Owner]  # of an image id; raises InputError for one that this layout cannot have
    # (path of a table, or of what `labels` names, known_only=False) -> the target of each image, int64, a Series by
    # image, in their order; an empty target is an error, or else, if only the known ones are wanted, left out. Of
    # findings a DataFrame, float64, a column each, NaN where it is not known.
    read_labels: Callable[..., Any]
    labels: dict[str, str]  # split -> what tells its targets in the data folder: a table, or a folder of classes
    held_out: frozenset[str] = frozenset()  # for validation by the data folder itself: fold 0, with their whole groups
    # listings of the splits -> lines on what whoever works with the folder should know
    tell: Callable[[Mapping[str, Listing]], Sequence[str]] = lambda _: ()
    sample: str = "sampleSubmission.csv"  # the table that lists the images of a submission, in its order
