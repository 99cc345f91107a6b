"""Score the held-out and the test eyes: CACHE/dr/epochs -> CACHE/dr/scores_{valid,test}.csv, single_{valid,test}.csv.

python -m dr.predict --data DIR --cache DIR [--views N] [--epochs-averaged last:5] [--run NAME] [--allow-rejected]
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr import checkpoint, inputs, settings, threads
from dr.scores import read_scores, write_scores
from preprocess import eyes, stage
from preprocess.stage import InputError

VIEWS = 8  # the article: "a few"
EPOCHS_AVERAGED = "last:5"
BATCH_SIZE = 64  # changes no score by more than rounding
VERSION = 1  # raise it when the same checkpoints give other scores
TABLES = ("scores_valid.csv", "single_valid.csv", "scores_test.csv", "single_test.csv")


class Trained(NamedTuple):
    """A finished run of `dr.train`, as its manifest tells."""

    folder: Path  # of the checkpoints
    parameters: dict[str, Any]  # the settings asked for
    inputs: dict[str, str]
    checkpoints: dict[int, str]  # epoch -> digest, those that are kept


class Split(NamedTuple):
    """The squares to score."""

    name: str  # valid or test
    source: str  # the folder they come from: train or test
    paths: dict[str, Path]
    digests: dict[str, str]


def read_trained(folder: Path) -> Trained:
    """Return what `dr.train` left in `folder`. Raises InputError if it is not finished or a checkpoint is damaged."""
    manifest = stage.read_manifest(folder)
    if manifest is None or not manifest["outputs"]:
        raise InputError(f"{folder}: holds no finished training; run python -m dr.train first")
    checkpoints = {int(name.removesuffix(".pt")): digest for name, digest in manifest["outputs"].items()}
    return Trained(folder, manifest["parameters"], manifest["inputs"], checkpoints)


def choose_epochs(text: str, trained: Trained) -> list[int]:
    """Return the epochs that `last:N` or a list such as `8,9,10` names. Raises InputError for one that is not kept."""
    kept = sorted(trained.checkpoints)
    if text.startswith("last:"):
        count = int(text.removeprefix("last:"))
        is_all = kept[0] == 1
        if count > len(kept) and not is_all:
            raise InputError(
                f"--epochs-averaged {text}: only epochs {kept[0]} to {kept[-1]} are kept (dr.train --keep)"
            )
        return kept[-count:]
    wanted = sorted({int(number) for number in text.split(",")})
    missing = [epoch for epoch in wanted if epoch not in trained.checkpoints]
    if missing:
        raise InputError(f"--epochs-averaged {text}: epoch {missing[0]} is not kept; {kept[0]} to {kept[-1]} are")
    return wanted


def list_splits(options: argparse.Namespace, trained: Trained) -> list[Split]:
    """Return the splits that are there to be scored: the validation fold, the test set.

    Raises InputError if the net was trained on other photographs than those there now.
    """
    splits = []
    if (options.data / "trainLabels.csv").exists():
        splits.append(find_valid(options, trained))
    else:
        print(f"dr.predict: no {options.data / 'trainLabels.csv'}, so the validation fold is not scored")
    is_ready_made = trained.parameters["ready_made"]
    if list_test_images(options, is_ready_made):
        if not eyes.list_images(options.data, "test")[0]:
            print(f"dr.predict: no photographs in {options.data / 'test'}: the test set is what {options.cache} holds")
        paths = inputs.list_photographs(options.data, options.cache, "test", is_ready_made)
        digests = inputs.describe_photographs(options.cache, "test", paths, is_ready_made)
        splits.append(Split("test", "test", paths, digests))
    if not splits:
        raise InputError(f"{options.data}: neither trainLabels.csv nor test photographs, so nothing to score")
    return splits


def find_valid(options: argparse.Namespace, trained: Trained) -> Split:
    """Return the validation fold. Raises InputError if the net was trained on other photographs."""
    training_set = inputs.read_training_set(options.data, options.cache, trained.parameters["ready_made"])
    change = stage.describe_change(trained.inputs, training_set.digests)
    if change:
        raise InputError(f"{trained.folder}: trained on other photographs ({change}); run python -m dr.train again")
    fold, n_folds = trained.parameters["fold"], trained.parameters["folds"]
    is_held_out = inputs.find_fold(training_set, n_folds) == fold
    paths = {image: path for (image, path), held in zip(training_set.paths.items(), is_held_out, strict=True) if held}
    return Split("valid", "train", paths, training_set.digests)


def list_test_images(options: argparse.Namespace, is_ready_made: bool) -> list[str]:
    """Return the ids of all test photographs, the rejected ones too."""
    images = set(eyes.list_images(options.data, "test")[0])
    if not is_ready_made and stage.has_output(options.cache / "resize", "test"):
        images |= set(inputs.list_photographs(options.data, options.cache, "test", is_ready_made=False))
    return sorted(images, key=eyes.order_of)


def predict(options: argparse.Namespace) -> None:
    """Bring the score tables of a run up to date."""
    folder = checkpoint.folder_of(options.cache, options.run)
    trained = read_trained(folder / "epochs")
    epochs = choose_epochs(options.epochs_averaged, trained)
    splits = list_splits(options, trained)
    wanted = list_test_images(options, trained.parameters["ready_made"])
    check_test_images(options, wanted, splits)
    parameters = {"version": VERSION, "views": options.views, "epochs": epochs}
    digests = {f"epoch {epoch}": trained.checkpoints[epoch] for epoch in epochs}
    digests |= {"test images": stage.hash_text(json.dumps(wanted))}
    for split in splits:
        digests |= split.digests
    if stage.find_change(folder, parameters, digests) is None:
        print("dr.predict: cached")
        return
    views, outputs = folder / "views", {}
    views.mkdir(exist_ok=True)
    for place in (folder, views):
        stage.remove_partials(place)
    for split in splits:
        scores = score_split(options, trained, split, epochs)
        outputs |= write_split(folder, split, scores, wanted, trained, epochs[-1])
    stage.write_manifest(folder, "dr.predict", parameters, digests, outputs)


def check_test_images(options: argparse.Namespace, wanted: Sequence[str], splits: Sequence[Split]) -> None:
    """Raise InputError if test photographs have no square, unless they are rejected and the user allowed it."""
    scored = {image for split in splits if split.name == "test" for image in split.paths}
    reasons = inputs.read_reasons(options.cache, "test")
    missing = [image for image in wanted if image not in scored]
    expected = [image for image in missing if image in reasons]
    eyes.check_same_images(missing, expected, options.data / "test", f"{options.cache}/resize/test; preprocess them")
    stage.check_rejected(options.cache, {image: reasons[image] for image in missing}, options.allow_rejected)


def score_split(options: argparse.Namespace, trained: Trained, split: Split, epochs: Sequence[int]) -> np.ndarray:
    """Return the scores of a split, (n_epochs, n_views, n, 5); each epoch's are kept on disk."""
    folder = trained.folder.parent / "views"
    scores = {
        epoch: read_views(folder, split, epoch, describe_views(options, trained, split, epoch)) for epoch in epochs
    }
    due = [epoch for epoch in epochs if scores[epoch] is None]
    if due:
        scores |= score_epochs(options, trained, split, due)
    return np.stack([scores[epoch] for epoch in epochs])


