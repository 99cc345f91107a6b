"""Grade raw photographs, which the cache need not know: one patient's, or a folder of many -> scores and levels.

Per eye the probabilities of levels 0 to 4 by the net, the same blended with those of the patient's other eye, the level
nearest to their mean, and how sure the crop is (0-1). Of a net that tells classes: all probabilities, and the
likeliest; findings: all probabilities, and those that reach their threshold. The level is that of kappa.assign --method
round: best for an eye by itself, where annealing weighs it against a whole test set. Not a medical device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr import explain
from dr.explain import check_refused, show
from dr.machine import workers
from dr.scores import THRESHOLDS, read_thresholds
from dr.training import runs, settings
from dr.training.runs import Member
from preprocess.command import cli, pipeline, process
from preprocess.dataset import kaggle, listing
from preprocess.dataset.dataset import Owner, Task
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, shorten
from submissions import download

if TYPE_CHECKING:
    from submissions.ensemble import Grade

UNDECIDED = "which of them to believe is not known: dr.predict chooses thresholds on images held out"
DECIMALS = 6  # of what --json prints


def list_photographs(
    photographs: Sequence[Path], left: Path | None, right: Path | None, patient: str | None
) -> tuple[dict[Path, Owner], dict[str, str]]:
    """Return whose eye each photograph shows, patient by patient, and the files that cannot be paired, with reasons.

    Raises InputError for anything but a folder with photographs, or one file or two.
    """
    told = [(path, side) for path, side in ((left, "left"), (right, "right")) if path]
    if told and photographs:
        raise InputError("--left and --right are instead of photographs without them, not beside them")
    given = told or [(path, "") for path in photographs]
    folders = [path for path, _ in given if path.is_dir()]
    if folders and len(given) > 1:
        raise InputError(
            f"{folders[0]}: a folder is graded alone; give one folder, or the two photographs of a patient"
        )
    if folders:
        if patient is not None:
            raise InputError("--patient: of a folder the names of the files tell whose eyes they show")
        found, misnamed = kaggle.list_folder(folders[0])
        if not found and not misnamed:
            raise InputError(f"{folders[0]}: holds no photographs ({', '.join(listing.SUFFIXES)})")
        owners = {path: kaggle.find_owner(image) for image, path in found.items()}
        return owners, {show(folders[0] / name): reason for name, reason in misnamed.items()}
    if not 1 <= len(given) <= 2:
        n = len(given) or "no"
        raise InputError(f"{n} photographs: give a patient's one or two, or the folder that holds those of many")
    return find_owners(given, patient), {}


def find_owners(given: Sequence[tuple[Path, str]], patient: str | None) -> dict[Path, Owner]:
    """Return whose eye each of a patient's photographs shows, the left one first: as its name says, or as is told.

    One or two are given, each with the side that is told, or "". Names that are not PATIENT_left or PATIENT_right say
    nothing; what nobody says is "".

    Raises InputError for what contradicts itself, and for two photographs of which one may show either eye.
    """
    if patient is not None and not tables.is_id(patient):
        raise InputError(f"--patient {shorten(patient)!r}: not a name that an image id may have")
    owners = {}
    for path, told in given:
        named = Owner("")
        with contextlib.suppress(InputError):
            named = kaggle.find_owner(path.stem)
        if told and named.side not in ("", told):
            raise InputError(f"{show(path)}: the {named.side} eye by its name, given as the {told} one")
        if patient and named.group not in ("", patient):
            raise InputError(f"{show(path)}: of patient {named.group} by its name, of {patient} by --patient")
        owners[path] = Owner(patient or named.group, told or named.side)
    if len(given) == 1:
        return owners
    both = " and ".join(show(path) for path, _ in given)
    if given[0][0].resolve() == given[1][0].resolve():
        raise InputError(f"{both}: one file given twice; give the left eye and the right one")
    if "" in (sides := [owner.side for owner in owners.values()]):
        unknown = show(list(owners)[sides.index("")])
        raise InputError(f"{unknown}: which eye is it? Its name does not say; give --left FILE --right FILE")
    groups = dict.fromkeys(owner.group for owner in owners.values() if owner.group)
    if len(groups) > 1:
        raise InputError(f"{both}: of two patients, {' and '.join(groups)}; grade them alone, or a folder of all")
    if len({*sides}) == 1:
        raise InputError(f"{both}: both are the {sides[0]} eye; grade them alone, or a folder of all")
    both_of = {path: Owner(next(iter(groups), ""), owner.side) for path, owner in owners.items()}
    return dict(sorted(both_of.items(), key=lambda item: item[1].side))


def list_images(given: Sequence[Path]) -> dict[Path, Owner]:
    """Return the images of a net that knows no eyes, each its own owner: files, and those in folders."""
    found: list[Path] = []
    for path in given:
        within = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in within if file == path or file.suffix.lower() in listing.SUFFIXES]
    if not found:
        raise InputError(f"no photographs: give some, or a folder that holds them ({', '.join(listing.SUFFIXES)})")
    return {path: Owner(str(path)) for path in found}


def write_outputs(grades: Sequence[Grade], task: Task, has_thresholds: bool) -> list[str]:
    """Return classes or findings as lines for people, one per image, with all probabilities."""
    names = [show(Path(grade.eye.path.name)) for grade in grades]
    width, widths = max(map(len, ("image", *names))), [max(6, len(name)) + 2 for name in task.names]
    lines = [f"{'image':{width}}" + "".join(f"{name:>{px}}" for name, px in zip(task.names, widths, strict=True))]
    for name, grade in zip(names, grades, strict=True):
        numbers = "".join(f"{score:{px}.3f}" for score, px in zip(grade.scores, widths, strict=True))
        believed = ", ".join(grade.believed or ["none"])
        lines.append(f"{name:{width}}{numbers}  {', '.join([believed, *grade.doubts])}")
    told = "believed: what reaches the threshold that dr.predict chose" if has_thresholds else UNDECIDED
    return [*lines, *[told] * (task.kind == "findings")]


def write_levels(grades: Sequence[Grade]) -> list[str]:
    """Return the grades of eyes as lines for people, one per eye."""
    names = [f"{grade.eye.owner.side or '-':5}  {show(Path(grade.eye.path.name))}" for grade in grades]
    width = max(map(len, names))
    voices = ["the net"] if grades[0].blended is None else ["the net", "blended with the fellow"]
    numbers = "  " + "".join(f"{level:6}" for level in range(len(grades[0].scores)))
    lines = [
        f"{'':{width}}         " + "".join(f"{voice:>{len(numbers)}}" for voice in voices),
        f"{'eye':{width}}     crop" + numbers * len(voices) + "    mean  level",
    ]
    for name, of in zip(names, grades, strict=True):
        sure = f"{of.eye.disc.confidence:.2f}" if of.eye.disc else "-"
        parts = ["".join(f"{score:6.2f}" for score in part) for part in (of.scores, of.blended) if part is not None]
        figures = "  ".join([f"{sure:>7}", *parts, f"{of.expected:6.2f}", f"{of.level:5}", ", ".join(of.doubts)])
        lines.append(f"{name:{width}}  {figures}".rstrip())
    legend = ", ".join(f"{level} {name}" for level, name in enumerate(kaggle.TASK.names))
    return [*lines, f"mean: the expected level; level: the one nearest to it; {legend}"]


def describe(grade: Grade, task: Task) -> dict[str, Any]:
    """Return one photograph's grade as plain numbers and names; the crop in pixels of the photograph."""
    eye, scores = grade.eye, grade.scores.round(DECIMALS).tolist()
    known = {"photograph": show(eye.path)}
    likeness = {
        "unlikeness": None if eye.unlikeness is None else round(eye.unlikeness, DECIMALS),
        "is_unlike": None if eye.unlikeness is None else explain.is_unlike(eye.unlikeness),
    }
    if task.kind != "levels":
        is_class = task.kind == "classes"
        answer = {"class": task.names[grade.level]} if is_class else {"findings": grade.believed}
        return {**known, **answer, "scores": dict(zip(task.names, scores, strict=True)), **likeness}
    names = ("center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence")
    return {
        **known,
        "patient": eye.owner.group or None,
        "side": eye.owner.side or None,
        "crop": {name: getattr(eye.disc, name) for name in names} if eye.disc else None,
        "scores": scores,
        "blended": None if grade.blended is None else grade.blended.round(DECIMALS).tolist(),
        "expected_level": round(grade.expected, DECIMALS),
        "has_fellow": grade.has_fellow,
        "level": grade.level,
        **likeness,
    }


