"""Broken on purpose: kills, Ctrl-C, two runs at once, a reader beside a writer, full disks; nothing is lost."""

import os
import random
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
from preprocess import stage
from preprocess.__main__ import main as preprocess
from submissions import write
from tests.benchmarks import crash

pytestmark = pytest.mark.usefixtures("hear_ctrl_c")

ROOT = Path(__file__).parents[1]
MESSAGE = "error: interrupted; the same command goes on where it stopped\n"


def run_pipeline(data, cache, jobs):
    """Run all stages, in this process."""
    at, out = [f"--data={data}", f"--cache={cache}"], cache / "submission.csv"
    preprocess([*at, *crash.SIZE, f"--jobs={jobs}"])
    train.main([*at, *"--epochs=1 --folds=2 --batch-size=4 --device=cpu --precision=float32".split()])
    predict.main([*at, *"--views=1 --epochs-averaged=last:1 --device=cpu".split()])
    blend_train.main([*at, "--method=linear"])
    for main, options in ((blend_predict.main, []), (assign.main, []), (write.main, [f"--out={out}"])):
        main([*at, *options])


@pytest.fixture(scope="module")
def whole(drawn_folder, tmp_path_factory):
    """A cache, and a submission, that were made without a disturbance, by one process."""
    import torch

    cache, n_threads = tmp_path_factory.mktemp("whole") / "cache", torch.get_num_threads()
    torch.set_num_threads(1)  # as the tests do: more threads round differently
    run_pipeline(drawn_folder, cache, jobs=1)
    torch.set_num_threads(n_threads)
    return cache


@pytest.mark.usefixtures("one_thread")
def test_two_processes_end_in_the_bytes_of_one_from_photographs_to_submission(drawn_folder, whole, tmp_path):
    run_pipeline(drawn_folder, tmp_path, jobs=2)
    one, two = crash.read_all(whole), crash.read_all(tmp_path)
    assert len(one) > 30
    assert [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)] == []


