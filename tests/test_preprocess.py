"""The four stages together: one decode gives the same bytes as two, and a killed run ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocess import crop, photograph, resize, stage
from preprocess.__main__ import main as preprocess

ROOT = Path(__file__).parents[1]


def options(data, cache, jobs=1):
    return [f"--data={data}", f"--cache={cache}", f"--jobs={jobs}", "--allow-rejected"]


def read_all(cache):
    """Return the bytes of every file in a cache but the lock, by relative path."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_one_decode_gives_the_bytes_of_two(drawn_folder, cache, tmp_path, monkeypatch):
    crop.main(options(drawn_folder, cache))
    resize.main(options(drawn_folder, cache))
    decode, calls = photograph.decode, []
    monkeypatch.setattr(photograph, "decode", lambda *arguments: calls.append(arguments) or decode(*arguments))
    preprocess([*options(drawn_folder, tmp_path / "once")])
    once = read_all(tmp_path / "once")
    assert {name: once[name] for name in read_all(cache)} == read_all(cache)
    assert len(calls) == 12


def test_bad_photographs_end_in_the_same_table_either_way(data, cache, tmp_path):
    first, second, *_ = sorted((data / "train").iterdir())
    first.write_bytes(first.read_bytes()[:3000])
    second.write_bytes(b"\xff\xd8 rubbish")
    crop.main(options(data, cache))
    resize.main(options(data, cache))
    preprocess(options(data, tmp_path / "once"))
    assert (tmp_path / "once" / "rejected.csv").read_bytes() == (cache / "rejected.csv").read_bytes()
    assert len(stage.read_rejected(cache)) == 2


def test_rejected_photographs_stop_before_normalize(data, cache):
    next((data / "train").iterdir()).write_bytes(b"")
    with pytest.raises(stage.InputError, match="1 photograph is rejected"):
        preprocess([f"--data={data}", f"--cache={cache}", "--jobs=1"])
    assert not (cache / "normalize").exists()


def run_and_kill(data, cache, n_lines):
    """Run preprocessing in a process group; kill it all once the first journal has `n_lines`. Return its status."""
    command = [sys.executable, "-m", "preprocess", *options(data, cache, jobs=2)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
    journal = cache / "crop" / "train.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= n_lines:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.001)
    return process.returncode


def test_killed_runs_end_in_the_bytes_of_an_undisturbed_one(drawn_folder, cache, tmp_path):
    preprocess(options(drawn_folder, cache))
    disturbed = tmp_path / "disturbed"
    for n_lines in (1, 3, 6):
        assert run_and_kill(drawn_folder, disturbed, n_lines) == -signal.SIGKILL
    assert run_and_kill(drawn_folder, disturbed, 1000) == 0
    assert read_all(disturbed) == read_all(cache)


@pytest.mark.usefixtures("hear_ctrl_c")
def test_interrupt_ends_in_one_line_and_leaves_no_temporary_file(drawn_folder, cache):
    command = [sys.executable, "-m", "preprocess", *options(drawn_folder, cache, jobs=1)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (cache / "crop" / "train.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=30)[1].decode()
    if process.returncode != 0:  # it may have been done by then
        assert process.returncode == 130
        assert message.strip().splitlines()[-1].startswith("error: interrupted")
    assert not [path for path in cache.rglob(f"{stage.PARTIAL}*")]
