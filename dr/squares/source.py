"""The squares that lie in a cache: which images, where their pixels are, what is still to be applied to them."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dr.tasks.task import Task
from preprocess import normalize, photographs
from preprocess.cache import manifest, rejected
from preprocess.dataset import folds
from preprocess.dataset.dataset import DataSet, Subject
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError
from preprocess.picture import outline, square
from preprocess.picture.square import Making

# What a net depends on, by the names of a manifest's inputs.
LEARNED = "learned squares"
HELD_OUT = "held-out squares"
LABELS = "labels"
FOLD_SEED = 0  # one division for all runs, so that their validation scores can be averaged


class CachedSquares(NamedTuple):
    """The squares of some images, n of them, in their order; no pixel is read yet."""

    paths: dict[str, Path]  # image -> PNG
    subjects: list[Subject]  # the patient and side of each
    luts: np.ndarray  # (n, 3, 256) uint8, what is still to be applied
    making: Making
    digests: dict[str, str]  # name -> digest of all that they are made from, for a manifest
    part: str = "train"  # of the data set

    @property
    def images(self) -> list[str]:
        """Their ids."""
        return list(self.paths)

    def select(self, rows: np.ndarray) -> CachedSquares:
        """Return the squares at some positions."""
        images = self.images
        paths = {images[row]: self.paths[images[row]] for row in rows}
        return self._replace(
            paths=paths, subjects=[self.subjects[row] for row in rows], luts=self.luts[rows]
        )


class TrainingSet(NamedTuple):
    """The labelled squares and what is true of them."""

    squares: CachedSquares
    targets: np.ndarray  # (n,) int64, of findings (n, k) float64
    digests: dict[str, str]  # of the squares and of the labels
    set_apart: frozenset[str] = frozenset()  # the images that the data set itself holds out
    sources: Sequence[str] | None = None  # of a joined data set, the set that each is of
    identities: Sequence[
        str
    ] = ()  # of the squares, (n,): a digest of all that makes each, and whose it is

    def find_held_out(self, n_folds: int | str, fold: int) -> np.ndarray:
        """Return which images a fold holds out, (n,) bool: with images set apart their groups are fold 0.

        By source a fold is a whole source, whatever is set apart.
        """
        if isinstance(n_folds, str):
            if self.sources is None:
                raise InputError(
                    "--folds source: the data set has no column source; preprocess.join writes one"
                )
            return folds.find_source_fold(self.sources, fold)
        patients = np.array([subject.patient for subject in self.squares.subjects])
        if not self.set_apart:
            return folds.assign_folds(patients.tolist(), self.targets, n_folds, FOLD_SEED) == fold
        is_set_apart = [image in self.set_apart for image in self.squares.images]
        is_apart = np.isin(patients, patients[is_set_apart])
        if is_apart.all() or not is_apart.any():
            held_out = "all" if is_apart.any() else "none"
            raise InputError(
                f"set apart for validation: {held_out} of the images would be held out"
            )
        fold_of = np.where(is_apart, 0, 1)
        rest = ~is_apart
        if fold and n_folds > 2:
            others = folds.assign_folds(
                patients[rest].tolist(), self.targets[rest], n_folds - 1, FOLD_SEED
            )
            fold_of[rest] += others
        return fold_of == fold

    def digest_parts(self, n_folds: int | str, fold: int) -> dict[str, str]:
        """Return the digests of what the net of a fold depends on: LEARNED, HELD_OUT and LABELS.

        The labels are one part, because the folds depend on all of them.
        """
        is_held_out = self.find_held_out(n_folds, fold)
        learned = np.flatnonzero(~is_held_out)
        held_out = np.flatnonzero(is_held_out)
        return {
            LEARNED: self._digest_rows(learned),
            HELD_OUT: self._digest_rows(held_out),
            LABELS: self.digests[LABELS],
        }

    def _digest_rows(self, rows: np.ndarray) -> str:
        """Return the digest of the squares at some positions, and of the positions, on which random draws depend."""
        identities = [self.identities[row] for row in rows]
        making = self.squares.making.describe()
        return files.hash_text(
            json.dumps([making, len(self.identities), rows.tolist(), identities])
        )


def read_squares(cache: Path, part: str, dataset: DataSet) -> CachedSquares:
    """Return the squares of a part. Raises InputError if a stage has not run on it since the eyes were found."""
    images, luts = normalize.read_luts(cache, part)
    ordered = tables.sort_images(images)
    row_of = {image: row for row, image in enumerate(images)}
    making = square.read_making(cache)
    _check_crops(cache, part, making)
    digests = {
        f"resize {part}": manifest.read_output(cache / "resize", part, "preprocess.resize"),
        f"normalize {part}": manifest.read_output(
            cache / "normalize", f"{part}.npz", "preprocess.normalize"
        ),
    }
    return CachedSquares(
        paths={image: cache / "resize" / part / f"{image}.png" for image in ordered},
        subjects=dataset.get_subjects(ordered),
        luts=luts[[row_of[image] for image in ordered]],
        making=making,
        digests=digests,
        part=part,
    )


def _leave_unknown_out(
    squares: CachedSquares, dataset: DataSet, known: Container[str]
) -> CachedSquares:
    """Return the squares without those of images whose target is not known, and say how many these are."""
    of_dataset = set(dataset.get_part("train")["image"])
    rows = []
    for row, image in enumerate(squares.images):
        if (
            image in known or image not in of_dataset
        ):  # whom the data set lacks is a mistake, told of by the caller
            rows.append(row)
    n_unknown = len(squares.images) - len(rows)
    if not n_unknown:
        return squares
    of_all = f"{n_unknown:,} of {len(squares.images):,} images"
    print(f"{dataset.folder}: {of_all} have no known {dataset.question.target}: left out")
    return squares.select(np.array(rows, dtype=int))


def _check_crops(cache: Path, part: str, making: Making) -> None:
    """Raise InputError if the squares of a part were cut by other crops than those in the cache."""
    crops = manifest.read_output(cache / "crop", part, "preprocess.crop")
    resized = manifest.read_manifest(cache / "resize")
    if resized is None:
        return  # the next to ask for the squares says which stage is missing
    cut_by = resized["inputs"].get(f"crop {part}", crops)
    if cut_by != crops or resized["parameters"].get("shape") != outline.SHAPES[making.crop]:
        raise InputError(
            f"{cache}/resize: crop {part} changed since; run python -m preprocess.resize again"
        )


def read_training_set(
    dataset: DataSet, task: Task, cache: Path, known_only: bool = False
) -> TrainingSet:
    """Return the labelled squares. Raises InputError if their ids and the labels' differ, the rejected images aside.

    Where a data set may lack targets, or if only the known ones are wanted, the squares without one are left out, and
    counted on the screen.
    """
    squares = read_squares(cache, "train", dataset)
    is_known_only = known_only and not dataset.question.has_many_targets
    targets = dataset.get_targets("train", is_known_only)
    if dataset.may_lack_targets or is_known_only:
        squares = _leave_unknown_out(squares, dataset, targets.index)
    unusable = set(rejected.read_reasons(cache, "train"))
    expected = [image for image in targets.index if image not in unusable or image in squares.paths]
    tables.check_same_images(expected, squares.paths, dataset.target_sources["train"], cache)
    learned = targets.loc[squares.images].to_numpy()
    if not len(learned):
        raise InputError(f"{cache}: no squares to learn from")
    set_apart = frozenset(dataset.list_images("valid"))
    text = task.describe_targets(learned, tables.sort_images(set_apart))
    digests = squares.digests | {LABELS: files.hash_text(text)}
    sources = None
    if folds.BY_SOURCE in dataset.samples:
        source_of = dict(
            zip(dataset.samples["image"], dataset.samples[folds.BY_SOURCE], strict=True)
        )
        sources = [str(source_of[image]) for image in squares.images]
    return TrainingSet(
        squares=squares,
        targets=learned,
        digests=digests,
        set_apart=set_apart,
        sources=sources,
        identities=_identify_squares(cache, squares),
    )


def _identify_squares(cache: Path, squares: CachedSquares) -> list[str]:
    """Return a digest of each training square: of its pixels, histogram and lookup table, and of whose eye it is."""
    rows = photographs.read_squares(cache, "train")
    identities = []
    for image, subject, lut in zip(squares.images, squares.subjects, squares.luts, strict=True):
        row = rows[image]
        identity = [
            image,
            list(subject),
            photographs.identify_square(row),
            row["histogram"],
            lut.tobytes().hex(),
        ]
        identities.append(files.hash_text(json.dumps(identity)))
    return identities
