"""What a stage needs that goes over all photographs: its options, a journal of the finished ones, a parallel map.

The journal has one line per finished image, so that a killed run loses only the images in flight.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from preprocess import interrupt, stage
from preprocess.stage import InputError

CLUSTER_TIMEOUT_S = 20  # a scheduler that does not answer by then is not there
CLUSTER_RETRIES = 3  # how often a task moves on when the worker it runs on dies
# The options that joblib's helper process starts with: it tidies up after a killed run, and need not tell.
IGNORE_TRACKER = "ignore:resource_tracker:UserWarning"

Workers = int | str  # a number of processes here, or the address of a Dask scheduler


# --- options ----------------------------------------------------------------------------------------------------------


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the stages that go over all photographs."""
    parser.add_argument("--jobs", type=parse_jobs, default=os.cpu_count(), help="processes to work with")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="work on the Dask cluster of this scheduler (tcp://host:port) instead"
    )
    stage.add_rejected_option(parser)


def choose_workers(options: argparse.Namespace) -> Workers:
    """Return what `--dask` or else `--jobs` says."""
    return options.dask or options.jobs


def parse_jobs(text: str) -> int:
    """Return a number of processes, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


# --- journals ---------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """What a stage knows of one image: the key it was made from and the row it made (or {'reason': why not})."""

    key: list
    row: dict[str, Any]


class Journal:
    """The finished images of one split of a stage: `FOLDER/SPLIT.jsonl`.

    The first line holds the parameters. The others are appended as images finish, in any order; a line torn by a kill
    or damaged by the disk is dropped, so that its image is due again. `finish` rewrites the file sorted, so that its
    bytes do not tell how often the run was interrupted.
    """

    def __init__(self, folder: Path, split: str, parameters: Mapping[str, Any]):
        self.path = folder / f"{split}.jsonl"
        self.parameters = json.loads(json.dumps(parameters))
        self.records: dict[str, Record] = {}
        self.change: str | None = None
        self._is_compact = False  # the file holds exactly the records, in their order
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        *lines, torn = self.path.read_bytes().split(b"\n")
        contents = [_decode_line(line) for line in lines]
        header = contents[0] if contents and isinstance(contents[0], dict) else {}
        self.change = stage.describe_change(header, self.parameters)
        if self.change is None:
            self.records = {line[0]: Record(*line[1:]) for line in contents[1:] if _is_record(line)}
            self._is_compact = not torn and len(self.records) == len(lines) - 1

    def due(self, keys: Mapping[str, list]) -> list[str]:
        """Return the images whose record is missing or was made from another key."""
        return [image for image, key in keys.items() if image not in self.records or self.records[image].key != key]

    @contextlib.contextmanager
    def appending(self) -> Iterator[Callable[[str, list, dict[str, Any]], None]]:
        """Yield a function that records one image's key and row, on disk before it returns."""
        self._write()  # drops a torn line and what other parameters made
        self._is_compact = False
        with stage.naming(self.path), open(self.path, "ab") as handle:

            def append(image: str, key: list, row: dict[str, Any]) -> None:
                self.records[image] = Record(json.loads(json.dumps(key)), row)
                handle.write(_encode_line([image, key, row]))
                handle.flush()

            yield append

    def finish(self, images: list[str]) -> list[str]:
        """Keep the records of `images` only, in that order, and return the images that were dropped."""
        kept = {image: self.records[image] for image in images}
        dropped = [image for image in self.records if image not in kept]
        if not self._is_compact or list(kept) != list(self.records):
            self.records = kept
            self._write()
        return dropped

    def _write(self) -> None:
        with stage.replacing(self.path) as partial, open(partial, "wb") as handle:
            handle.write(_encode_line(self.parameters))
            for image, (key, row) in self.records.items():
                handle.write(_encode_line([image, key, row]))
        self._is_compact = True

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the images that were not rejected."""
        return {image: record.row for image, record in self.records.items() if "reason" not in record.row}

    @property
    def reasons(self) -> dict[str, str]:
        """The rejected images and why."""
        return {image: record.row["reason"] for image, record in self.records.items() if "reason" in record.row}

    @property
    def digest(self) -> str:
        """The digest of what was made, whatever the files' dates."""
        lines = [json.dumps([image, row], sort_keys=True) for image, row in self.rows.items()]
        return stage.hash_text("\n".join(lines))