def fetch(given: Sequence[str], folder: Path) -> tuple[list[Path], dict[str, str], dict[str, str]]:
    """Put files, in the folder, in the place of the addresses among photographs.

    Return all paths, the address of a file by its path as it is shown, and of addresses that cannot be had the reason.
    """
    paths: list[Path] = []
    addresses, gone = dict[str, str](), dict[str, str]()
    for number, name in enumerate(given):
        if not download.is_url(name):
            paths.append(Path(name))
            continue
        own = folder / str(number)  # two addresses may end in one name
        own.mkdir()
        try:
            paths.append(download.fetch(name, own))
        except InputError as error:
            gone[name] = str(error)
        else:
            addresses[show(paths[-1])] = name
    if gone and not paths:
        check_refused(gone, 0)
    return paths, addresses, gone


def grade(options: argparse.Namespace, folder: Path) -> None:
    """Grade the photographs, print what comes out, and name at last those refused; `folder` is for downloads."""
    paths, addresses, gone = fetch(options.photographs, folder)
    if not (paths or options.left or options.right):
        raise InputError("no photographs: give some, all of them before --checkpoint")
    members, blend, thresholds = read_voices(options)
    task, misnamed = members[0].checkpoint.task, dict[str, str]()
    if task.kind == "levels":
        owners, misnamed = list_photographs(paths, options.left, options.right, options.patient)
    elif options.left or options.right or options.patient or options.blend:
        raise InputError("--left, --right, --patient and --blend are for eyes that have levels; this net tells others")
    else:
        owners = list_images(paths)
    workers.let_waiting_threads_sleep()
    # Torch takes a second and a half: whoever has mistyped something does not wait for it.
    from submissions import ensemble

    grades, unusable = ensemble.grade_eyes(
        ensemble.seat(members, blend, thresholds, options.device), owners, options.strict
    )
    refused = misnamed | {addresses.get(name, name): reason for name, reason in unusable.items()} | gone
    if options.json:
        told = [describe(graded, task) for graded in grades]
        content = {
            "notice": pipeline.NOTICE,
            "version": pipeline.VERSION,
            "nets": [runs.describe_member(member) for member in members],
            "blend": files.hash_file(blend) if blend else None,
            "eyes" if task.kind == "levels" else "images": [
                entry | {"photograph": addresses.get(entry["photograph"], entry["photograph"])} for entry in told
            ],
            "refused": [{"photograph": path, "reason": reason} for path, reason in refused.items()],
        }
        print(json.dumps(content, indent=2))
    else:
        if task.kind != "levels":
            print(*write_outputs(grades, task, thresholds is not None), sep="\n")
        elif grades:
            print(*write_levels(grades), sep="\n")
        unknown = [explain.UNKNOWN] * any(graded.eye.unlikeness is None for graded in grades)
        print(*(f"refused: {name}: {reason}" for name, reason in refused.items()), *unknown, pipeline.NOTICE, sep="\n")
    check_refused(refused, len(grades))


