"""What the nets of a finished run and the blend make of raw photographs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend.mlp import Blend, apply_blend, load_blend
from blend.pairs import pair_eyes
from dr import measures
from dr.explain import check_like, show
from dr.machine import device
from dr.nets.net import Net
from dr.squares import store
from dr.task import decide_alone
from dr.training import likeness, views
from dr.training.runs import Voter
from preprocess.cache import progress
from preprocess.cache.errors import Unusable
from preprocess.cache.progress import Bar
from preprocess.picture import outline, square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making, Square
from preprocess.samples.layout import Owner, Task

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


class Panel(NamedTuple):
    """Those who grade."""

    voters: Sequence[Voter]
    nets: Sequence[Net]  # theirs, on a device
    blend: Blend | None


def seat(voters: Sequence[Voter], blend_from: Path | None, device_name: str) -> Panel:
    """Put the nets on a device, and read the blend from its file, if there is one."""
    on = device.choose_device(device_name)
    device.prepare(on)
    nets = [views.put_net(voter.checkpoint, on) for voter in voters]
    return Panel(voters, nets, load_blend(blend_from) if blend_from else None)


def grade_eyes(panel: Panel, owners: Mapping[Path, Owner], is_strict: bool) -> tuple[list[Grade], dict[str, str]]:
    """Return the grade of each photograph, and the refused files with the reason.

    All photographs of a patient come one after the other, so that each eye meets its fellow. Strictly, what is unlike
    anything the nets learned from is refused.
    """
    voters, nets, blend = panel
    makings = dict.fromkeys(voter.checkpoint.making for voter in voters)
    is_found = outline.SHAPES[next(iter(makings)).crop] == "ellipse"
    grades: list[Grade] = []
    reasons: dict[str, str] = {}
    with progress.tracking(len(owners) * sum(voter.n_views for voter in voters), "grading") as bar:
        for part in split_patients(owners):
            squares: list[dict[Making, Square]] = []
            eyes: list[Eye] = []
            for path, owner in part.items():
                try:
                    made = {making: square.make_square(path, making) for making in makings}
                    unlikeness = measure_unlikeness(voters, made)
                    check_like(unlikeness, is_strict)
                except Unusable as reason:
                    reasons[show(path)] = str(reason)
                    continue
                disc = next(iter(made.values())).disc if is_found else None
                eyes.append(Eye(path, owner, disc, unlikeness))
                squares.append(made)
            if eyes:
                scores = score_eyes(nets, voters, eyes, squares, bar)
                grades += decide(voters[0].checkpoint.task, blend, eyes, scores)
    return grades, reasons


def measure_unlikeness(voters: Sequence[Voter], squares: Mapping[Making, Square]) -> float | None:
    """Return how far a photograph's squares lie from what the nets learned from, the mean of those that know."""
    total, known = 0.0, 0.0
    for of, share, *_ in voters:
        far = likeness.measure(of, squares[of.making])
        if far is not None:
            total, known = total + share * far, known + share
    return total / known if known else None


def score_eyes(
    nets: Sequence[Net],
    voters: Sequence[Voter],
    eyes: Sequence[Eye],
    squares: Sequence[Mapping[Making, Square]],
    bar: Bar,
) -> np.ndarray:
    """Return the scores of eyes by their squares, (n, k): the nets' mean, each by its share."""
    scores = np.zeros(())
    for net, (of, share, n_views, _) in zip(nets, voters, strict=True):
        wanted = [made[of.making] for made in squares]
        gathered = store.gather([eye.owner for eye in eyes], wanted, of.mean, of.std)
        scores = scores + share * views.score_views(net, of, gathered, n_views, len(eyes), bar).mean(axis=0)
    return scores


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


def decide(task: Task, blend: Blend | None, eyes: Sequence[Eye], scores: np.ndarray) -> list[Grade]:
    """Blend the scores (n, k) of both eyes, and give each eye the level nearest to the expected one, or its class."""
    owners = [eye.owner for eye in eyes]
    blended = None if blend is None else apply_blend(blend, pair_eyes(owners, scores))
    believed = scores if blended is None else blended
    levels = decide_alone(task, believed)
    expected = measures.expect_levels(believed) if task.kind == "levels" else np.full(len(eyes), np.nan)
    fellows = pair_eyes(owners, np.eye(len(owners))).fellow  # row i: who i's fellow is, i itself if there is none
    has_fellow = fellows.diagonal() == 0
    voices = scores, [None] * len(eyes) if blended is None else blended
    known = zip(eyes, *voices, expected.tolist(), levels.tolist(), has_fellow.tolist(), strict=True)
    return [Grade(*of_eye) for of_eye in known]
