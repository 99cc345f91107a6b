"""A map over images, on the processes of this machine or on a Dask cluster; the options for it."""

import argparse
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preprocess.command import progress, resources
from preprocess.command.cli import whole
from preprocess.command.process import end_with
from preprocess.disk.errors import InputError

CLUSTER_TIMEOUT_S = 20  # a scheduler that does not answer by then is not there
CLUSTER_RETRIES = 3  # how often a task moves on when the worker it runs on dies
# Options for the process that joblib starts beside the workers: it tidies up after a killed run,
# and its warnings about that are of no use to people.
IGNORED = (
    "ignore:resource_tracker:UserWarning",
    "ignore::UserWarning:joblib._multiprocessing_helpers",
)

SHOWN_IMAGES = 3  # in a message
SHM_ADVICE = "processes that work together meet there: make room (docker run --shm-size 1g)"
GOES_ON = "the same command goes on, with fewer --jobs"

Workers = int | str  # a number of processes here, or the address of a Dask scheduler


class OutOfMemory:
    """In the place of an image's result: its work needs more memory than there is."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs` and `--dask`, which wins."""
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=resources.count_jobs(),
        help="processes to work with: by default one per processor that this one may use, if there are 240 MB for each",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on the Dask cluster of this scheduler (tcp://host:port) instead",
    )


def map_parallel(
    work: Callable[..., Any], tasks: Mapping[str, tuple], workers: Workers, title: str
) -> Iterator[tuple[str, Any]]:
    """Yield (image, work(*arguments)) as they finish, and show the progress.

    `tasks` maps images to arguments; `work` is a function at the top of a module. With one process,
    the work is done in this one; the workers of a cluster must see the same files. Raises InputError,
    when all others are done, for images for which the memory does not suffice, and at once if a
    worker is killed.
    """
    if not tasks:
        return
    if isinstance(workers, str):
        results = _map_cluster(work, tasks, address=workers)
    else:
        results = _map_processes(work, tasks, jobs=workers)
    too_large = []
    with progress.tracking(len(tasks), title) as bar:
        for image, result in results:
            if isinstance(result, OutOfMemory):
                too_large.append(image)
            else:
                yield image, result
            bar.update(1)
    if too_large:
        named = ", ".join(too_large[:SHOWN_IMAGES])
        raise InputError(f"{named}: out of memory; all others are kept: {GOES_ON}")


def _map_processes(
    work: Callable[..., Any], tasks: Mapping[str, tuple], jobs: int
) -> Iterator[tuple[str, Any]]:
    from multiprocessing import resource_tracker

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from joblib import Parallel, delayed
        from joblib.externals.loky.backend import resource_tracker as joblib_tracker
    if any("serial mode" in str(warning.message) for warning in caught):
        print(
            f"/dev/shm: full, or not to be written: one process works instead of {jobs}; {SHM_ADVICE}",
            file=sys.stderr,
        )

    for option in IGNORED:
        if option not in sys.warnoptions:
            sys.warnoptions.append(option)
    parallel = Parallel(
        n_jobs=min(jobs, len(tasks)),
        return_as="generator_unordered",
        batch_size=1,
        initializer=end_with,
        initargs=(os.getpid(),),
    )
    resource_tracker.ensure_running()  # now, since it would let SIGINT through again
    joblib_tracker.ensure_running()
    call = delayed(_call)
    begun: dict[str, None] = {}  # in order: what joblib has been given, and has not given back

    def list_calls() -> Iterator[Any]:
        for image, arguments in tasks.items():
            begun[image] = None
            yield call(work, image, arguments)

    # The workers inherit this from their first moment on: Ctrl-C is for this process alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        results = parallel(list_calls())
    except OSError as error:
        if error.filename is not None:
            raise
        raise InputError(
            f"/dev/shm: {error.strerror}: {SHM_ADVICE}, or go on with --jobs 1"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _name_killed(results, begun, jobs)


def _name_killed(
    results: Iterator[tuple[str, Any]], begun: dict[str, None], jobs: int
) -> Iterator[tuple[str, Any]]:
    """Yield the results. Raises InputError, naming the images in work, if a worker is killed."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        for image, result in results:
            del begun[image]
            yield image, result
    except BrokenProcessPool:
        images = list(begun)[: 2 * jobs]  # those in work are among the first
        raise InputError(
            f"a worker was killed, as the system does when memory runs out, while {jobs} of these were in work: "
            f"{', '.join(images)}; what is done is kept: {GOES_ON}"
        ) from None


def _map_cluster(
    work: Callable[..., Any], tasks: Mapping[str, tuple], address: str
) -> Iterator[tuple[str, Any]]:
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise InputError(
            "--dask needs a package that is not installed: pip install 'dask[distributed]'"
        ) from None
    try:
        client = Client(address, set_as_default=False, timeout=CLUSTER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({error})") from None
    with client:
        payloads = [pickle.dumps((_call, work, *task)) for task in tasks.items()]
        futures = client.map(
            _make_runner(),
            payloads,
            pure=False,
            retries=CLUSTER_RETRIES,
        )
        for future, result in as_completed(futures, loop=client.loop, with_results=True):
            yield result
            future.release()


def _make_runner() -> Callable[[bytes], tuple[str, Any]]:
    """Return a function that calls what was pickled, with its arguments, on a worker.

    It is no function of a module, and so goes to the cluster by value; the rest are bytes. The
    scheduler, which looks into what it passes on, needs none of this code.
    """

    def run(payload: bytes) -> tuple[str, Any]:
        import pickle

        call, *arguments = pickle.loads(payload)
        return call(*arguments)

    return run


def _call(work: Callable[..., Any], image: str, arguments: tuple) -> tuple[str, Any]:
    import cv2

    cv2.setNumThreads(1)  # the parallelism is over images
    try:
        return image, work(*arguments)
    except MemoryError:
        return image, OutOfMemory()
    except cv2.error as error:
        if error.code != cv2.Error.STS_NO_MEM:
            raise
        return image, OutOfMemory()
