"""The pipeline: its version, its notice, its stages in order with their folders, and the commands beside them."""

from pathlib import Path

NOTICE = "For competition and research: not a medical device, no diagnosis."  # beside all that grades an eye
VERSION = "0.2.0"  # the only place: pyproject.toml reads it
ROOT = Path(__file__).parents[2]
IS_INSTALLED = not (ROOT / "run_all.sh").exists()  # by pip; else ROOT is a clone

# Below the cache; None: not in the cache.
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

BESIDE = (  # four stages in one; what is no stage
    *(
        "preprocess",
        "preprocess.describe",
        "preprocess.audit",
        "preprocess.split",
        "dr.explain",
        "dr.export",
        "kappa.score",
    ),
    *("submissions.grade", "submissions.serve"),
)