def start(command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_stages_stopped_at_random_instants_end_in_the_same_bytes(drawn_folder, whole, tmp_path, name):
    rng, cache = random.Random(name), tmp_path / "cache"
    for _ in range(2):
        toll = crash.disturb(crash.AT_ONCE, drawn_folder, cache, 3, getattr(signal, name), 1.5, rng)
        assert toll.kills >= 3
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
from preprocess import stage
with stage.locked(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the cache `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_who_comes_second_is_told_which_process_holds_the_cache(tmp_path, holder):
    with pytest.raises(stage.InputError, match=f"another run is using this cache .process {holder.pid} on "):  # noqa: SIM117
        with stage.locked(tmp_path):
            pass


def run_script(data, cache, *options):
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    command = [ROOT / "run_all.sh", "--data", data, "--cache", cache, "--size-px", "64", "--jobs", "2", *options]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_second_script_is_told_that_the_cache_is_in_use(data, tmp_path, holder):
    shown = run_script(data, tmp_path).communicate()
    assert shown[1].count("\n") == 1
    assert f"another run is using this cache (process {holder.pid} on " in shown[1]
    assert "==" not in shown[0]


def test_a_script_holds_the_cache_between_its_stages_and_as_long_as_one_of_them_lives(data, tmp_path):
    script = run_script(data, tmp_path / "cache")
    while not script.stdout.readline().startswith("== preprocess"):
        assert script.poll() is None
    with pytest.raises(stage.InputError, match=f"process {script.pid} on "), stage.locked(tmp_path / "cache"):
        pass
    command, child = ["pgrep", "-P", str(script.pid), "-f", "preprocess"], ""
    while not child:
        child = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    os.kill(int(child), signal.SIGSTOP)
    script.kill()
    script.wait()
    with pytest.raises(stage.InputError, match=f"process {script.pid} on "), stage.locked(tmp_path / "cache"):
        pass
    os.killpg(script.pid, signal.SIGKILL)
    crash.wait_for_workers(script.pid)
    script.communicate()
    with stage.locked(tmp_path / "cache"):
        pass


def test_a_cache_that_cannot_be_written_is_one_line(data, tmp_path):
    (tmp_path / "file").touch()
    script = run_script(data, tmp_path / "file" / "cache")
    message = script.communicate()[1]
    assert script.returncode == 2
    assert message == f"error: {tmp_path}/file/cache: Not a directory\n"


def test_ctrl_c_ends_the_script_its_stage_and_its_workers_in_one_line(data, tmp_path):
    script = run_script(data, tmp_path / "cache")
    while not list((tmp_path / "cache").rglob("*.png")):
        assert script.poll() is None
        time.sleep(0.002)
    os.killpg(script.pid, signal.SIGINT)
    message = script.communicate()[1]
    crash.wait_for_workers(script.pid)
    assert script.returncode == 130
    assert message.endswith(MESSAGE)
    assert message.count("error") == 1
    assert "Traceback" not in message
    assert not list(tmp_path.rglob(f"{stage.PARTIAL}*"))


BUSY = """
import hashlib, sys
from pathlib import Path
from preprocess import stage
def main():
    with stage.locked(Path(sys.argv[1])), stage.replacing(Path(sys.argv[1]) / "a.png") as partial:
        partial.touch()
        print(flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # one bytecode, so no signal handler, for minutes
stage.run(main)
"""


def test_ctrl_c_does_not_wait_for_a_long_computation(tmp_path):
    process = start([sys.executable, "-c", BUSY, tmp_path], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == MESSAGE
    assert process.returncode == 130
    assert os.listdir(tmp_path) == [".lock"]


def test_ctrl_c_while_a_stage_is_imported_is_one_line(tmp_path):
    command = ["-X", "importtime", "-m", "preprocess.crop", f"--data={tmp_path}", f"--cache={tmp_path}"]
    process = start([sys.executable, *command])
    while not process.stderr.readline().endswith("| preprocess\n"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told = [line for line in process.communicate()[1].splitlines(keepends=True) if not line.startswith("import time")]
    assert told == [MESSAGE]
    assert process.returncode == 130


HALF_IMPORTED = """
import sys, time, types
from preprocess import stage
def main():
    sys.modules["multiprocessing"] = types.ModuleType("multiprocessing")  # as it is while it is being imported
    print(flush=True)
    time.sleep(10)
stage.run(main)
"""


def test_ctrl_c_while_a_library_is_imported_is_one_line():
    process = start([sys.executable, "-c", HALF_IMPORTED], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == MESSAGE
    assert process.returncode == 130


BAR = """
from tqdm import tqdm
from preprocess import stage
def main():
    with tqdm(total=10**9, mininterval=0, miniters=1) as bar:
        while True:
            bar.update()
stage.run(main)
"""


def test_ctrl_cs_line_is_the_last_even_while_a_bar_moves():
    for _ in range(5):
        process = start([sys.executable, "-c", BAR])
        process.stderr.read(1000)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1].endswith(f"\n{MESSAGE}")
        assert process.returncode == 130


def test_a_background_job_does_not_hear_ctrl_c(tmp_path):
    code = f"import signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{HOLD}"
    code = code.replace("with stage", "def main():\n  with stage").replace("\n    ", "\n      ") + "stage.run(main)\n"
    process = start([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate("\n")
    assert process.returncode == 0


WRITE = """
import sys
from pathlib import Path
from preprocess import stage
path = Path(sys.argv[1])
for number in range(10**9):
    stage.write_bytes(path, bytes([number % 256]) * (10_000 + 1_000 * (number % 100)))
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
    process = start(crash.list_command(crash.AT_ONCE, drawn_folder, tmp_path), stdout=subprocess.DEVNULL)
    while not list(tmp_path.rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.communicate()
    crash.wait_for_workers(process.pid)
