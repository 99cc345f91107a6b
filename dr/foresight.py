"""What can be known of training before the first photograph is read: labels, device, weights, room on the disk."""

import argparse
import contextlib
import io
import warnings

from dr.nets import catalog
from dr.tasks.kinds import make_task
from dr.training import settings
from dr.training.settings import Settings
from preprocess.cache import manifest
from preprocess.dataset.dataset import PARTS, DataSet
from preprocess.disk import tables
from preprocess.disk.errors import InputError

NINE_CONV_PARAMETERS = 925_013
N_BEST = 2  # checkpoints that are kept beside the newest: by log loss and by the task's measure
NUMBER_BYTES = 4  # of a parameter in a checkpoint


def check_labels(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError for training photographs without a label, and for no photographs or labels at all.

    With `--known-only` those without one are left out. Where no photograph lies, but the cache holds squares, these
    are what is learned from.
    """
    source = dataset.target_sources["train"]
    photographs = dataset.list_paths("train")
    if not photographs and not manifest.has_output(options.cache / "resize", "train"):
        raise InputError(f"{dataset.folder / 'train'}: no photographs to learn from")
    if not dataset.has_targets("train"):
        target = dataset.question.columns[0]
        missing = "no such file" if not source.exists() else f"no {target} of any image is known"
        raise InputError(f"{source}: {missing}: dr.train learns from it")
    if dataset.question.has_many_targets or dataset.may_lack_targets:
        return
    targets = dataset.get_targets(
        "train", options.known_only
    )  # raises, naming the row, if one is empty
    unlabelled = tables.sort_images(photographs.keys() - set(targets.index))
    if unlabelled and not options.known_only:
        column = dataset.question.columns[0]
        raise InputError(
            f"{source}: no {column} of {len(unlabelled):,} of {len(photographs):,} training photographs: "
            f"{', '.join(unlabelled[:3])}; add them, or leave these photographs out with dr.train --known-only"
        )
    if photographs and len(unlabelled) == len(photographs):
        raise InputError(f"{source}: names none of the photographs, such as {unlabelled[0]}")


def check_machine(options: argparse.Namespace, dataset: DataSet, size_px: int) -> None:
    """Raise InputError for a device that is not at hand, and for weights that do not fit or cannot be had.

    `size_px` is the side of the squares. torch is imported only where it is needed to tell.
    """
    if options.weights == "imagenet":
        catalog.check_reach(options.net)
    is_device_named = options.device not in ("auto", "cpu")
    is_file_named = options.weights not in settings.WEIGHTS
    if not (is_device_named or is_file_named):
        return
    import torch

    from dr.machine import device
    from dr.training import learner, weights

    if is_device_named:
        device.choose_device(options.device)
    if is_file_named:
        wanted = settings.collect(options)
        resolved = learner.resolve(wanted, size_px, torch.device("cpu"), is_seen_once=False)
        with torch.device("meta"):  # shapes, but no numbers
            blank = learner.make_untrained(resolved, make_task(dataset.question))
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):  # dr.train says it in its time
            warnings.filterwarnings("ignore", message=".*no-op.*")
            weights.begin(blank, options.weights)


def estimate_space(
    options: argparse.Namespace, dataset: DataSet, size_px: int, n_runs: int
) -> dict[str, int]:
    """Return how many bytes the training of so many nets will write, by what they are; 0 where it is done."""
    if manifest.has_output(options.cache / "dr", "scores_valid.csv"):  # what is still new is little
        return {}
    wanted = settings.collect(options)
    n_copies = 1  # the weights
    if wanted.optimizer == "adamw":
        n_copies += 2
    elif wanted.momentum:
        n_copies += 1
    if wanted.ema:
        n_copies += 1
    n_kept = min(options.keep + N_BEST, wanted.epochs)
    n_squares = sum(len(dataset.list_paths(part)) for part in PARTS)
    needed = {"checkpoints": n_runs * n_kept * n_copies * NUMBER_BYTES * count_parameters(wanted)}
    if options.storage == "file":  # auto writes them only where there is room
        needed["mapped pixels"] = n_squares * size_px**2 * 3
    if options.features == "file":
        needed["feature maps"] = n_squares * NUMBER_BYTES * count_features(wanted)
    return needed


def count_parameters(wanted: Settings) -> int:
    """Return how many parameters a net's body has; its head has few."""
    if wanted.net == catalog.NINE_CONV:
        return NINE_CONV_PARAMETERS
    import torch

    with torch.device("meta"):
        body = catalog.create(wanted.net, None, wanted.drop_path)
    return sum(parameter.numel() for parameter in body.parameters())


def count_features(wanted: Settings) -> int:
    """Return how many numbers a body's maps have, at the least: the means of its channels, unless the head squeezes."""
    if wanted.net == catalog.NINE_CONV:
        return 128 * 7 * 7
    config = catalog.find_config(wanted.net)
    n_places = 1
    if wanted.squeeze:
        stride = 32  # of nearly all nets
        n_places = max(1, (wanted.crop_px or config.input_size[-1]) // stride) ** 2
    import torch

    with torch.device("meta"):
        body = catalog.create(wanted.net, None, 0.0)
    return int(body.num_features) * n_places  # type: ignore[arg-type]
