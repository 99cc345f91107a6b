"""What a run left behind, as plain records for the report: reads CACHE, DATA and label tables, writes nothing.

Every part is optional: what is not there is None or empty, and the report says so.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import checkpoint, predict
from dr.scores import read_scores
from kappa import assign
from preprocess import crop, eyes, stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    import pandas as pd

FOLDERS = {  # of the stages' manifests, below the cache
    "preprocess.crop": "crop",
    "preprocess.resize": "resize",
    "preprocess.normalize": "normalize",
    "preprocess.standardize": "standardize",
    "dr.train": "dr/epochs",
    "dr.predict": "dr",
    "blend.train": "blend/train",
    "blend.predict": "blend",
    "kappa.assign": "kappa",
}
TIMED = ("preprocess", *FOLDERS)  # the stages whose time matters; run_all.sh runs the image stages as one
STEPS = (
    ("argmax of the net, one view of its last epoch", "dr/single_{split}.csv"),
    ("argmax after averaging views and epochs", "dr/scores_{split}.csv"),
    ("argmax after a linear blend, to compare", "blend/linear_{split}.csv"),
    ("argmax after the blend of both eyes", "blend/scores_{split}.csv"),
)
NET, BLEND = STEPS[1][0], STEPS[3][0]  # the scores before and after both eyes are blended
SPLITS = ("valid", "test")
PARTS = ("Public", "Private")  # of Kaggle's test set; the other rows of a solution were ignored


class Ran(NamedTuple):
    """A stage that has run: name, parameters, versions of the libraries, seconds (None if nobody measured)."""

    stage: str
    parameters: dict[str, Any]
    versions: dict[str, str]
    elapsed_s: float | None


class Step(NamedTuple):
    """One step of the pipeline on a group of images: scores (n, 5) where it gives some, levels (n,) in any case."""

    scores: np.ndarray | None
    levels: np.ndarray


class Group(NamedTuple):
    """Images whose true levels are known, and what each step made of them."""

    title: str
    split: str  # valid or test
    images: list[str]
    levels: np.ndarray  # (n,) true
    steps: dict[str, Step]


# --- what was run -----------------------------------------------------------------------------------------------------


def read_stages(cache: Path) -> list[Ran]:
    """Return the stages that have run in a cache, in their order."""
    times = read_times(cache)
    manifests = {name: stage.read_manifest(cache / folder) for name, folder in FOLDERS.items()}
    return [
        Ran(name, manifest["parameters"], manifest.get("versions", {}), times.get(name))
        for name, manifest in manifests.items()
        if manifest
    ]


def read_times(cache: Path) -> dict[str, float]:
    """Return the seconds each stage took when it last had work to do, from CACHE/times.csv (stage,seconds).

    `run_all.sh` adds a row when a stage has changed something. A torn last row is left out.
    """
    path = cache / "times.csv"
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as handle:
        rows = [row for row in csv.reader(handle) if len(row) == 2 and row[1].isdigit()]
    return {name: float(seconds) for name, seconds in rows if name in TIMED}


def list_runs(cache: Path) -> list[str | None]:
    """Return the nets whose scores lie in CACHE/dr: None for the one without a name, or the runs that were averaged."""
    manifest = stage.read_manifest(cache / "dr")
    return list(manifest["parameters"].get("average", [None])) if manifest else [None]


def read_histories(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each epoch of each net that was trained here: run -> [{epoch, train_log_loss, ...}]."""
    folders = {run or "": checkpoint.folder_of(cache, run) / "epochs" for run in list_runs(cache)}
    histories = {run: checkpoint.read_figures(folder) for run, folder in folders.items()}
    return {run: figures for run, figures in histories.items() if figures}


def find_net(cache: Path) -> predict.Trained | None:
    """Return the first of the trained nets, None if there is none in the cache."""
    folder = checkpoint.folder_of(cache, list_runs(cache)[0]) / "epochs"
    manifest = stage.read_manifest(folder)
    return predict.read_trained(folder) if manifest and manifest["outputs"] else None


