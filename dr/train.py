"""Train the net: squares, lookup tables and labels -> CACHE/dr/epochs, a checkpoint each, and their history.csv.

The same command goes on where it stopped. With other options or labels it is another net, which takes the place of the
one before when it has ended; that one lies in CACHE/dr/former then, and its options bring it back at once.
"""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dr import foresight
from dr.machine import workers
from dr.squares import source
from dr.squares.source import TrainingSet
from dr.tasks.kinds import make_task
from dr.training import runs, schedule, settings
from dr.training.runs import Start
from dr.training.settings import Settings
from preprocess.cache import manifest, stage
from preprocess.command import cli, process, progress
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files
from preprocess.disk.errors import InputError

KEPT_EPOCHS = 10  # checkpoints of 7.4 MB; prediction averages the last five


def check(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError for settings that have no meaning for what the data set asks."""
    make_task(dataset.question).check_settings(options)


def check_data(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError for photographs without a label, and for none."""
    foresight.check_labels(options, dataset)


def check_machine(options: argparse.Namespace, dataset: DataSet, size_px: int) -> None:
    """Raise InputError for a device that is not at hand, and for weights that cannot be begun with."""
    foresight.check_machine(options, dataset, size_px)


def estimate_space(
    options: argparse.Namespace, dataset: DataSet, size_px: int, n_runs: int
) -> dict[str, int]:
    """Return how many bytes the training of so many nets will write, by what they are."""
    return foresight.estimate_space(options, dataset, size_px, n_runs)


def train(options: argparse.Namespace, wanted: Settings, dataset: DataSet) -> None:
    """Bring the epochs of a run up to date; under torchrun all train, the first process decides and writes."""
    task = make_task(dataset.question)
    with progress.waiting("dr.train: reading what is known of the squares", workers.rank() == 0):
        training_set = source.read_training_set(dataset, task, options.cache, options.known_only)
    inputs = training_set.digest_parts(wanted.folds, wanted.fold)
    run = runs.folder_of(options.cache, options.run)
    pending = run / "pending" / runs.identify(vars(wanted), inputs)
    with workers.joined(options.device):
        start = workers.share(lambda: find_start(options, wanted, training_set, inputs, pending))
        if start is None:
            return
        if start.is_held_out_changed or schedule.find_next(wanted, start.history):
            workers.let_waiting_threads_sleep()
            from dr.training.epochs import train_epochs
            from dr.watching.watch import Watch

            watcher = Watch(run, task, wanted)
            train_epochs(options, wanted, pending, training_set, inputs, task, start, watcher)
        elif workers.rank() == 0:
            runs.begin(pending, start, vars(wanted), inputs)
    if workers.rank() == 0:  # the run has come to its end
        figures = runs.keep_best(pending, task.headline, options.keep)
        digests = {f"{row['epoch']:04}.pt": row["checkpoint"] for row in figures}
        kept = {name: digest for name, digest in digests.items() if (pending / name).exists()}
        manifest.write_manifest(pending, "dr.train", vars(wanted), inputs, outputs=kept)
        runs.put_in_use(run, pending, options.overwrite)


def find_start(
    options: argparse.Namespace,
    wanted: Settings,
    training_set: TrainingSet,
    inputs: Mapping[str, str],
    pending: Path,
) -> Start | None:
    """Return which epochs need not be done again, None if nothing at all is to be done, and say why."""
    run = runs.folder_of(options.cache, options.run)
    former = sorted(run.glob("former/*"))
    folders = [pending, run / "epochs", *sorted(run.glob("pending/*")), *former]
    runs.adopt_inputs(folders, training_set, wanted.folds)
    if runs.is_finished(run / "epochs", vars(wanted), inputs):
        print("dr.train: cached")
        return None
    if runs.read_mean(run) and not (run / "epochs").exists():
        raise InputError(
            f"{run}: holds the mean of several nets; give this one another name by --run"
        )
    run.mkdir(parents=True, exist_ok=True)
    files.remove_partials(run)
    for folder in (pending, *former):
        if runs.is_finished(folder, vars(wanted), inputs):
            print(f"dr.train: {folder} holds the net of these settings; it is in use from now on")
            runs.put_in_use(run, folder, options.overwrite)
            return None
    folder = folders[0]
    n_done = 0
    is_held_out_changed = False
    for candidate in folders:
        n_usable = count_usable(candidate, wanted, inputs)
        is_changed = not has_inputs(candidate, inputs)
        is_same_but_exact = n_usable == n_done and is_held_out_changed and not is_changed
        if n_usable > n_done or is_same_but_exact:
            folder = candidate
            n_done = n_usable
            is_held_out_changed = is_changed
    print(f"dr.train: {describe_start(run / 'epochs', wanted, inputs, n_done, options.overwrite)}")
    return Start(folder, runs.read_figures(folder)[:n_done], is_held_out_changed)


def has_inputs(folder: Path, inputs: Mapping[str, str], parts: Sequence[str] = ()) -> bool:
    """Tell whether the net of a folder was made from these inputs, or from these parts of them."""
    kept = manifest.read_manifest(folder)
    if kept is None:
        return False
    if not parts:
        return kept["inputs"] == inputs
    return all(kept["inputs"].get(part) == inputs[part] for part in parts)


def count_usable(folder: Path, wanted: Settings, inputs: Mapping[str, str]) -> int:
    """Return how many epochs of a folder are those that training would begin with.

    Of other images held out they are the same, but for their validation figures, if nothing in training follows these.
    """
    kept = manifest.read_manifest(folder)
    if kept is None:
        return 0
    if not has_inputs(folder, inputs):
        if schedule.follows_validation(wanted):
            return 0
        if not has_inputs(folder, inputs, (source.LEARNED, source.LABELS)):
            return 0
    parameters = settings.complete(kept["parameters"])
    if parameters | {"epochs": wanted.epochs} != vars(wanted):
        return 0
    before = Settings(**parameters)
    history = runs.read_figures(folder)[: runs.count_finished(folder)]
    if schedule.retrace(before, history) != schedule.retrace(wanted, history):
        return 0
    return len(history)


def describe_start(
    epochs: Path, wanted: Settings, inputs: Mapping[str, str], n_done: int, is_overwriting: bool
) -> str:
    """Return what differs from the net in use, what is done already, and what becomes of that net."""
    in_use = manifest.read_manifest(epochs)
    if in_use is None:
        return f"goes on after epoch {n_done}" if n_done else "starts"
    old = settings.complete(in_use["parameters"])
    change = manifest.describe_change(old, vars(wanted)) or manifest.describe_change(
        in_use["inputs"], inputs
    )
    if change is None:
        return f"goes on after epoch {n_done}" if n_done else "starts"

    is_only_longer = (
        vars(wanted) == old | {"epochs": wanted.epochs} and old["epochs"] < wanted.epochs
    )
    if is_only_longer and not n_done:
        change += (
            ", and with it the learning rates of epochs already done (--drop-epochs would fix them)"
        )
    is_held_out_alone = vars(wanted) == old and has_inputs(
        epochs, inputs, (source.LEARNED, source.LABELS)
    )
    if is_held_out_alone and schedule.follows_validation(wanted):
        change += ", and by their log loss --patience or the plateau decides how the net learns"
    begins = f"goes on after epoch {n_done}" if n_done else "starts over"
    if not in_use["outputs"]:
        return f"{change}; {begins}"
    pace_s = runs.find_pace(epochs)
    n_due = wanted.epochs - n_done
    if pace_s and n_due:
        begins += f", about {max(1, round(n_due * pace_s / 60))} min at the old net's pace"
    n_old = len(runs.read_figures(epochs))
    fate = "removed" if is_overwriting else "kept"
    return f"{change}; {begins}; the net of {n_old} epochs stays in use until then, and then it is {fate}"


def main(argv: Sequence[str] | None = None) -> None:
    example = "--data data --cache cache --epochs 60 --batch-size 64"
    parser = cli.make_parser("dr.train", __doc__, example)
    settings.add_device_options(parser)
    parser.add_argument("--keep", type=cli.whole(1), default=KEPT_EPOCHS, help="number of newest checkpoints "
                        "to keep, beside the best by log loss and by the task's own metric")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="when training has ended, remove the net "
                        "that is replaced instead of keeping it")  # fmt: skip
    parser.add_argument(
        "--known-only",
        action="store_true",
        help="leave out photographs without a level or class",
    )
    settings.add_options(parser)
    options, wanted = settings.parse(parser, argv)
    dataset = readers.open_dataset(options)
    check(options, dataset)
    check_data(options, dataset)
    epochs = runs.folder_of(options.cache, options.run) / "epochs"
    is_first = workers.rank() == 0
    times_in = runs.folder_of(options.cache, options.run) if options.run else None
    with (
        stage.working(options.cache, "dr.train", [epochs], times_in)
        if is_first
        else contextlib.nullcontext()
    ):
        train(options, wanted, dataset)


if __name__ == "__main__":
    process.run(main)
