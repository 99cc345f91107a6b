"""The stages: their names, in the order of the pipeline, and where each keeps what it makes."""

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
