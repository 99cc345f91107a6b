"""Draw a data folder from a seed: photographs of both eyes in Kaggle's layout, OCT scans, or chest x-rays.

The photographs show lesions by the clinical scale, beside tables of the labels and of the truth about discs and
lesions; scans lie in a folder per class, x-rays have a table of findings. What is there already stays,
and a folder that was drawn with other parameters is refused.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.cache import manifest
from preprocess.cache.journal import Journal, Row
from preprocess.command import cli, parallel, process, recipe
from preprocess.dataset import findings, listing
from preprocess.disk import files
from preprocess.disk.errors import InputError

Draw = Callable[[Any, int, int | None], tuple[np.ndarray, Sequence[int], Row]]

OWN_FOLDER = "synthetic"  # in the data folder: which pictures were drawn here
FOLDERS = ("train", "test", "images")  # of pictures
TABLES = (
    *("trainLabels.csv", "testLabels.csv", "sampleSubmission.csv", "discs.csv", "lesions.csv"),
    *(*findings.TABLES, *findings.LISTS.values()),
)


def check_parameters(data: Path, parameters: Mapping[str, Any]) -> None:
    """Raise InputError if a folder was drawn with other parameters; what older code drew with these is drawn again."""
    for path in sorted((data / OWN_FOLDER).glob("*.jsonl")):
        found = {name: value for name, value in Journal(path.parent, path.stem, {}).found.items() if name in parameters}
        if change := manifest.describe_change(found, {name: parameters[name] for name in found}):
            raise InputError(f"{data}: drawn with other parameters: {change}; give another --data, or remove it")


def check_foreign(data: Path, planned: Iterable[Path]) -> None:
    """Raise InputError if a folder holds what was not drawn here, rather than overwrite it or mix with it."""
    is_own = (data / OWN_FOLDER).is_dir()
    foreign = [] if is_own else [data / name for name in (*TABLES, "val", "images") if (data / name).exists()]
    there = [path for name in FOLDERS for path in sorted((data / name).rglob("*"))]
    own = set(planned) if is_own else set()
    foreign += [path for path in there if listing.is_photograph(path.name) and path not in own]
    if foreign:
        raise InputError(
            f"{data}: holds {foreign[0].relative_to(data)} and {len(foreign) - 1} more files that this command would "
            "not draw; remove them, or give another --data"
        )


def write_picture(draw: Draw, path: Path, picture: Any, seed: int, width_px: int | None) -> Row:
    """Draw one picture into a file; return what the tables tell of it."""
    pixels, storing, row = draw(picture, seed, width_px)
    files.write_bytes(path, cv2.imencode(path.suffix, pixels, storing)[1].tobytes())
    return row


def draw_split(
    folder: Path, journal: Journal, draw: Draw, planned: Mapping[Path, Sequence], jobs: int
) -> dict[str, Row]:
    """Draw the pictures of one split that are not there yet; return image -> row."""
    for parent in {path.parent for path in planned} or {folder}:
        parent.mkdir(exist_ok=True, parents=True)
        files.remove_partials(parent)
    path_of = {path.stem: path for path in planned}

    def describe(image: str) -> list:
        return [*planned[path_of[image]], *files.describe_source(path_of[image])]

    made = journal.find_made({image: describe(image) for image in path_of})
    how = journal.parameters["seed"], journal.parameters["width_px"]
    due = {image: (draw, path, planned[path], *how) for image, path in path_of.items() if image not in made}
    for image, row in parallel.map_parallel(write_picture, due, jobs, f"draw {folder.name}"):
        journal.append(image, describe(image), row)
    journal.finish(list(path_of))
    return journal.rows


def draw_folder(data: Path, n_patients: Mapping[str, int], parameters: dict[str, Any], jobs: int) -> None:
    """Draw a whole data folder; what is there already, drawn with the same parameters, stays."""
    from preprocess.synthetic import eyes, scans, xrays

    kind, seed, levels = (parameters[name] for name in ("kind", "seed", "levels"))
    drawer: Any = {"retina": eyes, "oct": scans, "chest": xrays}[kind]
    patients = iter(drawer.plan(sum(n_patients.values()), seed, *[levels] * (kind == "retina")))
    planned = {}
    for split, n in n_patients.items():
        pictures = itertools.chain.from_iterable(itertools.islice(patients, n))
        planned[split] = {data / drawer.FILE.format(split=split, **of._asdict()): of for of in pictures}
    check_parameters(data, parameters)
    check_foreign(data, itertools.chain(*planned.values()))
    code = {path.name: files.hash_file(path) for path in sorted(Path(eyes.__file__).parent.glob("*.py"))}
    rows: dict[str, Row] = {}
    with files.locked(data / OWN_FOLDER):
        for split, paths in planned.items():
            journal = Journal(data / OWN_FOLDER, split, parameters | code)
            rows |= draw_split(data / split, journal, drawer.draw, paths, jobs)
        if kind != "oct":  # whose folders tell the classes
            drawer.write_tables(data, {split: list(paths.values()) for split, paths in planned.items()}, rows)


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_bare_parser("preprocess.synthetic", __doc__, "--data data/demo --width-px 1024 --levels balanced")
    parser.add_argument("--data", type=Path, required=True, help="folder to draw")
    parser.add_argument(
        "--kind", choices=("retina", "oct", "chest"), help="photographs of retinas, OCT scans, or chest x-rays"
    )
    train_help = "patients to learn from, two photographs each, one to five scans, one to four x-rays"
    parser.add_argument("--patients-train", type=cli.whole(0), help=train_help)
    parser.add_argument("--patients-test", type=cli.whole(0), help="patients to test by")
    width_help = "width of all photographs in pixels (default: each camera's own; of others 512)"
    parser.add_argument("--width-px", type=cli.whole(128, 8192), help=width_help)
    levels_help = "how frequent each level of a retina is: as in the competition, or all alike"
    parser.add_argument("--levels", choices=("real", "balanced"), help=levels_help)
    parser.add_argument("--seed", type=cli.whole(0), help="one seed, one folder, byte for byte")
    parser.add_argument("--jobs", type=cli.whole(1), default=os.cpu_count(), help="processes to work with")
    recipe.add_option(parser)
    options = recipe.parse(parser, argv, "preprocess.synthetic")
    n_patients = {"train": options.patients_train, "test": options.patients_test}
    parameters = {name: getattr(options, name) for name in ("kind", "levels", "seed", "width_px")}
    draw_folder(options.data, n_patients, parameters, options.jobs)


if __name__ == "__main__":
    process.run(main)
