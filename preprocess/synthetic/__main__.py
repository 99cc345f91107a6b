"""Draw a data folder from a seed: photographs of both eyes in Kaggle's layout, OCT scans, or chest x-rays.

Photographs show lesions of the clinical scale, with tables of labels and of the true discs and
lesions. Scans lie in a folder per class; x-rays have a table of findings. Existing files are kept;
a folder that was drawn with other parameters is an error.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.cache import manifest
from preprocess.cache.journal import Journal, Row
from preprocess.command import cli, parallel, process, recipe, resources
from preprocess.dataset import findings, listing
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture.encode import encode_image

# A function that draws a picture, given its plan, the seed and the width in pixels; it returns the pixels, grey or BGR,
# OpenCV's options to store them, and the row of truth.
Draw = Callable[[Any, int, int | None], tuple[np.ndarray, Sequence[int], Row]]

OWN_FOLDER = "synthetic"  # in the data folder: the journals of the pictures drawn here
FOLDERS = ("train", "test", "images")  # of pictures
TABLES = (
    "trainLabels.csv",
    "testLabels.csv",
    "sampleSubmission.csv",
    "discs.csv",
    "lesions.csv",
    *findings.TABLES,
    *findings.LISTS.values(),
)


def check_parameters(data: Path, parameters: Mapping[str, Any]) -> None:
    """Raise InputError if a folder was drawn with other parameters.

    Pictures that other code drew with the same parameters are no fault: they are drawn again.
    """
    for path in sorted((data / OWN_FOLDER).glob("*.jsonl")):
        header = Journal(path.parent, path.stem, {}).found
        drawn_with = {name: header[name] for name in header if name in parameters}
        change = manifest.describe_change(
            drawn_with, {name: parameters[name] for name in drawn_with}
        )
        if change:
            raise InputError(
                f"{data}: drawn with other parameters: {change}; give another --data, or remove it"
            )


def check_foreign(data: Path, planned: Iterable[Path]) -> None:
    """Raise InputError if a folder holds files that were not drawn here: they are neither overwritten nor mixed in."""
    is_drawn_here = (data / OWN_FOLDER).is_dir()
    allowed = set(planned) if is_drawn_here else set()
    foreign = []
    if not is_drawn_here:
        for name in (*TABLES, "val", "images"):
            if (data / name).exists():
                foreign.append(data / name)
    for name in FOLDERS:
        for path in sorted((data / name).rglob("*")):
            if listing.is_photograph(path.name) and path not in allowed:
                foreign.append(path)
    if foreign:
        raise InputError(
            f"{data}: holds {foreign[0].relative_to(data)} and {len(foreign) - 1} more files that this command would "
            "not draw; remove them, or give another --data"
        )


def write_picture(draw: Draw, path: Path, picture: Any, seed: int, width_px: int | None) -> Row:
    """Draw one picture into a file; return its row of truth."""
    pixels, options, row = draw(picture, seed, width_px)
    files.write_bytes(path, encode_image(pixels, path.suffix, options))
    return row


def draw_split(
    folder: Path, journal: Journal, draw: Draw, planned: Mapping[Path, Sequence], jobs: int
) -> dict[str, Row]:
    """Draw the pictures of one split, given as path -> plan, that are not there yet; return image -> row."""
    for parent in {path.parent for path in planned} or {folder}:
        parent.mkdir(exist_ok=True, parents=True)
        files.remove_partials(parent)
    paths = {path.stem: path for path in planned}

    def make_key(image: str) -> list:
        path = paths[image]
        return [*planned[path], *files.describe_source(path)]

    finished = journal.find_made({image: make_key(image) for image in paths})
    seed = journal.parameters["seed"]
    width_px = journal.parameters["width_px"]
    due = {}
    for image, path in paths.items():
        if image not in finished:
            due[image] = (draw, path, planned[path], seed, width_px)
    for image, row in parallel.map_parallel(write_picture, due, jobs, f"draw {folder.name}"):
        journal.append(image, make_key(image), row)
    journal.finish(list(paths))
    return journal.rows


def draw_folder(
    data: Path, n_patients: Mapping[str, int], parameters: dict[str, Any], jobs: int
) -> None:
    """Draw a whole data folder; pictures that are there already, drawn with the same parameters, stay."""
    from preprocess.synthetic import eyes, scans, xrays

    kind = parameters["kind"]
    n_in_all = sum(n_patients.values())
    module: Any
    patients: list[Any]
    if kind == "retina":
        module = eyes
        patients = eyes.plan(n_in_all, parameters["seed"], parameters["levels"])
    elif kind == "oct":
        module = scans
        patients = scans.plan(n_in_all, parameters["seed"])
    else:
        module = xrays
        patients = xrays.plan(n_in_all, parameters["seed"])
    planned: dict[str, dict[Path, Any]] = {}
    first = 0  # patient of the split
    for split, n in n_patients.items():
        planned[split] = {}
        pictures: list[Any] = list(itertools.chain.from_iterable(patients[first : first + n]))
        for picture in pictures:
            file = module.FILE.format(split=split, **picture._asdict())
            planned[split][data / file] = picture
        first += n
    check_parameters(data, parameters)
    check_foreign(data, itertools.chain.from_iterable(planned.values()))
    code = {
        path.name: files.hash_file(path) for path in sorted(Path(eyes.__file__).parent.glob("*.py"))
    }
    rows: dict[str, Row] = {}
    with files.locked(data / OWN_FOLDER):
        for split, plans in planned.items():
            journal = Journal(data / OWN_FOLDER, split, parameters | code)
            rows |= draw_split(data / split, journal, module.draw, plans, jobs=jobs)
        if kind != "oct":  # the folders of scans are named by their classes
            module.write_tables(
                data, {split: list(plans.values()) for split, plans in planned.items()}, rows
            )


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "preprocess.synthetic", __doc__, "--data data/demo --width-px 1024 --levels balanced"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder to draw")
    parser.add_argument(
        "--kind",
        choices=("retina", "oct", "chest"),
        help="photographs of retinas, OCT scans, or chest x-rays",
    )
    train_help = "training patients: two photographs each, one to five scans, or one to four x-rays"
    parser.add_argument("--patients-train", type=cli.whole(0), help=train_help)
    parser.add_argument("--patients-test", type=cli.whole(0), help="test patients")
    width_help = "width of all photographs in pixels (default: each camera's own; of others 512)"
    parser.add_argument("--width-px", type=cli.whole(128, 8192), help=width_help)
    levels_help = "frequency of the levels of retinas: as in the competition, or equal"
    parser.add_argument("--levels", choices=("real", "balanced"), help=levels_help)
    parser.add_argument(
        "--seed", type=cli.whole(0), help="random seed; the same seed draws the same bytes"
    )
    parser.add_argument(
        "--jobs", type=cli.whole(1), default=resources.count_jobs(), help="processes to work with"
    )
    recipe.add_option(parser)
    options = recipe.parse(parser, argv, "preprocess.synthetic")
    n_patients = {"train": options.patients_train, "test": options.patients_test}
    parameters = {name: getattr(options, name) for name in ("kind", "levels", "seed", "width_px")}
    draw_folder(options.data, n_patients, parameters, options.jobs)


if __name__ == "__main__":
    process.run(main)
