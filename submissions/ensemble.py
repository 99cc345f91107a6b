"""An ensemble: the nets of a finished run and the blend, and what they make of raw photographs."""

import filecmp
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend.mlp import Blend, apply_blend, load_blend
from blend.pairs import pair_eyes
from dr import out_of_distribution
from dr.machine import device
from dr.metrics import agreement
from dr.metrics.operating import OperatingPoint
from dr.nets.net import Net
from dr.squares import store
from dr.tasks.task import Task
from dr.training import distribution, views
from dr.training.runs import Member
from preprocess.command import progress
from preprocess.command.progress import Bar
from preprocess.dataset.dataset import Subject
from preprocess.disk import files
from preprocess.disk.errors import Unusable
from preprocess.picture import outline
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making, Square, make_square

COPY = "the same photograph is given as the other eye"
EYES_AT_ONCE = 64  # prepared and scored together; their squares take 50 MB


class Eye(NamedTuple):
    """What is known of a photograph before it is graded."""

    path: Path
    subject: Subject  # whose eye it shows, as far as that is known
    disc: Disc | None  # where the eye was found in it; None if the picture was taken whole
    distance: (
        float | None
    )  # to the training squares, out of distribution above 1; None if no checkpoint has it


class Grade(NamedTuple):
    """What is known of one photograph after it is graded."""

    eye: Eye
    scores: np.ndarray  # (k,), the mean of the nets
    blended: np.ndarray | None  # (k,) with the fellow eye's, None without a blend
    expected: float  # the mean level of the last scores; NaN where outputs have no order
    output: int  # the level nearest to it, or the number of the likeliest output
    has_fellow: bool  # whether the patient's other eye was graded as well
    decision: (
        list[str] | None
    )  # the level, the class, or the findings by name; None if no thresholds are known
    warnings: list[str]  # in words, what makes the grade less sure than its probabilities tell

    @property
    def last(self) -> np.ndarray:
        """The scores that the decision is made by, (k,)."""
        return self.scores if self.blended is None else self.blended

    @property
    def likeliest(self) -> int:
        """The likeliest output, which need not be the one decided on."""
        return int(self.last.argmax())


class Graded(NamedTuple):
    """Grades, and the photographs that were refused, with the reason."""

    grades: list[Grade]
    reasons: dict[str, str]


class Ensemble(NamedTuple):
    """Nets whose scores are averaged, and what their scores are turned into."""

    members: Sequence[Member]
    nets: Sequence[Net]  # theirs, on a device
    blend: Blend | None
    thresholds: (
        Sequence[OperatingPoint] | None
    )  # the point from which each finding counts as present

    @property
    def task(self) -> Task:
        """The task, which all members share."""
        return self.members[0].checkpoint.task


def load(
    members: Sequence[Member],
    blend_from: Path | None,
    thresholds: Sequence[OperatingPoint] | None,
    device_name: str,
) -> Ensemble:
    """Put the nets on a device, and read the blend from its file, if there is one."""
    on = device.choose_device(device_name)
    device.prepare(on)
    nets = [views.put_net(member.checkpoint, on) for member in members]
    blend = load_blend(blend_from) if blend_from else None
    return Ensemble(members, nets, blend, thresholds)


def grade_eyes(
    ensemble: Ensemble,
    subjects: Mapping[Path, Subject],
    is_strict: bool,
    note: Callable[[int, int], object] | None = None,
) -> Graded:
    """Return the grade of each photograph, and the refused files with the reason.

    A patient's photographs are graded together, so that each eye meets its fellow. If it is strict, photographs that
    are out of distribution are refused. `note` is called with the number of photographs that are prepared, and of all.
    """
    n_prepared = 0
    grades: list[Grade] = []
    reasons: dict[str, str] = {}
    n_views = sum(member.n_views for member in ensemble.members)
    with progress.tracking(len(subjects) * n_views, "grading") as bar:
        for part in split_patients(subjects):
            eyes: list[Eye] = []
            squares: list[dict[Making, Square]] = []
            for path, subject in part.items():
                n_prepared += 1
                if note is not None:
                    note(n_prepared, len(subjects))
                try:
                    eye, squares_of_eye = prepare(ensemble, path, subject, is_strict)
                except Unusable as reason:
                    reasons[files.show_path(path)] = str(reason)
                    continue
                eyes.append(eye)
                squares.append(squares_of_eye)
            if eyes:
                grades += decide(ensemble, eyes, score_eyes(ensemble, eyes, squares, bar))
    return Graded(grades, reasons)


def split_patients(subjects: Mapping[Path, Subject]) -> Iterator[dict[Path, Subject]]:
    """Yield the photographs in parts of about EYES_AT_ONCE that divide no patient."""
    part: dict[Path, Subject] = {}
    for photographs in group_by_patient(subjects).values():
        if len(part) >= EYES_AT_ONCE:
            yield part
            part = {}
        part |= photographs
    if part:
        yield part


