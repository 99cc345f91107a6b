"""Grade raw photographs, of one patient or a folder of many -> scores and levels. They need not be in the cache.

Per eye: the model's probabilities, the same blended with those of the patient's other eye, the
level nearest to their mean, and the confidence of the crop (0-1). For classes: all probabilities
and the likeliest class; for findings: all probabilities, and the findings that reach their
threshold. The level is that of kappa.assign --method round, which is best for a single eye;
annealing needs a whole test set. Not a medical device.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dr import out_of_distribution
from dr.machine import workers
from dr.metrics.operating import UNSURE, OperatingPoint
from dr.scores import THRESHOLDS, read_thresholds
from dr.tasks.task import Task
from dr.training import runs, settings
from dr.training.runs import Member
from preprocess.command import cli, pipeline, process
from preprocess.disk import files
from preprocess.disk.errors import InputError, check_refused
from preprocess.disk.files import show_path
from submissions import download, photographs
from submissions.output import model
from submissions.output.model import Known
from submissions.photographs import Listed

if TYPE_CHECKING:
    from submissions.ensemble import Grade

UNDECIDED = (
    "which of them to believe is not known: dr.predict chooses thresholds on images held out"
)
DECIDED = "believed: what reaches the threshold that dr.predict chose"
NO_BLEND = (
    "run {}: no blend belongs to it, so no eye knows of its fellow; --blend FILE.pt gives one"
)
DECIMALS = 6  # of what --json prints


class Source(NamedTuple):
    """The nets that grade, the file of the blend, and the thresholds of findings, as far as they are known."""

    members: list[Member]
    blend: Path | None
    thresholds: list[OperatingPoint] | None
    known: Known | None = None  # what the run is worth


class Fetched(NamedTuple):
    """Photographs at hand: their paths, the address of a file by its path as it is shown, and what cannot be had."""

    paths: list[Path]
    addresses: dict[str, str]
    reasons: dict[str, str]  # address -> why it cannot be had


def describe_outputs(
    grades: Sequence[Grade], task: Task, thresholds: Sequence[OperatingPoint] | None
) -> list[str]:
    """Return classes or findings as lines for people, one per image, with all probabilities."""
    names = [show_path(Path(grade.eye.path.name)) for grade in grades]
    name_width = max(len(name) for name in ("image", *names))
    widths = [max(6, len(name)) + 2 for name in task.names]
    header = "".join(f"{name:>{width}}" for name, width in zip(task.names, widths, strict=True))
    lines = [f"{'image':{name_width}}{header}"]
    for name, grade in zip(names, grades, strict=True):
        numbers = "".join(
            f"{score:{width}.3f}" for score, width in zip(grade.scores, widths, strict=True)
        )
        decision = ", ".join(grade.decision or ["none"])
        lines.append(f"{name:{name_width}}{numbers}  {', '.join([decision, *grade.warnings])}")
    if task.has_thresholds:
        lines.append(UNDECIDED if thresholds is None else DECIDED)
    for point in thresholds or ():
        if not point.is_sure:
            lines.append(f"{point.name}: {point.positives} positives to choose by: {UNSURE}")
    return lines


def describe_levels(grades: Sequence[Grade], task: Task, known: Known | None) -> list[str]:
    """Return the grades of eyes as lines for people, one per eye."""
    condition = None
    if known is not None:
        condition = known.condition
    names = [
        f"{grade.eye.subject.side or '-':5}  {show_path(Path(grade.eye.path.name))}"
        for grade in grades
    ]
    width = max(len(name) for name in names)
    titles = ["the net"]
    if grades[0].blended is not None:
        titles.append("blended with the fellow")
    columns = "  " + "".join(f"{level:6}" for level in range(len(grades[0].scores)))
    title_line = "".join(f"{title:>{len(columns)}}" for title in titles)
    lines = [
        f"{'':{width}}         {title_line}",
        f"{'eye':{width}}     crop{columns * len(titles)}    mean  level  likeliest",
    ]
    if condition is not None:
        lines[-1] += f"  {condition.name}"
    for name, grade in zip(names, grades, strict=True):
        confidence = f"{grade.eye.disc.confidence:.2f}" if grade.eye.disc else "-"
        fields = [f"{confidence:>7}"]
        for scores in (grade.scores, grade.blended):
            if scores is not None:
                fields.append("".join(f"{score:6.2f}" for score in scores))
        fields += [f"{grade.expected:6.2f}", f"{grade.output:5}", f"{grade.likeliest:9}"]
        if known is not None and condition is not None:
            fields.append(describe_screening(grade, task, known))
        fields.append(", ".join(grade.warnings))
        lines.append(f"{name:{width}}  {'  '.join(fields)}".rstrip())
    legend = ", ".join(task.titles)
    lines.append(f"mean: the expected level; level: the one nearest to it; {legend}")
    if any(grade.output != grade.likeliest for grade in grades):
        lines.append(
            f"level and likeliest differ where probabilities are spread: the level is {task.decision_rule}, which "
            "costs least where a distant level is the worse mistake"
        )
    if known is not None:
        lines += [line for line in (model.describe_points(known), f"model: {known.model}") if line]
    return lines


def describe_screening(grade: Grade, task: Task, known: Known) -> str:
    """Return the probability of what is screened for, and which operating points it reaches."""
    screened = model.screen(task, known, grade.last)
    if screened is None:
        return ""
    reached = [name for name, point in screened["points"].items() if point["is_reached"]]
    text = f"{screened['probability']:.0%}"
    if reached:
        text += f" (refer by {' and '.join(reached)})"
    elif screened["points"]:
        text += " (do not refer)"
    return text


def describe(grade: Grade, task: Task, known: Known | None = None) -> dict[str, Any]:
    """Return one photograph's grade as plain numbers and names; the crop in pixels of the photograph."""
    content: dict[str, Any] = {"photograph": show_path(grade.eye.path)}
    if task.has_eyes:
        content |= describe_eye(grade)
        if known is not None:
            content["screening"] = model.screen(task, known, grade.last)
    else:
        if task.has_thresholds:
            content["findings"] = grade.decision
        else:
            content["class"] = task.names[grade.output]
        content["scores"] = dict(
            zip(task.names, grade.scores.round(DECIMALS).tolist(), strict=True)
        )
    content["warnings"] = grade.warnings
    distance = grade.eye.distance
    content["unlikeness"] = None if distance is None else round(distance, DECIMALS)
    content["is_unlike"] = None if distance is None else out_of_distribution.is_outside(distance)
    return content


