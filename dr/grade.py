"""Grade one patient, or a folder of them: raw photographs and a finished cache -> scores and levels, on the screen.

python -m dr.grade LEFT RIGHT [--cache DIR | --checkpoint FILE... --blend FILE] [--views N] [--json]

What a user runs when all stages are done; no stage imports it. Its level is the one nearest to the expected level, as
of `kappa.assign --method round`: best for an eye by itself, where annealing weighs it against a whole test set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import checkpoint, predict, prepare, settings, threads
from dr.prepare import Square
from preprocess import eyes, stage
from preprocess.stage import InputError

if TYPE_CHECKING:
    import torch

    from blend.mlp import Blend
    from dr.model import NineConvNet

PATIENT = "patient"  # whose eyes two photographs show, whatever their names
EYES_AT_ONCE = 64  # prepared and scored together; their squares take 50 MB
DECIMALS = 6  # of what --json prints
LEGEND = "0 no retinopathy, 1 mild, 2 moderate, 3 severe, 4 proliferative"


class Voter(NamedTuple):
    """One net, the content of its checkpoint, and what it counts for among the others."""

    net: NineConvNet
    content: dict[str, Any]
    weight: float  # those of all nets sum to 1
    n_views: int


class Grader(NamedTuple):
    """All that is loaded once."""

    voters: list[Voter]
    blend: Blend | None
    place: torch.device


class Grade(NamedTuple):
    """What is known of one eye; scores are (5,)."""

    path: Path
    square: Square
    scores: np.ndarray  # of the nets
    blended: np.ndarray | None  # with the fellow's, if there is a blend
    level: int
    is_alone: bool  # no fellow was graded: the eye is its own


# --- which photographs ------------------------------------------------------------------------------------------------


def list_photographs(given: Sequence[Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the photographs, image id -> path, patient by patient, and the files that cannot be paired, with reasons.

    Raises InputError for anything but a folder with photographs, or one file or two.
    """
    if len(given) == 1 and given[0].is_dir():
        return list_folder(given[0])
    folders = [path for path in given if path.is_dir()]
    if folders:
        raise InputError(
            f"{folders[0]}: a folder is graded alone; give one folder, or the two photographs of a patient"
        )
    if len(given) > 2:
        raise InputError(f"{len(given)} photographs: give a patient's two, or the folder that holds those of many")
    if len(given) == 2 and given[0].resolve() == given[1].resolve():
        raise InputError(f"{given[0]}: given twice; give the left eye and the right one")
    return dict(zip((f"{PATIENT}_left", f"{PATIENT}_right"), given, strict=False)), {}


