"""`manifest.json` beside what a stage made: its parameters, and digests of its inputs and outputs.

It shows whether the outputs are those that a new run would make.
"""

import contextlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from preprocess.command.pipeline import FOLDERS
from preprocess.disk import files
from preprocess.disk.errors import InputError

LIBRARIES = (
    "numpy",
    "scipy",
    "opencv-python-headless",
    "simplejpeg",
    "pillow",
    "pandas",
    "torch",
    "torchvision",
    "timm",
)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return `folder/manifest.json`, or None if there is none or it is no manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(manifest, dict):
        return None
    for part in ("parameters", "inputs", "outputs"):
        if not isinstance(manifest.get(part), dict):
            return None
    return manifest


def write_manifest(
    folder: Path,
    stage: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Write `folder/manifest.json`, the last act of a stage.

    `inputs` and `outputs` map a name to the digest of its content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_partials(folder)
    content = {
        "stage": stage,
        "parameters": parameters,
        "inputs": inputs,
        "outputs": outputs,
        "versions": list_versions(),
    }
    files.write_json(folder / "manifest.json", content)


def list_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on, of those that are installed."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def read_output(folder: Path, name: str, made_by: str) -> str:
    """Return the digest of an output of the stage in `folder`.

    Raises InputError, naming the stage, if there is none.
    """
    return _read_part(folder, "outputs", name, made_by)


def read_parameter(folder: Path, name: str, made_by: str) -> Any:
    """Return a parameter of the stage in `folder`. Raises InputError if it has not run."""
    return _read_part(folder, "parameters", name, made_by)


def _read_part(folder: Path, part: str, name: str, made_by: str) -> Any:
    manifest = read_manifest(folder)
    if manifest is None or name not in manifest[part]:
        raise InputError(
            f"{folder}: holds no {name}; run python -m {_find_missing(folder, made_by)} first"
        )
    return manifest[part][name]


def _find_missing(folder: Path, made_by: str) -> str:
    """Return the first stage that has left nothing in the cache of `folder`, where the stage `made_by` would."""
    own = FOLDERS.get(made_by)
    if own is None or not folder.match(own):
        return made_by
    return find_missing_stage(folder.parents[len(Path(own).parts) - 1], made_by)


def find_missing_stage(cache: Path, last: str) -> str:
    """Return the first stage that has left nothing in a cache, up to the stage `last`, which is missing itself.

    Where the first of preprocessing is missing, all of it is: one command for its four stages.
    """
    for stage, folder in FOLDERS.items():
        if stage == last:
            break
        if folder is not None and read_manifest(cache / folder) is None:
            return "preprocess" if folder == "crop" else stage
    return last


def has_output(folder: Path, name: str) -> bool:
    """Return whether the stage in `folder` has finished the output `name`."""
    manifest = read_manifest(folder)
    return manifest is not None and name in manifest["outputs"]


def kept_outputs(folder: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs that the stage in `folder` made with these parameters.

    A run over one split keeps those of the other.
    """
    manifest = read_manifest(folder)
    if manifest is None or describe_change(manifest["parameters"], parameters):
        return {}
    return manifest["outputs"]


def find_change(
    folder: Path,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> str | None:
    """Return why the files in `folder` must be made (again).

    None if they are what a new run would make. `complete` returns kept parameters with those that were added since.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return "not made yet"
    change = describe_change(complete(manifest["parameters"]), parameters)
    if change is None:
        change = describe_change(manifest["inputs"], inputs)
    if change is not None:
        return change
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if files.hash_file(path) != digest:
            return f"{name} is not what was written"
    return None


def renew(
    folder: Path,
    name: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Iterable[str],
    make: Callable[[], str],
) -> str:
    """Make the outputs of a stage if they are not up to date; return one line on what was done."""
    change = find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    summary = make()
    digests = {output: files.hash_file(folder / output) for output in outputs}
    write_manifest(folder, name, parameters, inputs=inputs, outputs=digests)
    return f"{summary} ({change})"


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return the keys that differ, with values that a person can read; None if none differs."""
    new = json.loads(json.dumps(new))  # as it would come back from a file: tuples are lists
    changes = []
    for key in sorted({*old, *new}):
        before = old.get(key)
        after = new.get(key)
        if before == after:
            continue
        if _is_digest(before) or _is_digest(after):
            changes.append(f"{key} changed")
        else:
            changes.append(f"{key} changed from {before} to {after}")
    return ", ".join(changes) or None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64