def group_by_patient(subjects: Mapping[Path, Subject]) -> dict[str, dict[Path, Subject]]:
    """Return the photographs of each patient, in whatever order they come: names may part a patient's."""
    patients: dict[str, dict[Path, Subject]] = {}
    for path, subject in subjects.items():
        patient = subject.patient or str(path)  # unknown: each photograph by itself
        patients.setdefault(patient, {})[path] = subject
    return patients


def prepare(
    ensemble: Ensemble, path: Path, subject: Subject, is_strict: bool
) -> tuple[Eye, dict[Making, Square]]:
    """Return what is known of a photograph, and its squares as the nets want them. Raises Unusable if it is refused."""
    makings = list(dict.fromkeys(member.checkpoint.making for member in ensemble.members))
    squares = {making: make_square(path, making) for making in makings}
    distance = measure_distance(ensemble.members, squares)
    out_of_distribution.check_inside(distance, is_strict)
    disc = None
    if outline.SHAPES[makings[0].crop] == "ellipse":
        disc = squares[makings[0]].disc
    return Eye(path, subject, disc, distance), squares


def measure_distance(members: Sequence[Member], squares: Mapping[Making, Square]) -> float | None:
    """Return the distance of a photograph to the training squares, averaged over the nets whose checkpoint has it."""
    total = 0.0
    total_share = 0.0
    for member in members:
        distance = distribution.measure_distance(
            member.checkpoint, squares[member.checkpoint.making]
        )
        if distance is not None:
            total += member.share * distance
            total_share += member.share
    return total / total_share if total_share else None


def score_eyes(
    ensemble: Ensemble, eyes: Sequence[Eye], squares: Sequence[Mapping[Making, Square]], bar: Bar
) -> np.ndarray:
    """Return the scores of eyes by their squares, (n, k): the nets' mean, each by its share."""
    subjects = [eye.subject for eye in eyes]
    scores = np.zeros(())
    for net, member in zip(ensemble.nets, ensemble.members, strict=True):
        checkpoint = member.checkpoint
        wanted = [squares_of_eye[checkpoint.making] for squares_of_eye in squares]
        gathered = store.gather(subjects, wanted, checkpoint.mean, checkpoint.std)
        by_view = views.score_views(net, checkpoint, gathered, member.n_views, len(eyes), bar)
        scores = scores + member.share * by_view.mean(axis=0)
    return scores


def decide(ensemble: Ensemble, eyes: Sequence[Eye], scores: np.ndarray) -> list[Grade]:
    """Blend the scores (n, k) of both eyes, and give each eye its level, class or findings."""
    task = ensemble.task
    subjects = [eye.subject for eye in eyes]
    is_blended = ensemble.blend is not None
    final = scores
    if ensemble.blend is not None:
        final = apply_blend(ensemble.blend, pair_eyes(subjects, scores))
    expected = agreement.expect_levels(final) if task.has_eyes else np.full(len(eyes), np.nan)
    outputs = task.decide(final).tolist()
    shares = pair_eyes(
        subjects, np.eye(len(subjects))
    ).fellow  # (n, n): whose scores are the fellow's; its own, if alone
    grades = []
    for row, eye in enumerate(eyes):
        has_fellow = not shares[row, row]
        warnings = []
        if task.has_eyes and not has_fellow:
            warnings.append("no fellow: blended with itself" if is_blended else "no fellow")
        if any(is_copy(eye, other) for other in eyes):
            warnings.append(COPY)
        if eye.disc is not None and eye.disc.confidence == 0:
            warnings.append("no rim seen: taken whole")
        if out_of_distribution.is_outside(eye.distance):
            warnings.append(out_of_distribution.OUTSIDE)
        grades.append(
            Grade(
                eye=eye,
                scores=scores[row],
                blended=final[row] if is_blended else None,
                expected=float(expected[row]),
                output=outputs[row],
                has_fellow=has_fellow,
                decision=list_decision(ensemble, scores[row], outputs[row]),
                warnings=warnings,
            )
        )
    return grades


def is_copy(eye: Eye, other: Eye) -> bool:
    """Return whether another eye of a patient is shown by the same photograph, perhaps a copy of the file."""
    if other.subject.patient != eye.subject.patient or other.subject.side == eye.subject.side:
        return False
    return filecmp.cmp(eye.path, other.path, shallow=False)


def list_decision(ensemble: Ensemble, scores: np.ndarray, output: int) -> list[str] | None:
    """Return by name the level or class, or the findings whose score, (k,), reaches its threshold; None without any.

    A threshold that was chosen on too few positives decides nothing.
    """
    if not ensemble.task.has_thresholds:
        return [ensemble.task.names[output]]
    if ensemble.thresholds is None:
        return None
    present = []
    for point, score in zip(ensemble.thresholds, scores, strict=True):
        if point.is_sure and score >= point.threshold:
            present.append(point.name)
    return present


def list_undecided(thresholds: Sequence[OperatingPoint] | None) -> list[str]:
    """Return the findings on which nothing is decided, by name, since their thresholds are not sure."""
    return [point.name for point in thresholds or () if not point.is_sure]
