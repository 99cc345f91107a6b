"""Write the submission: CACHE/kappa/levels_test.csv, checked against the test set -> submissions/NAME.csv; tell of it.

python -m submissions.write --data DIR --cache DIR [--name NAME | --out FILE] [--levels FILE]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dr.measures import share_levels
from dr.scores import NUMBER_FORMAT, read_scores
from dr.task import decide_alone
from kappa.proxy import expected_kappa
from preprocess.cache import files, manifest, rejected, stage, tables
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples import readers
from preprocess.samples.layout import TARGETS, Layout
from submissions import target

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


def read_given(path: Path, is_scores: bool, layout: Layout) -> pd.Series:
    """Return the target given to each image, its number, indexed by image: of a table of them, or the likeliest."""
    import pandas as pd

    if not is_scores:
        return layout.read_labels(path)
    scores = read_scores(path, layout.task)
    return pd.Series(decide_alone(layout.task, scores.to_numpy()), scores.index)


def write_submission(levels: pd.Series, made_from: Path, data: Path, layout: Layout, out: Path) -> pd.Series:
    """Write the levels, or classes, of exactly the expected images and return them, indexed by image.

    Raises InputError for missing and unknown images.
    """
    expected, source = list_expected(data, layout)
    images = {image: layout.spell(image) for image in expected}  # written as the sample writes them
    tables.check_same_images(images.values(), levels.index, source, made_from)
    column, names = TARGETS[layout.task.kind], layout.task.names if layout.task.kind == "classes" else None
    rows = {image: {column: names[levels[own]] if names else levels[own]} for image, own in images.items()}
    tables.write_table(out, ("image", column), rows)
    return levels[list(images.values())]


def write_findings(scores_path: Path, data: Path, layout: Layout, out: Path) -> list[str]:
    """Write the probability of each finding for exactly the expected images; return a table of them for people.

    Raises InputError for missing and unknown images.
    """
    expected, source = list_expected(data, layout)
    images = {image: layout.spell(image) for image in expected}
    scores = read_scores(scores_path, layout.task)
    tables.check_same_images(images.values(), scores.index, source, scores_path)
    names, path = list(layout.task.names), data / layout.labels["train"]
    rows = {image: {name: NUMBER_FORMAT % scores.at[own, name] for name in names} for image, own in images.items()}
    tables.write_table(out, ("image", *names), rows)
    shares = layout.read_labels(path).mean() if path.exists() else None
    lines = [f"  {'finding':<22}{'mean probability':>18}" + f"{'share in training':>20}" * (shares is not None)]
    for name, mean in scores.mean().items():
        lines.append(f"  {name:<22}{mean:18.3f}" + (f"{shares[name]:20.3f}" if shares is not None else ""))
    return lines


def describe_levels(levels: pd.Series, data: Path, layout: Layout) -> list[str]:
    """Return a table of how many images have each level, beside the training labels where there are any."""
    n_levels, path = len(layout.task.names), data / layout.labels["train"]
    shared = {"% of them": levels} | ({"% of training labels": layout.read_labels(path)} if path.exists() else {})
    column = TARGETS[layout.task.kind]
    rows: dict[str, Iterable] = {column: layout.task.names if column == "class" else range(n_levels)}
    rows["images"] = [f"{count:,d}" for count in np.bincount(levels, minlength=n_levels)]
    rows |= {
        name: [f"{100 * share:.1f}" for share in share_levels(of.to_numpy(), n_levels)] for name, of in shared.items()
    }
    width = max(9, *(len(str(cell)) + 2 for cell in rows[column]))
    return [f"  {name:<22}" + "".join(f"{cell:>{width}}" for cell in cells) for name, cells in rows.items()]


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage.make_parser(
        "submissions.write",
        "Write submissions/NAME.csv, ready for Kaggle: header image,level, a level 0-4 for exactly the images of "
        "DATA/sampleSubmission.csv, in its order, or else of the test set; for folders of classes image,class; "
        "for findings image and the probability of each. Anything else is an error. Tells how frequent the levels are "
        "beside the training labels, and the kappa that the scores promise.",
        "--data data --cache cache --name first",
    )
    target.add_options(parser, ".csv")
    parser.add_argument("--levels", type=Path, help="read the levels from this CSV instead of the cache")
    options = recipe.parse(parser, argv, "submissions.write", check=lambda options: target.find(options, ".csv"))
    layout, out = readers.find_layout(options.data), target.find(options, ".csv")
    if layout.task.kind == "findings" and options.levels:
        raise InputError("--levels: of findings the submission holds the probabilities")
    is_chosen = layout.task.kind != "levels" and not options.levels  # here, as no stage before has done it
    levels_path = options.levels or options.cache / ("dr/scores_test.csv" if is_chosen else "kappa/levels_test.csv")
    if is_chosen and not levels_path.exists() and not layout.list_images(options.data, "test").paths:
        print(f"submissions.write: no test images in {options.data}: nothing to submit")
        return
    files.check_out(out, levels_path, *(options.data / name for name in (layout.sample, *layout.labels.values())))
    target.claim(options, out)
    if layout.task.kind == "findings":
        told = write_findings(levels_path, options.data, layout, out)
        print(f"submissions.write: {out}", *told, f"  {stage.NOTICE}", sep="\n", file=files.summary_stream(options.out))
        return
    levels = write_submission(read_given(levels_path, is_chosen, layout), levels_path, options.data, layout, out)
    told = [f"submissions.write: {len(levels)} images -> {out}", *describe_levels(levels, options.data, layout)]
    if options.levels:
        told.append("  expected QWK: not known, the levels were not made in the cache")
    else:
        unusable = rejected.read_reasons(options.cache, "test").keys() & set(levels.index)
        if unusable:
            others = "the rest of the group's" if is_chosen else "the fellow's"
            many = f"{len(unusable)} of them rejected photographs"
            told.append(f"  {many}, graded by {others} scores or the training prior")
        told.append("  each the likeliest class" if is_chosen else f"  {describe_promise(options.cache, layout)}")
    print(*told, f"  {stage.NOTICE}", sep="\n", file=files.summary_stream(options.out))


if __name__ == "__main__":
    stage.run(main)
