"""What a run left behind, as plain records for the report: reads CACHE, DATA and label tables, writes nothing.

Every part is optional: what is not there is None or empty, and the report says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr.scores import read_scores
from dr.tasks.task import Task
from dr.training import runs
from dr.training.checkpoint import Checkpoint
from kappa import assign
from preprocess import audit
from preprocess.cache import manifest
from preprocess.command.pipeline import FOLDERS
from preprocess.dataset.dataset import DataSet, Subject
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

REPORTED = {
    name: folder for name, folder in FOLDERS.items() if folder and name != "submissions.report"
}
STEPS = (
    ("argmax of the net, one view of its last epoch", "dr/single_{split}.csv"),
    ("argmax after averaging views and epochs", "dr/scores_{split}.csv"),
    ("argmax after a linear blend, to compare", "blend/linear_{split}.csv"),
    ("argmax after the blend of both eyes", "blend/scores_{split}.csv"),
)
NET, BLEND = STEPS[1][0], STEPS[3][0]  # the scores before and after both eyes are blended
ASSIGNED = "kappa/levels_test.csv"
SCORED = ("valid", "test")
DIGESTED = (
    "*.csv",
    "*/*.csv",
    "*/manifest.json",
    "*/*/manifest.json",
    "dr/**/epochs/history.csv",
)  # of the cache
# Folders of a cache that tell nothing of its own run: what was made of it, and the caches of other runs.
NOT_OF_THIS_RUN = ("report", "evaluations", "folds-", "average-", "drawn")
KAGGLE_PARTS = (
    "Public",
    "Private",
)  # of Kaggle's test set; the other rows of a solution were ignored


class Source(NamedTuple):
    """Where the evidence lies: a data set and its task, a cache, and the table of the test set's labels, if one is
    given in the place of the data set's own.
    """

    dataset: DataSet
    task: Task
    cache: Path
    labels: Path | None


class Group(NamedTuple):
    """Images whose true levels are known, and what each step of the pipeline made of them."""

    title: str
    split: str  # valid or test
    images: list[str]
    subjects: list[Subject]
    targets: np.ndarray  # (n,) true, of findings (n, k)
    scores: dict[str, np.ndarray]  # step -> (n, k), for the steps that have some
    decisions: dict[
        str, np.ndarray
    ]  # step -> (n,) levels or outputs, for all of them in their order

    @property
    def patients(self) -> list[str]:
        """The patient of each image."""
        return [subject.patient for subject in self.subjects]

    @property
    def final(self) -> str:
        """The last step the images have been through."""
        return list(self.decisions)[-1]

    @property
    def last(self) -> np.ndarray:
        """The last scores, (n, k)."""
        return list(self.scores.values())[-1]


def list_runs(cache: Path) -> list[str | None]:
    """Return the nets whose scores lie in CACHE/dr: None for the one without a name, or the runs that were averaged."""
    written = manifest.read_manifest(cache / "dr")
    return list(written["parameters"].get("average", [None])) if written else [None]


def read_histories(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each epoch of each net that was trained here: run -> [{epoch, train_log_loss, ...}]."""
    histories = {
        run or "": runs.read_figures(runs.folder_of(cache, run) / "epochs")
        for run in list_runs(cache)
    }
    return {run: figures for run, figures in histories.items() if figures}


def find_net(cache: Path) -> Checkpoint | None:
    """Return the newest averaged checkpoint of the first of the trained nets, None if there is none in the cache."""
    run = list_runs(cache)[0]
    folder = runs.folder_of(cache, run)
    written, scored = manifest.read_manifest(folder / "epochs"), manifest.read_manifest(folder)
    if not (written and written["outputs"]):
        return None
    trained = runs.read_trained(folder)
    averaged = (
        [epoch for epoch in scored["parameters"]["epochs"] if epoch in trained.checkpoints]
        if scored
        else []
    )
    return runs.read_checkpoint(trained, max(averaged or trained.checkpoints))


def read_training_targets(source: Source) -> Any:
    """Return the targets of the training images, by image; None if none is known."""
    if not source.dataset.has_targets("train"):
        return None
    return source.dataset.get_targets("train", known_only=source.task.is_exclusive)


def read_test_targets(source: Source) -> Any:
    """Return the targets of the test images, by image; None if none is known."""
    if source.labels:
        return source.dataset.read_labels(source.labels, known_only=not source.task.is_exclusive)
    if not source.dataset.has_targets("test"):
        return None
    return source.dataset.get_targets("test", known_only=not source.task.is_exclusive)


