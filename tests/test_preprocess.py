"""The four stages together: one decode gives the same bytes as two, and a killed run ends in the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocess import crop, normalize, resize, standardize
from preprocess.__main__ import main as preprocess
from preprocess.cache import files, rejected
from preprocess.cache.errors import InputError
from preprocess.picture import photograph
from preprocess.samples import readers
from preprocess.samples.layout import Listing, Owner
from preprocess.samples.retina import RETINA

ROOT = Path(__file__).parents[1]


def options(data, cache, jobs=1):
    return [f"--data={data}", f"--cache={cache}", f"--jobs={jobs}", "--allow-rejected"]


def read_all(cache):
    """Return the bytes of every file in a cache but the lock and the times, by relative path."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.name not in (".lock", "times.csv")
    }


def test_one_decode_gives_the_bytes_of_two_though_photographs_are_bad(data, cache, tmp_path, monkeypatch):
    first, second, *_ = sorted((data / "train").iterdir())
    first.write_bytes(first.read_bytes()[:3000])
    second.write_bytes(b"\xff\xd8 rubbish")
    with pytest.raises(InputError, match="2 photographs are rejected"):
        preprocess([f"--data={data}", f"--cache={tmp_path / 'strict'}", "--jobs=1"])
    assert not (tmp_path / "strict" / "normalize").exists()
    crop.main(options(data, cache))
    resize.main(options(data, cache))
    normalize.main([f"--cache={cache}"])
    standardize.main([f"--cache={cache}"])
    decode, calls = photograph.decode, []
    monkeypatch.setattr(photograph, "decode", lambda *arguments: calls.append(arguments) or decode(*arguments))
    preprocess(options(data, tmp_path / "once"))
    assert read_all(tmp_path / "once") == read_all(cache)
    assert len(rejected.read_rejected(cache)) == 2
    assert len(calls) == 11  # the header of one is rubbish


def test_a_square_that_is_there_is_not_cut_again_with_its_outline(drawn_folder, cache, monkeypatch):
    """After a kill between the two journals; and the stages' second run agrees."""
    preprocess(options(drawn_folder, cache))
    before = read_all(cache)
    (cache / "crop" / "train.jsonl").unlink()
    monkeypatch.setattr("preprocess.picture.cut.cut_square", None)
    preprocess(options(drawn_folder, cache))
    assert read_all(cache) == before


def test_ids_may_lead_through_folders(data, cache, monkeypatch):
    """As in layouts with a folder per class."""

    def list_images(data, split):
        listing = RETINA.list_images(data, split)
        return Listing({f"class/{image}": path for image, path in listing.paths.items()}, {})

    layout = RETINA._replace(list_images=list_images, find_owner=Owner)
    monkeypatch.setattr(readers, "find_layout", lambda data: layout)
    preprocess(options(data, cache))
    squares = cache / "resize" / "train" / "class"
    assert len(list(squares.glob("*.png"))) == 8
    (squares / f"{files.PARTIAL}1.png").touch()
    shutil.rmtree(data / "test")
    preprocess(options(data, cache))
    assert not (squares / f"{files.PARTIAL}1.png").exists()


def run_and_signal(data, cache, n_lines, number):
    """Send a signal to the process group of preprocessing once the first journal has `n_lines`; return the process."""
    command = [sys.executable, "-m", "preprocess", *options(data, cache, jobs=2)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    journal = cache / "crop" / "train.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= n_lines:
            os.killpg(process.pid, number)
            break
        time.sleep(0.001)
    return process.communicate(timeout=30)[1], process.returncode


def test_killed_runs_end_in_the_bytes_of_an_undisturbed_one(drawn_folder, cache, tmp_path):
    preprocess(options(drawn_folder, cache))
    disturbed = tmp_path / "disturbed"
    for n_lines in (1, 3, 6):
        assert run_and_signal(drawn_folder, disturbed, n_lines, signal.SIGKILL)[1] == -signal.SIGKILL
    assert run_and_signal(drawn_folder, disturbed, 1000, signal.SIGKILL)[1] == 0
    assert read_all(disturbed) == read_all(cache)


@pytest.mark.usefixtures("hear_ctrl_c")
@pytest.mark.parametrize("n_lines", [1, 4])  # workers are just starting; workers are at work
def test_interrupt_ends_in_one_line_and_leaves_no_temporary_file(drawn_folder, cache, n_lines):
    message, status = run_and_signal(drawn_folder, cache, n_lines, signal.SIGINT)
    if status != 0:  # it may have been done by then
        assert status == 130
        assert message == "error: interrupted; the same command goes on where it stopped\n"
    assert not list(cache.rglob(f"{files.PARTIAL}*"))
