"""What a run left behind, as plain records for the report: reads CACHE, DATA and label tables, writes nothing.

Every part is optional: what is not there is None or empty, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr.metrics import measures
from dr.scores import read_scores
from dr.training import runs
from dr.training.checkpoint import Checkpoint
from kappa import assign
from preprocess import audit
from preprocess.cache import manifest
from preprocess.command.pipeline import FOLDERS
from preprocess.dataset import find
from preprocess.dataset.dataset import Layout, Owner, Task
from preprocess.dataset.findings import BOXES
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

REPORTED = {name: folder for name, folder in FOLDERS.items() if folder and name != "submissions.report"}
STEPS = (
    ("argmax of the net, one view of its last epoch", "dr/single_{split}.csv"),
    ("argmax after averaging views and epochs", "dr/scores_{split}.csv"),
    ("argmax after a linear blend, to compare", "blend/linear_{split}.csv"),
    ("argmax after the blend of both eyes", "blend/scores_{split}.csv"),
)
NET, BLEND = STEPS[1][0], STEPS[3][0]  # the scores before and after both eyes are blended
ASSIGNED = "kappa/levels_test.csv"
SPLITS = ("valid", "test")
DIGESTED = ("*.csv", "*/*.csv", "*/manifest.json", "*/*/manifest.json", "dr/**/epochs/history.csv")  # of the cache
PARTS = ("Public", "Private")  # of Kaggle's test set; the other rows of a solution were ignored


class Figures(NamedTuple):
    """How classes or findings are measured, and what the figures are called: `overall`, and of `each`."""

    measure: Callable[[Sequence[str], np.ndarray, np.ndarray], measures.Measured]  # of groups, scores and targets
    overall: tuple[str, ...]
    each: tuple[str, ...]
    note: str  # on the intervals


FIGURES = {
    "classes": Figures(
        measures.measure_classes,
        ("accuracy", "log loss", "macro F1"),
        ("images", "precision", "recall", "F1", "one-vs-rest AUC"),
        "accuracy, precision, recall: Wilson's intervals, of images; the others: bootstrap over patients",
    ),
    "findings": Figures(
        measures.measure_findings,
        ("mean AUC", "mean average precision", "log loss"),
        ("have it", "known", "AUC", "average precision", "off by"),
        "intervals: bootstrap over patients; off by: how far probabilities lie from how often they come true",
    ),
}


class Source(NamedTuple):
    """Where the evidence lies; `labels` is the table of the test set's true levels, None if they are not known."""

    data: Path
    cache: Path
    labels: Path | None
    layout: Layout


class Group(NamedTuple):
    """Images whose true levels are known, and what each step of the pipeline made of them."""

    title: str
    split: str  # valid or test
    images: list[str]
    owners: list[Owner]
    levels: np.ndarray  # (n,) true, of findings (n, k)
    scores: dict[str, np.ndarray]  # step -> (n, k), for the steps that give some
    given: dict[str, np.ndarray]  # step -> (n,) levels, for all of them in their order

    @property
    def patients(self) -> list[str]:
        """The patient of each image."""
        return [owner.group for owner in self.owners]

    @property
    def final(self) -> str:
        """The last step the images have been through."""
        return list(self.given)[-1]

    @property
    def last(self) -> np.ndarray:
        """The last scores, (n, k)."""
        return list(self.scores.values())[-1]


def name_step(step: str, task: Task) -> str:
    """Return what a step is called: no finding is the likeliest."""
    return step.replace("argmax", "scores") if task.kind == "findings" else step


def find_source(data: Path, cache: Path, labels: Path | None) -> Source:
    """Return where to look; without a table of the test set's levels that is given, for the one in the data folder."""
    layout = find.find_layout(data)
    own = data / layout.labels["test"]
    return Source(data, cache, labels or (own if own.exists() else None), layout)


def list_runs(cache: Path) -> list[str | None]:
    """Return the nets whose scores lie in CACHE/dr: None for the one without a name, or the runs that were averaged."""
    written = manifest.read_manifest(cache / "dr")
    return list(written["parameters"].get("average", [None])) if written else [None]


