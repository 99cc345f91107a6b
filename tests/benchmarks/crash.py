"""Kill every stage at random instants until the pipeline is done, and compare what is left with an undisturbed run.

python -m tests.benchmarks.crash [--kills 25] [--signal KILL|INT] [--seed 0] [--folder DIR]

Draws a few patients, runs every stage once undisturbed, then on another cache kills each stage's process again and
again, at instants drawn uniformly over its undisturbed duration, and reports kills, time lost per kill and files that
differ. A stage that gets through before it is killed loses what it made and starts over, until it was killed often
enough. Then the same with a full disk, with files limited in size and with a read-only cache, each of which must end in
one line and status 2, and two undisturbed runs with one and with two processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preprocess.cache.stage import MESSAGE

ROOT = Path(__file__).parents[2]
PATIENTS = "--patients-train 8 --patients-test 3 --width-px 400 --levels balanced --jobs 2".split()
TRAIN = "--epochs 3 --folds 2 --batch-size 8 --device cpu --precision float32".split()
PREDICT = "--views 2 --epochs-averaged last:2 --device cpu".split()
SIZE = ["--size-px", "64"]
IMAGE_FOLDERS = ("crop", "resize", "normalize", "standardize")
UNCOMPARED = {".lock", "times.csv"}  # who holds the cache, and how long stages took
FILE_KB = 1  # more than a lock, less than a picture
ROOMY_BYTES = 200_000_000
GONE_S = 60.0  # workers of a killed process must be gone by then, on a busy machine too


class Stage(NamedTuple):
    """One stage of the pipeline: module and its own options."""

    module: str
    options: list[str]


AT_ONCE = Stage("preprocess", [*SIZE, "--jobs=2"])  # the next four in one
STAGES = (
    Stage("preprocess.crop", ["--jobs=2"]),
    Stage("preprocess.resize", [*SIZE, "--jobs=2"]),
    Stage("preprocess.normalize", []),
    Stage("preprocess.standardize", []),
    Stage("dr.train", TRAIN),
    Stage("dr.predict", PREDICT),
    Stage("blend.train", []),
    Stage("blend.predict", []),
    Stage("kappa.assign", []),
    Stage("submissions.write", []),
)


class Ended(NamedTuple):
    """How one process ended: exit status, what it said on stderr, seconds from its start, seconds from the signal."""

    status: int
    message: str
    elapsed_s: float
    answer_s: float = 0.0


def list_command(stage: Stage, data: Path, cache: Path) -> list[str]:
    """Return the command line of a stage."""
    command = [sys.executable, "-P", "-m", stage.module, f"--data={data}", f"--cache={cache}", *stage.options]
    return (
        [*command, f"--out={cache / 'submission' / 'levels.csv'}"] if stage.module == "submissions.write" else command
    )


def run(command: list[str], number: int = 0, delay_s: float = 0.0, is_group: bool = True) -> Ended:
    """Run a command; with a signal's number, send it after a while, to the whole process group or the process alone."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        answered = start
        if number:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay_s)
            if process.poll() is None:
                (os.killpg if is_group else os.kill)(process.pid, number)
                answered = time.perf_counter()
        process.wait()
        end = time.perf_counter()
        errors.seek(0)
        message = errors.read().decode(errors="replace")
    if number:
        wait_for_workers(process.pid)
    return Ended(process.returncode, message, end - start, end - answered)


def wait_for_workers(session: int) -> None:
    """Wait until all processes of a session are gone. Raises RuntimeError if some are not in a few seconds."""
    limit = time.perf_counter() + GONE_S
    while time.perf_counter() < limit:
        if subprocess.run(["pgrep", "--session", str(session)], stdout=subprocess.DEVNULL, check=False).returncode:
            return
        time.sleep(0.05)
    raise RuntimeError(f"processes of session {session} outlive it")


