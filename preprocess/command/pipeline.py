"""The pipeline: its version, its notice, its stages in order, and the commands beside them."""

import os
from pathlib import Path

# Printed beside every grade of an eye.
NOTICE = "For competition and research: not a medical device, no diagnosis."
VERSION = "0.2.0"  # the only place: pyproject.toml reads it
ROOT = Path(__file__).parents[2]
IS_INSTALLED = not (ROOT / "run_all.sh").exists()  # by pip; else ROOT is a clone
# What has no path is written below the working folder, not into the clone.
WRITES_HERE = IS_INSTALLED or not os.access(ROOT, os.W_OK)

# The stages, and their folders below the cache; None: not in the cache.
FOLDERS: dict[str, str | None] = {
    "preprocess.synthetic": None,
    "preprocess.crop": "crop",
    "preprocess.resize": "resize",
    "preprocess.normalize": "normalize",
    "preprocess.standardize": "standardize",
    "dr.train": "dr/epochs",
    "dr.predict": "dr",
    "blend.train": "blend/train",
    "blend.predict": "blend",
    "kappa.assign": "kappa",
    "submissions.write": None,
    "submissions.score": None,
    "submissions.report": "report",
}

BESIDE = (
    "preprocess",  # its four stages in one
    "preprocess.describe",
    "preprocess.unpack",
    "preprocess.join",
    "preprocess.audit",
    "preprocess.split",
    "dr.clean",
    "dr.explain",
    "dr.export",
    "kappa.score",
    "submissions.evaluate",
    "submissions.grade",
    "submissions.serve",
)
