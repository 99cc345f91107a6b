"""The image stages on a Dask cluster: a real scheduler and two worker processes on the loopback address."""

import os
import signal

import pytest

from preprocess.__main__ import main as preprocess
from preprocess.cache import journal
from preprocess.command import parallel
from preprocess.disk.errors import InputError
from tests.benchmarks.crash import read_all

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


def test_no_scheduler_is_one_line(drawn_folder, cache, monkeypatch):
    monkeypatch.setattr(parallel, "CLUSTER_TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        preprocess([f"--data={drawn_folder}", f"--cache={cache}", "--dask=tcp://127.0.0.1:1"])
