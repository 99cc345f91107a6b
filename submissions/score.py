"""Tell what each step is worth: the cache's score tables and levels against the true levels -> a table on the screen.

The quadratic weighted kappa after each step: on the test set if DATA/testLabels.csv (image, level) or --labels tells
its levels, else on the validation fold, where the blend is cross-fitted. Of classes: accuracy, log loss, macro F1, and
each class by itself; of findings the AUC and average precision of each, and their means.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr.metrics.agreement import quadratic_weighted_kappa
from dr.metrics.bootstrap import Estimate
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from preprocess.cache import manifest
from preprocess.command import cli, pipeline, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import tables
from preprocess.disk.errors import InputError
from submissions.report import evidence
from submissions.report.evidence import Group, Source


def show(cell: object) -> str:
    """Return a count or a figure, with its interval."""
    if not isinstance(cell, Estimate):
        return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return f"{cell.value:.4f} ({cell.low:.3f} to {cell.high:.3f})" if np.isfinite(cell.value) else "not measurable"


def describe_each(group: Group, task: Task) -> str:
    """Return what each step is worth, and how well the last tells each class or finding."""
    import pandas as pd

    overall = {}
    each = {}
    for step, scores in group.scores.items():
        measured = task.measure_all(group.patients, scores, group.targets)
        overall[task.name_step(step)] = [show(figure) for figure in measured.overall]
        for name, figures in zip(task.names, measured.each, strict=True):  # in the end the last step's
            each[name] = [show(figure) for figure in figures]
    overall_table = pd.DataFrame.from_dict(overall, "index", columns=list(task.overall_names))
    each_table = pd.DataFrame.from_dict(each, "index", columns=list(task.each_names))
    each_table = each_table.rename_axis("of the last", axis=1)
    images = f"{len(group.images)} images of {len(set(group.patients))} patients"
    title = f"{task.kind} on the {group.title} ({images}), with 95 % intervals"
    return "\n".join([title, overall_table.to_string(), each_table.to_string(), task.intervals_note])


def describe_levels(group: Group, task: Task) -> str:
    """Return the quadratic weighted kappa after each step."""
    lines = [f"quadratic weighted kappa on the {group.title} ({len(group.images)} images)"]
    for step, decisions in group.decisions.items():
        kappa = quadratic_weighted_kappa(group.targets, decisions, len(task.names))
        lines.append(f"  {step:<46} {kappa:7.4f}")
    return "\n".join(lines)


def check_data(options: Namespace, dataset: DataSet) -> None:
    """Raise InputError for labels of the test set that cannot be used, or are of none of its photographs."""
    task = make_task(dataset.question)
    targets = evidence.read_test_targets(Source(dataset, task, options.cache, options.labels))
    photographs = dataset.list_paths("test")
    if targets is not None and len(targets) and photographs and not set(targets.index) & photographs.keys():
        source = options.labels or dataset.target_sources["test"]
        image = tables.sort_images(targets.index)[0]
        raise InputError(f"{source}: names none of the test photographs of {dataset.folder}, but {image}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser("submissions.score", __doc__, "--data data --cache cache")
    parser.add_argument("--labels", type=Path, help="what is true of the test set (default: "
                        "DATA/testLabels.csv; of classes the folders in DATA/test, of findings the table)")  # fmt: skip
    options = recipe.parse(parser, argv, "submissions.score")
    dataset = readers.open_dataset(options)
    task = make_task(dataset.question)
    groups = evidence.read_groups(Source(dataset, task, options.cache, options.labels))
    if not groups:
        known = f"no scores of images whose {task.target} is known"
        missing = manifest.find_missing_stage(options.cache, "dr.predict")
        raise InputError(f"{options.cache}: {known}; run python -m {missing} first")
    describe = describe_levels if task.has_eyes else describe_each
    print(describe(groups[0], task))
    print(pipeline.NOTICE)


if __name__ == "__main__":
    process.run(main)