def describe_views(options: argparse.Namespace, trained: Trained, split: Split, epoch: int) -> str:
    """Return the digest of what an epoch's scores of a split are made from."""
    made_from = [VERSION, options.views, trained.checkpoints[epoch], list(split.paths), sorted(split.digests.items())]
    return stage.hash_text(json.dumps(made_from))


def read_views(folder: Path, split: Split, epoch: int, key: str) -> np.ndarray | None:
    """Return an epoch's scores, (n_views, n, 5), if they were made from the same."""
    path = folder / f"{split.name}_{epoch:04}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["scores"] if str(file["key"]) == key else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # damaged: scored again
        return None


def score_epochs(
    options: argparse.Namespace, trained: Trained, split: Split, epochs: Sequence[int]
) -> dict[int, np.ndarray]:
    """Score the views of a split with each epoch's net, and keep the scores on disk: epoch -> (n_views, n, 5)."""
    threads.let_waiting_threads_sleep()
    from dr import dataset, device

    place = device.choose_device(options.device)
    device.prepare(place)
    file = options.cache / "dr" / "pixels" / f"{split.name}.npy"
    pixels, luts = dataset.load_squares(
        split.paths,
        inputs.read_luts(options.cache, split.source, list(split.paths), trained.parameters["ready_made"]),
        settings.Settings(**trained.parameters).local_contrast,
        place,
        options.storage,
        file,
        str(split.digests),
    )
    scores = {}
    for epoch in epochs:
        content = read_checkpoint(trained, epoch)
        channels = [np.array(content[name]) for name in ("mean", "std")]
        photographs = dataset.make_photographs(list(split.paths), pixels, luts, *channels)
        scores[epoch] = score_views(content, photographs, place, options.views, options.batch_size)
        path = trained.folder.parent / "views" / f"{split.name}_{epoch:04}.npz"
        with stage.replacing(path) as partial:
            np.savez(partial, scores=scores[epoch], key=describe_views(options, trained, split, epoch))
        print(
            f"dr.predict: {split.name}: epoch {epoch}, {options.views} views of {len(split.paths)} images", flush=True
        )
    return scores


def read_checkpoint(trained: Trained, epoch: int) -> dict[str, Any]:
    """Return an epoch's checkpoint. Raises InputError if it is not the one that `dr.train` wrote."""
    path = checkpoint.path_of(trained.folder, epoch, ".pt")
    if stage.hash_file(path) != trained.checkpoints[epoch]:
        raise InputError(f"{path}: not what python -m dr.train wrote; run it again")
    return checkpoint.read(path)


