"""What a process may use: processors by affinity and quota, memory by the control group; jobs follow both."""

import os
import signal

import pytest

from dr.machine import workers
from preprocess.command import parallel, resources
from preprocess.disk.errors import InputError

GB = 2**30


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Write the files of a control group, name -> content, in the place of the machine's."""
    monkeypatch.setattr(
        resources, "_list_groups", lambda controller: [tmp_path / controller, tmp_path]
    )

    def write(controller, **contents):
        (tmp_path / controller).mkdir(exist_ok=True)
        for name, content in contents.items():
            (tmp_path / controller / name.replace("__", ".")).write_text(content)

    return write


@pytest.mark.parametrize(
    ("contents", "n_processors"),
    [
        ({"cpu__max": "150000 100000\n"}, 1),
        ({"cpu__max": "max 100000\n"}, 8),
        ({"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"}, 3),
        ({"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 8),
        ({"cpu__max": "20000 100000\n"}, 1),
    ],
)
def test_processors_are_those_of_the_affinity_and_the_quota(
    group, monkeypatch, contents, n_processors
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    group("cpu", **contents)
    assert resources.count_processors() == n_processors


def test_memory_is_the_machines_or_what_the_group_leaves(group, monkeypatch):
    monkeypatch.setattr(resources, "_read_machine_memory", lambda: 64 * GB)
    assert resources.read_free_memory() == 64 * GB
    group(
        "memory",
        memory__max=f"{4 * GB}",
        memory__current=f"{3 * GB}",
        memory__stat=f"anon 5\ninactive_file {GB}\n",
    )
    assert resources.read_free_memory() == 2 * GB
    group("memory", memory__max="max")
    group(
        "memory",
        memory__limit_in_bytes=f"{2 * GB}",
        memory__usage_in_bytes=f"{GB}",
        memory__stat="cache 1\n",
    )
    assert resources.read_free_memory() == GB
    group("memory", memory__limit_in_bytes="9223372036854771712")
    assert resources.read_free_memory() == 64 * GB


def test_jobs_have_a_processor_and_memory_each(monkeypatch):
    monkeypatch.setattr(resources, "count_processors", lambda: 16)
    monkeypatch.setattr(resources, "read_free_memory", lambda: GB)
    assert resources.count_jobs() == 4
    monkeypatch.setattr(resources, "read_free_memory", lambda: 0)
    assert resources.count_jobs() == 1
    monkeypatch.setattr(resources, "read_free_memory", lambda: 100 * GB)
    assert resources.count_jobs() == 16


def test_torch_has_no_more_threads_than_the_quota_has_processors(group, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    workers.let_waiting_threads_sleep()
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    group("cpu", cpu__max="200000 100000")
    workers.let_waiting_threads_sleep()
    assert os.environ["OMP_NUM_THREADS"] == "2"


def end_some(name):
    """Work on an image as its name says."""
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "huge":
        raise MemoryError
    return name


def gather(names, workers):
    """Return the results of images that came before an error, and the error."""
    results = []
    try:
        for _, result in parallel.map_parallel(
            end_some, {name: (name,) for name in names}, workers, "testing"
        ):
            results.append(result)
    except InputError as error:
        return results, str(error)
    return results, None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_photograph_that_takes_all_memory_is_named_and_all_others_are_kept(workers):
    names = [str(number) for number in range(6)]
    results, message = gather([*names[:2], "huge", *names[2:]], workers)
    assert sorted(results) == names
    assert (
        message
        == "huge: out of memory; all others are kept: the same command goes on, with fewer --jobs"
    )


def test_a_killed_worker_is_one_line_with_what_it_worked_on():
    names = [str(number) for number in range(40)]
    results, message = gather([*names[:20], "killed", *names[20:]], 2)
    assert set(results) <= set(names)
    assert "killed" in message
    assert message.startswith(
        "a worker was killed, as the system does when memory runs out, while "
    )
    assert message.endswith("what is done is kept: the same command goes on, with fewer --jobs")
