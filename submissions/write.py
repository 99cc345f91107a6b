"""Write the submission: CACHE/kappa/levels_test.csv, checked against the test set -> submissions/NAME.csv.

python -m submissions.write --data DIR --cache DIR [--name NAME | --out FILE] [--levels FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from preprocess import eyes, stage

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


def write_submission(levels_path: Path, data: Path, target: Path) -> int:
    """Write the levels of exactly the expected images and return how many there are.

    Raises InputError for missing, unknown or repeated images and for levels other than 0, 1, 2, 3, 4.
    """
    levels = eyes.read_labels(levels_path)
    images, source = list_expected(data)
    eyes.check_same_images(images, levels.index, source, levels_path)
    stage.write_table(target, ("image", "level"), {image: {"level": levels[image]} for image in images})
    return len(images)


def parse_name(text: str) -> str:
    """Return a name that is one plain file name."""
    if not text or text.startswith(".") or Path(text).name != text:
        raise argparse.ArgumentTypeError("a plain file name is wanted")
    return text


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_parser(
        "submissions.write",
        "Write submissions/NAME.csv, ready for Kaggle: header image,level, a level 0-4 for exactly the images of "
        "DATA/sampleSubmission.csv, in its order, or else of DATA/test. Anything else is an error.",
        "--data data --cache cache --name first",
    )
    parser.add_argument("--name", type=parse_name, default="submission", help="name of the file in submissions/")
    parser.add_argument("--out", type=Path, help="write to this file instead")
    parser.add_argument("--levels", type=Path, help="read the levels from this CSV instead of the cache")
    options = parser.parse_args(argv)
    target = options.out or FOLDER / f"{options.name}.csv"
    n_images = write_submission(options.levels or options.cache / "kappa" / "levels_test.csv", options.data, target)
    print(f"submissions.write: {n_images} images -> {target}")


if __name__ == "__main__":
    stage.run(main)
