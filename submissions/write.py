"""Write the submission: CACHE/kappa/levels_test.csv, checked against the test set -> submissions/NAME.csv; tell of it.

python -m submissions.write --data DIR --cache DIR [--name NAME | --out FILE] [--levels FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess import eyes, stage

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent


def list_expected(data: Path) -> tuple[list[str], Path]:
    """Return the images that a submission must have, in its order, and the file or folder that says so.

    That is `sampleSubmission.csv`, where there is one, else the test folder.
    """
    sample = data / "sampleSubmission.csv"
    if sample.exists():
        return list(eyes.read_table(sample, ["image"])["image"]), sample
    paths, _ = eyes.list_images(data, "test")
    if not paths:
        raise stage.InputError(f"{data}: neither sampleSubmission.csv nor photographs in test/: no image to submit")
    return list(paths), data / "test"


def write_submission(levels_path: Path, data: Path, target: Path) -> pd.Series:
    """Write the levels of exactly the expected images and return them, indexed by image.

    Raises InputError for missing, unknown or repeated images and for levels other than 0, 1, 2, 3, 4.
    """
    levels = eyes.read_labels(levels_path)
    images, source = list_expected(data)
    eyes.check_same_images(images, levels.index, source, levels_path)
    stage.write_table(target, ("image", "level"), {image: {"level": levels[image]} for image in images})
    return levels[images]


def describe_levels(levels: np.ndarray, training: np.ndarray | None) -> list[str]:
    """Return a table of how many images have each level, beside the training labels where there are any."""
    counts = np.bincount(levels, minlength=eyes.N_LEVELS)
    lines = [f"  {'level':<22}" + "".join(f"{level:9d}" for level in range(eyes.N_LEVELS))]
    lines.append(f"  {'images':<22}" + "".join(f"{count:9,d}" for count in counts))
    lines.append(_describe_shares("% of them", counts))
    if training is not None:
        lines.append(_describe_shares("% of training labels", np.bincount(training, minlength=eyes.N_LEVELS)))
    return lines


def _describe_shares(name: str, counts: np.ndarray) -> str:
    return f"  {name:<22}" + "".join(f"{100 * share:9.1f}" for share in counts / counts.sum())


def describe_promise(cache: Path) -> str:
    """Return the kappa that the blended scores promise the levels in the cache, or why nobody knows."""
    from dr.scores import read_scores
    from kappa.qwk import expected_kappa

    scores_path, folder = cache / "blend" / "scores_test.csv", cache / "kappa"
    manifest = stage.read_manifest(folder)
    if manifest is None or not scores_path.exists():
        return "expected QWK: not known without the blended scores"
    if manifest["inputs"].get("scores_test") != stage.hash_file(scores_path):
        return "expected QWK: not known, the scores are newer than the levels; run python -m kappa.assign"
    scores, levels = read_scores(scores_path), eyes.read_labels(folder / "levels_test.csv")
    eyes.check_same_images(scores.index, levels.index, scores_path, folder / "levels_test.csv")
    promised = expected_kappa(scores.to_numpy(), levels[scores.index].to_numpy())
    return f"expected QWK {promised:.4f}: what the blended scores promise, if they mean what they say"


def describe_submission(levels: pd.Series, data: Path, cache: Path | None) -> list[str]:
    """Return what is worth knowing before submitting; `cache` is None if the levels come from elsewhere."""
    training = data / "trainLabels.csv"
    lines = describe_levels(levels.to_numpy(), eyes.read_labels(training).to_numpy() if training.exists() else None)
    if cache is None:
        return [*lines, "  expected QWK: not known, the levels were not made in the cache"]
    rejected = set(stage.read_rejected(cache).query("split == 'test'")["image"]) & set(levels.index)
    if rejected:
        lines.append(
            f"  {len(rejected)} of them rejected photographs, graded by the fellow's scores or the training prior"
        )
    return [*lines, f"  {describe_promise(cache)}"]


def parse_name(text: str) -> str:
    """Return a name that is one plain file name."""
    if not text or text.startswith(".") or Path(text).name != text:
        raise argparse.ArgumentTypeError("a plain file name is wanted")
    return text


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "submissions.write",
        "Write submissions/NAME.csv, ready for Kaggle: header image,level, a level 0-4 for exactly the images of "
        "DATA/sampleSubmission.csv, in its order, or else of DATA/test. Anything else is an error. Tells how frequent "
        "the levels are beside the training labels, and the kappa that the scores promise.",
        "--data data --cache cache --name first",
    )
    parser.add_argument("--name", type=parse_name, default="submission", help="name of the file in submissions/")
    parser.add_argument("--out", type=Path, help="write to this file instead")
    parser.add_argument("--levels", type=Path, help="read the levels from this CSV instead of the cache")
    options = parser.parse_args(argv)
    target = options.out or FOLDER / f"{options.name}.csv"
    levels = write_submission(options.levels or options.cache / "kappa" / "levels_test.csv", options.data, target)
    print(f"submissions.write: {len(levels)} images -> {target}")
    print(*describe_submission(levels, options.data, None if options.levels else options.cache), sep="\n")
    print(f"  {stage.NOTICE}")


if __name__ == "__main__":
    stage.run(main)
