"""List what no run of a cache uses, with its size, and remove it with --remove.

That is: files that a kill left half-written; squares that no table names; mapped pixels and feature maps of other
squares than those in the cache; scores of epochs that are not kept. All of it is made again if it is wanted again.
"""

import argparse
import ast
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess import photographs
from preprocess.cache import manifest
from preprocess.command import cli, process
from preprocess.dataset.dataset import PARTS
from preprocess.disk import files
from preprocess.disk.errors import InputError

SHOWN = 20  # paths of each reason
OTHER_SQUARES = "made from other squares than those of now"


class Unused(NamedTuple):
    """A file or folder that nothing uses, and why."""

    path: Path
    reason: str
    size_bytes: int


def find_unused(cache: Path, with_former: bool, with_pixels: bool) -> list[Unused]:
    """Return what no run of a cache uses; with the nets that were replaced, or with all mapped pixels, if wanted."""
    found: dict[Path, Unused] = {}
    searches = [
        _find_partials(cache),
        _find_stray_squares(cache),
        _find_maps(cache / "dr" / "pixels", cache, with_pixels),
        _find_maps(cache / "dr" / "features", cache, with_pixels),
    ]
    for run in list_runs(cache):
        searches.append(_find_scores(run))
        if with_former:
            searches.append(_find_former(run))
    for search in searches:
        for path, reason in search:
            found.setdefault(path, Unused(path, reason, measure(path)))
    return list(found.values())


def list_runs(cache: Path) -> list[Path]:
    """Return the folders of all runs of a cache."""
    return [cache / "dr", *sorted((cache / "dr" / "runs").glob("*"))]


