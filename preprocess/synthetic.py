"""Draws a data folder from a seed: photographs in Kaggle's layout, labels and the truth; OCT scans; or chest x-rays.

python -m preprocess.synthetic --data data/demo --width-px 1024 --levels balanced
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from preprocess.cache import files, parallel, stage
from preprocess.cache.errors import InputError
from preprocess.cache.journal import Journal
from preprocess.recipes import recipe
from preprocess.samples import findings, folders
from preprocess.samples.layout import SPLITS, Listing
from preprocess.samples.retina import list_images
from preprocess.scans.plan import Scan, plan_scans
from preprocess.xrays.plan import Xray, plan_xrays
from preprocess.xrays.plan import write_tables as write_findings

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("left", "right")
FIRST_PATIENT = 10
PATIENT_GAP = 3  # patient numbers rise by 1 to 3, as Kaggle's have gaps
TRAITS_STREAM, LEVELS_STREAM = 2, 3  # every patient has four generators, (seed, patient, 0 left | 1 right | 2 | 3)
DRAWN_WIDTH_PX = 1500  # a wider photograph is drawn at a half or a third and enlarged: focus was no better than that
PUBLIC_SHARE = 0.2  # of the test set was scored on the public leaderboard
OWN_FOLDER = "synthetic"  # in the data folder: which photographs were drawn here
TABLES = (
    *("trainLabels.csv", "testLabels.csv", "sampleSubmission.csv", "discs.csv", "lesions.csv"),
    *(*findings.TABLES, *findings.LISTS.values()),
)

# Levels of (left, right) eye among the 17,563 patients of the competition's published trainLabels.csv.
LEVEL_PAIRS = np.array(
    [
        [12155, 407, 295, 3, 11],
        [435, 600, 171, 2, 4],
        [336, 222, 1998, 96, 50],
        [3, 1, 87, 307, 27],
        [10, 1, 39, 40, 263],
    ]
)


class DrawnEye(NamedTuple):
    """A photograph (h, w, 3) uint8 RGB; its disc (center_x, center_y, radius) and lesions (kind, x, y, radius), px."""

    photograph: np.ndarray
    disc: tuple
    lesions: pd.DataFrame
    jpeg_quality: int


class Plan(NamedTuple):
    """One eye that is to be drawn."""

    patient: int
    side: str
    level: int
    usage: str  # Public or Private, as the competition scored its test set

    @property
    def image(self) -> str:
        """The image id."""
        return f"{self.patient}_{self.side}"

    def find_path(self, folder: Path) -> Path:
        """Return where it lies in a split's folder."""
        return folder / f"{self.image}.jpeg"

    def write(self, path: Path, seed: int, width_px: int | None) -> dict:
        """Draw it into a JPEG file; return its size, disc and lesions in pixels."""
        import cv2

        eye = draw_eye(seed, self.patient, self.side, self.level, width_px)
        jpeg = cv2.imencode(".jpeg", eye.photograph[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, eye.jpeg_quality])[1]
        files.write_bytes(path, jpeg.tobytes())
        height, width = eye.photograph.shape[:2]
        disc = [round(value, 2) for value in eye.disc]
        return {"size": [width, height], "disc": disc, "lesions": eye.lesions.round(2).to_numpy().tolist()}


def balance_pairs(pairs: np.ndarray) -> np.ndarray:
    """Return probabilities (5, 5) of (left, right) levels: all levels equally likely, eyes agreeing as in `pairs`.

    Iterative proportional fitting of three margins: left level, right level, and how far the two are apart.
    """
    apart = np.abs(np.subtract.outer(np.arange(len(pairs)), np.arange(len(pairs))))
    shares = np.bincount(apart.ravel(), pairs.ravel()) / pairs.sum()
    fitted = pairs / pairs.sum()
    for _ in range(500):
        fitted = fitted * (shares / np.bincount(apart.ravel(), fitted.ravel()))[apart]
        fitted = fitted / fitted.sum(axis=0) / len(pairs)
        fitted = fitted / fitted.sum(axis=1, keepdims=True) / len(pairs)
    return fitted


