"""A map over images, on the processes of this machine or on a Dask cluster, and the options that say which."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preprocess.command import progress
from preprocess.command.cli import whole
from preprocess.command.process import end_with
from preprocess.disk.errors import InputError

CLUSTER_TIMEOUT_S = 20  # a scheduler that does not answer by then is not there
CLUSTER_RETRIES = 3  # how often a task moves on when the worker it runs on dies
# The options that joblib's helper process starts with: it tidies up after a killed run, and need not tell.
IGNORE_TRACKER = "ignore:resource_tracker:UserWarning"

Workers = int | str  # a number of processes here, or the address of a Dask scheduler


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs` and `--dask`, which wins."""
    parser.add_argument("--jobs", type=whole(1), default=os.cpu_count(), help="processes to work with")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="work on the Dask cluster of this scheduler (tcp://host:port) instead"
    )


def map_parallel(
    work: Callable[..., Any], tasks: Mapping[str, tuple], workers: Workers, title: str
) -> Iterator[tuple[str, Any]]:
    """Yield (image, work(*arguments)) as they finish, and show how far it is; tasks map images to arguments.

    `work` is a module-level function. One process works in this one; a cluster's workers must see the same files.
    """
    if not tasks:
        return
    results = _map_cluster(work, tasks, workers) if isinstance(workers, str) else _map_processes(work, tasks, workers)
    with progress.tracking(len(tasks), title) as bar:
        for result in results:
            yield result
            bar.update(1)


def _map_processes(work: Callable[..., Any], tasks: Mapping[str, tuple], jobs: int) -> Iterator[tuple[str, Any]]:
    from multiprocessing import resource_tracker

    from joblib import Parallel, delayed
    from joblib.externals.loky.backend import resource_tracker as joblib_tracker

    if IGNORE_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(IGNORE_TRACKER)
    parallel = Parallel(
        n_jobs=min(jobs, len(tasks)),
        return_as="generator_unordered",
        batch_size=1,
        initializer=end_with,
        initargs=(os.getpid(),),
    )
    resource_tracker.ensure_running()  # now, since it would let SIGINT through again
    joblib_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # and so do the workers, from their first moment
    try:
        return parallel(delayed(_call)(work, image, arguments) for image, arguments in tasks.items())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
