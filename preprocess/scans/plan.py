"""Which scans a drawn folder of classes holds: patients with a class of their own, and some scans of another one."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.cache import files
from preprocess.scans import oct

FIRST_PATIENT, PATIENT_GAP = 1001, 40  # patient numbers rise with gaps, as Kermany's do
MOST_SCANS = 5  # of a patient, at least one
ODD_SHARE = 0.15  # of the scans show another class than the patient's own; 19 % of Kermany's patients have such
JPEG_QUALITY = 92


class Scan(NamedTuple):
    """One scan that is to be drawn: of whom, which of theirs, and what it shows."""

    patient: int
    number: int
    name: str

    @property
    def image(self) -> str:
        """The image id."""
        return f"{self.name}-{self.patient}-{self.number}"

    def find_path(self, folder: Path) -> Path:
        """Return where it lies in a split's folder."""
        return folder / self.name / f"{self.image}.jpeg"

    def write(self, path: Path, seed: int, width_px: int | None) -> dict:
        """Draw it into a grey JPEG file; return its size in pixels."""
        scan = oct.draw_scan(seed, self.patient, self.number, self.name, width_px)
        files.write_bytes(path, cv2.imencode(".jpeg", scan, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
        return {"size": list(scan.shape[::-1])}


def plan_scans(n_patients: int, seed: int) -> list[list[Scan]]:
    """Return the scans of each patient; the classes take turns as the patients' own."""
    rng = np.random.default_rng(seed)
    numbers = np.cumsum(np.r_[FIRST_PATIENT, rng.integers(1, PATIENT_GAP, n_patients)])[:n_patients].tolist()
    plans = []
    for position, patient in enumerate(numbers):
        rng = np.random.default_rng([seed, patient])
        own, n_scans = oct.CLASSES[position % len(oct.CLASSES)], int(rng.integers(1, MOST_SCANS + 1))
        odd = rng.random(n_scans) < ODD_SHARE
        names = [str(rng.choice(oct.CLASSES)) if is_odd else own for is_odd in odd]
        plans.append([Scan(patient, number, name) for number, name in enumerate(names, 1)])
    return plans
