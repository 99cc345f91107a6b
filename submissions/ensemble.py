"""What the nets of a finished run and the blend make of raw photographs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend.mlp import Blend, apply_blend, load_blend
from blend.pairs import pair_eyes
from dr import explain
from dr.machine import device
from dr.metrics import agreement
from dr.nets.net import Net
from dr.squares import store
from dr.tasks.task import decide_alone
from dr.training import distribution, views
from dr.training.runs import Member
from preprocess.command import progress
from preprocess.command.progress import Bar
from preprocess.dataset.dataset import Owner, Task
from preprocess.disk.errors import Unusable
from preprocess.picture import outline, square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making, Square

EYES_AT_ONCE = 64  # prepared and scored together; their squares take 50 MB


class Eye(NamedTuple):
    """What is known of a photograph before it is graded."""

    path: Path
    owner: Owner  # whom it shows
    disc: Disc | None  # where the eye was found in it; None if the picture was taken whole
    unlikeness: float | None  # how far it lies from what the nets learned from, 1 as far as it may; None if none knows


class Grade(NamedTuple):
    """What is known of one eye."""

    eye: Eye
    scores: np.ndarray  # (k,) of the nets
    blended: np.ndarray | None  # (k,) with the fellow's, None without a blend
    expected: float  # the mean level of what is believed; NaN for classes
    level: int  # the one nearest to it, or the number of the likeliest class
    has_fellow: bool  # whether the patient's other eye was graded, too
    believed: list[str] | None  # the level, the class, or the findings by name; None if no thresholds are known
    doubts: list[str]  # in words, what makes the grade less sure than its probabilities tell


class Panel(NamedTuple):
    """Those who grade."""

    members: Sequence[Member]
    nets: Sequence[Net]  # theirs, on a device
    blend: Blend | None
    thresholds: np.ndarray | None  # (k,), from which score on a finding is believed

    @property
    def task(self) -> Task:
        """What they are asked, all the same."""
        return self.members[0].checkpoint.task


def seat(members: Sequence[Member], blend_from: Path | None, thresholds: np.ndarray | None, device_name: str) -> Panel:
    """Put the nets on a device, and read the blend from its file, if there is one."""
    on = device.choose_device(device_name)
    device.prepare(on)
    nets = [views.put_net(member.checkpoint, on) for member in members]
    return Panel(members, nets, load_blend(blend_from) if blend_from else None, thresholds)


def grade_eyes(panel: Panel, owners: Mapping[Path, Owner], is_strict: bool) -> tuple[list[Grade], dict[str, str]]:
    """Return the grade of each photograph, and the refused files with the reason.

    All photographs of a patient come one after the other, so that each eye meets its fellow. Strictly, what is unlike
    anything the nets learned from is refused.
    """
    makings = dict.fromkeys(member.checkpoint.making for member in panel.members)
    is_found = outline.SHAPES[next(iter(makings)).crop] == "ellipse"
    grades: list[Grade] = []
    reasons: dict[str, str] = {}
    with progress.tracking(len(owners) * sum(member.n_views for member in panel.members), "grading") as bar:
        for part in split_patients(owners):
            squares: list[dict[Making, Square]] = []
            eyes: list[Eye] = []
            for path, owner in part.items():
                try:
                    made = {making: square.make_square(path, making) for making in makings}
                    unlikeness = measure_unlikeness(panel.members, made)
                    explain.check_like(unlikeness, is_strict)
                except Unusable as reason:
                    reasons[explain.show(path)] = str(reason)
                    continue
                disc = next(iter(made.values())).disc if is_found else None
                eyes.append(Eye(path, owner, disc, unlikeness))
                squares.append(made)
            if eyes:
                grades += decide(panel, eyes, score_eyes(panel, eyes, squares, bar))
    return grades, reasons


def split_patients(owners: Mapping[Path, Owner]) -> Iterator[dict[Path, Owner]]:
    """Yield the photographs in parts of about EYES_AT_ONCE that divide no patient."""
    part: dict[Path, Owner] = {}
    for _, of_patient in groupby(owners.items(), key=lambda item: item[1].group):
        if len(part) >= EYES_AT_ONCE:
            yield part
            part = {}
        part |= of_patient
    if part:
        yield part


def measure_unlikeness(members: Sequence[Member], squares: Mapping[Making, Square]) -> float | None:
    """Return how far a photograph's squares lie from what the nets learned from, the mean of those that know."""
    far = [(share, distribution.measure_distance(of, squares[of.making])) for of, share, *_ in members]
    known = [(share, of) for share, of in far if of is not None]
    return sum(share * of for share, of in known) / sum(share for share, _ in known) if known else None


def score_eyes(panel: Panel, eyes: Sequence[Eye], squares: Sequence[Mapping[Making, Square]], bar: Bar) -> np.ndarray:
    """Return the scores of eyes by their squares, (n, k): the nets' mean, each by its share."""
    scores = np.zeros(())
    for net, (of, share, n_views, _) in zip(panel.nets, panel.members, strict=True):
        wanted = [made[of.making] for made in squares]
        gathered = store.gather([eye.owner for eye in eyes], wanted, of.mean, of.std)
        scores = scores + share * views.score_views(net, of, gathered, n_views, len(eyes), bar).mean(axis=0)
    return scores


def decide(panel: Panel, eyes: Sequence[Eye], scores: np.ndarray) -> list[Grade]:
    """Blend the scores (n, k) of both eyes, and give each eye the level nearest to the expected one, or its class."""
    owners = [eye.owner for eye in eyes]
    are_levels, is_blended = panel.task.kind == "levels", panel.blend is not None
    final = apply_blend(panel.blend, pair_eyes(owners, scores)) if panel.blend is not None else scores
    expected = agreement.expect_levels(final) if are_levels else np.full(len(eyes), np.nan)
    levels = decide_alone(panel.task, final).tolist()
    shares = pair_eyes(owners, np.eye(len(owners))).fellow  # (n, n): whose scores are the fellow's; its own, if alone
    grades = []
    for row, eye in enumerate(eyes):
        has_fellow = not shares[row, row]
        doubts = []
        if are_levels and not has_fellow:
            doubts.append("no fellow: blended with itself" if is_blended else "no fellow")
        if eye.disc is not None and eye.disc.confidence == 0:
            doubts.append("no rim seen: taken whole")
        if explain.is_unlike(eye.unlikeness):
            doubts.append(explain.UNLIKE)
        grades.append(
            Grade(
                eye=eye,
                scores=scores[row],
                blended=final[row] if is_blended else None,
                expected=float(expected[row]),
                level=levels[row],
                has_fellow=has_fellow,
                believed=list_believed(panel, scores[row], levels[row]),
                doubts=doubts,
            )
        )
    return grades


def list_believed(panel: Panel, scores: np.ndarray, level: int) -> list[str] | None:
    """Return by name the level or class, or the findings whose score, (k,), reaches its threshold; None without any."""
    if panel.task.kind != "findings":
        return [panel.task.names[level]]
    if panel.thresholds is None:
        return None
    reached = zip(panel.task.names, scores >= panel.thresholds, strict=True)
    return [name for name, is_reached in reached if is_reached]