def plan_eyes(n_patients: int, levels: str, seed: int) -> list[list[Plan]]:
    """Return both eyes of each patient; their numbers rise with gaps; `levels` is "real" or "balanced"."""
    pairs = balance_pairs(LEVEL_PAIRS) if levels == "balanced" else LEVEL_PAIRS / LEVEL_PAIRS.sum()
    gaps = np.random.default_rng(seed).integers(1, PATIENT_GAP + 1, n_patients)
    plans = []
    for patient in np.cumsum(np.r_[FIRST_PATIENT, gaps])[:n_patients].tolist():
        rng = np.random.default_rng([seed, patient, LEVELS_STREAM])
        pair = divmod(int(rng.choice(pairs.size, p=pairs.ravel())), len(pairs))
        usage = "Public" if rng.random() < PUBLIC_SHARE else "Private"
        plans.append([Plan(patient, side, level, usage) for side, level in zip(SIDES, pair, strict=True)])
    return plans


def draw_eye(seed: int, patient: int, side: str, level: int, width_px: int | None = None) -> DrawnEye:
    """Draw one photograph, a function of its arguments alone; its width is by default the patient's camera's own."""
    from preprocess.fundus import camera, retina

    shared = np.random.default_rng([seed, patient, TRAITS_STREAM])
    traits = retina.sample_retina(shared)
    model = camera.CAMERAS[shared.integers(len(camera.CAMERAS))]
    model = camera.scale_camera(model, width_px or model.width)
    shrunk = camera.scale_camera(model, model.width // -(-model.width // DRAWN_WIDTH_PX))

    rng = np.random.default_rng([seed, patient, SIDES.index(side)])
    frame = camera.frame_photograph(rng, shrunk, mirrored=side == "right")
    reflectance, lesions = retina.draw_retina(rng, level, traits, frame)
    image = camera.expose(rng, reflectance, shrunk, frame)
    photograph = camera.develop(rng, image, model.width, model.height)
    scale = model.width / shrunk.width
    center = [enlarge(value, scale) for value in (frame.center_x, frame.center_y)]
    lesions[["x", "y"]] = enlarge(lesions[["x", "y"]], scale)
    lesions["radius"] *= scale
    return DrawnEye(photograph, (*center, frame.radius * scale), lesions, model.jpeg_quality)


def enlarge(pixels, scale):
    """Map coordinates to a picture enlarged by `scale`; whole numbers are the centres of pixels."""
    return (pixels + 0.5) * scale - 0.5


def write_picture(plan: Plan | Scan | Xray, path: Path, seed: int, width_px: int | None) -> dict:
    """Draw an eye, a scan or an x-ray into a file; return what the tables tell of it."""
    return plan.write(path, seed, width_px)


def draw_split(
    data: Path, split: str, plans: Sequence[Plan | Scan | Xray], parameters: dict, jobs: int
) -> dict[str, dict]:
    """Draw the photographs of one split that are not there yet; return image -> row."""
    planned = {plan.image: (plan.find_path(data / split), plan) for plan in plans}
    for folder in {path.parent for path, _ in planned.values()} or {data / split}:
        folder.mkdir(exist_ok=True, parents=True)
        files.remove_partials(folder)
    journal = Journal(data / OWN_FOLDER, split, parameters)

    def describe(image: str) -> list:
        path, plan = planned[image]
        return [*plan, *files.describe_source(path)]

    made = journal.find_made({image: describe(image) for image in planned})
    how = parameters["seed"], parameters["width_px"]
    tasks = {image: (plan, path, *how) for image, (path, plan) in planned.items() if image not in made}
    with journal.appending() as append:
        for image, row in parallel.map_parallel(write_picture, tasks, jobs, f"draw {split}"):
            append(image, describe(image), row)
    journal.finish(list(planned))
    return journal.rows


def write_tables(data: Path, plans: dict[str, list[Plan]], rows: dict[str, dict]) -> None:
    """Write labels, the sample submission and the truth: discs and lesions."""
    import pandas as pd

    labels = {split: [(plan.image, plan.level, plan.usage) for plan in plans[split]] for split in SPLITS}
    train, test = (pd.DataFrame(labels[split], columns=["image", "level", "Usage"]) for split in SPLITS)
    discs = [(image, *row["size"], *row["disc"]) for image, row in rows.items()]
    lesions = [(image, *lesion) for image, row in rows.items() for lesion in row["lesions"]]
    tables = {
        "trainLabels.csv": train[["image", "level"]],
        "testLabels.csv": test,
        "sampleSubmission.csv": test[["image"]].assign(level=0),
        "discs.csv": pd.DataFrame(discs, columns=["image", "width", "height", "center_x", "center_y", "radius"]),
        "lesions.csv": pd.DataFrame(lesions, columns=["image", "kind", "x", "y", "radius"]),
    }
    for name, table in tables.items():
        files.write_bytes(data / name, table.to_csv(index=False, lineterminator="\n").encode())


class Kind(NamedTuple):
    """What a folder of one kind holds, and how it is told from what was not drawn here."""

    room: str  # of preprocess, whose code draws
    plan: Callable[[int, dict[str, Any]], Sequence[Sequence[Any]]]  # (patients, parameters) -> pictures of each
    list_images: Callable[[Path, str], Listing]  # (folder, split) -> what lies in a folder that was drawn here
    write_tables: Callable[[Path, Any, dict[str, dict]], None]  # (folder, split -> pictures, image -> row)


KINDS = {
    "retina": Kind("fundus", lambda n, of: plan_eyes(n, of["levels"], of["seed"]), list_images, write_tables),
    "oct": Kind("scans", lambda n, of: plan_scans(n, of["seed"]), folders.list_images, lambda *_: None),
    "chest": Kind("xrays", lambda n, of: plan_xrays(n, of["seed"]), lambda *_: Listing({}, {}), write_findings),
}


def draw_folder(data: Path, n_patients: dict[str, int], parameters: dict, jobs: int) -> None:
    """Draw a whole data folder; what is there already, drawn with the same parameters, stays.

    Raises InputError if it holds what was not drawn here, rather than overwrite it or mix with it.
    """
    kind = KINDS[parameters["kind"]]
    patients = kind.plan(sum(n_patients.values()), parameters)
    parts = {"train": patients[: n_patients["train"]], "test": patients[n_patients["train"] :]}
    planned = {split: [plan for plans in part for plan in plans] for split, part in parts.items()}
    is_own = (data / OWN_FOLDER).is_dir()
    foreign = [] if is_own else [name for name in (*TABLES, "val", "images") if (data / name).exists()]
    for split in SPLITS:
        own = {plan.image for plan in planned[split]} if is_own else set()
        foreign += [f"{split}/{image}" for image in kind.list_images(data, split).paths if image not in own]
    if foreign:
        raise InputError(
            f"{data}: holds {foreign[0]} and {len(foreign) - 1} more files that this command would not draw;"
            " remove them, or give another --data"
        )
    code = {path.name: files.hash_file(path) for path in sorted((Path(__file__).parent / kind.room).glob("*.py"))}
    rows: dict[str, dict] = {}
    with files.locked(data / OWN_FOLDER):
        for split in SPLITS:
            rows |= draw_split(data, split, planned[split], parameters | code, jobs)
        kind.write_tables(data, planned, rows)


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_bare_parser(
        "preprocess.synthetic",
        "Draw a data folder in Kaggle's layout from a seed: photographs of both eyes with lesions by the "
        "clinical scale, the labels, and the truth about discs and lesions. Or OCT scans of four classes, several of a "
        "patient, in a folder per class; or chest x-rays with a table of findings. What is there already stays.",
        "--data data/demo --width-px 1024 --levels balanced",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder to draw")
    parser.add_argument("--kind", choices=tuple(KINDS), help="photographs of retinas, OCT scans, or "
                        "chest x-rays")  # fmt: skip
    train_help = "patients to learn from, two photographs each, one to five scans, one to four x-rays"
    parser.add_argument("--patients-train", type=stage.whole(0), help=train_help)
    parser.add_argument("--patients-test", type=stage.whole(0), help="patients to test by")
    width_help = "width of all photographs in pixels (default: each camera's own; of others 512)"
    parser.add_argument("--width-px", type=stage.whole(128, 8192), help=width_help)
    levels_help = "how frequent each level of a retina is: as in the competition, or all alike"
    parser.add_argument("--levels", choices=("real", "balanced"), help=levels_help)
    parser.add_argument("--seed", type=stage.whole(0), help="one seed, one folder, byte for byte")
    parser.add_argument("--jobs", type=stage.whole(1), default=os.cpu_count(), help="processes to work with")
    recipe.add_option(parser)
    options = recipe.parse(parser, argv, "preprocess.synthetic")
    n_patients = {"train": options.patients_train, "test": options.patients_test}
    parameters = {name: getattr(options, name) for name in ("kind", "levels", "seed", "width_px")}
    draw_folder(options.data, n_patients, parameters, options.jobs)


if __name__ == "__main__":
    stage.run(main)