def describe_eye(grade: Grade) -> dict[str, Any]:
    """Return what an eye's grade has beside its photograph and the out-of-distribution check."""
    disc = grade.eye.disc
    crop = None
    if disc:
        names = ("center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence")
        crop = {name: getattr(disc, name) for name in names}
    return {
        "patient": grade.eye.subject.patient or None,
        "side": grade.eye.subject.side or None,
        "crop": crop,
        "scores": grade.scores.round(DECIMALS).tolist(),
        "blended": None if grade.blended is None else grade.blended.round(DECIMALS).tolist(),
        "expected_level": round(grade.expected, DECIMALS),
        "has_fellow": grade.has_fellow,
        "level": grade.output,
        "likeliest_level": grade.likeliest,
    }


def fetch(names: Sequence[str], folder: Path) -> Fetched:
    """Put files, in the folder, in the place of the addresses among photographs."""
    fetched = Fetched([], {}, {})
    for number, name in enumerate(names):
        if not download.is_url(name):
            fetched.paths.append(Path(name))
            continue
        target = folder / str(number)  # two addresses may end in one name
        target.mkdir()
        try:
            path = download.fetch(name, target)
        except InputError as error:
            fetched.reasons[name] = str(error)
            continue
        fetched.paths.append(path)
        fetched.addresses[show_path(path)] = name
    if fetched.reasons and not fetched.paths:
        check_refused(fetched.reasons, 0)
    return fetched


def list_photographs(options: argparse.Namespace, paths: Sequence[Path], task: Task) -> Listed:
    """Return the photographs to grade. Raises InputError for options that the task has no use for."""
    if task.has_eyes:
        return photographs.list_eyes(paths, options.left, options.right, options.patient)
    if options.left or options.right or options.patient or options.blend:
        raise InputError(
            "--left, --right, --patient and --blend are for eyes that have levels; this net tells others"
        )
    return photographs.list_images(paths)


def grade(options: argparse.Namespace, folder: Path) -> None:
    """Grade the photographs, print what comes out, and name those refused at the end; `folder` is for downloads."""
    fetched = fetch(options.photographs, folder)
    if not (fetched.paths or options.left or options.right):
        raise InputError("no photographs: give some, all of them before --checkpoint")
    source = read_source(options)
    task = source.members[0].checkpoint.task
    listed = list_photographs(options, fetched.paths, task)
    workers.let_waiting_threads_sleep()
    # Imported late: whoever has mistyped something does not wait for torch.
    from submissions import ensemble

    for line in listed.unread:
        print(line, file=sys.stderr)
    loaded = ensemble.load(source.members, source.blend, source.thresholds, options.device)
    grades, reasons = ensemble.grade_eyes(loaded, listed.subjects, options.strict)
    refused = dict(listed.misnamed)
    for name, reason in reasons.items():
        refused[fetched.addresses.get(name, name)] = reason
    refused |= fetched.reasons
    if options.json:
        print(json.dumps(describe_all(grades, refused, source, fetched.addresses), indent=2))
    else:
        print_table(grades, refused, source)
    check_refused(refused, len(grades))


