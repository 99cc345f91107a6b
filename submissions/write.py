"""Write submissions/NAME.csv, ready for Kaggle: CACHE/kappa/levels_test.csv, checked -> image,level.

A level 0-4 for exactly the images of DATA/sampleSubmission.csv, in its order, or else of the test set; for folders of
classes image,class; for findings image and the probability of each. Anything else is an error. Tells how frequent the
levels are beside the training labels, and the kappa that the scores promise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr.scores import NUMBER_FORMAT, read_scores
from dr.tasks.task import decide_alone, find_prior
from kappa.proxy import expected_kappa
from preprocess.cache import manifest, rejected
from preprocess.command import cli, pipeline, process, recipe
from preprocess.dataset import find
from preprocess.dataset.dataset import TARGETS, Layout
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError
from submissions.output import target

if TYPE_CHECKING:
    import pandas as pd


def list_expected(data: Path, layout: Layout) -> tuple[list[str], Path]:
    """Return the images that a submission must have, in its order, and the file or folder that says so.

    That is the sample of a submission, where there is one, else the test folder, of findings the test list.
    """
    sample = data / layout.sample
    if sample.exists():
        return list(tables.read_table(sample, ["image"])["image"]), sample
    paths = layout.list_images(data, "test").paths
    if not paths:
        raise InputError(f"{data}: neither {layout.sample} nor test images: no image to submit")
    return list(paths), data / (layout.labels["test"] if layout.task.kind == "findings" else "test")


def read_given(path: Path, are_scores: bool, layout: Layout) -> Any:
    """Return the target given to each image, indexed by image: of a table of targets, or the likeliest of scores; of
    findings the scores, a column each.
    """
    import pandas as pd

    if not are_scores:
        return layout.read_labels(path)
    scores = read_scores(path, layout.task)
    is_one = layout.task.kind != "findings"
    return pd.Series(decide_alone(layout.task, scores.to_numpy()), scores.index) if is_one else scores


def write_submission(given: pd.DataFrame, made_from: Path, data: Path, layout: Layout, out: Path) -> None:
    """Write what is given to exactly the expected images, a row each. Raises InputError for missing and others."""
    expected, source = list_expected(data, layout)
    images = [layout.spell(image) for image in expected]  # the sample may write them otherwise
    tables.check_same_images(images, given.index, source, made_from)
    rows = given.loc[images].set_axis(expected)
    tables.write_csv(out, rows.to_csv(index_label="image", float_format=NUMBER_FORMAT, lineterminator="\n"))


def describe_findings(scores: pd.DataFrame, known: pd.DataFrame | None, _: Layout) -> pd.DataFrame:
    """Return a table of the mean probability of each finding, beside its share in training, if that is known."""
    shares = {} if known is None else {"share in training": known.mean()}
    return scores.mean().to_frame("mean probability").assign(**shares).map("{:.3f}".format)


def describe_targets(targets: pd.Series, known: pd.Series | None, layout: Layout) -> pd.DataFrame:
    """Return a table of how many images have each level or class, beside the training labels, if they are known."""
    kind, names = layout.task
    rows = targets.value_counts().reindex(range(len(names)), fill_value=0).map("{:,d}".format).to_frame("images")
    for name, of in {"% of them": targets, "% of training labels": known}.items():
        if of is not None:
            rows[name] = [f"{100 * share:.1f}" for share in find_prior(layout.task, of.to_numpy())]
    return rows.set_axis(range(len(names)) if kind == "levels" else names).T.rename_axis(TARGETS[kind], axis=1)


def describe_promise(cache: Path, layout: Layout) -> str:
    """Return the kappa that the blended scores promise the levels in the cache, or why nobody knows."""
    scores_path, levels_path = cache / "blend" / "scores_test.csv", cache / "kappa" / "levels_test.csv"
    written = manifest.read_manifest(cache / "kappa")
    if written is None or not scores_path.exists():
        return "expected QWK: not known without the blended scores"
    if written["inputs"].get("scores_test") != files.hash_file(scores_path):
        return "expected QWK: not known, the scores are newer than the levels; run python -m kappa.assign"
    scores, levels = read_scores(scores_path, layout.task), layout.read_labels(levels_path)
    tables.check_same_images(scores.index, levels.index, scores_path, levels_path)
    promised = expected_kappa(scores.to_numpy(), levels[scores.index].to_numpy())
    return f"expected QWK {promised:.4f}: what the blended scores promise, if they mean what they say"


def find_given(options: argparse.Namespace, layout: Layout) -> Path | None:
    """Return the table to make a submission of: levels if some are chosen, else scores; None without test images."""
    if options.levels:
        if layout.task.kind == "findings":
            raise InputError("--levels: of findings the submission holds the probabilities")
        return options.levels
    if layout.task.kind == "levels":
        return options.cache / "kappa" / "levels_test.csv"
    scores = options.cache / "dr" / "scores_test.csv"
    has_test = scores.exists() or layout.list_images(options.data, "test").paths
    return scores if has_test else None


def describe_submission(given: Any, options: argparse.Namespace, layout: Layout) -> list[str]:
    """Return lines on how frequent the targets are, how many were guessed, and what they promise."""
    kind = layout.task.kind
    training = options.data / layout.labels["train"]
    known = layout.read_labels(training) if training.exists() else None
    describe = describe_findings if kind == "findings" else describe_targets
    lines = describe(given, known, layout).to_string().splitlines()
    if options.levels:
        return [*lines, "expected QWK: not known, the levels were not made in the cache"]
    unusable = rejected.read_reasons(options.cache, "test").keys() & set(given.index)
    if unusable:
        others = "the fellow's" if kind == "levels" else "the rest of the group's"
        lines.append(f"{len(unusable)} of them rejected photographs, graded by {others} scores or the training prior")
    if kind == "levels":
        lines.append(describe_promise(options.cache, layout))
    if kind == "classes":
        lines.append("each the likeliest class")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_parser("submissions.write", __doc__, "--data data --cache cache --name first")
    target.add_options(parser, ".csv")
    parser.add_argument("--levels", type=Path, help="read the levels from this CSV instead of the cache")
    options = recipe.parse(parser, argv, "submissions.write", check=lambda options: target.find(options, ".csv"))
    layout, out = find.find_layout(options.data), target.find(options, ".csv")
    source = find_given(options, layout)
    if source is None:
        print(f"submissions.write: no test images in {options.data}: nothing to submit")
        return
    files.check_out(out, source, *(options.data / name for name in (layout.sample, *layout.labels.values())))
    target.claim(options, out)
    kind, names = layout.task
    given = read_given(source, kind != "levels" and not options.levels, layout)
    if kind == "findings":
        table = given
    else:
        table = (given.map(dict(enumerate(names))) if kind == "classes" else given).to_frame(TARGETS[kind])
    write_submission(table, source, options.data, layout, out)
    stream = files.summary_stream(options.out)
    print(f"submissions.write: {len(given)} images -> {out}", file=stream)
    for line in (*describe_submission(given, options, layout), pipeline.NOTICE):
        print(f"  {line}", file=stream)


if __name__ == "__main__":
    process.run(main)
