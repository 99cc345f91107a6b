"""The image stages on a Dask cluster: a real scheduler and two worker processes on the loopback address."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from preprocess.__main__ import main as preprocess
from preprocess.cache import journal
from preprocess.command import parallel
from preprocess.disk.errors import InputError
from tests.benchmarks.crash import read_all
from tests.tiny import ROOT

distributed = pytest.importorskip("distributed")


def test_a_cluster_with_a_killed_worker_ends_in_the_same_bytes(
    drawn_folder, cache, tmp_path, monkeypatch
):
    preprocess([f"--data={drawn_folder}", f"--cache={cache}", "--jobs=1"])
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        victims = [next(iter(cluster.workers.values())).pid]
        encode_line = journal._encode_line

        def encode_and_kill(content):
            if victims and isinstance(content, list):  # the first finished image
                os.kill(victims.pop(), signal.SIGKILL)
            return encode_line(content)

        monkeypatch.setattr(journal, "_encode_line", encode_and_kill)
        preprocess(
            [
                f"--data={drawn_folder}",
                f"--cache={tmp_path / 'other'}",
                f"--dask={cluster.scheduler_address}",
            ]
        )
    assert not victims
    assert read_all(tmp_path / "other") == read_all(cache)


@pytest.fixture
def scheduler(tmp_path):
    """The address of a scheduler that lacks this code, and of a worker that has it, each a process of its own."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    address_file = tmp_path / "scheduler.json"
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    start += ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(address_file)]
    processes = [subprocess.Popen(start, cwd=tmp_path, env=bare, stderr=subprocess.DEVNULL)]
    start = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--no-nanny"]
    start += ["--nthreads", "1", "--scheduler-file", str(address_file)]
    with_code = bare | {"PYTHONPATH": str(ROOT)}
    processes.append(
        subprocess.Popen(start, cwd=tmp_path, env=with_code, stderr=subprocess.DEVNULL)
    )
    while not address_file.exists():
        assert processes[0].poll() is None
        time.sleep(0.1)
    yield json.loads(address_file.read_text())["address"]
    for process in processes[::-1]:
        process.kill()
        process.wait()


def test_a_scheduler_without_this_code_passes_the_work_on(drawn_folder, cache, tmp_path, scheduler):
    preprocess([f"--data={drawn_folder}", f"--cache={cache}", "--jobs=1", "--size-px=48"])
    other = tmp_path / "other"
    preprocess(
        [f"--data={drawn_folder}", f"--cache={other}", f"--dask={scheduler}", "--size-px=48"]
    )
    assert read_all(other) == read_all(cache)


def test_no_scheduler_is_one_line(drawn_folder, cache, monkeypatch):
    monkeypatch.setattr(parallel, "CLUSTER_TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        preprocess([f"--data={drawn_folder}", f"--cache={cache}", "--dask=tcp://127.0.0.1:1"])
