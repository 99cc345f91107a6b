"""Tell what each step is worth: the cache's score tables and levels against the true levels -> a table on the screen.

python -m submissions.score --data DIR --cache DIR [--labels FILE]

Where DATA tells what is true of the test set, that is scored; else, as with Kaggle's own files, the validation fold,
where the blend is cross-fitted.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dr.measures import Estimate, measure_classes, measure_findings, quadratic_weighted_kappa
from preprocess.cache import stage
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples.layout import TARGETS, Task
from submissions.report import evidence
from submissions.report.evidence import Group

RATES = ("precision", "recall", "F1", "one-vs-rest AUC")


def show(of: Estimate) -> str:
    """Return a figure with its interval."""
    return f"{of.value:7.4f} ({of.low:.3f} to {of.high:.3f})" if np.isfinite(of.value) else "not measurable"


def describe_classes(group: Group, task: Task) -> list[str]:
    """Return what each step is worth, and how well the last tells each class, as lines."""
    n_groups, width = len(set(group.patients)), max(11, *map(len, task.names))
    lines = [f"classes on the {group.title} ({len(group.images)} images of {n_groups} patients), with 95 % intervals"]
    lines.append(f"  {'':46}{'accuracy':>26}{'log loss':>26}{'macro F1':>26}")
    for step, scores in group.scores.items():
        measured = measure_classes(group.patients, scores, group.levels)
        shown = map(show, (measured.accuracy, measured.log_loss, measured.macro_f1))
        lines.append(f"  {step:<46}" + "".join(f"{text:>26}" for text in shown))
    lines.append(f"  {'of the last':{width}}{'images':>8}" + "".join(f"{name:>26}" for name in RATES))
    for name, of in zip(task.names, measured.each, strict=True):
        shown = map(show, (of.precision, of.recall, of.f1, of.auc))
        lines.append(f"  {name:{width}}{of.n_images:>8}" + "".join(f"{text:>26}" for text in shown))
    return [*lines, "  accuracy, precision, recall: Wilson's intervals, of images; the others: bootstrap over patients"]


def describe_findings(group: Group, task: Task) -> list[str]:
    """Return what each step is worth, and how well the last tells each finding, as lines."""
    n_groups, width = len(set(group.patients)), max(map(len, task.names))
    lines = [f"findings on the {group.title} ({len(group.images)} images of {n_groups} patients), with 95 % intervals"]
    lines.append(f"  {'':46}" + "".join(f"{name:>26}" for name in ("mean AUC", "mean average precision", "log loss")))
    for step, scores in group.scores.items():
        measured = measure_findings(group.patients, scores, group.levels)
        shown = map(show, (measured.auc, measured.average_precision, measured.log_loss))
        lines.append(f"  {step.replace('argmax', 'scores'):<46}" + "".join(f"{text:>26}" for text in shown))
    lines.append(
        f"  {'of the last':{width}}{'have it':>9}{'known':>9}{'AUC':>26}{'average precision':>26}{'off by':>9}"
    )
    for name, of in zip(task.names, measured.each, strict=True):
        counts = f"{of.n_images:>9}{of.n_known:>9}"
        lines.append(f"  {name:{width}}{counts}{show(of.auc):>26}{show(of.average_precision):>26}"
                     f"{of.calibration_error:9.3f}")  # fmt: skip
    told = "intervals: bootstrap over patients; off by: how far probabilities lie from how often they come true"
    return [*lines, f"  {told}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage.make_parser(
        "submissions.score",
        "Print the quadratic weighted kappa after each step: on the test set if DATA/testLabels.csv (image, level) or "
        "--labels tells its levels, else on the validation fold. Of classes: accuracy, log loss, macro F1, and each "
        "class by itself; of findings the AUC and average precision of each, and their means.",
        "--data data --cache cache",
    )
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
        describe = describe_classes if task.kind == "classes" else describe_findings
        print(*describe(group, task), stage.NOTICE, sep="\n")
        return
    print(f"quadratic weighted kappa on the {group.title} ({len(group.images)} images)")
    for step, given in group.given.items():
        print(f"  {step:<46} {quadratic_weighted_kappa(group.levels, given, group.n_levels):7.4f}")
    print(stage.NOTICE)


if __name__ == "__main__":
    stage.run(main)