def list_crops(data: Path, cache: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return (image, photograph, row of the crop table), the least sure first; empty if nothing was cropped here."""
    if stage.read_manifest(cache / "crop") is None:
        return []
    return sorted(crop.list_cropped(data, cache), key=lambda cropped: cropped[2]["confidence"])


def read_rejected(cache: Path) -> list[dict[str, str]]:
    """Return the rejected images as dicts of image, stage, reason, split."""
    return stage.read_rejected(cache).to_dict("records")


# --- what came of it --------------------------------------------------------------------------------------------------


def read_training_levels(data: Path) -> np.ndarray | None:
    """Return the levels in DATA/trainLabels.csv, (n,), None without that file."""
    path = data / "trainLabels.csv"
    return eyes.read_labels(path).to_numpy() if path.exists() else None


def find_test_labels(data: Path, labels: Path | None) -> Path | None:
    """Return the file of the test set's true levels: the one that was given, else DATA/testLabels.csv if it exists."""
    path = labels or data / "testLabels.csv"
    return path if labels or path.exists() else None


def read_steps(cache: Path, split: str) -> dict[str, pd.DataFrame]:
    """Return the score tables of a split that are in the cache, step -> table.

    Raises InputError if their images differ.
    """
    paths = {step: cache / name.format(split=split) for step, name in STEPS}
    tables = {step: read_scores(path) for step, path in paths.items() if path.exists()}
    steps = list(tables)
    for step in steps[1:]:
        eyes.check_same_images(tables[steps[0]].index, tables[step].index, paths[steps[0]], paths[step])
    return tables


def read_assigned(cache: Path, split: str, scores: pd.DataFrame | None) -> tuple[str, pd.Series] | None:
    """Return the last step's name and the level it gives each image, None if it was not run.

    The test set's are in the cache. The validation fold's are decided here, the same way; thresholds fitted to that
    very fold would flatter it, so annealing stands in for them.
    """
    import pandas as pd

    manifest, path = stage.read_manifest(cache / "kappa"), cache / "kappa" / "levels_test.csv"
    method = manifest["parameters"]["method"] if manifest else assign.METHODS[0]
    if split == "test":
        return (_name_assigned(method), eyes.read_labels(path)) if path.exists() else None
    if scores is None:
        return None
    method = assign.METHODS[0] if method == "thresholds" else method
    levels = assign.decide(scores.to_numpy(), method).levels
    return _name_assigned(method), pd.Series(levels, index=scores.index)


def _name_assigned(method: str) -> str:
    return "annealed labels" if method == "anneal" else f"labels by {method}"


def read_group(cache: Path, split: str, labels: pd.Series, title: str) -> Group | None:
    """Return the images of a split that have a true level and what each step made of them; None without any step.

    Raises InputError if no image has one, or the steps are not about the same images.
    """
    tables = read_steps(cache, split)
    assigned = read_assigned(cache, split, tables.get(BLEND))
    indices = [table.index for table in tables.values()] or ([assigned[1].index] if assigned else [])
    if not indices:
        return None
    if assigned:
        eyes.check_same_images(indices[0], assigned[1].index, f"{cache}, {split}", "the assigned levels")
    images = [image for image in indices[0] if image in labels.index]
    if not images:
        raise InputError(f"none of the {len(indices[0])} images of {cache}, {split}, has a true level")
    steps = {step: _take(table.loc[images].to_numpy()) for step, table in tables.items()}
    if assigned:
        steps[assigned[0]] = Step(None, assigned[1][images].to_numpy())
    return Group(title, split, images, labels[images].to_numpy(), steps)


def _take(scores: np.ndarray) -> Step:
    return Step(scores, scores.argmax(axis=1))


def read_groups(data: Path, cache: Path, labels: Path | None) -> list[Group]:
    """Return the groups there is something to say about, the one that counts most first.

    With levels of the test set: the test set and, if it has both, its public and private part. The validation fold in
    any case.
    """
    groups = list(_read_test_groups(cache, find_test_labels(data, labels)))
    if (data / "trainLabels.csv").exists():
        groups.append(read_group(cache, "valid", eyes.read_labels(data / "trainLabels.csv"), "validation fold"))
    return [group for group in groups if group]


def _read_test_groups(cache: Path, path: Path | None) -> Iterator[Group | None]:
    if path is None:
        return
    labels, usage = eyes.read_labels(path), read_usage(path)
    if usage is not None:
        labels = labels[usage[labels.index].isin(PARTS)]
    whole = read_group(cache, "test", labels, "test set")
    yield whole
    for part in PARTS if usage is not None and whole else ():
        rows = np.flatnonzero(usage[whole.images] == part)
        if 0 < len(rows) < len(whole.images):
            yield select(whole, rows, f"{part.lower()} part")


def read_usage(path: Path) -> pd.Series | None:
    """Return what Kaggle used each image's level for (Public, Private, Ignored), None if the table does not tell."""
    import pandas as pd

    if "Usage" not in pd.read_csv(path, nrows=0, encoding="utf-8-sig", skipinitialspace=True).columns:
        return None
    return eyes.read_table(path, ["image", "Usage"]).set_index("image")["Usage"]


def select(group: Group, rows: np.ndarray, title: str) -> Group:
    """Return some of a group's images under another title."""
    steps = {
        name: Step(None if step.scores is None else step.scores[rows], step.levels[rows])
        for name, step in group.steps.items()
    }
    return Group(title, group.split, [group.images[row] for row in rows], group.levels[rows], steps)


# --- what it was made from, for the manifest --------------------------------------------------------------------------


def digest_inputs(data: Path, cache: Path, labels: Path | None) -> dict[str, str]:
    """Return the digests of everything above: file or part -> SHA-256; what is not there has none."""
    paths = {f"{name} manifest": cache / folder / "manifest.json" for name, folder in FOLDERS.items()}
    for split in SPLITS:
        paths |= {name.format(split=split): cache / name.format(split=split) for _, name in STEPS}
    paths |= {name: cache / name for name in ("kappa/levels_test.csv", "rejected.csv")}
    paths |= {f"history {run or ''}": checkpoint.folder_of(cache, run) / "history.csv" for run in list_runs(cache)}
    paths |= {"trainLabels": data / "trainLabels.csv", "labels": find_test_labels(data, labels) or Path("/")}
    digests = {name: stage.hash_file(path) for name, path in paths.items() if path.is_file()}
    return digests | {"times": stage.hash_text(str(sorted(read_times(cache).items())))}
