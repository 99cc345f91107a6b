"""Tiny ready-made squares for the tests of dr.train and dr.predict, and how to run the two on them."""

from pathlib import Path

import cv2
import numpy as np

SIZE_PX = 37  # the crops are 32, the net's least
N_TRAIN, N_TEST = 12, 3  # patients
TRAIN_OPTIONS = "--ready-made --batch-size 8 --folds 4 --learning-rate 0.05 --device cpu --precision float32".split()


def draw_squares(data: Path) -> None:
    """Draw a data folder of noise, the brighter the higher the level."""
    rng = np.random.default_rng(0)
    lines = ["image,level"]
    for split, n_patients in (("train", N_TRAIN), ("test", N_TEST)):
        (data / split).mkdir(parents=True)
        for patient in range(n_patients):
            for side in ("left", "right"):
                level = patient % 5
                square = rng.integers(0, 120, (SIZE_PX, SIZE_PX, 3)) + 30 * level
                cv2.imwrite(str(data / split / f"{patient}_{side}.png"), square.astype(np.uint8))
                if split == "train":
                    lines.append(f"{patient}_{side},{level}")
    (data / "trainLabels.csv").write_text("\n".join(lines) + "\n")


def digest_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, but for the lock."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
