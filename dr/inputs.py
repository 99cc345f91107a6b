"""What the net is given: the squares of a split, their levels and lookup tables, and their digests; knows no torch.

Reads CACHE/resize and CACHE/normalize, or with ready-made squares DATA/train and DATA/test themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preprocess import eyes, normalize, stage
from preprocess.stage import InputError

FOLD_SEED = 0  # one division for all runs, so that their validation scores can be averaged


class TrainingSet(NamedTuple):
    """The labelled squares."""

    paths: dict[str, Path]  # n images, in the order of patients
    levels: np.ndarray  # (n,) int64
    digests: dict[str, str]  # of what a net depends on, for the manifest


def read_training_set(data: Path, cache: Path, is_ready_made: bool) -> TrainingSet:
    """Return the labelled squares. Raises InputError if squares and labels do not match."""
    paths = list_photographs(data, cache, "train", is_ready_made)
    levels = read_levels(data, cache, paths, is_ready_made)
    digests = describe_photographs(cache, "train", paths, is_ready_made)
    return TrainingSet(paths, levels, digests | {"labels": stage.hash_text(json.dumps(levels.tolist()))})


def list_photographs(data: Path, cache: Path, split: str, is_ready_made: bool) -> dict[str, Path]:
    """Return the squares of a split: image id -> path, in the order of patients.

    Raises InputError if there are none or their ids are not those of trainLabels.csv (less the rejected ones).
    """
    if is_ready_made:
        paths, misnamed = eyes.list_images(data, split)
        if misnamed:
            name, reason = next(iter(misnamed.items()))
            raise InputError(f"{data / split / name}: {reason}")
    else:
        images, _ = normalize.read_tables(cache, split)
        paths = {image: cache / "resize" / split / f"{image}.png" for image in sorted(images, key=eyes.order_of)}
    if not paths:
        raise InputError(f"{data / split}: no photographs")
    return paths


def read_levels(data: Path, cache: Path, images: Iterable[str], is_ready_made: bool) -> np.ndarray:
    """Return the levels of the training images, (n,) int64.

    Raises InputError, naming some, if the labels' ids are others, the rejected images aside.
    """
    labels = eyes.read_labels(data / "trainLabels.csv")
    images = list(images)
    rejected = set() if is_ready_made else set(read_reasons(cache, "train"))
    expected = [image for image in labels.index if image not in rejected or image in set(images)]
    eyes.check_same_images(expected, images, data / "trainLabels.csv", data / "train" if is_ready_made else cache)
    return labels[images].to_numpy()


def read_reasons(cache: Path, split: str) -> dict[str, str]:
    """Return the rejected images of a split and why."""
    rejected = stage.read_rejected(cache)
    rejected = rejected[rejected["split"] == split]
    return dict(zip(rejected["image"], rejected["reason"], strict=True))


def describe_photographs(cache: Path, split: str, paths: dict[str, Path], is_ready_made: bool) -> dict[str, str]:
    """Return what a net learns from or scores, name -> digest, for the manifest."""
    if is_ready_made:
        sources = [[image, stage.describe_source(path)] for image, path in paths.items()]
        return {f"photographs {split}": stage.hash_text(json.dumps(sources))}
    return {
        f"resize {split}": stage.read_output(cache / "resize", split, "preprocess.resize"),
        f"normalize {split}": stage.read_output(cache / "normalize", f"{split}.npz", "preprocess.normalize"),
    }


def read_luts(cache: Path, split: str, images: Sequence[str], is_ready_made: bool) -> np.ndarray:
    """Return the lookup tables that equalize each image, (n, 3, 256) uint8; ready-made ones stay as they are."""
    if is_ready_made:
        return keep_values(len(images))
    tabled, luts = normalize.read_tables(cache, split)
    row_of = {image: row for row, image in enumerate(tabled)}
    return luts[[row_of[image] for image in images]]


def keep_values(n: int) -> np.ndarray:
    """Return lookup tables that change nothing, (n, 3, 256) uint8."""
    return np.broadcast_to(np.arange(256, dtype=np.uint8), (n, 3, 256))


def read_crop_method(cache: Path, is_ready_made: bool) -> str | None:
    """Return how the eyes in the training photographs were found; None where ready-made squares need no finding."""
    if is_ready_made:
        return None
    stage.read_output(cache / "crop", "train", "preprocess.crop")
    return stage.read_manifest(cache / "crop")["parameters"]["method"]


def find_fold(training_set: TrainingSet, n_folds: int) -> np.ndarray:
    """Return the fold of each training image, (n,) int."""
    return eyes.assign_folds(list(training_set.paths), training_set.levels, n_folds, FOLD_SEED)
