"""What the nets of a finished run and the blend make of raw photographs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blend.mlp import Blend, apply_blend, load_blend
from blend.pairs import pair_eyes
from dr import measures
from dr.explain import show
from dr.machine import device
from dr.squares import store
from dr.training import views
from dr.training.runs import Voter
from preprocess.cache import progress
from preprocess.picture import outline, square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making, Square
from preprocess.samples import retina
from preprocess.samples.layout import Owner

EYES_AT_ONCE = 64  # prepared and scored together; their squares take 50 MB


class Eye(NamedTuple):
    """A photograph, whom it shows, and where the eye was found in it; None if the picture was taken whole."""

    path: Path
    owner: Owner
    disc: Disc | None


class Grade(NamedTuple):
    """What is known of one eye.

    scores : (k,) of the nets
    blended : (k,) with the fellow's, None without a blend
    expected : the mean level of what is believed
    level : the one nearest to it
    has_fellow : whether the patient's other eye was graded, too
    """

    eye: Eye
    scores: np.ndarray
    blended: np.ndarray | None
    expected: float
    level: int
    has_fellow: bool


def grade_eyes(
    voters: Sequence[Voter], blend_from: Path | None, device_name: str, paths: Mapping[str, Path]
) -> tuple[list[Grade], dict[str, str]]:
    """Return the grade of each photograph, and the refused files with the reason.

    Parameters
    ----------
    blend_from : file of a blend, if there is one
    paths : image id -> path; all photographs of a patient, one after the other, so that each eye meets its fellow
    """
    on = device.choose_device(device_name)
    device.prepare(on)
    nets = [views.put_net(voter.checkpoint, on) for voter in voters]
    blend = load_blend(blend_from) if blend_from else None
    makings = dict.fromkeys(voter.checkpoint.making for voter in voters)
    is_found = outline.SHAPES[next(iter(makings)).crop] == "ellipse"
    grades: list[Grade] = []
    reasons: dict[str, str] = {}
    with progress.tracking(len(paths) * sum(voter.n_views for voter in voters), "grading") as bar:
        for part in split_patients(paths):
            squares: list[dict[Making, Square]] = []
            eyes: list[Eye] = []
            for image, path in part.items():
                try:
                    squares.append({making: square.make_square(path, making) for making in makings})
                except square.Unusable as reason:
                    reasons[show(path)] = str(reason)
                    continue
                disc = next(iter(squares[-1].values())).disc
                eyes.append(Eye(path, retina.find_owner(image), disc if is_found else None))
            if not eyes:
                continue
            scores = np.zeros(())
            for net, (of, share, n_views) in zip(nets, voters, strict=True):
                wanted = [made[of.making] for made in squares]
                gathered = store.gather([eye.owner for eye in eyes], wanted, of.mean, of.std)
                scores = scores + share * views.score_views(net, of, gathered, n_views, len(eyes), bar).mean(axis=0)
            grades += decide(blend, eyes, scores)
    return grades, reasons


def split_patients(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Yield the photographs in parts of about EYES_AT_ONCE that divide no patient."""
    part: dict[str, Path] = {}
    for _, of_patient in groupby(paths.items(), key=lambda item: retina.find_owner(item[0]).group):
        if len(part) >= EYES_AT_ONCE:
            yield part
            part = {}
        part |= of_patient
    if part:
        yield part


def decide(blend: Blend | None, eyes: Sequence[Eye], scores: np.ndarray) -> list[Grade]:
    """Blend the scores (n, k) of both eyes, and give each eye the level nearest to the expected one."""
    owners = [eye.owner for eye in eyes]
    blended = None if blend is None else apply_blend(blend, pair_eyes(owners, scores))
    believed = scores if blended is None else blended
    expected, levels = measures.expect_levels(believed), measures.round_levels(believed)
    fellows = pair_eyes(owners, np.eye(len(owners))).fellow  # row i: who i's fellow is, i itself if there is none
    has_fellow = fellows.diagonal() == 0
    voices = scores, [None] * len(eyes) if blended is None else blended
    known = zip(eyes, *voices, expected.tolist(), levels.tolist(), has_fellow.tolist(), strict=True)
    return [Grade(*of_eye) for of_eye in known]
