"""Errors of the system: each names the file or folder that it was about, and what to do; locks that are refused."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess.command import parallel, process
from preprocess.disk import files
from preprocess.disk.errors import InputError

ROOT = Path(__file__).parents[1]


def refuse_locks(number):
    """Return what flock does where it is refused."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_locks_are_refused_a_file_stands_in_for_one(tmp_path, monkeypatch, number, capsys):
    monkeypatch.setattr(fcntl, "flock", refuse_locks(number))
    with files.locked(tmp_path):
        assert ".held is used instead" in capsys.readouterr().err
        with (
            pytest.raises(
                InputError,
                match=rf"\(process {os.getpid()} on .*; if that run is over, remove .*\.held$",
            ),
            files.locked(tmp_path),
        ):
            pass
    with files.locked(tmp_path):
        pass
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / ".held").write_text(f"process {ended.pid} on {os.uname().nodename}\n")
    with files.locked(tmp_path):  # that process is no more
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]
    (tmp_path / ".held").write_text(f"process {ended.pid} on elsewhere\n")
    with pytest.raises(InputError, match="on elsewhere"), files.locked(tmp_path):
        pass


def test_another_error_of_a_lock_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.EIO))

    def work():
        with files.locked(tmp_path):
            pass

    assert end_with_line(work, capsys).startswith(
        f"error: {tmp_path}/.lock: Input/output error; the disk"
    )


def end_with_line(work, capsys):
    """Run a command's work, which fails, and return the line that it ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        process.run(work)
    assert ended.value.code == process.EXIT_INPUT
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_an_error_in_the_middle_of_a_file_names_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.csv"
    path.write_text("x")

    def break_off(self):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", break_off)
    message = end_with_line(path.read_bytes, capsys)
    assert message.startswith(
        f"error: {path}: Input/output error; the disk or its connection fails"
    )


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room; the same command goes on"),
        (
            errno.EROFS,
            "it cannot be written there: give another place, with --cache, --data or --out",
        ),
        (errno.EACCES, "this user may not: change its permissions, or give another place"),
    ],
)
def test_what_cannot_be_written_is_named_as_it_was_wanted(tmp_path, number, advice, capsys):
    path = tmp_path / "levels.csv"

    def write():
        with files.replacing(path) as partial:
            raise OSError(number, os.strerror(number), str(partial))

    assert end_with_line(write, capsys) == f"error: {path}: {os.strerror(number)}; {advice}\n"


SQUARES = """
from preprocess.command import parallel, process
def work():
    list(parallel.map_parallel(len, {"1_left": ("",), "2_left": ("",)}, 2, "testing"))
process.run(work)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_no_room_where_processes_meet_is_one_line_and_one_process_goes_on(tmp_path):
    (tmp_path / "work.py").write_text(SQUARES)
    mount = f"mount -t tmpfs -o ro none /dev/shm && exec {sys.executable} {tmp_path / 'work.py'}"
    command = ["unshare", "-m", "sh", "-c", mount]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(
        "/dev/shm: full, or not to be written: one process works instead of 2; "
    )
    assert done.stderr.count("\n") == 1


def test_no_room_later_is_one_line(monkeypatch):
    import joblib

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(joblib.Parallel, "__call__", refuse)
    with pytest.raises(
        InputError, match="^/dev/shm: No space left on device: processes that work .*--jobs 1$"
    ):
        list(parallel.map_parallel(len, {"1_left": ("",), "2_left": ("",)}, 2, "testing"))