def read_all(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder that must not differ, by relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in UNCOMPARED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def count_differences(one: Path, other: Path, folders: tuple[str, ...] = (".",)) -> str:
    """Return how many files two folders (or some folders in them) hold, and how many are missing in one or differ."""
    first, second = ({(f, name): c for f in folders for name, c in read_all(top / f).items()} for top in (one, other))
    names = {*first, *second}
    differing = sum(first.get(name) != second.get(name) for name in names)
    return f"{len(names)} files, {differing} differ from the undisturbed run"


def run_all(data: Path, cache: Path, jobs: int = 2) -> dict[str, float]:
    """Run the whole pipeline undisturbed and return the seconds that each stage took."""
    took = {}
    for stage in STAGES:
        options = [f"--jobs={jobs}" if word.startswith("--jobs") else word for word in stage.options]
        ended = run(list_command(stage._replace(options=options), data, cache))
        if ended.status:
            raise RuntimeError(f"{stage.module}: {ended.message}")
        took[stage.module] = ended.elapsed_s
    return took


class Toll(NamedTuple):
    """What it took to get a stage through: kills, seconds more than undisturbed, in all, and the slowest end."""

    kills: int
    lost_s: float
    slowest_s: float

    def describe(self) -> str:
        """Return the toll in words."""
        if not self.kills:
            return "not killed"
        return f"{self.kills} kills, {self.lost_s / self.kills:.2f} s lost per kill, gone after {self.slowest_s:.2f} s"


def disturb(stage: Stage, data: Path, cache: Path, kills: int, number: int, took_s: float, rng: random.Random) -> Toll:
    """Send a stage a signal again and again; let it through at last.

    Raises RuntimeError if it ends in any other way than it should.
    """
    done, lost_s, slowest_s = 0, 0.0, 0.0
    while True:
        before = snapshot(cache)
        chain_s, is_first = 0.0, True
        while True:
            delay_s = rng.uniform(0, took_s) if done < kills else 1e9
            ended = run(list_command(stage, data, cache), number, delay_s, rng.random() < 0.5)
            chain_s += ended.elapsed_s
            if ended.status == 0:
                break
            check_end(stage, ended, number, cache)
            done, is_first, slowest_s = done + 1, False, max(slowest_s, ended.answer_s)
        lost_s += 0.0 if is_first else chain_s - took_s
        if done >= kills:
            return Toll(done, lost_s, slowest_s)
        restore(before, cache)


def snapshot(cache: Path) -> Path:
    """Return a copy of a cache."""
    copy = cache.with_name("before")
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(cache, copy) if cache.exists() else copy


def restore(copy: Path, cache: Path) -> None:
    """Put a cache back to what it was."""
    shutil.rmtree(cache)
    if copy.exists():
        shutil.copytree(copy, cache)


def check_end(stage: Stage, ended: Ended, number: int, cache: Path) -> None:
    """Raise RuntimeError unless a stage that got a signal ended as it should."""
    if number == signal.SIGKILL:
        if ended.status != -signal.SIGKILL:
            raise RuntimeError(f"{stage.module}: status {ended.status}: {ended.message}")
        return
    left = [str(path) for path in cache.rglob(".partial-*")]
    is_pythons = ended.status in {1, -signal.SIGINT} and "in run\n" not in ended.message  # it, or a library, started
    lines = [line for line in ended.message.splitlines() if "error: " in line]
    is_ours = ended.status == 130 and lines == [f"error: {MESSAGE}"] and "Traceback" not in ended.message
    if left or not (is_pythons or is_ours):
        raise RuntimeError(f"{stage.module}: {ended}, left behind: {left}")


# --- disks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Mount a file system of so many bytes on a folder. Raises PermissionError without the right to."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=False).returncode:
        raise PermissionError("mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def check_refusal(stage: Stage, ended: Ended, reason: str) -> None:
    """Raise RuntimeError unless a stage ended in one line, with a reason, and status 2."""
    lines = [line for line in ended.message.splitlines() if "error: " in line]
    if ended.status != 2 or len(lines) != 1 or reason not in lines[0] or "Traceback" in ended.message:
        raise RuntimeError(f"{stage.module}: {ended}")
    print(f"  {stage.module:<24} {lines[0]}")


def limit_files(command: list[str]) -> list[str]:
    """Return a command that runs another which may write no large file."""
    return ["bash", "-c", f'ulimit -f {FILE_KB}; exec "$0" "$@"', *command]


def fill_up(folder: Path, data: Path, whole: Path) -> None:
    """Run a pipeline on a disk that is full, or read-only, before every stage, and compare what it ends in."""
    with small_disk(folder, ROOMY_BYTES):
        cache = folder / "cache"
        for stage in STAGES:
            command = list_command(stage, data, cache)
            used = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())
            remount(folder, f"size={used + 4096}")
            refused = run(command)
            if refused.status:
                check_refusal(stage, refused, "No space left on device")
            remount(folder, f"size={ROOMY_BYTES}")
            limited = run(limit_files(command))
            if limited.status:
                check_refusal(stage, limited, "File too large")
            remount(folder, "ro")
            check_refusal(stage, run(command), "Read-only file system")
            remount(folder, "rw")
            if run(command).status:
                raise RuntimeError(f"{stage.module} does not go on after the disk was mended")
        print(f"  {count_differences(whole, cache)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="per stage")
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stages", nargs="+", default=[stage.module for stage in (AT_ONCE, *STAGES)], help="those to disturb"
    )
    options = parser.parse_args()
    rng, number = random.Random(options.seed), getattr(signal, f"SIG{options.signal}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would not hear it
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data, whole, hurt, at_once = (folder / name for name in ("data", "whole", "hurt", "at_once"))
        subprocess.run(
            [sys.executable, "-m", "preprocess.synthetic", f"--data={data}", *PATIENTS], check=True, cwd=ROOT
        )
        run_all(data, whole)  # the first run also fills the operating system's caches
        took = run_all(data, folder / "two")
        run_all(data, folder / "one", jobs=1)
        for other in ("two", "one"):
            print(f"undisturbed with {other} process(es): {count_differences(whole, folder / other)}")
        took[AT_ONCE.module] = run(list_command(AT_ONCE, data, folder / "warm")).elapsed_s
        kills = 0
        for stage, cache in ((AT_ONCE, at_once), *((stage, hurt) for stage in STAGES)):
            wanted = options.kills if stage.module in options.stages else 0
            toll = disturb(stage, data, cache, wanted, number, took[stage.module], rng)
            print(f"{stage.module:<24} takes {took[stage.module]:5.1f} s; {toll.describe()}", flush=True)
            kills += toll.kills
        print(f"{kills} kills: {count_differences(whole, hurt)}")
        print(f"of the four image stages at once: {count_differences(whole, at_once, IMAGE_FOLDERS)}")
        try:
            fill_up(folder / "disk", data, whole)
        except PermissionError:
            print("no right to mount a small disk: full and read-only disks not tried")


if __name__ == "__main__":
    main()