def _encode_line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def read_rows(folder: Path, split: str, made_by: str) -> dict[str, dict[str, Any]]:
    """Return the rows of an image stage's finished split: image -> row.

    Raises InputError if the stage has not finished it, or its journal is no longer what was written.
    """
    digest = stage.read_output(folder, split, made_by)
    journal = Journal(folder, split, stage.read_manifest(folder)["parameters"])
    if journal.digest != digest:
        raise InputError(f"{journal.path}: not what was written; run python -m {made_by} again")
    return journal.rows


def _decode_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_record(line: Any) -> bool:
    """Tell whether a line of a journal is [image, key, row]."""
    kinds = (str, list, dict)
    return isinstance(line, list) and len(line) == len(kinds) and all(map(isinstance, line, kinds))


# --- parallel map -----------------------------------------------------------------------------------------------------


def map_parallel(
    work: Callable[..., Any], tasks: Mapping[str, tuple], workers: Workers, title: str
) -> Iterator[tuple[str, Any]]:
    """Yield (image, work(*arguments)) as they finish, with a progress bar.

    Parameters
    ----------
    work : a module-level function
    tasks : image -> arguments
    workers : processes (1 works in this one), or the address of a Dask scheduler whose workers see the same files
    """
    from tqdm import tqdm

    if not tasks:
        return
    results = (_map_cluster if isinstance(workers, str) else _map_processes)(work, tasks, workers)
    yield from tqdm(results, total=len(tasks), desc=title, unit="image", mininterval=1)


def _map_processes(work: Callable[..., Any], tasks: Mapping[str, tuple], jobs: int) -> Iterator[tuple[str, Any]]:
    from joblib import Parallel, delayed

    if IGNORE_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(IGNORE_TRACKER)
    interrupt.shield_workers()
    parallel = Parallel(
        n_jobs=min(jobs, len(tasks)),
        return_as="generator_unordered",
        batch_size=1,
        initializer=interrupt.follow_parent,
        initargs=(os.getpid(),),
    )
    return parallel(delayed(_call)(work, image, arguments) for image, arguments in tasks.items())


def _map_cluster(work: Callable[..., Any], tasks: Mapping[str, tuple], address: str) -> Iterator[tuple[str, Any]]:
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise InputError("--dask needs a package that is not installed: pip install 'dask[distributed]'") from None
    try:
        client = Client(address, set_as_default=False, timeout=CLUSTER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({error})") from None
    with client:
        futures = client.map(
            _call, [work] * len(tasks), list(tasks), list(tasks.values()), pure=False, retries=CLUSTER_RETRIES
        )
        for future, result in as_completed(futures, loop=client.loop, with_results=True):
            yield result
            future.release()


def _call(work: Callable[..., Any], image: str, arguments: tuple) -> tuple[str, Any]:
    import cv2

    cv2.setNumThreads(1)  # the parallelism is over images
    return image, work(*arguments)


def map_images(
    work: Callable[..., dict[str, Any]],
    journal: Journal,
    tasks: Mapping[str, tuple[list, tuple]],
    workers: Workers,
) -> list[str]:
    """Bring a journal up to date: work on the images that are due, keep the others, drop those that are gone.

    Parameters
    ----------
    work : a module-level function that returns an image's row, or {'reason': why it is rejected}
    tasks : image -> (key, arguments); an image is due if its recorded key is another one
    workers : processes, or the address of a Dask scheduler

    Returns
    -------
    The images that were dropped.
    """
    keys = {image: key for image, (key, _) in tasks.items()}
    due = journal.due(keys)
    title = f"{journal.path.parent.name}: {journal.path.stem}"
    state = f"{len(due)} of {len(tasks)} images are due" if due else f"all {len(tasks)} images are cached"
    print(f"{title}: {state}" + (f" ({journal.change})" if journal.change else ""), flush=True)
    if due:
        with journal.appending() as append:
            for image, row in map_parallel(work, {image: tasks[image][1] for image in due}, workers, title):
                append(image, keys[image], row)
    return journal.finish(list(tasks))
