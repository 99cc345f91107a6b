"""Print the gain of each step: the cache's score tables and levels against the true levels.

Shows the quadratic weighted kappa, accuracy or mean AUC after each step, and all figures of the
last step: of each level, class or finding, of conditions such as referable disease, and of the
operating points chosen on the validation fold. They are of the test set if DATA/testLabels.csv
(image, level) or --labels has its levels, otherwise of the validation fold, where the blend is
cross-fitted and each operating point is chosen on other patients.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from preprocess.cache import manifest
from preprocess.command import cli, pipeline, process, recipe
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk.errors import InputError
from preprocess.disk.tables import sort_images
from submissions.evaluation import tables
from submissions.report import evidence, figures
from submissions.report.evidence import Group, Source


def describe_steps(group: Group, task: Task) -> list[str]:
    """Return what each step is worth by the task's headline figure, with intervals."""
    images = f"{len(group.images)} images of {len(set(group.patients))} patients"
    lines = [f"{task.headline_title} on the {group.title} ({images}), with 95 % intervals"]
    for step, gain in task.measure_steps(
        group.patients, group.targets, group.scores, group.decisions
    ).items():
        lines.append(f"  {step:<46} {tables.show(gain.figure)}")
    return lines


def describe_figures(groups: Sequence[Group], task: Task) -> list[str]:
    """Return all figures of the last step; first of all, if so, that it is no better than a guess."""
    measured = figures.measure_group(task, groups[0], groups)
    lines = [f"warning: {verdict}" for verdict in measured.verdicts]
    lines += describe_steps(groups[0], task)
    for table in tables.list_tables(task, measured):
        lines += ["", tables.describe_table(table)]
    lines += ["", tables.NOTE, task.intervals_note, *tables.note_unsure(measured)]
    if not any(points for _, points in measured.conditions.values()):
        lines.append(figures.WITHOUT_POINTS)
    return lines


def check_data(options: Namespace, dataset: DataSet) -> None:
    """Raise InputError for labels of the test set that cannot be used, or are of none of its photographs."""
    task = make_task(dataset.question)
    targets = evidence.read_test_targets(Source(dataset, task, options.cache, options.labels))
    photographs = dataset.list_paths("test")
    if (
        targets is not None
        and len(targets)
        and photographs
        and not set(targets.index) & photographs.keys()
    ):
        source = options.labels or dataset.target_sources["test"]
        image = sort_images(targets.index)[0]
        raise InputError(
            f"{source}: names none of the test photographs of {dataset.folder}, but {image}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser("submissions.score", __doc__, "--data data --cache cache")
    parser.add_argument("--labels", type=Path, help="true targets of the test set (default: DATA/testLabels.csv;"
                        " for classes the folders in DATA/test, for findings the table)")  # fmt: skip
    options = recipe.parse(parser, argv, "submissions.score")
    dataset = readers.open_dataset(options)
    task = make_task(dataset.question)
    groups = evidence.read_groups(Source(dataset, task, options.cache, options.labels))
    if not groups:
        known = f"no scores of images whose {task.target} is known"
        missing = manifest.find_missing_stage(options.cache, "dr.predict")
        raise InputError(f"{options.cache}: {known}; run python -m {missing} first")
    print("\n".join(describe_figures(groups, task)))
    print(pipeline.NOTICE)


if __name__ == "__main__":
    process.run(main)
