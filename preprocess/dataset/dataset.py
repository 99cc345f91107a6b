"""A data set: one table of samples, and the question that it asks of each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from preprocess.dataset import labels
from preprocess.dataset.question import Question
from preprocess.disk import tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

# A part is what the cache keeps together, photographs and squares: validation images are cut like those learned from.
PARTS = {"train": ("train", "valid"), "test": ("test",)}
SPLITS = ("train", "valid", "test")
COLUMNS = (
    "image",
    "path",
    "split",
    "patient",
    "side",
)  # of the table, before targets and what else a source tells
SOURCE = "source"  # the column of the set that an image came from, where several are joined
ACQUISITION = (
    "acquisition"  # the column of the digest of a DICOM file's study, where no table has one
)


class Subject(NamedTuple):
    """The patient that an image shows, and which of two eyes."""

    patient: str  # no fold or split divides one
    side: str = ""  # "left", "right", or "" where images have no sides


@dataclass(frozen=True)
class DataSet:
    """What a data folder says. A reader builds it; nothing after the reader knows of folders and file names.

    `samples` has a row per image, by part and in the order of images: COLUMNS, the targets (see `Question.columns`),
    and every other column of the source. `path` is NaN where the folder holds no photograph of the image, `patient`
    and `split` are never empty, a target is NaN where it is unknown. A file that is not there is found out by the
    stage that reads it.
    """

    folder: Path
    question: Question
    samples: pd.DataFrame
    # An image as a table writes it -> its id.
    normalize_id: Callable[[str], str]
    # The subject of an image that the table lacks; raises InputError for an image that this data set cannot have.
    find_subject: Callable[[str], Subject]
    target_sources: Mapping[
        str, Path
    ]  # part -> the table or folder that tells its targets, or would
    sample_submission: (
        Path  # the table, if there is one, that lists the images of a submission, in its order
    )
    unread: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # part -> file that is no sample -> reason
    # Image -> finding -> boxes (left, top, width, height) in pixels of the photograph, where a person marked it.
    boxes: Mapping[str, Mapping[str, Sequence[tuple[float, ...]]]] = field(default_factory=dict)
    notes: Sequence[str] = ()  # what everybody who works with the data should know
    # Files that were read beside the tables of targets: lists, groups, boxes, declarations.
    read_files: Sequence[Path] = ()
    may_lack_targets: bool = (
        False  # whether an empty level or class is unknown, and not a mistake to be mended
    )

    def get_part(self, part: str) -> pd.DataFrame:
        """Return the rows of a part: "train", which has the validation images, or "test"."""
        return self.samples[self.samples["split"].isin(PARTS[part])]

    def list_images(self, split: str) -> list[str]:
        """Return the images of a split: train, valid or test."""
        return list(self.samples.loc[self.samples["split"] == split, "image"])

    def list_paths(self, part: str) -> dict[str, Path]:
        """Return the photographs of a part, image -> path."""
        return dict(self._paths[part])

    @functools.cached_property
    def _paths(self) -> dict[str, dict[str, Path]]:
        """The photographs of each part: a path for each of 88,702 takes a second, and many stages ask."""
        paths = {}
        for part in PARTS:
            rows = self.get_part(part)
            rows = rows[rows["path"].notna()]
            paths[part] = {
                image: Path(path) for image, path in zip(rows["image"], rows["path"], strict=True)
            }
        return paths

    @functools.cached_property
    def _subjects(self) -> dict[str, Subject]:
        rows = self.samples[["image", "patient", "side"]].itertuples(index=False)
        return {image: Subject(patient, side) for image, patient, side in rows}

    def get_subjects(self, images: Iterable[str]) -> list[Subject]:
        """Return the subject of each image. Raises InputError for one that this data set cannot have."""
        known = self._subjects
        return [known[image] if image in known else self.find_subject(image) for image in images]

    def get_patients(self, images: Iterable[str]) -> list[str]:
        """Return the patient of each image, see `get_subjects`."""
        return [subject.patient for subject in self.get_subjects(images)]

    def get_sources(self, part: str) -> dict[str, str]:
        """Return the set that each image of a part came from, by the column SOURCE; "" if there is no such column."""
        rows = self.get_part(part)
        if SOURCE not in rows:
            return dict.fromkeys(rows["image"], "")
        return dict(zip(rows["image"], rows[SOURCE].astype(str), strict=True))

    def group_paths(self) -> dict[str, list[Path]]:
        """Return the photographs of each source, see `get_sources`."""
        groups: dict[str, list[Path]] = {}
        for part in PARTS:
            sources = self.get_sources(part)
            for image, path in self.list_paths(part).items():
                groups.setdefault(sources[image], []).append(path)
        return groups

    def has_targets(self, part: str) -> bool:
        """Return whether a target of any image of a part is known."""
        return bool(self.get_part(part)[self.question.columns].notna().any(axis=None))

    def get_targets(self, part: str, known_only: bool = False) -> Any:
        """Return the targets of a part's images, by image.

        Levels, and the numbers of classes, are a Series, int64, of the images whose target is known. An empty one is an
        InputError, unless the data set may lack targets or only known ones are wanted. Findings are a DataFrame,
        float64, a column each, NaN where unknown: of all images, or, if only known ones are wanted, of those with a
        known finding.
        """
        rows = self.get_part(part).set_index("image")[self.question.columns]
        known = rows[rows.notna().any(axis=1)]
        if self.question.has_many_targets:
            return known if known_only else rows
        source = self.target_sources[part]
        is_mistaken = len(known) < len(rows) and not known_only and not self.may_lack_targets
        if is_mistaken and source.is_file():  # raises, naming the row, if one is empty
            labels.read_labels(source, self.question, self.normalize_id, hint=labels.HINT)
        (column,) = self.question.columns
        return labels.number_targets(known[column], self.question)

    def read_labels(self, path: Path, known_only: bool = False, hint: str = "") -> Any:
        """Return the targets in a table of labels beside the data set, see `labels.read_labels`."""
        return labels.read_labels(path, self.question, self.normalize_id, known_only, hint)

    def check_out(self, path: Path) -> None:
        """Raise InputError for a file to write that would replace or join what the data set consists of."""
        photographs = [Path(photograph) for photograph in self.samples["path"].dropna()]
        folders = {photograph.parent for photograph in photographs} - {self.folder}
        tops = [self.folder / part for part in PARTS]
        read = [*tops, *folders, *self.target_sources.values(), self.sample_submission]
        read += self.read_files
        wanted = path.resolve()
        is_read = {wanted, *wanted.parents} & {source.resolve() for source in read}
        if is_read or path in photographs:
            raise InputError(
                f"{path}: belongs to the data, and would be lost; write to another place"
            )


def make_table(rows: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Return the table of samples of rows, by part and in the order of images, with all of its columns."""
    import pandas as pd

    wanted = [*COLUMNS, *question.columns]
    others = [column for column in rows if column not in wanted]
    table = rows.reindex(columns=[*wanted, *others])
    parts = []
    for splits in PARTS.values():
        part = table[table["split"].isin(splits)]
        keys = [tables.order_of(image) for image in part["image"]]
        parts.append(part.iloc[sorted(range(len(keys)), key=keys.__getitem__)])
    return pd.concat(parts, ignore_index=True)