class Steps(NamedTuple):
    """What the steps of the pipeline made of some images: the score tables, and the decision of each step."""

    scores: dict[str, pd.DataFrame]
    decisions: dict[str, pd.Series]

    def restrict(self, images: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the scores (n, k) and the decisions (n,) of n images, by step."""
        scores = {step: table.loc[images].to_numpy() for step, table in self.scores.items()}
        decisions = {step: series.loc[images].to_numpy() for step, series in self.decisions.items()}
        return scores, decisions


def read_steps(source: Source, split: str) -> Steps:
    """Return what the steps that are in the cache made of a split.

    The labels chosen for the kappa are the last step. The test set's are in the cache; the validation fold's are
    decided here, the same way. Raises InputError if the steps' images differ.
    """
    import pandas as pd

    scores: dict[str, pd.DataFrame] = {}
    decisions: dict[str, pd.Series] = {}
    paths: dict[str, object] = {}
    for step, name in STEPS:
        path = source.cache / name.format(split=split)
        if path.exists():
            paths[step] = path
            scores[step] = read_scores(path, source.task)
            decisions[step] = pd.Series(scores[step].to_numpy().argmax(axis=1), scores[step].index)
    written = manifest.read_manifest(source.cache / "kappa")
    assigned = source.cache / ASSIGNED
    method = written["parameters"]["method"] if written else assign.METHODS[0]
    last = "annealed labels" if method == "anneal" else f"labels by {method}"
    if split == "test" and assigned.exists():
        decisions[last] = source.dataset.read_labels(assigned)
        paths[last] = assigned
    elif split == "valid" and BLEND in scores:
        blended = scores[BLEND]
        decisions[last] = pd.Series(assign.decide(blended.to_numpy(), method).levels, blended.index)
    steps = list(decisions)
    for step in steps[1:]:
        tables.check_same_images(
            decisions[steps[0]].index, decisions[step].index, paths[steps[0]], paths.get(step, step)
        )
    return Steps(scores, decisions)


def read_true_targets(source: Source) -> dict[str, dict[str, Any]]:
    """Return the targets that are known: split -> title -> targets, the split that counts most first.

    The test set is that which Kaggle counted, then its public and its private part, if its table has a column Usage.
    """
    known: dict[str, dict[str, Any]] = {}
    tested = read_test_targets(source)
    if tested is not None and (len(tested) or source.task.is_exclusive):
        known["test"] = {"test set": tested}
        usage = read_usage(source)
        if usage is not None:
            usage = usage.reindex(tested.index)
            known["test"] = {"test set": tested[usage.isin(KAGGLE_PARTS)]}
            for part in KAGGLE_PARTS:
                known["test"][f"{part.lower()} part"] = tested[usage == part]
    training = read_training_targets(source)
    if training is not None:
        known["valid"] = {"validation fold": training}
    return known


def read_usage(source: Source) -> pd.Series | None:
    """Return which part of Kaggle's test set each image belongs to; None if the labels do not say.

    A column of this name that names neither part is another data set's, and tells nothing.
    """
    if not source.labels:
        table = source.dataset.get_part("test")
        if "Usage" not in table:
            return None
    else:
        if "Usage" not in tables.read_csv(source.labels)[0]:
            return None
        table = tables.read_table(source.labels, ["image", "Usage"], source.dataset.normalize_id)
    usage = table.set_index("image")["Usage"]
    if not usage.isin(KAGGLE_PARTS).any():
        return None
    return usage


def read_groups(source: Source) -> list[Group]:
    """Return the groups there is something to say about, the one that counts most first.

    The public and the private part of the test set only if it has both. Raises InputError if no image of a split has a
    true level.
    """
    groups: list[Group] = []
    for split, titled in read_true_targets(source).items():
        steps = read_steps(source, split)
        if not steps.decisions:
            continue
        scored = next(iter(steps.decisions.values())).index
        of_split = []
        for title, targets in titled.items():
            images = list(scored[scored.isin(targets.index)])
            scores, decisions = steps.restrict(images)
            of_split.append(
                Group(
                    title=title,
                    split=split,
                    images=images,
                    subjects=source.dataset.get_subjects(images),
                    targets=targets.loc[images].to_numpy(),
                    scores=scores,
                    decisions=decisions,
                )
            )
        whole, *parts = of_split
        if not whole.images:
            raise InputError(
                f"none of the {len(scored)} images of {source.cache}, {split}, has a true level"
            )
        groups.append(whole)
        for part in parts:
            has_interval = len(set(part.patients)) > 1  # over a single patient nothing can be drawn
            if has_interval and len(part.images) < len(whole.images):
                groups.append(part)
    return groups


def list_scores(path: Path, split: str) -> list[Path]:
    """Return the score tables of a cache, the last first, or of a run's folder in it; a table is one itself."""
    if path.is_file():
        return [path]
    names = [name.format(split=split) for step, name in STEPS if step in (BLEND, NET)]
    tables_of_split = [path / name for name in (*reversed(names), f"scores_{split}.csv")]
    return [table for table in tables_of_split if table.is_file()]


def read_others(group: Group, paths: Sequence[Path], task: Task) -> dict[str, np.ndarray]:
    """Return what each other run scores a group's images: path -> (n, k). Raises InputError if it lacks some."""
    others = {}
    for path in paths:
        score_tables = list_scores(path, group.split)
        if not score_tables:
            needed = f"scores_{group.split}.csv"
            raise InputError(
                f"--compare {path}: no score table, and no cache or run's folder with {needed}"
            )
        scores = read_scores(score_tables[0], task)
        tables.check_same_images(
            group.images, scores.index.intersection(group.images), group.title, path
        )
        others[str(path)] = scores.loc[group.images].to_numpy()
    return others


def read_audit(cache: Path) -> list[list[str]] | None:
    """Return the rows of what training, validation and test have in common, see preprocess.audit; None if unknown."""
    path = cache / audit.TABLE
    return tables.read_csv(path)[1:] if path.exists() else None


def digest_inputs(source: Source, others: Sequence[Path] = ()) -> dict[str, str]:
    """Return the digests of everything above: file or part -> SHA-256; what is not there has none."""
    paths: dict[str, Path] = {}
    for pattern in DIGESTED:
        for path in sorted(source.cache.glob(pattern)):
            name = path.relative_to(source.cache)
            if not name.parts[0].startswith(NOT_OF_THIS_RUN):
                paths[str(name)] = path
    for path in others:
        for split in SCORED:
            for table in list_scores(path, split):
                paths[f"other {table}"] = table
    if source.labels:
        paths["labels"] = source.labels
    digests = {name: files.hash_file(path) for name, path in paths.items() if path.is_file()}
    digests["samples"] = files.hash_text(source.dataset.samples.to_csv(index=False))
    digests["boxes"] = files.hash_text(json.dumps(source.dataset.boxes))
    return digests
