"""Broken on purpose: kills, Ctrl-C, two runs at once, a reader beside a writer, full disks; nothing is lost."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blend import predict as blend_predict
from blend import train as blend_train
from dr import predict, train
from kappa import assign
from preprocess.__main__ import main as preprocess
from preprocess.command import process
from preprocess.disk import files
from preprocess.disk.errors import InputError
from submissions import write
from tests.benchmarks import crash

pytestmark = pytest.mark.usefixtures("hear_ctrl_c")

ROOT = Path(__file__).parents[1]
MESSAGE = f"error: {process.MESSAGE}\n"


def run_pipeline(data, cache, jobs):
    """Run all stages, in this process."""
    at, out = [f"--data={data}", f"--cache={cache}"], cache / "submission.csv"
    preprocess([*at, *crash.SIZE, f"--jobs={jobs}"])
    train.main(
        [*at, *"--epochs=1 --folds=2 --batch-size=4 --device=cpu --precision=float32".split()]
    )
    predict.main([*at, *"--views=1 --epochs-averaged=last:1 --device=cpu".split()])
    blend_train.main([*at, "--method=linear"])
    for main, options in (
        (blend_predict.main, []),
        (assign.main, []),
        (write.main, [f"--out={out}"]),
    ):
        main([*at, *options])


@pytest.fixture(scope="module")
def whole(drawn_folder, tmp_path_factory):
    """A cache, and a submission, that were made without a disturbance, by one process."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    run_pipeline(drawn_folder, cache, jobs=1)
    return cache


def test_two_processes_end_in_the_bytes_of_one_from_photographs_to_submission(
    drawn_folder, whole, tmp_path
):
    run_pipeline(drawn_folder, tmp_path, jobs=2)
    one, two = crash.read_all(whole), crash.read_all(tmp_path)
    assert len(one) > 30
    assert [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)] == []


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_stages_stopped_at_random_instants_end_in_the_same_bytes(
    drawn_folder, whole, tmp_path, name
):
    rng, cache = random.Random(name), tmp_path / "cache"
    toll = crash.disturb(crash.AT_ONCE, drawn_folder, cache, 2, getattr(signal, name), 1.5, rng)
    assert toll.kills >= 2
    assert ", 0 differ" in crash.count_differences(whole, cache, crash.IMAGE_FOLDERS)


def test_a_limit_on_files_ends_in_one_line_that_names_the_file(drawn_folder, whole, tmp_path):
    command = crash.list_command(crash.AT_ONCE, drawn_folder, tmp_path)
    refused = crash.run(crash.limit_files(command))
    crash.check_refusal(crash.AT_ONCE, refused, ".png: File too large")
    assert crash.run(command).status == 0
    assert ", 0 differ" in crash.count_differences(whole, tmp_path, crash.IMAGE_FOLDERS)


HOLD = """
import sys
from pathlib import Path
from preprocess.disk import files
with files.locked(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_who_comes_second_is_told_which_process_holds_the_cache(data, tmp_path):
    command, ends = (
        [sys.executable, "-c", HOLD, tmp_path],
        {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    with subprocess.Popen(command, **ends, cwd=ROOT) as holder:
        holder.stdout.readline()
        message = f"another run is using this cache (process {holder.pid} on "
        with pytest.raises(InputError, match=re.escape(message)), files.locked(tmp_path):
            pass
        shown = run_script(data, tmp_path).communicate()
        holder.kill()
    assert message in shown[1] and shown[1].count("\n") == 1
    assert "crop:" not in shown[0]
    with files.locked(tmp_path):  # the kernel has let go of it
        pass


def run_script(data, cache, *options):
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    command = [
        ROOT / "run_all.sh",
        "--data",
        data,
        "--cache",
        cache,
        "--size-px",
        "64",
        "--jobs",
        "2",
        *options,
    ]
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_square(cache, process):
    """Wait until a process has written a square; it must not end before."""
    while not list(cache.rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.002)


def test_a_cache_that_cannot_be_written_is_one_line(data, tmp_path):
    (tmp_path / "file").touch()
    script = run_script(data, tmp_path / "file" / "cache")
    message = script.communicate()[1]
    assert script.returncode == 2
    assert message == f"error: {tmp_path}/file/cache: Not a directory\n"


def test_ctrl_c_ends_the_script_its_stage_and_its_workers_in_one_line(data, tmp_path):
    script = run_script(data, tmp_path / "cache")
    wait_for_square(tmp_path / "cache", script)
    os.killpg(script.pid, signal.SIGINT)
    message = script.communicate()[1]
    crash.wait_for_workers(script.pid)
    assert script.returncode == 130
    assert message.endswith(MESSAGE)
    assert message.count("error") == 1
    assert "Traceback" not in message
    assert not list(tmp_path.rglob(f"{files.PARTIAL}*"))


WRITE = """
import sys
from pathlib import Path
from preprocess.disk import files
path = Path(sys.argv[1])
for number in range(10**9):
    files.write_bytes(path, bytes([number % 256]) * (10_000 + 1_000 * (number % 100)))
"""


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path):
    path = tmp_path / "table.csv"
    writer = subprocess.Popen([sys.executable, "-c", WRITE, path], cwd=ROOT)
    try:
        seen = set()
        while len(seen) < 100:
            content = path.read_bytes() if path.exists() else b""
            assert content == content[:1] * len(content)
            assert len(content) in {0, *range(10_000, 110_000, 1_000)}
            seen.add(content[:1])
    finally:
        writer.kill()
        writer.wait()


def test_workers_do_not_outlive_a_killed_stage(drawn_folder, tmp_path):
    command = crash.list_command(crash.AT_ONCE, drawn_folder, tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    wait_for_square(tmp_path, process)
    process.kill()
    process.wait()
    crash.wait_for_workers(process.pid)
