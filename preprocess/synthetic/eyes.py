"""Draw photographs of eyes, plan a folder of both eyes of patients, and write its labels and the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from preprocess.disk import files
from preprocess.synthetic import camera, retina

SIDES = ("left", "right")
FILE = "{split}/{image}.jpeg"  # where a photograph lies in its folder
FIRST_PATIENT = 10
PATIENT_GAP = 3  # patient numbers rise by 1 to 3, as Kaggle's have gaps
TRAITS_STREAM = (
    2  # every patient has four generators, (seed, patient, stream): 0 left, 1 right, 2 and 3
)
LEVELS_STREAM = 3
DRAWN_WIDTH_PX = 1500  # a wider photograph is drawn at a half or a third and enlarged: focus was no better than that
PUBLIC_SHARE = 0.2  # of the test set was scored on the public leaderboard

# Levels of (left, right) eye among the 17,563 patients of the competition's published trainLabels.csv.
LEVEL_PAIRS = np.array(
    [
        [12155, 407, 295, 3, 11],
        [435, 600, 171, 2, 4],
        [336, 222, 1998, 96, 50],
        [3, 1, 87, 307, 27],
        [10, 1, 39, 40, 263],
    ]
)


class Eye(NamedTuple):
    """A photograph to draw."""

    image: str
    patient: int
    side: str
    level: int
    usage: str  # Public or Private, as the competition scored its test set


class DrawnEye(NamedTuple):
    """A drawn photograph and the truth about it, in its pixels."""

    photograph: np.ndarray  # (h, w, 3) uint8 RGB
    disc: tuple[float, float, float]  # center_x, center_y, radius
    lesions: pd.DataFrame  # kind, x, y, radius
    jpeg_quality: int


def plan(n_patients: int, seed: int, levels: str) -> list[list[Eye]]:
    """Return both eyes of each patient; `levels` is "real" or "balanced"."""
    pairs = LEVEL_PAIRS / LEVEL_PAIRS.sum()
    if levels == "balanced":
        pairs = balance_pairs(LEVEL_PAIRS)
    gaps = np.random.default_rng(seed).integers(1, PATIENT_GAP + 1, n_patients)
    numbers = np.cumsum(np.r_[FIRST_PATIENT, gaps])[:n_patients].tolist()
    patients = []
    for patient in numbers:
        rng = np.random.default_rng([seed, patient, LEVELS_STREAM])
        chosen = int(rng.choice(pairs.size, p=pairs.ravel()))
        pair = divmod(chosen, len(pairs))  # levels of left and right eye
        usage = "Public" if rng.random() < PUBLIC_SHARE else "Private"
        eyes = []
        for side, level in zip(SIDES, pair, strict=True):
            eyes.append(
                Eye(image=f"{patient}_{side}", patient=patient, side=side, level=level, usage=usage)
            )
        patients.append(eyes)
    return patients


def balance_pairs(pairs: np.ndarray) -> np.ndarray:
    """Return probabilities (5, 5) of (left, right) levels: all levels equally likely, eyes agreeing as in `pairs`.

    Iterative proportional fitting of three margins: left level, right level, and how far the two are apart.
    """
    levels = np.arange(len(pairs))
    apart = np.abs(np.subtract.outer(levels, levels))
    shares = np.bincount(apart.ravel(), pairs.ravel()) / pairs.sum()
    fitted = pairs / pairs.sum()
    for _ in range(500):
        fitted_shares = np.bincount(apart.ravel(), fitted.ravel())
        fitted = fitted * (shares / fitted_shares)[apart]
        fitted = fitted / fitted.sum(axis=0) / len(pairs)
        fitted = fitted / fitted.sum(axis=1, keepdims=True) / len(pairs)
    return fitted


def draw(eye: Eye, seed: int, width_px: int | None) -> tuple[np.ndarray, Sequence[int], dict]:
    """Return a photograph (h, w, 3) uint8 BGR, OpenCV's options to store it, and its size, disc and lesions, px."""
    drawn = draw_eye(seed, eye.patient, eye.side, eye.level, width_px)
    row = {
        "size": drawn.photograph.shape[1::-1],
        "disc": [round(value, 2) for value in drawn.disc],
        "lesions": drawn.lesions.round(2).to_numpy().tolist(),
    }
    return drawn.photograph[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, drawn.jpeg_quality), row


def draw_eye(
    seed: int, patient: int, side: str, level: int, width_px: int | None = None
) -> DrawnEye:
    """Draw one photograph, a function of its arguments alone; its width is by default that of the patient's camera."""
    shared = np.random.default_rng([seed, patient, TRAITS_STREAM])
    traits = retina.sample_retina(shared)
    model = camera.CAMERAS[shared.integers(len(camera.CAMERAS))]
    if width_px is not None:
        model = camera.scale_camera(model, width_px)
    reduction = -(-model.width // DRAWN_WIDTH_PX)
    shrunk = camera.scale_camera(model, model.width // reduction)

    rng = np.random.default_rng([seed, patient, SIDES.index(side)])
    frame = camera.frame_photograph(rng, shrunk, mirrored=side == "right")
    reflectance, lesions = retina.draw_retina(rng, level, traits, frame)
    image = camera.expose(rng, reflectance, shrunk, frame)
    photograph = camera.develop(rng, image, model.width, model.height)
    scale = model.width / shrunk.width
    # Pixels' centres have whole coordinates, but the pictures' edges are what coincides.
    center_x = (frame.center_x + 0.5) * scale - 0.5
    center_y = (frame.center_y + 0.5) * scale - 0.5
    lesions[["x", "y"]] = (lesions[["x", "y"]] + 0.5) * scale - 0.5
    lesions["radius"] *= scale
    return DrawnEye(
        photograph=photograph,
        disc=(center_x, center_y, frame.radius * scale),
        lesions=lesions,
        jpeg_quality=model.jpeg_quality,
    )


def write_tables(
    data: Path, planned: Mapping[str, Sequence[Eye]], rows: Mapping[str, dict]
) -> None:
    """Write labels, the sample submission and the truth: discs and lesions."""
    train = pd.DataFrame(planned["train"], columns=Eye._fields)
    test = pd.DataFrame(planned["test"], columns=Eye._fields)
    discs = []
    lesions = []
    for image, row in rows.items():
        discs.append((image, *row["size"], *row["disc"]))
        for lesion in row["lesions"]:
            lesions.append((image, *lesion))
    tables = {
        "trainLabels.csv": train[["image", "level"]],
        "testLabels.csv": test[["image", "level", "usage"]].rename(columns={"usage": "Usage"}),
        "sampleSubmission.csv": test[["image"]].assign(level=0),
        "discs.csv": pd.DataFrame(
            discs, columns=["image", "width", "height", "center_x", "center_y", "radius"]
        ),
        "lesions.csv": pd.DataFrame(lesions, columns=["image", "kind", "x", "y", "radius"]),
    }
    for name, table in tables.items():
        text = table.to_csv(index=False, lineterminator="\n")
        files.write_bytes(data / name, text.encode())
