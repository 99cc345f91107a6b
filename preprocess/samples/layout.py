"""What a reader of a data folder offers to all stages, none of which knows what a file name means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPLITS = ("train", "test")
TARGETS = {"levels": "level", "classes": "class", "findings": "finding"}  # kind of a task -> one of its targets


class Task(NamedTuple):
    """What a data set asks of each image: a declaration; what follows from it stands in dr.task.

    kind : "levels", grades of one disease, of which one is true; "classes", of which one is true, in no order;
        "findings", each true, false or unknown
    names : of the outputs, for people
    """

    kind: str
    names: tuple[str, ...]


class Owner(NamedTuple):
    """Whom an image shows: the group (a patient), which no fold or split divides, and which of two eyes, if it is one.

    side : "left", "right", or "" where a group has no pairs
    """

    group: str
    side: str = ""


class Listing(NamedTuple):
    """The images of a split: image id -> path, in their order, and the files with a wrong name, with the reason."""

    paths: dict[str, Path]
    misnamed: dict[str, str]


class Layout(NamedTuple):
    """How a data folder is laid out and what it asks.

    task : what is asked of each image
    list_images : (data, split) -> Listing. An image that a table names is listed even if its file is missing, so that
        the stage that wants to read it finds out; a missing or empty folder gives an empty listing.
    spell : an image as a table or a file's name writes it -> its id
    find_owner : image id -> Owner; raises InputError for an id that this layout cannot have
    read_labels : (path of a table, or of what `labels` names, known_only=False) -> the target of each image, int64,
        indexed by image, in their order; an empty target is an error, or else, if only the known ones are wanted, left
        out. Of findings a table, float64, a column each, NaN where it is not known
    labels : split -> name of what tells its targets in the data folder: a table, or a folder with one per class
    sample : name of the table that lists the images of a submission, in its order
    held_out : the images that the data folder itself sets apart for validation: fold 0, with the rest of their groups
    tell : (listings of the splits) -> lines on what whoever works with the folder should know
    """

    task: Task
    list_images: Callable[[Path, str], Listing]
    spell: Callable[[str], str]
    find_owner: Callable[[str], Owner]
    read_labels: Callable[..., Any]  # a Series, of findings a DataFrame
    labels: dict[str, str]
    sample: str
    held_out: frozenset[str] = frozenset()
    tell: Callable[[Mapping[str, Listing]], Sequence[str]] = lambda _: ()
