"""Where weights lie: a file, a folder as of the Hugging Face hub, or an id of that hub; and what the folder says."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr.nets import catalog
from preprocess.cache import manifest
from preprocess.command import process, recipe
from preprocess.disk import files
from preprocess.disk.errors import InputError, shorten

HUB = "hf-hub:"  # before an id, as timm writes it
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# The name to prefer in a folder of the hub, and endings of those that hold weights, safest first.
NAMES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"  # of the library transformers: how pixels are prepared


class Located(NamedTuple):
    """A file of weights, and what is written beside it."""

    file: Path
    architecture: str | None  # timm's name of the net, if it is known
    mean: (
        list[float] | None
    )  # of the pixels that the weights are used to, 0-1, RGB; None if unknown
    std: list[float] | None

    @property
    def digest(self) -> str:
        """What the weights that training begins with depend on."""
        return files.hash_file(self.file)


def locate(source: str) -> Located:
    """Return the file of weights that a path or an id of the hub names; an id is downloaded, unless it was before.

    Raises InputError if there is none, or the hub is out of reach.
    """
    if source.startswith(HUB):
        return _read_folder(_download(source.removeprefix(HUB)))
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise InputError(
            f"--weights {source}: no such file; dr.train keeps its checkpoints in CACHE/dr/epochs, and an id of the "
            f"Hugging Face hub is {HUB}OWNER/NAME"
        )
    return Located(path, architecture=None, mean=None, std=None)


def locate_drawn(cache: Path) -> Path:
    """Return the last checkpoint of the net that has learned on drawn eyes, in CACHE/drawn. Raises InputError if there
    is none.
    """
    folder = cache / recipe.DRAWN / "dr" / "epochs"
    trained = manifest.read_manifest(folder)
    if trained is None or not trained["outputs"]:
        raise InputError(
            f"--weights {recipe.DRAWN}: {folder} holds no net that has learned on drawn eyes; ./run_all.sh "
            "--recipe few-photographs trains it, and --weights none begins without it"
        )
    return folder / max(trained["outputs"])


def choose_file(names: Sequence[str], title: str) -> str:
    """Return which of a folder's files holds its weights. Raises InputError for none, or several."""
    for name in NAMES:
        if name in names:
            return name
    for suffix in SUFFIXES:
        found = sorted(name for name in names if name.endswith(suffix))
        if len(found) == 1:
            return found[0]
        if found:
            shown = shorten(", ".join(found))
            raise InputError(
                f"{title}: holds several files of weights ({shown}); give one of them by --weights FILE"
            )
    raise InputError(f"{title}: holds no weights ({', '.join(SUFFIXES)})")


def _read_folder(folder: Path) -> Located:
    """Return the weights of a folder, and what its config.json says of them."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    file = folder / choose_file(names, f"--weights {folder}")
    config = _read_json(folder / CONFIG)
    record = config.get("pretrained_cfg", config)  # timm's; in older folders the config itself
    if not isinstance(record, dict):
        record = {}
    processor = _read_json(folder / PROCESSOR)
    mean = _take_channels(record.get("mean", processor.get("image_mean")))
    std = _take_channels(record.get("std", processor.get("image_std")))
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        architecture = None
    if mean is None or std is None:
        return Located(file, architecture, mean=None, std=None)
    return Located(file, architecture, mean, std)


def _read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing if it is not there. Raises InputError if it is damaged."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: not a JSON file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no names and values")
    return content


def _take_channels(values: object) -> list[float] | None:
    """Return a number for each of three channels, None if they are not."""
    if not isinstance(values, list) or len(values) != 3:
        return None
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        return None
    return [float(value) for value in values]


def _download(name: str) -> Path:
    """Return the folder in which a repository's weights and its config.json lie, as the hub's own cache has them."""
    if not HUB_ID.fullmatch(name):
        raise InputError(f"--weights {HUB}{shorten(name)}: an id of the hub is {HUB}OWNER/NAME")
    hub, errors = process.import_libraries(
        catalog.REQUIREMENTS, "huggingface_hub", "huggingface_hub.errors"
    )
    try:
        names = hub.list_repo_files(name)
        chosen = choose_file(names, f"--weights {HUB}{name}")
        beside = [other for other in (CONFIG, PROCESSOR) if other in names]
        paths = [Path(hub.hf_hub_download(name, wanted)) for wanted in (chosen, *beside)]
    except (OSError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError):
        raise InputError(
            f"--weights {HUB}{name}: out of reach, or not open to everybody; fetch the files of "
            f"https://huggingface.co/{name} and give their folder by --weights"
        ) from None
    return paths[0].parent