def describe_all(
    grades: Sequence[Grade], refused: Mapping[str, str], source: Source, names: Mapping[str, str]
) -> dict[str, Any]:
    """Return all that is known of the photographs as plain numbers and names, and the nets that grade.

    `names` are those to show in the place of paths, such as the address of one from the web.
    """
    task = source.members[0].checkpoint.task
    entries = []
    for graded in grades:
        entry = describe(graded, task, source.known)
        entry["photograph"] = names.get(entry["photograph"], entry["photograph"])
        entries.append(entry)
    content: dict[str, Any] = {
        "notice": pipeline.NOTICE,
        "version": pipeline.VERSION,
        "nets": [runs.describe_member(member) for member in source.members],
        "blend": files.hash_file(source.blend) if source.blend else None,
        "eyes" if task.has_eyes else "images": entries,
        "refused": [{"photograph": path, "reason": reason} for path, reason in refused.items()],
    }
    if task.has_thresholds:
        content["thresholds"] = describe_thresholds(source.thresholds)
    return content


def describe_thresholds(
    points: Sequence[OperatingPoint] | None,
) -> dict[str, dict[str, Any]] | None:
    """Return the threshold of each finding, on how many positives it was chosen, and whether it decides anything."""
    if points is None:
        return None
    described = {}
    for point in points:
        threshold = None if np.isnan(point.threshold) else point.threshold
        described[point.name] = {
            "threshold": threshold,
            "positives": point.positives,
            "decides": point.is_sure,
        }
    return described


def print_table(grades: Sequence[Grade], refused: dict[str, str], source: Source) -> None:
    """Print the grades as a table for people, and what is refused."""
    task = source.members[0].checkpoint.task
    lines: list[str] = []
    if source.known is not None and source.known.warning:
        lines.append(f"warning: {source.known.warning}")
    if not task.has_eyes:
        lines += describe_outputs(grades, task, source.thresholds)
    elif grades:
        lines += describe_levels(grades, task, source.known)
    lines += [f"refused: {name}: {reason}" for name, reason in refused.items()]
    if any(graded.eye.distance is None for graded in grades):
        lines.append(out_of_distribution.UNKNOWN)
    lines.append(pipeline.NOTICE)
    print("\n".join(lines))


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the nets that grade, see `read_source`, and the device."""
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="of a finished run: the nets and views that "
                        "dr.predict averaged, and the blend")  # fmt: skip
    parser.add_argument("--run", type=settings.parse_run, help="name of one of several nets in the cache, or of the "
                        "mean of some, instead of the one without a name; no blend belongs to it")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, nargs="+", metavar="FILE.pt", help="nets to average, without a "
                        "cache")  # fmt: skip
    parser.add_argument("--blend", type=Path, metavar="FILE.pt", help="of blend.train (the cache's; with --checkpoint "
                        "none, and no eye knows of its fellow)")  # fmt: skip
    parser.add_argument("--views", type=cli.whole(1), help="views averaged per eye (the cache's; with --checkpoint "
                        "the article's)")  # fmt: skip
    out_of_distribution.add_strict_option(parser)
    settings.add_device_option(parser)


def read_source(options: argparse.Namespace) -> Source:
    """Return what the options name to grade with.

    Raises InputError if it is not there, or does not know what is to be refused.
    """
    if options.run and options.checkpoint:
        raise InputError("--run and --checkpoint: give the one or the other")
    folder = runs.folder_of(options.cache, options.run)
    members = runs.read_members(folder, options.checkpoint, options.views)
    if options.strict and not any(member.checkpoint.distribution for member in members):
        raise InputError(f"--strict: {out_of_distribution.UNKNOWN}")
    task = members[0].checkpoint.task
    blend = options.blend
    thresholds = None
    if not options.checkpoint:
        if task.has_eyes and not blend:
            if options.run:
                print(NO_BLEND.format(options.run), file=sys.stderr)  # standard output may be JSON
            else:
                blend = options.cache / "blend" / "train" / "model.pt"
        if task.has_thresholds:
            thresholds = read_thresholds(folder / THRESHOLDS, task)
        known = model.read_known(options.cache, options.run, members)
    else:
        known = model.know_little(members)
    return Source(members, blend, thresholds, known)


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser(
        "submissions.grade", __doc__, "data/test/10_left.jpeg data/test/10_right.jpeg --cache cache"
    )
    parser.add_argument("photographs", nargs="*", metavar="PHOTOGRAPH", help="files and folders of "
                        "any names, or samples.csv: PATIENT_left and PATIENT_right are blended, or what image, path, "
                        "patient and side of the table say; an eye of another name has no fellow; http(s) addresses, "
                        "too; all of them before --checkpoint")  # fmt: skip
    parser.add_argument(
        "--left", type=Path, metavar="FILE", help="the left eye, whatever the file's name"
    )
    parser.add_argument("--right", type=Path, metavar="FILE", help="the right eye")
    parser.add_argument(
        "--patient", metavar="NAME", help="whose they are (as the names say, if they do)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_source_options(parser)
    with tempfile.TemporaryDirectory() as folder:
        grade(parser.parse_args(argv), Path(folder))


if __name__ == "__main__":
    process.run(main)