def score_views(content: dict[str, Any], photographs, place, n_views: int, batch_size: int) -> np.ndarray:
    """Return the scores of each view, (n_views, n, 5); view 0 is the middle, unflipped."""
    from tqdm import tqdm

    from dr import dataset, draws, passes

    trained = settings.Settings(**content["settings"])
    net = checkpoint.make_net(content).to(place, memory_format=passes.MEMORY_FORMAT)
    n, margin_px = len(photographs.images), photographs.size_px - trained.crop_px
    views = []
    with tqdm(total=n_views * n, desc=f"epoch {content['epoch']}", unit="image", leave=False) as bar:
        for view in range(n_views):
            crops = dataset.draw_crops(n, margin_px, trained.seed, view, draws.VIEWS)
            crops = crops if view else dataset.center_crops(n, margin_px)
            views.append(passes.score(net, photographs, np.arange(n), crops, trained.precision, batch_size, bar))
    return np.stack(views)


def write_split(
    folder: Path, split: Split, scores: np.ndarray, wanted: Sequence[str], trained: Trained, last_epoch: int
) -> dict[str, str]:
    """Write the score tables of a split and return their digests; `scores` is (n_epochs, n_views, n, 5)."""
    tables = {f"scores_{split.name}.csv": scores.mean(axis=(0, 1)), f"single_{split.name}.csv": scores[-1, 0]}
    images = list(split.paths)
    if split.name == "test":
        prior = read_checkpoint(trained, last_epoch)["prior"]
        tables = {name: fill_rejected(images, table, wanted, np.array(prior)) for name, table in tables.items()}
        images = list(wanted)
    for name, table in tables.items():
        write_scores(folder / name, images, table)
    return {name: stage.hash_file(folder / name) for name in tables}


def average_runs(cache: Path, run: str | None, names: Sequence[str]) -> None:
    """Write the mean of the score tables of several runs as those of `run`.

    Raises InputError, naming some, if the tables have different images.
    """
    folders, folder = [checkpoint.folder_of(cache, name) for name in names], checkpoint.folder_of(cache, run)
    digests, outputs = {}, {}
    for table in TABLES:
        paths = [source / table for source in folders]
        if not any(path.exists() for path in paths):
            continue
        scores = [read_scores(path) for path in paths]
        for path, others in zip(paths[1:], scores[1:], strict=True):
            eyes.check_same_images(scores[0].index, others.index, paths[0], path)
        write_scores(folder / table, list(scores[0].index), np.mean([own.to_numpy() for own in scores], axis=0))
        digests |= {str(path.relative_to(cache)): stage.hash_file(path) for path in paths}
        outputs[table] = stage.hash_file(folder / table)
    if not outputs:
        raise InputError(f"{folders[0]}: holds no score table; run python -m dr.predict --run {names[0]} first")
    stage.write_manifest(folder, "dr.predict", {"average": list(names)}, digests, outputs)
    print(f"dr.predict: {', '.join(outputs)}: mean of {', '.join(names)}")


def fill_rejected(images: Sequence[str], scores: np.ndarray, wanted: Sequence[str], prior: np.ndarray) -> np.ndarray:
    """Return scores for all wanted images: an eye without any gets the mean of its patient's, else the prior.

    Parameters
    ----------
    images, scores : what there is: n ids, (n, 5)
    prior : (5,) shares of the levels among the photographs learned from
    """
    row_of = {image: row for row, image in enumerate(images)}
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(eyes.patients_of(images)):
        rows_of.setdefault(patient, []).append(row)
    filled = []
    for image, patient in zip(wanted, eyes.patients_of(wanted), strict=True):
        if image in row_of:
            filled.append(scores[row_of[image]])
        else:
            filled.append(scores[rows_of[patient]].mean(axis=0) if patient in rows_of else prior)
    return np.array(filled)


def parse_epochs(text: str) -> str:
    """Return the text if it names epochs."""
    if not re.fullmatch(r"last:[1-9]\d*|[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError("last:N, or epochs such as 8,9,10")
    return text


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "dr.predict",
        "Score the validation fold and the test set: probabilities, averaged over views (the middle of the square, and "
        "random crops and flips) and epochs. Writes CACHE/dr/scores_valid.csv, scores_test.csv, and single_*.csv: "
        "the middle view of the last epoch alone.",
        "--data data --cache cache --views 8 --epochs-averaged last:5",
    )
    settings.add_place_options(parser)
    parser.add_argument("--views", type=settings.whole(1), default=VIEWS, help="views averaged per eye")
    parser.add_argument("--epochs-averaged", type=parse_epochs, default=EPOCHS_AVERAGED, metavar="last:N|8,9,10",
                        help="epochs whose nets are averaged")  # fmt: skip
    parser.add_argument("--batch-size", type=settings.whole(1), default=BATCH_SIZE, help="images scored at a time")
    parser.add_argument("--average", type=settings.parse_run, nargs="+", metavar="RUN",
                        help="write the mean of these runs' score tables instead")  # fmt: skip
    stage.add_rejected_option(parser)
    options = parser.parse_args(argv)
    with stage.locked(options.cache):
        if options.average:
            average_runs(options.cache, options.run, options.average)
        else:
            predict(options)


if __name__ == "__main__":
    stage.run(main)
