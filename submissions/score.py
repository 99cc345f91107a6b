"""Tell what each step is worth: the cache's score tables and levels against the true levels -> a table on the screen.

The quadratic weighted kappa after each step: on the test set if DATA/testLabels.csv (image, level) or --labels tells
its levels, else on the validation fold, where the blend is cross-fitted. Of classes: accuracy, log loss, macro F1, and
each class by itself; of findings the AUC and average precision of each, and their means.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr.metrics.agreement import quadratic_weighted_kappa
from dr.metrics.bootstrap import Estimate
from preprocess.command import cli, pipeline, process, recipe
from preprocess.dataset.dataset import TARGETS, Task
from preprocess.disk.errors import InputError
from submissions.report import evidence
from submissions.report.evidence import Group


def show(cell: object) -> str:
    """Return a count or a figure, with its interval."""
    if not isinstance(cell, Estimate):
        return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return f"{cell.value:.4f} ({cell.low:.3f} to {cell.high:.3f})" if np.isfinite(cell.value) else "not measurable"


def describe_each(group: Group, task: Task) -> str:
    """Return what each step is worth, and how well the last tells each class or finding."""
    import pandas as pd

    figures, steps = evidence.FIGURES[task.kind], {}
    for step, scores in group.scores.items():
        overall, each = figures.measure(group.patients, scores, group.levels)
        steps[evidence.name_step(step, task)] = [*map(show, overall)]
    rows = {name: [*map(show, of)] for name, of in zip(task.names, each, strict=True)}
    of_all = pd.DataFrame.from_dict(steps, "index", columns=figures.overall)
    of_each = pd.DataFrame.from_dict(rows, "index", columns=figures.each).rename_axis("of the last", axis=1)
    images = f"{len(group.images)} images of {len(set(group.patients))} patients"
    title = f"{task.kind} on the {group.title} ({images}), with 95 % intervals"
    return "\n".join([title, of_all.to_string(), of_each.to_string(), figures.note])


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser("submissions.score", __doc__, "--data data --cache cache")
    parser.add_argument("--labels", type=Path, help="what is true of the test set (default: "
                        "DATA/testLabels.csv; of classes the folders in DATA/test, of findings the table)")  # fmt: skip
    options = recipe.parse(parser, argv, "submissions.score")
    source = evidence.find_source(options.data, options.cache, options.labels)
    groups, task = evidence.read_groups(source), source.layout.task
    if not groups:
        known = f"no scores of images whose {TARGETS[task.kind]} is known"
        raise InputError(f"{options.cache}: {known}; run python -m dr.predict first")
    group = groups[0]
    if task.kind != "levels":
        print(describe_each(group, task), pipeline.NOTICE, sep="\n")
        return
    print(f"quadratic weighted kappa on the {group.title} ({len(group.images)} images)")
    for step, given in group.given.items():
        print(f"  {step:<46} {quadratic_weighted_kappa(group.levels, given, len(task.names)):7.4f}")
    print(pipeline.NOTICE)


if __name__ == "__main__":
    process.run(main)
