"""Grade one patient, or a folder of them: raw photographs and a finished cache -> scores and levels, on the screen.

python -m submissions.grade LEFT RIGHT [--cache DIR | --checkpoint FILE... --blend FILE] [--views N] [--json]

What a user runs when all stages are done. Its level is the one nearest to the expected level, as of `kappa.assign
--method round`: best for an eye by itself, where annealing weighs it against a whole test set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr.explain import check_refused, show
from dr.machine import workers
from dr.training import checkpoint, runs, settings
from dr.training.runs import Voter
from preprocess.cache import stage
from preprocess.cache.errors import InputError
from preprocess.recipes import recipe
from preprocess.samples import retina

if TYPE_CHECKING:
    from submissions.panel import Grade

PATIENT = "patient"  # whose eyes two photographs show, whatever their names
DECIMALS = 6  # of what --json prints


def list_photographs(given: Sequence[Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the photographs, image id -> path, patient by patient, and the files that cannot be paired, with reasons.

    Raises InputError for anything but a folder with photographs, or one file or two.
    """
    folders = [path for path in given if path.is_dir()]
    if folders and len(given) > 1:
        raise InputError(
            f"{folders[0]}: a folder is graded alone; give one folder, or the two photographs of a patient"
        )
    if folders:
        found, misnamed = retina.list_folder(folders[0])
        if not found and not misnamed:
            raise InputError(f"{folders[0]}: holds no photographs ({', '.join(retina.SUFFIXES)})")
        return found, {show(folders[0] / name): reason for name, reason in misnamed.items()}
    if len(given) > 2:
        raise InputError(f"{len(given)} photographs: give a patient's two, or the folder that holds those of many")
    if len(given) == 2 and given[0].resolve() == given[1].resolve():
        raise InputError(f"{given[0]}: given twice; give the left eye and the right one")
    return dict(zip((f"{PATIENT}_left", f"{PATIENT}_right"), given, strict=False)), {}


def read_voters(options: argparse.Namespace) -> list[Voter]:
    """Return the nets that are named, which count alike, or those whose scores `dr.predict` averaged last.

    Raises InputError if one of them is not there.
    """
    if options.checkpoint:
        views, share = recipe.read_chain(recipe.BASE)[0].sections["dr.predict"]["views"], 1 / len(options.checkpoint)
        voters = [Voter(checkpoint.read(path), share, views) for path in options.checkpoint]
    else:
        voters = runs.read_averaged(options.cache, None)
    return [voter._replace(n_views=options.views or voter.n_views) for voter in voters]


def write_table(grades: Sequence[Grade]) -> list[str]:
    """Return the grades as lines for people, one per eye."""
    names = [f"{grade.eye.owner.side:5}  {show(Path(grade.eye.path.name))}" for grade in grades]
    width = max(map(len, names))
    voices = ["the net"] if grades[0].blended is None else ["the net", "blended with the fellow"]
    numbers = "".join(f"{level:6}" for level in range(len(grades[0].scores)))
    legend = ", ".join(f"{level} {name}" for level, name in enumerate(retina.TASK.names))
    return [
        f"{'':{width}}         " + "".join(f"  {voice:>{len(numbers)}}" for voice in voices),
        f"{'eye':{width}}     crop" + f"  {numbers}" * len(voices) + "    mean  level",
        *(f"{name:{width}}  {write_row(grade)}".rstrip() for name, grade in zip(names, grades, strict=True)),
        f"mean: the expected level; level: the one nearest to it; {legend}",
    ]


def write_row(grade: Grade) -> str:
    """Return an eye's figures as columns, and what a reader should know of how they came about."""
    disc, is_blended = grade.eye.disc, grade.blended is not None
    voices = [scores for scores in (grade.scores, grade.blended) if scores is not None]
    doubts = ["no fellow: blended with itself" if is_blended else "no fellow"] * (not grade.has_fellow)
    doubts += ["no rim seen: taken whole"] * (disc is not None and disc.confidence == 0)
    sure = f"{disc.confidence:.2f}" if disc else "-"
    numbers = "".join("  " + "".join(f"{score:6.2f}" for score in scores) for scores in voices)
    return f"{sure:>7}{numbers}  {grade.expected:6.2f}  {grade.level:5}  {', '.join(doubts)}"


def describe_grade(grade: Grade) -> dict[str, Any]:
    """Return one eye's grade as plain numbers and names; the crop in pixels of the photograph."""
    names = ("center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence")
    return {
        "photograph": show(grade.eye.path),
        "patient": grade.eye.owner.group,
        "side": grade.eye.owner.side,
        "crop": {name: getattr(grade.eye.disc, name) for name in names} if grade.eye.disc else None,
        "scores": grade.scores.round(DECIMALS).tolist(),
        "blended": None if grade.blended is None else grade.blended.round(DECIMALS).tolist(),
        "expected_level": round(grade.expected, DECIMALS),
        "has_fellow": grade.has_fellow,
        "level": grade.level,
    }


def tell(grades: Sequence[Grade], reasons: Mapping[str, str], is_json: bool) -> str:
    """Return grades and refused files as JSON, or as a table."""
    if not is_json:
        refused = [f"refused: {name}: {reason}" for name, reason in reasons.items()]
        return "\n".join([*(write_table(grades) if grades else []), *refused, stage.NOTICE])
    content = {
        "notice": stage.NOTICE,
        "eyes": [describe_grade(grade) for grade in grades],
        "refused": [{"photograph": path, "reason": reason} for path, reason in reasons.items()],
    }
    return json.dumps(content, indent=2)


def grade(options: argparse.Namespace) -> None:
    """Grade the photographs, print what comes out, and name at last those that are refused."""
    paths, misnamed = list_photographs(options.photographs)
    voters = read_voters(options)
    blend = options.blend or (None if options.checkpoint else options.cache / "blend" / "train" / "model.pt")
    workers.let_waiting_threads_sleep()
    # Torch takes a second and a half: whoever has mistyped something does not wait for it.
    from submissions import panel

    grades, refused = panel.grade_eyes(voters, blend, options.device, paths)
    print(tell(grades, misnamed | refused, options.json))
    check_refused(misnamed | refused, len(grades))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = stage.make_bare_parser(
        "submissions.grade",
        "Grade raw photographs, which the cache need not know: per eye the probabilities of levels 0 to 4 "
        "by the net, the same blended with those of the patient's other eye, the level nearest to their mean, and how "
        f"sure the crop is (0-1). {stage.NOTICE}",
        "data/test/10_left.jpeg data/test/10_right.jpeg --cache cache",
    )
    parser.add_argument("photographs", type=Path, nargs="+", metavar="PHOTOGRAPH", help="the left and the right eye "
                        "of a patient, or one of them, or a folder of PATIENT_left and PATIENT_right")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="of a finished run: the nets and views that "
                        "dr.predict averaged, and the blend")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, nargs="+", metavar="FILE.pt", help="nets to average, without a "
                        "cache; after the photographs")  # fmt: skip
    parser.add_argument("--blend", type=Path, metavar="FILE.pt", help="of blend.train (the cache's; with --checkpoint "
                        "none, and no eye knows of its fellow)")  # fmt: skip
    parser.add_argument("--views", type=stage.whole(1), help="views averaged per eye (the cache's; with --checkpoint "
                        "the article's)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    settings.add_device_option(parser)
    grade(parser.parse_args(argv))


if __name__ == "__main__":
    stage.run(main)
