"""Which x-rays a drawn folder of findings holds: patients with several pictures, most of which show what they have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from preprocess.cache import files
from preprocess.samples import findings
from preprocess.xrays import xray

MOST_PICTURES = 4  # of a patient, at least one
SHARE = 0.16  # of the patients have each finding, so that a third has none
STAYS, COMES = 0.85, 0.02  # a finding of the patient is in a picture, another is


class Xray(NamedTuple):
    """One picture that is to be drawn: of whom, which of theirs, and what it shows, joined by |."""

    patient: int
    number: int
    shown: str

    @property
    def image(self) -> str:
        """The image id."""
        return f"{self.patient:08}_{self.number:03}"

    def find_path(self, folder: Path) -> Path:
        """Return where it lies, whatever its split's folder."""
        return folder.parent / "images" / f"{self.image}.png"

    def write(self, path: Path, seed: int, width_px: int | None) -> dict:
        """Draw it into a grey PNG file; return the boxes of nodules and masses."""
        names = [name for name in self.shown.split("|") if name]
        picture, boxes = xray.draw_xray(seed, self.patient, self.number, names, width_px)
        files.write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())
        return {"boxes": boxes}


def plan_xrays(n_patients: int, seed: int) -> list[list[Xray]]:
    """Return the pictures of each patient."""
    plans = []
    for patient in range(1, n_patients + 1):
        rng = np.random.default_rng([seed, patient])
        has = rng.random(len(xray.FINDINGS)) < SHARE
        drawn = rng.random((rng.integers(1, MOST_PICTURES + 1), len(has)))
        shown = np.where(has, drawn < STAYS, drawn < COMES)
        names = ["|".join(np.array(xray.FINDINGS)[row]) for row in shown]
        plans.append([Xray(patient, number, joined) for number, joined in enumerate(names)])
    return plans


def write_tables(data: Path, plans: Mapping[str, Sequence[Xray]], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the table of findings, the lists of its parts and the boxes, in the form of ChestX-ray14."""
    entries = [
        f"{plan.image}.png,{plan.shown or findings.NONE},{plan.number},{plan.patient}"
        for part in plans.values()
        for plan in part
    ]
    boxes = [
        f"{image}.png,{name},{','.join(map(str, place))}"
        for image, row in rows.items()
        for name, *place in row["boxes"]
    ]
    tables = {findings.TABLES[1]: ["Image Index,Finding Labels,Follow-up #,Patient ID", *entries]}
    tables |= {findings.LISTS[part]: [f"{plan.image}.png" for plan in plans[part]] for part in ("train", "test")}
    tables[findings.BOXES] = ["Image Index,Finding Label,Bbox [x,y,w,h]", *boxes]
    for name, lines in tables.items():
        files.write_bytes(data / name, "".join(f"{line}\n" for line in lines).encode())
