"""Write submissions/NAME.csv, ready for Kaggle: CACHE/kappa/levels_test.csv, checked -> image,level.

It has a level for exactly the images of DATA/sampleSubmission.csv, in its order, or else of the
test set; image,class for classes; image and a probability per finding for findings. Anything else
is an error. Prints how frequent the levels are, beside the training labels, and the kappa that the
scores promise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dr.scores import NUMBER_FORMAT, read_scores
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from kappa.proxy import expected_kappa
from preprocess.cache import manifest, rejected
from preprocess.command import cli, pipeline, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, shorten
from submissions.output import target

if TYPE_CHECKING:
    import pandas as pd


class Expected(NamedTuple):
    """The images that a submission must have, in its order and as they are written there, and the file that says so."""

    images: list[str]
    source: Path
    columns: tuple[
        str, ...
    ] = ()  # of the sample: what it calls the image, and then the targets; () without one


def list_expected(dataset: DataSet) -> Expected:
    """Return what a submission must have: the images of the sample of a submission, where there is one, else of the
    test set. Raises InputError if there is neither.
    """
    sample = dataset.sample_submission
    if sample.exists():
        columns = tuple(tables.read_csv(sample)[0])
        image_column = "image"
        is_named = len(columns) > 1 and columns.count(columns[0]) == 1
        if (
            "image" not in columns and is_named
        ):  # APTOS's id_code; what has no second column is no submission
            image_column = columns[0]
        # Raises for what are no ids.
        tables.read_table(sample, [image_column], dataset.normalize_id, image_column=image_column)
        position = columns.index(image_column)
        images = [row[position] for row in tables.read_csv(sample)[1:]]
        return Expected(
            images,
            sample,
            (image_column, *(column for column in columns if column != image_column)),
        )
    images = list(dataset.list_paths("test"))
    if not images:
        raise InputError(
            f"{dataset.folder}: neither {sample.name} nor test images: no image to submit"
        )
    return Expected(images, dataset.folder / "test")


def check_data(options: argparse.Namespace, dataset: DataSet) -> None:
    """Raise InputError for a sample of a submission and test photographs that are not of the same images.

    Where no photograph lies, but the cache holds test squares, these are what is submitted.
    """
    sample = dataset.sample_submission
    if (
        not sample.exists()
        or options.levels
        or manifest.has_output(options.cache / "resize", "test")
    ):
        return
    photographs = dataset.list_paths("test")
    expected = list_expected(dataset).images
    if not photographs and expected:
        raise InputError(
            f"{sample}: names {len(expected):,} test images, such as {expected[0]}, but {dataset.folder / 'test'} "
            "holds no photograph; add them, or remove this table to go on without a test set"
        )
    images = [dataset.normalize_id(image) for image in expected]
    tables.check_same_images(
        images, photographs, sample, f"the test photographs of {dataset.folder}"
    )


def write_submission(table: pd.DataFrame, made_from: Path, dataset: DataSet, out: Path) -> None:
    """Write a table of targets, by image, for exactly the expected images. Raises InputError for missing and others."""
    expected = list_expected(dataset)
    images = []  # the sample may write them otherwise
    for text in expected.images:
        image = dataset.normalize_id(text)
        images.append(f"test/{image}" if f"test/{image}" in table.index else image)
    tables.check_same_images(images, table.index, expected.source, made_from)
    rows = table.loc[images].set_axis(expected.images)
    image_column = "image"
    if expected.columns:
        image_column, *columns = expected.columns
        rows = name_columns(rows, columns, expected.source)
    tables.write_csv(
        out, rows.to_csv(index_label=image_column, float_format=NUMBER_FORMAT, lineterminator="\n")
    )


def name_columns(rows: pd.DataFrame, columns: Sequence[str], sample: Path) -> pd.DataFrame:
    """Return targets under the columns of the sample of a submission, and in their order.

    A level or class goes under its own column, or else under whatever the first is called. Raises InputError for
    columns that are no findings.
    """
    if len(rows.columns) == 1 and columns:
        name = rows.columns[0] if rows.columns[0] in columns else columns[0]
        return rows.set_axis([name], axis=1)
    if not columns or list(columns) == list(rows.columns):
        return rows
    unknown = [column for column in columns if column not in rows]
    if unknown or len(columns) < len(rows.columns):
        named = ", ".join(rows.columns)
        raise InputError(
            f"{sample}: columns {shorten(', '.join(columns))}; the scores are of {shorten(named)}"
        )
    return rows[list(columns)]


def find_source(options: argparse.Namespace, dataset: DataSet, task: Task) -> Path | None:
    """Return the table to make a submission of: levels if some are chosen, else scores; None without test images."""
    if options.levels:
        if task.has_thresholds:
            raise InputError("--levels: of findings the submission holds the probabilities")
        return options.levels
    if task.has_eyes:
        levels = options.cache / "kappa" / "levels_test.csv"
        is_expected = dataset.sample_submission.exists() or dataset.list_paths("test")
        has_blended = manifest.has_output(options.cache / "blend", "scores_valid.csv")
        return levels if levels.exists() or is_expected or not has_blended else None
    scores = options.cache / "dr" / "scores_test.csv"
    return scores if scores.exists() or dataset.list_paths("test") else None


def make_table(path: Path, is_chosen: bool, dataset: DataSet, task: Task) -> pd.DataFrame:
    """Return the targets to submit, by image, of a table of chosen levels or classes, or of scores.

    Scores become the likeliest class each, or stay what they are: the probabilities of findings.
    """
    import pandas as pd

    if is_chosen:
        outputs = dataset.read_labels(path)
    else:
        scores = read_scores(path, task)
        if task.has_thresholds:
            return scores
        outputs = pd.Series(task.decide(scores.to_numpy()), scores.index)
    if not task.has_eyes:
        outputs = outputs.map(dict(enumerate(task.names)))
    return outputs.to_frame(task.target)


def describe_findings(scores: pd.DataFrame, known: pd.DataFrame | None) -> pd.DataFrame:
    """Return a table of the mean probability of each finding, beside its share in training, if that is known."""
    table = scores.mean().to_frame("mean probability")
    if known is not None:
        table["share in training"] = known.mean()
    return table.map("{:.3f}".format)


def describe_outputs(outputs: np.ndarray, known: np.ndarray | None, task: Task) -> pd.DataFrame:
    """Return a table of how many images have each level or class, beside the training labels, if they are known."""
    import pandas as pd

    columns = range(len(task.names)) if task.has_eyes else task.names
    counts = np.bincount(outputs, minlength=len(task.names))
    rows = {"images": [f"{count:,d}" for count in counts]}
    for title, targets in (("% of them", outputs), ("% of training labels", known)):
        if targets is not None:
            rows[title] = [f"{100 * share:.1f}" for share in task.find_prior(targets)]
    table = pd.DataFrame.from_dict(rows, "index", columns=list(columns))
    return table.rename_axis(task.target, axis=1)


def describe_promise(cache: Path, dataset: DataSet, task: Task) -> str:
    """Return the kappa that the blended scores promise the levels in the cache, or why it is unknown."""
    scores_path = cache / "blend" / "scores_test.csv"
    levels_path = cache / "kappa" / "levels_test.csv"
    written = manifest.read_manifest(cache / "kappa")
    if written is None or not scores_path.exists():
        return "expected QWK: not known without the blended scores"
    if written["inputs"].get("scores_test") != files.hash_file(scores_path):
        return "expected QWK: not known, the scores are newer than the levels; run python -m kappa.assign"
    scores = read_scores(scores_path, task)
    levels = dataset.read_labels(levels_path)
    tables.check_same_images(scores.index, levels.index, scores_path, levels_path)
    promised = expected_kappa(scores.to_numpy(), levels[scores.index].to_numpy())
    return (
        f"expected QWK {promised:.4f}: what the blended scores promise, if they mean what they say"
    )


def describe_submission(
    table: pd.DataFrame, options: argparse.Namespace, dataset: DataSet, task: Task
) -> list[str]:
    """Return lines on how frequent the targets are, how many were guessed, and what they promise."""
    known = None
    if dataset.has_targets("train"):
        known = dataset.get_targets("train", known_only=task.is_exclusive)
    if task.has_thresholds:
        lines = describe_findings(table, known).to_string().splitlines()
    else:
        outputs = table[task.target]
        if not task.has_eyes:
            outputs = outputs.map({name: number for number, name in enumerate(task.names)})
        known_outputs = None if known is None else known.to_numpy()
        lines = describe_outputs(outputs.to_numpy(), known_outputs, task).to_string().splitlines()
    if options.levels:
        return [*lines, "expected QWK: not known, the levels were not made in the cache"]
    unusable = rejected.read_reasons(options.cache, "test").keys() & set(table.index)
    if unusable:
        others = "the fellow's" if task.has_eyes else "the rest of the group's"
        lines.append(
            f"{len(unusable)} of them rejected photographs, graded by {others} scores or the training prior"
        )
    if task.has_eyes:
        lines.append(describe_promise(options.cache, dataset, task))
    elif not task.has_thresholds:
        lines.append("each the likeliest class")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser("submissions.write", __doc__, "--data data --cache cache --name first")
    target.add_options(parser, ".csv")
    parser.add_argument(
        "--levels", type=Path, help="read the levels from this CSV instead of the cache"
    )
    options = recipe.parse(
        parser, argv, "submissions.write", check=lambda options: target.find(options, ".csv")
    )
    dataset = readers.open_dataset(options)
    task = make_task(dataset.question)
    out = target.find(options, ".csv")
    source = find_source(options, dataset, task)
    if source is None:
        print(f"submissions.write: no test images in {options.data}: nothing to submit")
        return
    files.check_out(out, source, dataset.sample_submission, *dataset.target_sources.values())
    target.claim(options, out)
    is_chosen = task.has_eyes or options.levels is not None
    table = make_table(source, is_chosen, dataset, task)
    write_submission(table, source, dataset, out)
    stream = files.summary_stream(options.out)
    print(f"submissions.write: {len(table)} images -> {out}", file=stream)
    for line in (*describe_submission(table, options, dataset, task), pipeline.NOTICE):
        print(f"  {line}", file=stream)


if __name__ == "__main__":
    process.run(main)
