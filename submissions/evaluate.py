"""Evaluate a finished run on any labelled data set: DATA, CACHE -> CACHE/evaluations/NAME, a table and a page.

Squares and scores are made as by submissions.grade, and kept. scores.csv has the scores after the
last step; figures.csv each figure with its interval: of all images, of levels, classes or findings,
of conditions such as referable disease at operating points chosen on the run's own validation
patients, and of subgroups. evaluation.html shows them. --scores and --labels evaluate tables alone.
Not a medical device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import validation as validations
from dr.machine import workers
from dr.metrics.detection import Thresholds
from dr.scores import match_targets, read_scores, write_scores
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from dr.training import runs, settings
from dr.validation import Validation
from preprocess.cache import manifest
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import kaggle, labels, readers
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, suggest
from submissions.evaluation import figures, known, page, subgroups
from submissions.evaluation.figures import Points, Sample
from submissions.output import target, template

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2  # raise it when the same scores give other figures
PARTS = ("test", "train", "all")
MOST_NAMED = 5  # images in a warning
THUMBNAILS = (
    ".thumbnails"  # in CACHE/evaluations: small copies of squares, see evaluation.thumbnails
)


class Material(NamedTuple):
    """What there is to measure: the task, the sample, its cells for subgroups, and what else is to be said of it."""

    task: Task
    sample: Sample
    cells: pd.DataFrame  # a row for each image of the sample, every column of its source
    facts: list[list[Any]]
    warnings: list[str]
    refused: dict[str, str]


def evaluate(options: argparse.Namespace) -> None:
    """Bring an evaluation up to date, and print it."""
    folder = options.cache / "evaluations" / find_name(options)
    if options.scores is None and not (options.cache / "dr").is_dir():
        raise InputError(
            f"{options.cache}: holds no finished run; run ./run_all.sh first, or give another --cache"
        )
    with files.locked(folder):
        files.remove_partials(folder)
        if options.scores is not None:
            material = read_tables(options)
            validation = None
        else:
            material, validation = score_photographs(options, folder)
        write_scores(
            folder / "scores.csv", material.sample.images, material.sample.scores, material.task
        )
        write_truth(folder / "truth.csv", material)
        print(measure(options, folder, material, validation))
    print(f"submissions.evaluate: -> {folder / 'evaluation.html'}")


def find_name(options: argparse.Namespace) -> str:
    """Return what the evaluation is called: as is asked, or as the data or the table of scores."""
    if options.name:
        return options.name
    source = options.data if options.scores is None else options.scores
    name = source.resolve().name.removesuffix(".gz").removesuffix(".csv").lstrip(".")
    if not name:
        raise InputError(f"{source}: has no name to call the evaluation by; give --name")
    return name


# --- what there is to measure -----------------------------------------------------------------------------------------


def score_photographs(
    options: argparse.Namespace, folder: Path
) -> tuple[Material, Validation | None]:
    """Return the labelled images of a data set with the scores of a run, and the images that the run held out."""
    dataset = readers.open_dataset(options)
    run = runs.folder_of(options.cache, options.run)
    members = runs.read_members(run, None, None)
    task = members[0].checkpoint.task
    validation = read_validation(options, task)
    workers.let_waiting_threads_sleep()
    # Imported late: whoever has mistyped something does not wait for torch.
    from submissions import ensemble, external

    part = options.part or ("test" if external.has_labelled_test(dataset) else "all")
    chosen = external.choose_images(dataset, part, task)
    check_columns(options.by, chosen.samples, dataset.folder)
    blend = options.cache / "blend" / "train" / "model.pt"
    is_blended = options.run is None and task.has_eyes and blend.exists()
    loaded = ensemble.load(members, blend if is_blended else None, None, options.device)
    roads = {}
    for making in external.list_makings(loaded):
        roads[making] = external.make_squares(chosen, folder, making, options.dask or options.jobs)
    scored = external.score(loaded, chosen, roads, folder)
    squares = [road.folder for road in roads.values()]
    jobs = options.dask or options.jobs
    keep_in = options.cache / "evaluations" / THUMBNAILS
    found = known.find_known(squares, runs.list_caches(run), keep_in, jobs)
    is_kept = np.ones(len(scored.images), bool)
    warnings = list(found.notes)
    n_known = len(found.images)
    if n_known:
        warnings.insert(
            0,
            known.describe_known(found, len(scored.images), options.drop_known, MOST_NAMED),
        )
        if options.drop_known:
            is_kept = np.array([image not in found.images for image in scored.images])
    if not is_kept.any():
        raise InputError(
            f"{dataset.folder}: all {n_known} images are of the run's training set; nothing is left"
        )
    images = [image for image, is_in in zip(scored.images, is_kept, strict=True) if is_in]
    sample = Sample(
        title=f"{dataset.folder.resolve().name}",
        images=images,
        patients=chosen.get_patients(images),
        scores=scored.scores[is_kept],
        targets=chosen.get_targets(external.PART, known_only=True).loc[images].to_numpy(),
    )
    pairs = known.find_repeated(squares[0], images, keep_in, jobs)
    if pairs:
        are_other = find_differing(pairs, sample)
        warnings.append(known.describe_repeated(pairs, are_other, MOST_NAMED))
    facts = [
        ["data", f"{dataset.folder.resolve().name}, part {part}"],
        [
            "run",
            f"{options.run or settings.ORDINARY}, {len(members)} models{', blended' if is_blended else ''}",
        ],
        ["evaluated", describe_count(sample)],
        ["refused", describe_share(len(scored.refused), len(scored.refused) + len(scored.images))],
        ["out of distribution", describe_outside(scored.distances[is_kept])],
        [
            "of the training set",
            f"{n_known} images, {'left out' if options.drop_known else 'kept'}",
        ],
        ["the same picture twice", f"{len(pairs)} pairs"],
    ]
    cells = chosen.samples.set_index("image").loc[images]
    return Material(task, sample, cells, facts, warnings, scored.refused), validation


def read_validation(options: argparse.Namespace, task: Task) -> Validation | None:
    """Return the images that a run held out; with an operating point given by hand it may have none."""
    try:
        return validations.read_validation(options.cache, options.run, task)
    except InputError:
        if options.operating_point is None:
            raise
        return None


def read_tables(options: argparse.Namespace) -> Material:
    """Return the images of a table of scores that a table of labels knows; its column patient tells whose they are."""
    header = tables.list_columns(options.scores)
    task = make_task(labels.infer_question(options.labels, header))
    scores = read_scores(options.scores, task)
    truth = labels.read_labels(options.labels, task.question, str, known_only=True)
    targets = match_targets(scores.index, options.scores, truth, options.labels, known_only=True)
    columns = tables.list_columns(options.labels)
    cells = tables.read_table(options.labels, columns).set_index("image").loc[targets.index]
    check_columns(options.by, cells, options.labels)
    images = list(targets.index)
    patients = find_patients(images, cells)
    sample = Sample(
        title=options.scores.name,
        images=images,
        patients=patients,
        scores=scores.loc[images].to_numpy(),
        targets=targets.to_numpy(),
    )
    facts = [
        ["scores", str(options.scores)],
        ["labels", str(options.labels)],
        ["evaluated", describe_count(sample)],
    ]
    if len(scores) > len(images):
        facts.append(["without a known label", f"{len(scores) - len(images)} images, left out"])
    if options.operating_point is None:
        facts.append(
            [
                "operating points",
                "none: there are no validation patients; --operating-point gives one",
            ]
        )
    return Material(task, sample, cells, facts, [], {})


def find_patients(images: Sequence[str], cells: pd.DataFrame) -> list[str]:
    """Return the patient of each image: by the column patient, or by its name, PATIENT_left; else the image itself."""
    if "patient" in cells:
        return [patient or image for image, patient in zip(images, cells["patient"], strict=True)]
    try:
        return [kaggle.find_subject(image).patient for image in images]
    except InputError:  # names of another kind
        return list(images)


def check_columns(by: Sequence[str], cells: pd.DataFrame, source: Path) -> None:
    """Raise InputError for a column to make subgroups by that the source lacks."""
    for column in by:
        if column not in cells:
            raise InputError(
                f"--by {column}: no such column in {source}{suggest(column, map(str, cells))}"
            )


def find_differing(pairs: Sequence[tuple[str, str]], sample: Sample) -> dict[tuple[str, str], bool]:
    """Return of each pair of images whether their targets differ; one that is unknown differs from none."""
    row_of = {image: row for row, image in enumerate(sample.images)}
    are_other = {}
    for one, other in pairs:
        difference = sample.targets[row_of[one]] - sample.targets[row_of[other]]
        are_other[one, other] = bool(np.nan_to_num(difference).any())
    return are_other


def describe_count(sample: Sample) -> str:
    """Return how many images of how many patients there are."""
    return f"{len(sample.images):,} images of {len(set(sample.patients)):,} patients"


def describe_share(n: int, total: int) -> str:
    """Return a count and its share."""
    return f"{n:,} of {total:,} ({n / total:.1%})"


def describe_outside(distances: np.ndarray) -> str:
    """Return how many images lie beyond what the nets learned from."""
    is_known = np.isfinite(distances)
    if not is_known.any():
        return "not known: the nets learned from too few images"
    return describe_share(int((distances[is_known] > 1).sum()), int(is_known.sum()))


def write_truth(path: Path, material: Material) -> None:
    """Write what is true of each image, with its patient and every other column of its source."""
    cells = material.cells.drop(columns=["path", "split"], errors="ignore").copy()
    cells["patient"] = material.sample.patients
    tables.write_csv(
        path, cells.to_csv(index_label="image", lineterminator="\n", float_format="%.9g")
    )


# --- figures ----------------------------------------------------------------------------------------------------------


def measure(
    options: argparse.Namespace, folder: Path, material: Material, validation: Validation | None
) -> str:
    """Bring the figures of an evaluation up to date; return its text."""
    others = find_others(options)
    own_points = find_points(options.operating_point, material.task, validation)
    parameters = {
        "version": VERSION,
        "name": folder.name,
        "by": options.by,
        "points": describe_points(own_points),
        "operating_point": options.operating_point,
        "facts": material.facts,
        "warnings": material.warnings,
        "refused": material.refused,
        "task": material.task.describe(),
    }
    inputs = {
        "scores.csv": files.hash_file(folder / "scores.csv"),
        "truth.csv": files.hash_file(folder / "truth.csv"),
    }
    inputs |= {f"compared {name}": files.hash_file(path) for name, path in others.items()}
    inputs |= {"template": files.hash_file(page.TEMPLATE), "parts": template.hash_parts()}
    if validation is not None:
        inputs["validation"] = files.hash_text(
            json.dumps([validation.scores.tolist(), validation.targets.tolist()])
        )
    if manifest.find_change(folder, parameters, inputs) is not None:
        evaluation = make_evaluation(options, folder, material, validation, own_points, others)
        written = page.write(folder, material.task, evaluation)
        outputs = {name: files.hash_file(folder / name) for name in written}
        manifest.write_manifest(folder, "submissions.evaluate", parameters, inputs, outputs)
    return (folder / "summary.txt").read_text(encoding="utf-8").rstrip("\n")


def make_evaluation(
    options: argparse.Namespace,
    folder: Path,
    material: Material,
    validation: Validation | None,
    points: Points,
    others: Mapping[str, Path],
) -> page.Evaluation:
    """Return all figures of an evaluation. Scores are those of scores.csv, as every other command reads them."""
    task = material.task
    scores = read_scores(folder / "scores.csv", task).loc[material.sample.images]
    sample = material.sample._replace(scores=scores.to_numpy())
    decisions = figures.list_decisions(task, sample.scores)
    own = figures.measure(task, sample, points, decisions)
    of_validation = None
    if validation is not None:
        of_validation = figures.measure_validation(task, validation, options.operating_point)
    columns = {
        column: subgroups.group_rows(column, material.cells[column]) for column in options.by
    }
    of_groups = subgroups.measure_subgroups(task, sample, points, columns) if columns else None
    beside: list[list[Any]] = []
    if others:
        tables_of = {}
        for name, path in others.items():
            other = read_scores(path, task)
            tables.check_same_images(
                sample.images, other.index.intersection(sample.images), folder, path
            )
            tables_of[name] = other.loc[sample.images].to_numpy()
        beside = figures.compare(task, sample, tables_of)
    missing = describe_missing(own)
    return page.Evaluation(
        name=folder.name,
        facts=material.facts,
        warnings=[*own.verdicts, *material.warnings, *missing],
        own=own,
        validation=of_validation,
        subgroups=of_groups,
        beside=beside,
        refused=material.refused,
        decisions=decisions,
    )


def find_points(threshold: float | None, task: Task, validation: Validation | None) -> Points:
    """Return the operating point that is given, or those that the validation patients give; none without either."""
    if threshold is not None:
        return figures.give_points(task, threshold)
    return figures.choose_points(task, validation) if validation is not None else {}


def describe_points(points: Mapping[str, Sequence[Thresholds]]) -> dict[str, list[list[Any]]]:
    """Return operating points as plain numbers; one that could not be chosen has none."""
    described: dict[str, list[list[Any]]] = {}
    for condition, thresholds in points.items():
        described[condition] = []
        for point, _ in thresholds:
            threshold = point.threshold if np.isfinite(point.threshold) else None
            described[condition].append([point.name, threshold, point.positives])
    return described


def describe_missing(own: figures.Figures) -> list[str]:
    """Return a line on the conditions that no image has, or all have: what cannot be measured of them."""
    without = []
    everywhere = []
    for name, (measured, _) in own.conditions.items():
        if measured.positives == 0:
            without.append(name)
        elif measured.positives == measured.images:
            everywhere.append(name)
    lines = []
    for names, who in ((without, "no image has"), (everywhere, "every image has")):
        if names:
            lines.append(f"{who} {', '.join(names)}: AUC, slope and some rates cannot be measured")
    return lines


def find_others(options: argparse.Namespace) -> dict[str, Path]:
    """Return the scores of other evaluations, by what they are called: names in this cache, or paths of their folders.

    Raises InputError for one that is not there.
    """
    others = {}
    for name in options.compare:
        for folder in (options.cache / "evaluations" / name, Path(name)):
            if (folder / "scores.csv").is_file():
                others[name] = folder / "scores.csv"
                break
        else:
            raise InputError(
                f"--compare {name}: no evaluation of this name in {options.cache}, and no folder of one"
            )
    return others


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser(
        "submissions.evaluate", __doc__, "--data idrid --cache cache --by camera quality"
    )
    settings.add_device_option(parser)
    parser.add_argument(
        "--run", type=settings.parse_run, help="name of one of several nets in the cache"
    )
    parser.add_argument("--part", choices=PARTS, help="which photographs of the data set, as far as their truth is "
                        "known (default: its test set, if there is one, else all)")  # fmt: skip
    parser.add_argument("--by", nargs="+", default=[], metavar="COLUMN", help="columns of the sample table whose "
                        "values are subgroups; of numbers the quartiles")  # fmt: skip
    parser.add_argument(
        "--name",
        type=target.parse_name,
        help="folder in CACHE/evaluations (default: the data's name)",
    )
    parser.add_argument("--operating-point", type=cli.number(0, 1), metavar="X", help="probability from which on a "
                        "condition counts as present, instead of points chosen on validation patients")  # fmt: skip
    parser.add_argument(
        "--drop-known", action="store_true", help="leave out images of the run's training set"
    )
    parser.add_argument("--compare", nargs="+", default=[], metavar="EVALUATION", help="other evaluations of the same "
                        "images beside this one, with paired differences: names in CACHE/evaluations, or "
                        "folders")  # fmt: skip
    parser.add_argument("--scores", type=Path, metavar="TABLE.csv", help="scores of any net, in place of a run and "
                        "photographs; with --labels")  # fmt: skip
    parser.add_argument("--labels", type=Path, metavar="TABLE.csv", help="what is true of them: image, level or class "
                        "or a column per finding, and perhaps patient and columns for --by")  # fmt: skip
    parallel.add_options(parser)
    options = recipe.parse(parser, argv, check=check_options)
    evaluate(options)


def check_options(options: argparse.Namespace) -> None:
    """Raise InputError for options that contradict each other."""
    if (options.scores is None) != (options.labels is None):
        raise InputError("--scores and --labels come together")
    if options.scores is not None and (options.run or options.part or options.drop_known):
        raise InputError("--run, --part and --drop-known are for photographs, not for --scores")


if __name__ == "__main__":
    process.run(main)