def read_histories(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each epoch of each net that was trained here: run -> [{epoch, train_log_loss, ...}]."""
    histories = {run or "": runs.read_figures(runs.folder_of(cache, run) / "epochs") for run in list_runs(cache)}
    return {run: figures for run, figures in histories.items() if figures}


def find_net(cache: Path) -> Checkpoint | None:
    """Return the newest averaged checkpoint of the first of the trained nets, None if there is none in the cache."""
    run = list_runs(cache)[0]
    folder = runs.folder_of(cache, run)
    written, scored = manifest.read_manifest(folder / "epochs"), manifest.read_manifest(folder)
    if not (written and written["outputs"]):
        return None
    trained = runs.read_trained(folder)
    averaged = [epoch for epoch in scored["parameters"]["epochs"] if epoch in trained.checkpoints] if scored else []
    return runs.read_checkpoint(trained, max(averaged or trained.checkpoints))


def read_training_levels(source: Source) -> pd.Series | None:
    """Return the levels of the training images, None without their table."""
    path = source.data / source.layout.labels["train"]
    return source.layout.read_labels(path) if path.exists() else None


def read_steps(source: Source, split: str) -> tuple[dict[str, pd.DataFrame], dict[str, pd.Series]]:
    """Return the score tables of a split that are in the cache, by step, and the levels that each step gives.

    The labels chosen for the kappa are the last step. The test set's are in the cache; the validation fold's are
    decided here, the same way. Raises InputError if the steps' images differ.
    """
    import pandas as pd

    paths = {step: source.cache / name.format(split=split) for step, name in STEPS}
    scores = {step: read_scores(path, source.layout.task) for step, path in paths.items() if path.exists()}
    given = {step: pd.Series(table.to_numpy().argmax(axis=1), table.index) for step, table in scores.items()}
    written, assigned = manifest.read_manifest(source.cache / "kappa"), source.cache / ASSIGNED
    method = written["parameters"]["method"] if written else assign.METHODS[0]
    last = "annealed labels" if method == "anneal" else f"labels by {method}"
    if split == "test" and assigned.exists():
        given[last], paths[last] = source.layout.read_labels(assigned), assigned
    elif split == "valid" and BLEND in scores:
        given[last] = pd.Series(assign.decide(scores[BLEND].to_numpy(), method).levels, scores[BLEND].index)
    first, *others = given or [""]
    for step in others:
        tables.check_same_images(given[first].index, given[step].index, paths[first], paths.get(step, step))
    return scores, given


def read_true_levels(source: Source) -> dict[str, dict[str, pd.Series]]:
    """Return the true levels that are known: split -> title -> levels, the split that counts most first.

    Of the test set those that Kaggle counted, and then of its public and its private part, if its table tells them
    apart.
    """
    known = {}
    if source.labels:
        labels = source.layout.read_labels(source.labels, known_only=source.layout.task.kind == "findings")
        if len(labels) or source.layout.task.kind != "findings":  # a table of findings may know nothing of the test set
            known["test"] = {"test set": labels}
        if source.labels.is_file() and "Usage" in tables.read_csv(source.labels)[0]:
            table = tables.read_table(source.labels, ["image", "Usage"], source.layout.spell)
            usage = table.set_index("image")["Usage"][labels.index]
            known["test"] = {"test set": labels[usage.isin(PARTS)]}
            known["test"] |= {f"{part.lower()} part": labels[usage == part] for part in PARTS}
    training = read_training_levels(source)
    return known if training is None else known | {"valid": {"validation fold": training}}


def read_groups(source: Source) -> list[Group]:
    """Return the groups there is something to say about, the one that counts most first.

    The public and the private part of the test set only if it has both. Raises InputError if no image of a split has a
    true level.
    """
    groups: list[Group] = []
    for split, titled in read_true_levels(source).items():
        steps = read_steps(source, split)
        if not steps[1]:
            continue
        asked, found = next(iter(steps[1].values())).index, list[Group]()
        for title, true in titled.items():
            images = list(asked[asked.isin(true.index)])
            owners, levels = [source.layout.find_owner(image) for image in images], true.loc[images].to_numpy()
            scores, given = ({step: of.loc[images].to_numpy() for step, of in which.items()} for which in steps)
            found.append(Group(title, split, images, owners, levels, scores, given))
        whole, *parts = found
        if not whole.images:
            raise InputError(f"none of the {len(asked)} images of {source.cache}, {split}, has a true level")
        groups += [whole, *(part for part in parts if 0 < len(part.images) < len(whole.images))]
    return groups


def list_scores(path: Path, split: str) -> list[Path]:
    """Return the score tables of a cache, the last first, or of a run's folder in it; a table is one itself."""
    names = [name.format(split=split) for step, name in STEPS if step in (NET, BLEND)]
    places = [path] if path.is_file() else [path / name for name in (*names[::-1], f"scores_{split}.csv")]
    return [place for place in places if place.is_file()]


def read_others(group: Group, paths: Sequence[Path], task: Task) -> dict[str, np.ndarray]:
    """Return what each other run says of a group's images: path -> (n, k). Raises InputError if it lacks some."""
    others = {}
    for path in paths:
        if not (found := list_scores(path, group.split)):
            needed = f"scores_{group.split}.csv"
            raise InputError(f"--compare {path}: no score table, and no cache or run's folder with {needed}")
        scores = read_scores(found[0], task)
        tables.check_same_images(group.images, scores.index.intersection(group.images), group.title, path)
        others[str(path)] = scores.loc[group.images].to_numpy()
    return others


def read_audit(cache: Path) -> list[list[str]] | None:
    """Return the rows of what training, validation and test have in common, see preprocess.audit; None if not known."""
    return tables.read_csv(cache / audit.TABLE)[1:] if (cache / audit.TABLE).exists() else None


def digest_inputs(source: Source, others: Sequence[Path] = ()) -> dict[str, str]:
    """Return the digests of everything above: file or part -> SHA-256; what is not there has none."""
    found = (path for pattern in DIGESTED for path in sorted(source.cache.glob(pattern)))
    paths = {str(path.relative_to(source.cache)): path for path in found if path.parent.name != "report"}
    paths |= {"boxes": source.data / BOXES, "training labels": source.data / source.layout.labels["train"]}
    paths |= {f"other {table}": table for path in others for split in SPLITS for table in list_scores(path, split)}
    paths |= {"labels": source.labels} if source.labels else {}
    digests = {name: files.hash_file(path) for name, path in paths.items() if path.is_file()}
    if source.labels and source.labels.is_dir():
        digests["labels"] = files.hash_text(source.layout.read_labels(source.labels).to_csv())
    return digests