def add_voice_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell who grades, see `read_voices`, and on which device."""
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="of a finished run: the nets and views that "
                        "dr.predict averaged, and the blend")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, nargs="+", metavar="FILE.pt", help="nets to average, without a "
                        "cache")  # fmt: skip
    parser.add_argument("--blend", type=Path, metavar="FILE.pt", help="of blend.train (the cache's; with --checkpoint "
                        "none, and no eye knows of its fellow)")  # fmt: skip
    parser.add_argument("--views", type=cli.whole(1), help="views averaged per eye (the cache's; with --checkpoint "
                        "the article's)")  # fmt: skip
    explain.add_strict_option(parser)
    settings.add_device_option(parser)


def read_voices(options: argparse.Namespace) -> tuple[list[Member], Path | None, np.ndarray | None]:
    """Return the nets that the options name, the file of the blend, and the thresholds of findings, as far as known,
    for `ensemble.seat`.

    Raises InputError if they are not there, or do not know what is to be refused.
    """
    members = runs.read_members(options.cache / "dr", options.checkpoint, options.views)
    if options.strict and not any(member.checkpoint.distribution for member in members):
        raise InputError(f"--strict: {explain.UNKNOWN}")
    task, blend, thresholds = members[0].checkpoint.task, options.blend, None
    if not options.checkpoint:
        if task.kind == "levels":
            blend = blend or options.cache / "blend" / "train" / "model.pt"
        elif task.kind == "findings":
            thresholds = read_thresholds(options.cache / "dr" / THRESHOLDS, task)
    return members, blend, thresholds


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "submissions.grade", __doc__, "data/test/10_left.jpeg data/test/10_right.jpeg --cache cache"
    )
    parser.add_argument("photographs", nargs="*", metavar="PHOTOGRAPH", help="PATIENT_left and "
                        "PATIENT_right, or one of them, or one of any name, or a folder of many patients; "
                        "for classes and findings any number of images and folders; http(s) addresses, too; "
                        "all of them before --checkpoint")  # fmt: skip
    parser.add_argument("--left", type=Path, metavar="FILE", help="the left eye, whatever the file's name")
    parser.add_argument("--right", type=Path, metavar="FILE", help="the right eye")
    parser.add_argument("--patient", metavar="NAME", help="whose they are (as the names say, if they do)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_voice_options(parser)
    with tempfile.TemporaryDirectory() as folder:
        grade(parser.parse_args(argv), Path(folder))


if __name__ == "__main__":
    process.run(main)
