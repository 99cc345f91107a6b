"""Is what lies in a folder made from what is there? `manifest.json`: parameters, digests of inputs and outputs."""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from preprocess.disk import files
from preprocess.disk.errors import InputError

LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "simplejpeg", "pillow", "pandas", "torch")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return `folder/manifest.json`, or None if there is none or it is no manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    parts = ("parameters", "inputs", "outputs")
    is_whole = isinstance(manifest, dict) and all(isinstance(manifest.get(part), dict) for part in parts)
    return manifest if is_whole else None


def write_manifest(
    folder: Path, stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Write `folder/manifest.json`, a stage's last act: inputs and outputs map a name to the digest of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_partials(folder)
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    content = {"stage": stage, "parameters": parameters, "inputs": inputs, "outputs": outputs, "versions": versions}
    files.write_json(folder / "manifest.json", content)


def read_output(folder: Path, name: str, made_by: str) -> str:
    """Return the digest of one output of the stage in `folder`. Raises InputError, naming the stage, without it."""
    return _read_part(folder, "outputs", name, made_by)


def read_parameter(folder: Path, name: str, made_by: str) -> Any:
    """Return a parameter of the stage in `folder`. Raises InputError if it has not run."""
    return _read_part(folder, "parameters", name, made_by)


def _read_part(folder: Path, part: str, name: str, made_by: str) -> Any:
    manifest = read_manifest(folder)
    if manifest is None or name not in manifest[part]:
        raise InputError(f"{folder}: holds no {name}; run python -m {made_by} first")
    return manifest[part][name]


def has_output(folder: Path, name: str) -> bool:
    """Tell whether the stage in `folder` has finished the output `name`."""
    manifest = read_manifest(folder)
    return manifest is not None and name in manifest["outputs"]


def kept_outputs(folder: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs that the stage in `folder` made with these parameters: one split's run keeps the other's."""
    manifest = read_manifest(folder)
    return manifest["outputs"] if manifest and not describe_change(manifest["parameters"], parameters) else {}


def find_change(folder: Path, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str | None:
    """Return why the files in `folder` must be made (again), or None if they are what a new run would make."""
    manifest = read_manifest(folder)
    if manifest is None:
        return "not made yet"
    change = describe_change(manifest["parameters"], parameters) or describe_change(manifest["inputs"], inputs)
    if change:
        return change
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if files.hash_file(path) != digest:
            return f"{name} is not what was written"
    return None


def renew(
    folder: Path, name: str, parameters: Mapping[str, Any], inputs: Mapping[str, str],
    outputs: Iterable[str], make: Callable[[], str],
) -> str:  # fmt: skip
    """Make the outputs of a stage in the cache, if they are not up to date; return one line on what was done."""
    change = find_change(folder, parameters, inputs)
    if change is None:
        return "cached"
    summary = make()
    write_manifest(folder, name, parameters, inputs, {out: files.hash_file(folder / out) for out in outputs})
    return f"{summary} ({change})"


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Name the keys that differ, with short values; None if none does."""
    new = json.loads(json.dumps(new))  # as it would come back from a file: tuples are lists
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    told = []
    for key in changed:
        values = old.get(key), new.get(key)
        is_digest = any(isinstance(value, str) and len(value) == 64 for value in values)
        told.append(f"{key} changed" if is_digest else f"{key} changed from {values[0]} to {values[1]}")
    return ", ".join(told) or None
