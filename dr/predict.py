"""Score the validation and test images: CACHE/dr/epochs -> CACHE/dr/scores_{valid,test}.csv, single_{valid,test}.csv.

Probabilities are averaged over views (the middle of the square, and random crops and flips) and
epochs; single_*.csv has the middle view of the last epoch alone. For findings, thresholds.csv has
the threshold of each with the best F1 on the validation fold. The scores of each view are kept per
image. --average writes the mean of several
runs: on the test set of all of them, on the validation folds of those that held an image out.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr import scores as score_files
from dr import validation
from dr.machine import workers
from dr.metrics.operating import UNSURE
from dr.scores import THRESHOLDS, match_targets, read_scores, write_scores
from dr.squares import source
from dr.squares.source import CachedSquares
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from dr.training import runs, schedule, settings
from dr.training.runs import Trained
from preprocess.cache import manifest, rejected, stage
from preprocess.command import cli, process, progress, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError

TABLES = ("scores_valid.csv", "single_valid.csv", "scores_test.csv", "single_test.csv")
VERSION = 3  # raise it when the same checkpoints give other tables


class ScoreTable(NamedTuple):
    """Scores (n, k) of images."""

    images: list[str]
    scores: np.ndarray


class Split(NamedTuple):
    """Squares to score; `wanted` are the images whose scores are wanted, the rejected ones too."""

    name: str  # valid or test
    squares: CachedSquares
    wanted: list[str]


def predict(options: argparse.Namespace, dataset: DataSet, task: Task) -> None:
    """Bring the score tables of a run up to date; under torchrun all score, the first process writes them."""
    folder = runs.folder_of(options.cache, options.run)
    trained = runs.read_trained(folder)
    epochs = choose_epochs(options.epochs_averaged, trained, task)
    with progress.waiting("dr.predict: reading what is known of the squares"):
        found = (find_valid(options, dataset, task, trained), find_test(options, dataset))
    splits = [split for split in found if split]
    if not splits:
        named = dataset.target_sources["train"].name
        raise InputError(
            f"{options.data}: neither {named} nor test photographs, so nothing to score"
        )
    parameters = {"version": VERSION, "views": options.views, "epochs": epochs}
    digests = {f"epoch {epoch}": trained.checkpoints[epoch] for epoch in epochs}
    for split in splits:
        digests |= split.squares.digests
        digests[f"{split.name} images"] = files.hash_text(json.dumps(split.wanted))
    if workers.share(lambda: manifest.find_change(folder, parameters, digests)) is None:
        print("dr.predict: cached")
        return
    workers.let_waiting_threads_sleep()
    from dr import view_scores

    if workers.rank() == 0:
        (folder / "views").mkdir(exist_ok=True)
        files.remove_partials(folder)
    newest = runs.read_checkpoint(trained, epochs[-1])
    prior = np.array(newest.prior)
    score_tables: dict[str, ScoreTable] = {}
    for split in splits:
        scores = view_scores.score_split(
            options, trained, split.name, split.squares, epochs, newest.settings.precision
        )  # (n_epochs, n_views, n, k)
        if scores is None:  # the first process has them all
            continue
        patients = dataset.get_patients(split.wanted)
        for name, table in (("scores", scores.mean(axis=(0, 1))), ("single", scores[-1, 0])):
            filled = fill_rejected(split.squares.images, table, split.wanted, patients, prior)
            score_tables[f"{name}_{split.name}.csv"] = ScoreTable(split.wanted, filled)
    if workers.rank() == 0:
        write_tables(folder, dataset, task, score_tables, parameters, digests)


def write_tables(
    folder: Path,
    dataset: DataSet,
    task: Task,
    score_tables: Mapping[str, ScoreTable],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> None:
    """Write score tables, by name, the thresholds where the task has some, and the manifest of all."""
    written = list(score_tables)
    for name, table in score_tables.items():
        write_scores(folder / name, table.images, table.scores, task)
    if validation.write_targets(folder, dataset):
        written.append(validation.TARGETS)
    if write_thresholds(folder, dataset, task):
        written.append(THRESHOLDS)
    for name in {*TABLES, THRESHOLDS, validation.TARGETS} - set(
        written
    ):  # of a split that is no more
        (folder / name).unlink(missing_ok=True)
    outputs = {name: files.hash_file(folder / name) for name in written}
    manifest.write_manifest(folder, "dr.predict", parameters, inputs, outputs)


def write_thresholds(folder: Path, dataset: DataSet, task: Task) -> bool:
    """Write the threshold of each finding by the scores of the images held out; return whether there are any.

    A threshold that cannot be chosen, for want of images that have the finding, is left empty.
    """
    scores_from = folder / "scores_valid.csv"
    if not (task.has_thresholds and scores_from.exists() and dataset.has_targets("train")):
        return False
    scores = read_scores(scores_from, task)
    targets = match_targets(
        scores.index, scores_from, dataset.get_targets("train"), dataset.target_sources["train"]
    )
    points = task.choose_thresholds(scores.to_numpy(), targets.to_numpy())
    score_files.write_thresholds(folder / THRESHOLDS, points)
    for point in points:
        if not point.is_sure:
            print(f"dr.predict: {point.name}: {point.positives} images held out have it: {UNSURE}")
    return True


def choose_epochs(text: str, trained: Trained, task: Task) -> list[int]:
    """Return the epochs that `last:N`, `best`, or `8,9,10` names. Raises InputError for one that is not kept."""
    if text.startswith("best"):
        figure = text.partition(":")[2] or task.headline
        wanted = [schedule.find_best(runs.read_figures(trained.folder), figure)]
    elif text.startswith("last:"):
        newest = max(trained.checkpoints)
        wanted = list(range(max(1, newest + 1 - int(text.removeprefix("last:"))), newest + 1))
    else:
        wanted = sorted({int(number) for number in text.split(",")})
    missing = [epoch for epoch in wanted if epoch not in trained.checkpoints]
    if missing:
        kept = ", ".join(map(str, sorted(trained.checkpoints)))
        raise InputError(
            f"--epochs-averaged {text}: epoch {missing[0]} is not kept (dr.train --keep), but {kept}"
        )
    return wanted


def find_valid(
    options: argparse.Namespace, dataset: DataSet, task: Task, trained: Trained
) -> Split | None:
    """Return the validation fold, None if there are no labels. Raises InputError if the net was trained on others."""
    if not dataset.has_targets("train"):
        print(
            f"dr.predict: no {dataset.target_sources['train']}, so the validation fold is not scored"
        )
        return None
    training_set = source.read_training_set(dataset, task, options.cache, known_only=True)
    n_folds = trained.parameters["folds"]
    fold = trained.parameters["fold"]
    if trained.inputs != training_set.digests:  # these an earlier version kept
        change = manifest.describe_change(trained.inputs, training_set.digest_parts(n_folds, fold))
        if change:
            raise InputError(
                f"{trained.folder}: trained on other photographs ({change}); run python -m dr.train again"
            )
    is_held_out = training_set.find_held_out(n_folds, fold)
    squares = training_set.squares.select(np.flatnonzero(is_held_out))._replace(
        digests=training_set.digests
    )
    return Split("valid", squares, squares.images)


def find_test(options: argparse.Namespace, dataset: DataSet) -> Split | None:
    """Return the test set, None if there is none: its photographs, and what the cache holds of it. Raises InputError
    if images have no square, unless they are rejected and the user allowed it.
    """
    listed = dataset.list_paths("test")
    if not manifest.has_output(options.cache / "resize", "test"):
        if not listed:
            return None
        raise InputError(f"{options.cache}/resize: holds no test; run python -m preprocess first")
    if not listed:
        print(
            f"dr.predict: no test images in {options.data}: the test set is what {options.cache} holds"
        )
    squares = source.read_squares(options.cache, "test", dataset)
    wanted = tables.sort_images({*listed, *squares.paths})
    reasons = rejected.read_reasons(options.cache, "test")
    missing = [image for image in wanted if image not in squares.paths]
    expected = [image for image in missing if image in reasons]
    asked = f"the test set of {options.data}"
    tables.check_same_images(
        missing, expected, asked, f"{options.cache}/resize/test; preprocess them"
    )
    rejected.check_rejected(
        options.cache, {image: reasons[image] for image in missing}, options.allow_rejected
    )
    return Split("test", squares, wanted)


def fill_rejected(
    images: Sequence[str],
    scores: np.ndarray,
    wanted: Sequence[str],
    patients: Sequence[str],
    prior: np.ndarray,
) -> np.ndarray:
    """Return scores (n, k) of all wanted images, of whose patients `patients` has one each.

    An image without scores gets the mean of its patient's, else the prior, (k,).
    """
    import pandas as pd

    every = pd.DataFrame(scores, list(images)).reindex(list(wanted))
    means = every.groupby(np.array(patients, dtype=object)).transform("mean")
    return every.fillna(means).fillna(dict(enumerate(prior))).to_numpy()


def average_runs(options: argparse.Namespace, dataset: DataSet, task: Task) -> None:
    """Write the mean of the score tables of several runs as those of `--run`, which has no net itself.

    A name may be the path of another cache, or of a run's folder in one. The mean has each image of the validation
    folds by the nets that held it out: they have the same images, or none in common. Raises InputError, naming some,
    if tables have only part of their images in common.
    """
    cache = options.cache
    folder = runs.folder_of(cache, options.run)
    names = [find_way(cache, name) for name in options.average]
    folders = [runs.folder_of(cache, name) for name in names]
    titles = [name or settings.ORDINARY for name in names]
    if (folder / "epochs").exists():
        raise InputError(f"{folder}: holds a net of its own; give the mean another name by --run")
    resolved = [source_folder.resolve() for source_folder in folders]
    if folder.resolve() in resolved:
        raise InputError(
            f"--average: {folder} would be part of its own mean; give the mean another name by --run"
        )
    repeated = [
        title for title, path in zip(titles, resolved, strict=True) if resolved.count(path) > 1
    ]
    if repeated:
        raise InputError(f"--average: {repeated[0]} comes twice")
    folds = describe_folds(folders, titles)
    means: dict[str, ScoreTable] = {}
    inputs: dict[str, str] = {}
    for table in TABLES:
        paths = [source_folder / table for source_folder in folders]
        if any(path.exists() for path in paths):
            try:
                means[table] = average_tables(paths, task, have_same_images="test" in table)
            except InputError as error:
                if folds and "valid" in table:
                    raise InputError(f"{folds}: {error}") from None
                raise
            inputs |= {os.path.relpath(path, cache): files.hash_file(path) for path in paths}
    if not means:
        raise InputError(
            f"{folders[0]}: holds no score table; run python -m dr.predict --run {titles[0]} first"
        )
    write_tables(folder, dataset, task, means, {"average": names}, inputs)
    for table, mean in means.items():
        print(f"dr.predict: {table}: {len(mean.images)} images, mean of {', '.join(titles)}")
    if folds:
        print(
            f"dr.predict: {folds}: each validation image has the mean of the nets that held it out, not of all"
        )


def describe_folds(folders: Sequence[Path], titles: Sequence[str]) -> str | None:
    """Return which fold each run held out, None if all the same one; a mean of others has none of its own."""
    held_out = {}
    for folder, title in zip(folders, titles, strict=True):
        trained = manifest.read_manifest(folder / "epochs")
        if trained is not None:
            parameters = trained["parameters"]
            held_out[title] = f"fold {parameters['fold']} of {parameters['folds']}"
    if len(set(held_out.values())) < 2:
        return None
    return "the folds differ: " + ", ".join(
        f"{title} held out {fold}" for title, fold in held_out.items()
    )


def average_tables(paths: Sequence[Path], task: Task, have_same_images: bool) -> ScoreTable:
    """Return the mean scores of each image of some tables, which have the same images, or none in common."""
    import pandas as pd

    scores = {path: read_scores(path, task) for path in paths}
    for (path, table), (other_path, other) in itertools.combinations(scores.items(), 2):
        if have_same_images or len(table.index.intersection(other.index)):
            tables.check_same_images(table.index, other.index, path, other_path)
    mean = pd.concat(scores.values()).groupby("image").mean()
    return ScoreTable(list(mean.index), mean.to_numpy())


def find_way(cache: Path, name: str | None) -> str | None:
    """Return a run's name, or the way from the cache to the run's folder that a path, with a slash, leads to."""
    if name is None or "/" not in name:
        return name
    folder = Path(name) / "dr" if (Path(name) / "dr").is_dir() else Path(name)
    if folder.resolve() == (cache / "dr").resolve():
        return None
    way = os.path.relpath(folder, cache)
    return way if "/" in way else f"./{way}"


def parse_epochs(text: str) -> str:
    """Return the text if it names epochs."""
    if not re.fullmatch(r"last:[1-9]\d*|best(:log_loss)?|[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError("last:N, best, best:log_loss, or epochs such as 8,9,10")
    return text


def main(argv: Sequence[str] | None = None) -> None:
    example = "--data data --cache cache --views 8 --epochs-averaged last:5"
    parser = cli.make_parser("dr.predict", __doc__, example)
    settings.add_device_options(parser)
    parser.add_argument("--views", type=cli.whole(1), help="views averaged per image")
    parser.add_argument("--epochs-averaged", type=parse_epochs, metavar="last:N|best|8,9,10",
                        help="epochs whose nets are averaged; best: by QWK of levels, accuracy of classes, "
                        "mean AUC of findings; best:log_loss: by that")  # fmt: skip
    parser.add_argument("--batch-size", type=cli.whole(1), help="images scored at a time")
    parser.add_argument("--average", type=settings.parse_run_anywhere, nargs="+", metavar="RUN",
                        help="write the mean of these runs' score tables instead, as those of --run; with a slash: "
                        "another cache, whose squares may be others, or the folder of a run in one")  # fmt: skip
    cli.add_rejected_option(parser)
    options = recipe.parse(parser, argv, "dr.predict")
    dataset = readers.open_dataset(options)
    task = make_task(dataset.question)
    folder = runs.folder_of(options.cache, options.run)
    with contextlib.ExitStack() as stack:
        stack.enter_context(workers.first_prints())
        if workers.rank() == 0:
            times_in = folder if options.run else None
            stack.enter_context(stage.working(options.cache, "dr.predict", [folder], times_in))
        if not options.average:
            stack.enter_context(workers.joined(options.device, workers.LONGEST_SHARE_S))
            predict(options, dataset, task)
        elif workers.rank() == 0:
            average_runs(options, dataset, task)


if __name__ == "__main__":
    process.run(main)
