"""Kill every stage at random instants until the pipeline is done, and compare what is left with an undisturbed run.

python -m tests.benchmarks.crash [--kills 25] [--signal KILL|INT]

Instants are drawn uniformly over a stage's undisturbed duration; one that gets through before loses what it made and
starts over, until it was hit often enough. Then the same with a full disk, with files limited in size and with a
read-only cache, each of which must end in one line and status 2. All must end in the bytes of one process.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path
from subprocess import DEVNULL

from preprocess.command import cli, process
from preprocess.synthetic import __main__ as synthetic

ROOT = Path(__file__).parents[2]
SIZE = ["--size-px=64"]
IMAGE_FOLDERS = ("crop", "resize", "normalize", "standardize")
AT_ONCE = f"preprocess {SIZE[0]} --jobs=2"  # the next four in one
STAGES = (
    "preprocess.crop --jobs=2",
    f"preprocess.resize {SIZE[0]} --jobs=2",
    "preprocess.normalize",
    "preprocess.standardize",
    "dr.train --epochs 3 --folds 2 --batch-size 8 --device cpu --precision float32",
    "dr.predict --views 2 --epochs-averaged last:2 --device cpu",
    "blend.train",
    "blend.predict",
    "kappa.assign",
    "submissions.write --out={cache}/submission/levels.csv",
)


Ended = namedtuple(
    "Ended", "status message elapsed_s"
)  # a process: exit status, stderr, seconds from its start
Toll = namedtuple(
    "Toll", "kills lost_s"
)  # what it took to get a stage through, and seconds more than undisturbed


def list_command(stage, data, cache):
    module, *options = (word.format(cache=cache) for word in stage.split())
    return [sys.executable, "-P", "-m", module, f"--data={data}", f"--cache={cache}", *options]


def run(command, number=0, delay_s=0.0, is_group=True):
    """Run a command; with a signal's number, send it after a while, to the whole process group or the process alone."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=DEVNULL, stderr=errors
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s if number else None)
        if process.poll() is None:
            (os.killpg if is_group else os.kill)(process.pid, number)
        process.wait()
        elapsed_s = time.perf_counter() - start
        errors.seek(0)
        message = errors.read().decode(errors="replace")
    if number:
        wait_for_workers(process.pid)
    return Ended(process.returncode, message, elapsed_s)


def wait_for_workers(session):
    """Raise RuntimeError if a session's processes are not gone in a minute: the machine may be busy."""
    limit = time.perf_counter() + 60
    while not subprocess.run(
        ["pgrep", "--session", str(session)], stdout=DEVNULL, check=False
    ).returncode:
        if time.perf_counter() > limit:
            raise RuntimeError(f"processes of session {session} outlive it")
        time.sleep(0.05)


def read_all(folder):
    """Return the content of all files below a folder that must not differ, by relative path."""
    paths = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {".lock", "times.csv"}
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def count_differences(one, other, folders=(".",)):
    """Return how many files two folders (or some folders in them) hold, and how many are missing in one or differ."""
    first, second = (
        {(f, name): c for f in folders for name, c in read_all(top / f).items()}
        for top in (one, other)
    )
    differing = sum(first.get(name) != second.get(name) for name in {*first, *second})
    return f"{len({*first, *second})} files, {differing} differ from the undisturbed run"


def demand(is_right, stage, ended):
    """Raise RuntimeError unless a stage ended as it should."""
    if not is_right:
        raise RuntimeError(f"{stage}: {ended}")


def disturb(stage, data, cache, kills, number, took_s, rng):
    """Send a stage a signal again and again; let it through at last. Raises RuntimeError if it ends in another way."""
    done, lost_s, before = 0, 0.0, cache.with_name("before")
    cache.mkdir(exist_ok=True)
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(cache, before)
    while True:
        delay_s, is_group = rng.uniform(0, took_s) if done < kills else 1e9, rng.random() < 0.5
        ended = run(list_command(stage, data, cache), number, delay_s, is_group)
        lost_s += ended.elapsed_s
        if ended.status:
            check_end(stage, ended, number, cache)
            done += 1
            continue
        lost_s -= took_s
        if done >= kills:
            return Toll(done, lost_s)
        shutil.rmtree(cache)
        shutil.copytree(before, cache)