def list_folder(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return a folder's photographs in the order of patients, and the misnamed ones with the reason."""
    found, misnamed = {}, {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in eyes.SUFFIXES or path.name.startswith("."):
            continue
        try:
            eyes.parse_image_id(path.stem)
        except InputError:
            misnamed[prepare.show(path)] = "the file's name is not PATIENT_left or PATIENT_right"
            continue
        if path.stem in found:
            raise InputError(f"{path} and {found[path.stem].name} are both image {path.stem}; remove one")
        found[path.stem] = path
    if not found and not misnamed:
        raise InputError(f"{folder}: holds no photographs ({', '.join(eyes.SUFFIXES)})")
    return {image: found[image] for image in sorted(found, key=eyes.order_of)}, misnamed


def split_patients(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Yield the photographs in parts of about EYES_AT_ONCE that divide no patient."""
    part: dict[str, Path] = {}
    patient = None
    for image, path in paths.items():
        if len(part) >= EYES_AT_ONCE and eyes.parse_image_id(image).patient != patient:
            yield part
            part = {}
        part[image], patient = path, eyes.parse_image_id(image).patient
    if part:
        yield part


# --- which nets -------------------------------------------------------------------------------------------------------


def load_grader(options: argparse.Namespace) -> Grader:
    """Load the nets and the blend that the command line names. Raises InputError if one of them is not there."""
    threads.let_waiting_threads_sleep()
    from blend.mlp import load_blend
    from dr import device

    place = device.choose_device(options.device)
    device.prepare(place)
    if options.checkpoint:
        weight, n_views = 1 / len(options.checkpoint), options.views or predict.VIEWS
        voters = [make_voter(checkpoint.read(path), weight, n_views, place) for path in options.checkpoint]
        return Grader(voters, load_blend(options.blend) if options.blend else None, place)
    voters = read_voters(options.cache, None, 1.0, options.views, place)
    return Grader(voters, load_blend(options.blend or options.cache / "blend" / "train" / "model.pt"), place)


def read_voters(cache: Path, run: str | None, weight: float, n_views: int | None, place: torch.device) -> list[Voter]:
    """Return the nets whose scores `dr.predict` averaged last for a run, sharing `weight`.

    Raises InputError if it has not run.
    """
    folder = checkpoint.folder_of(cache, run)
    manifest = stage.read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: holds no predictions; run python -m dr.predict first")
    parameters = manifest["parameters"]
    if "average" in parameters:
        share = weight / len(parameters["average"])
        return [voter for name in parameters["average"] for voter in read_voters(cache, name, share, n_views, place)]
    trained, epochs = predict.read_trained(folder / "epochs"), parameters["epochs"]
    gone = [epoch for epoch in epochs if epoch not in trained.checkpoints]
    if gone:
        raise InputError(f"{folder}: epoch {gone[0]} is gone since it was averaged; run python -m dr.predict again")
    contents = [predict.read_checkpoint(trained, epoch) for epoch in epochs]
    return [make_voter(content, weight / len(epochs), n_views or parameters["views"], place) for content in contents]


def make_voter(content: dict[str, Any], weight: float, n_views: int, place: torch.device) -> Voter:
    """Return the net of a checkpoint, on the device."""
    from dr import passes

    net = checkpoint.make_net(content).to(place, memory_format=passes.MEMORY_FORMAT)
    return Voter(net, content, weight, n_views)


# --- grading ----------------------------------------------------------------------------------------------------------


def grade_patients(grader: Grader, paths: Mapping[str, Path]) -> tuple[dict[str, Grade], dict[str, str]]:
    """Return the grade of each photograph, by image id, and the refused files with the reason.

    Parameters
    ----------
    paths : image id -> path; all photographs of a patient, so that each eye meets its fellow
    """
    squares, reasons = prepare_all(grader, paths)
    images = list(squares)
    if not images:
        return {}, reasons
    scores = sum(voter.weight * score(voter, images, squares) for voter in grader.voters)
    return decide(grader.blend, {image: paths[image] for image in images}, squares, scores), reasons


def prepare_all(grader: Grader, paths: Mapping[str, Path]) -> tuple[dict[str, dict[tuple, Square]], dict[str, str]]:
    """Return each photograph's squares, one for each way that the nets want them made, and the refused files."""
    contents = {prepare.describe_squares(voter.content): voter.content for voter in grader.voters}
    squares, reasons = {}, {}
    for image, path in paths.items():
        try:
            squares[image] = {made: prepare.prepare(path, content) for made, content in contents.items()}
        except prepare.Refused as refusal:
            reasons[prepare.show(path)] = str(refusal)
    return squares, reasons


def score(voter: Voter, images: Sequence[str], squares: Mapping[str, dict[tuple, Square]]) -> np.ndarray:
    """Return one net's scores, averaged over views, (n, 5).

    The views of all eyes are cut alike, as `dr.predict` cuts the first, so that no score depends on who else is graded.
    """
    from tqdm import tqdm

    from dr import dataset, draws, passes

    made = prepare.describe_squares(voter.content)
    photographs = prepare.gather(images, [squares[image][made] for image in images], voter.content)
    n, margin_px = len(images), photographs.size_px - voter.net.image_px
    trained, total = settings.Settings(**voter.content["settings"]), np.zeros((n, eyes.N_LEVELS))
    for view in range(voter.n_views):
        crops = dataset.draw_crops(1, margin_px, trained.seed, view, draws.VIEWS)
        crops = dataset.Crops(
            *(np.repeat(field, n, axis=0) for field in (crops if view else dataset.center_crops(1, margin_px)))
        )
        with tqdm(disable=True) as bar:
            total += passes.score(voter.net, photographs, np.arange(n), crops, trained.precision, EYES_AT_ONCE, bar)
    return total / voter.n_views


def decide(
    blend: Blend | None, paths: Mapping[str, Path], squares: Mapping[str, dict[tuple, Square]], scores: np.ndarray
) -> dict[str, Grade]:
    """Blend the scores (n, 5) of both eyes, and give each eye the level nearest to the expected one."""
    from blend.mlp import apply_blend
    from blend.pairs import pair_eyes
    from kappa import assign

    images = list(paths)
    blended = None if blend is None else apply_blend(blend, pair_eyes(images, scores))
    levels = assign.decide(scores if blended is None else blended, "round").levels
    sides = {eyes.parse_image_id(image)[:2] for image in images}
    grades = {}
    for row, image in enumerate(images):
        patient, side, _ = eyes.parse_image_id(image)
        grades[image] = Grade(
            paths[image],
            next(iter(squares[image].values())),
            scores[row],
            None if blended is None else blended[row],
            int(levels[row]),
            is_alone=(patient, "left" if side == "right" else "right") not in sides,
        )
    return grades


# --- telling ----------------------------------------------------------------------------------------------------------


def write_table(grades: Mapping[str, Grade]) -> list[str]:
    """Return the grades as lines for people, one per eye."""
    names = [
        f"{eyes.parse_image_id(image).side:5}  {prepare.show(Path(grade.path.name))}" for image, grade in grades.items()
    ]
    width = max(map(len, names))
    groups = ["the net", "blended with the fellow"] if next(iter(grades.values())).blended is not None else ["the net"]
    numbers = "".join(f"{level:6}" for level in range(eyes.N_LEVELS))
    lines = [
        f"{'':{width}}         " + "".join(f"  {group:>{len(numbers)}}" for group in groups),
        f"{'eye':{width}}     crop" + f"  {numbers}" * len(groups) + "    mean  level",
        *(f"{name:{width}}  {write_row(grade)}".rstrip() for name, grade in zip(names, grades.values(), strict=True)),
    ]
    return [*lines, f"mean: the expected level; level: the one nearest to it; {LEGEND}"]


def write_row(grade: Grade) -> str:
    """Return an eye's figures as columns: crop confidence, scores, blended scores, expected level, level, doubts."""
    sure = f"{grade.square.disc.confidence:.2f}" if grade.square.is_found else "-"
    groups = [scores for scores in (grade.scores, grade.blended) if scores is not None]
    numbers = "".join("  " + "".join(f"{score:6.2f}" for score in scores) for scores in groups)
    return f"{sure:>7}{numbers}  {expect(grade):6.2f}  {grade.level:5}  {describe_doubts(grade)}"


def expect(grade: Grade) -> float:
    """Return the mean of what is believed of an eye's level, 0-4."""
    believed = grade.scores if grade.blended is None else grade.blended
    return float(believed @ np.arange(eyes.N_LEVELS))


def describe_doubts(grade: Grade) -> str:
    """Return what a reader should know of how an eye's grade came about; nothing if all was as usual."""
    doubts = []
    if grade.is_alone:
        doubts.append("no fellow: blended with itself" if grade.blended is not None else "no fellow")
    if grade.square.is_found and grade.square.disc.confidence == 0:
        doubts.append("no rim seen: taken whole")
    return ", ".join(doubts)


def write_json(grades: Mapping[str, Grade], reasons: Mapping[str, str]) -> str:
    """Return grades and refused files as JSON."""
    content = {
        "notice": stage.NOTICE,
        "eyes": [describe_eye(image, grade) for image, grade in grades.items()],
        "refused": [{"photograph": path, "reason": reason} for path, reason in reasons.items()],
    }
    return json.dumps(content, indent=2)


def describe_eye(image: str, grade: Grade) -> dict[str, Any]:
    """Return one eye's grade as plain numbers and names; the crop in pixels of the photograph."""
    eye, disc = eyes.parse_image_id(image), grade.square.disc
    names = ("center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence")
    return {
        "photograph": prepare.show(grade.path),
        "patient": eye.patient,
        "side": eye.side,
        "crop": {name: getattr(disc, name) for name in names} if grade.square.is_found else None,
        "scores": grade.scores.round(DECIMALS).tolist(),
        "blended": None if grade.blended is None else grade.blended.round(DECIMALS).tolist(),
        "expected_level": round(expect(grade), DECIMALS),
        "has_fellow": not grade.is_alone,
        "level": grade.level,
    }


def grade(options: argparse.Namespace) -> None:
    """Grade the photographs, print what comes out, and name at last those that are refused."""
    from tqdm import tqdm

    paths, reasons = list_photographs(options.photographs)
    grader = load_grader(options)
    grades: dict[str, Grade] = {}
    with tqdm(total=len(paths), unit="image", leave=False, disable=len(paths) <= EYES_AT_ONCE) as bar:
        for part in split_patients(paths):
            graded, refused = grade_patients(grader, part)
            grades |= graded
            reasons |= refused
            bar.update(len(part))
    if options.json:
        print(write_json(grades, reasons))
    else:
        refused = [f"refused: {name}: {reason}" for name, reason in reasons.items()]
        print("\n".join([*(write_table(grades) if grades else []), *refused, stage.NOTICE]))
    prepare.report_refused(reasons, len(grades))


def main(argv: list[str] | None = None) -> None:
    parser = stage.make_bare_parser(
        "dr.grade",
        "Grade raw photographs, which the cache need not know: per eye the probabilities of levels 0 to 4 "
        "by the net, the same blended with those of the patient's other eye, the level nearest to their mean, and how "
        f"sure the crop is (0-1). {stage.NOTICE}",
        "data/test/10_left.jpeg data/test/10_right.jpeg --cache cache",
    )
    parser.add_argument("photographs", type=Path, nargs="+", metavar="PHOTOGRAPH", help="the left and the right eye "
                        "of a patient, or one of them, or a folder of PATIENT_left and PATIENT_right")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="of a finished run: the nets and views that "
                        "dr.predict averaged, and the blend")  # fmt: skip
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="FILE.pt",
        help="nets to average, without a cache; after the photographs",
    )
    parser.add_argument("--blend", type=Path, metavar="FILE.pt", help="of blend.train (the cache's; with --checkpoint "
                        "none, and no eye knows of its fellow)")  # fmt: skip
    parser.add_argument(
        "--views", type=settings.whole(1), help=f"views averaged per eye (the cache's, or {predict.VIEWS})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first of them at hand")
    grade(parser.parse_args(argv))


if __name__ == "__main__":
    stage.run(main)