def measure(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(below.stat().st_size for below in path.rglob("*") if below.is_file())


def _find_partials(cache: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(cache.rglob(f"{files.PARTIAL}*")):
        yield path, "half-written by a run that was killed"


def _find_stray_squares(cache: Path) -> Iterator[tuple[Path, str]]:
    """Yield the squares that the table of their part does not name."""
    for part in PARTS:
        folder = cache / "resize" / part
        if not (folder.is_dir() and manifest.has_output(cache / "resize", part)):
            continue
        images = photographs.read_squares(cache, part)
        for path in sorted(folder.rglob("*.png")):
            image = path.relative_to(folder).with_suffix("").as_posix()
            is_partial = path.name.startswith(files.PARTIAL)
            if image not in images and f"{image}.png" not in images and not is_partial:
                yield path, "a square of no image of the cache"


def _find_maps(folder: Path, cache: Path, is_all: bool) -> Iterator[tuple[Path, str]]:
    """Yield the memory-mapped arrays in a folder that were made from other squares than those of now, or all."""
    for path in sorted(folder.glob("*.npy")):
        key_file = path.with_suffix(".json")
        reason = "can be made again from the squares"
        if not is_all:
            reason = _find_fault(path, key_file, cache)
        if reason:
            yield path, reason
            if key_file.exists():
                yield key_file, reason


def _find_fault(path: Path, key_file: Path, cache: Path) -> str:
    """Return why no run would use a memory-mapped array; "" if one may."""
    if not key_file.exists():
        return "not finished"
    if path.stem not in PARTS:
        return "no longer read: the pixels of all folds lie in train.npy"
    key = json.loads(key_file.read_text())
    digests = _read_digests(key)
    normalized = manifest.read_manifest(cache / "normalize")
    if isinstance(key, dict) and normalized is not None:
        is_local = normalized["parameters"].get("method") == "local"
        if is_local != (f"normalize {path.stem}" in digests):
            return OTHER_SQUARES
    for name, digest in digests.items():
        stage, _, part = name.partition(" ")
        if stage not in ("resize", "normalize"):
            continue
        output = part if stage == "resize" else f"{part}.npz"
        written = manifest.read_manifest(cache / stage)
        if written is None or written["outputs"].get(output) != digest:
            return OTHER_SQUARES
    return ""


def _read_digests(key: object) -> dict[str, str]:
    """Return the digests in the key of mapped pixels, as they are written now or were before, or of feature maps."""
    if isinstance(key, dict):
        return key["made_from"]
    text = str(key)
    if text.startswith("[["):
        try:
            return dict(json.loads(text)[-1])  # of feature maps
        except ValueError:
            _, *pairs = ast.literal_eval(text)  # of pixels, before files were shared
            return dict(pairs)
    raise InputError(f"{text[:60]}: the key of no mapped array; remove the file and its .json")


def _find_scores(run: Path) -> Iterator[tuple[Path, str]]:
    """Yield the kept scores of epochs whose checkpoints are gone."""
    trained = manifest.read_manifest(run / "epochs")
    if trained is None:
        return
    kept = {Path(name).stem for name in trained["outputs"]}
    # SPLIT_EPOCH.jsonl, and SPLIT_EPOCH.0.jsonl of a process's own share.
    for path in sorted((run / "views").glob("*")):
        epoch = path.name.partition(".")[0].rpartition("_")[2]
        if epoch.isdigit() and epoch not in kept:
            yield path, "scores of an epoch that is not kept"


def _find_former(run: Path) -> Iterator[tuple[Path, str]]:
    """Yield the nets that were replaced, and those whose training was not ended."""
    for path in sorted((run / "former").glob("*")):
        yield path, "a net that was replaced: its settings would bring it back"
    for path in sorted((run / "pending").glob("*")):
        yield path, "a training that was not ended: the same command would go on"


def describe(unused: Sequence[Unused]) -> Iterator[str]:
    """Yield the lines of a list: a reason with the files and bytes, then the first of its paths."""
    by_reason: dict[str, list[Unused]] = {}
    for one in unused:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, group in by_reason.items():
        yield f"{show_size(sum(one.size_bytes for one in group)):>10}  {len(group):,}: {reason}"
        for one in group[:SHOWN]:
            yield f"{show_size(one.size_bytes):>12}  {files.show_path(one.path)}"
        if len(group) > SHOWN:
            yield f"{'':>12}  and {len(group) - SHOWN:,} more"


def show_size(size_bytes: int) -> str:
    """Return bytes as people write them."""
    if size_bytes >= 10**9:
        return f"{size_bytes / 1e9:,.1f} GB"
    if size_bytes >= 10**6:
        return f"{size_bytes / 1e6:,.1f} MB"
    return f"{size_bytes / 1e3:,.1f} kB"


def remove(unused: Sequence[Unused]) -> None:
    """Remove files and folders."""
    for one in unused:
        if one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)


def clean(options: argparse.Namespace) -> str:
    """List and perhaps remove what no run uses; return one line on how much it is."""
    unused = find_unused(options.cache, options.former, options.pixels)
    for line in describe(unused):
        print(line)
    total = show_size(sum(one.size_bytes for one in unused))
    if not unused:
        return "nothing that no run uses"
    if not options.remove:
        return f"{total} that no run uses; --remove removes it"
    remove(unused)
    return f"{total} removed"


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser("dr.clean", __doc__, "--cache cache --remove")
    parser.add_argument(
        "--cache", type=Path, default=Path("cache"), help="folder for the results of the stages"
    )
    parser.add_argument(
        "--former",
        action="store_true",
        help="also the nets that were replaced, in former/, and trainings that were not ended, in pending/",
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="also the mapped pixels and feature maps that runs do use: they are made again when they are wanted",
    )
    parser.add_argument("--remove", action="store_true", help="remove it; else it is only listed")
    options = parser.parse_args(argv)
    if not options.cache.is_dir():
        raise InputError(f"{options.cache}: no such folder")
    with files.locked(options.cache):
        print(f"{options.cache}: {clean(options)}")


if __name__ == "__main__":
    process.run(main)