def check_end(stage, ended, number, cache):
    is_killed = ended.status == -number == -signal.SIGKILL
    is_pythons = (
        ended.status in {1, -signal.SIGINT} and "in run\n" not in ended.message
    )  # it, or a library, started
    lines = [line for line in ended.message.splitlines() if "error: " in line]
    is_ours = (
        ended.status == 130
        and lines == [f"error: {process.MESSAGE}"]
        and "Traceback" not in ended.message
    )
    is_clean = number == signal.SIGINT and not list(cache.rglob(".partial-*"))
    demand(is_killed or ((is_pythons or is_ours) and is_clean), stage, ended)


def check_refusal(stage, ended, reason):
    """Raise RuntimeError unless a stage ended in one line, with a reason, and status 2."""
    lines = [line for line in ended.message.splitlines() if "error: " in line]
    is_one = len(lines) == 1 and reason in lines[0] and "Traceback" not in ended.message
    demand(ended.status == 2 and is_one, stage, ended)
    print(f"  {stage.split()[0]:<24} {lines[0]}")


def limit_files(command):
    """Return a command that runs another which may write no file of more than 1 kB."""
    return ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', *command]


def fill_up(disk, data, whole):
    """Run a pipeline on a disk that is full, or read-only, before every stage, and compare what it ends in."""
    cache, roomy = disk / "cache", "size=200000000"
    for stage in STAGES:
        command = list_command(stage, data, cache)
        used = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())
        for disk_is, tried, reason in (
            (f"size={used + 4096}", command, "No space left on device"),
            (roomy, limit_files(command), "File too large"),
            ("ro", command, "Read-only file system"),
            (f"rw,{roomy}", command, None),
        ):
            subprocess.run(["mount", "-o", f"remount,{disk_is}", disk], check=True)
            ended = run(tried)
            if ended.status or disk_is == "ro":  # a stage of small files may fit
                check_refusal(stage, ended, reason or "no reason")
    print(f"  {count_differences(whole, cache)}")


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.crash", __doc__.splitlines()[0], "--kills 20 --signal INT"
    )
    parser.add_argument("--kills", type=int, default=25, help="per stage")
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    options = parser.parse_args()
    rng, number, took, kills = random.Random(0), getattr(signal, f"SIG{options.signal}"), {}, 0
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job's children would not hear it
    with tempfile.TemporaryDirectory() as place:
        data, whole, hurt, at_once, disk = (
            Path(place, name) for name in ("data", "whole", "hurt", "at_once", "disk")
        )
        patients = "--patients-train=8 --patients-test=3 --width-px=400 --levels=balanced".split()
        synthetic.main([f"--data={data}", *patients])
        for stage in STAGES:
            ended = run(list_command(stage.replace("--jobs=2", "--jobs=1"), data, whole))
            demand(ended.status == 0, stage, ended)
            took[stage] = ended.elapsed_s
        took[AT_ONCE] = run(list_command(AT_ONCE, data, Path(place, "warm"))).elapsed_s
        for stage, cache in ((AT_ONCE, at_once), *((stage, hurt) for stage in STAGES)):
            toll = disturb(stage, data, cache, options.kills, number, took[stage], rng)
            cost_s = toll.lost_s / max(toll.kills, 1)
            print(
                f"{stage.split()[0]:<24} {took[stage]:5.1f} s; {toll.kills} kills, each {cost_s:.2f} s",
                flush=True,
            )
            kills += toll.kills
        print(f"{kills} kills: {count_differences(whole, hurt)}")
        print(
            f"of the four image stages at once: {count_differences(whole, at_once, IMAGE_FOLDERS)}"
        )
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)  # takes the right to
        try:
            fill_up(disk, data, whole)
        finally:
            subprocess.run(["umount", disk], check=True)


if __name__ == "__main__":
    main()
