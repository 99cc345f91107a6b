"""Time from the start of run_all.sh to its first photograph, of a data set of the size of Kaggle's.

python -m tests.benchmarks.first_photograph [--images 88702] [--root FOLDER ...] [--runs 3]

The photographs are hard links to a few drawn ones. Each checkout (--root) runs in turn, until the first photograph is
in the journal of CACHE/crop; told are the least wall-clock and processor seconds, and what each check of this checkout
costs in a process that has its imports.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from preprocess.command import check, cli, run
from preprocess.dataset import readers
from preprocess.synthetic import __main__ as synthetic

ROOT = Path(__file__).parents[2]
TRAIN_SHARE = 35_126 / 88_702  # of Kaggle's photographs
CHECKS = ("_check_data", "_check_photographs", "_check_machine", "_check_space")
LINKS = 10_000  # of one file; ext4 allows 65,000


def link_photographs(data, n_images, drawn):
    """Make a data folder of so many photographs, two of a patient, with labels and a sample of a submission."""
    synthetic.main(f"--data={drawn} --patients-train=6 --patients-test=2 --width-px=200".split())
    sources = sorted((drawn / "train").iterdir())
    n_train = round(n_images * TRAIN_SHARE)
    tables = {"train": ["image,level"], "test": ["image,level"]}
    for part in tables:
        (data / part).mkdir(parents=True)
    for number in range(n_images):
        part = "train" if number < n_train else "test"
        image = f"{number // 2}_{'left' if number % 2 == 0 else 'right'}"
        tables[part].append(f"{image},{number % 5 if part == 'train' else 0}")
        os.link(sources[number // LINKS], data / part / f"{image}.jpeg")
    (data / "trainLabels.csv").write_text("\n".join(tables["train"]) + "\n")
    (data / "sampleSubmission.csv").write_text("\n".join(tables["test"]) + "\n")


def count_processor_s(process):
    """Return the processor seconds of a process and all that it has started."""
    spent_s = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        spent_s += times.user + times.system + times.children_user + times.children_system
    return spent_s


def time_start(root, data, cache):
    """Return wall-clock and processor seconds until the first photograph of a run is done; the run is ended then."""
    shutil.rmtree(cache, ignore_errors=True)
    command = [
        root / "run_all.sh",
        f"--data={data}",
        f"--cache={cache}",
        "--size-px=128",
        "--jobs=1",
    ]
    environment = os.environ | {"PIPELINE_PYTHON": sys.executable}
    began_s = time.perf_counter()
    started = psutil.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    journal = cache / "crop" / "train.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        if started.poll() is not None:
            raise RuntimeError(started.stderr.read().decode())
        time.sleep(0.02)
    elapsed_s = time.perf_counter() - began_s
    spent_s = count_processor_s(started)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    return elapsed_s, spent_s


def time_checks(data, cache):
    """Return the processor seconds of each check of this checkout, by name; that of the data set's reading is first."""
    options = [f"--data={data}", f"--cache={cache}", "--size-px=128"]
    plan = run.plan_run(options)
    spent = {}

    def wrap(name, function):
        def timed(*given):
            began_s = time.process_time()
            try:
                return function(*given)
            finally:
                spent[name] = spent.get(name, 0.0) + time.process_time() - began_s

        return timed

    for name in CHECKS:
        setattr(check, name, wrap(name, getattr(check, name)))
    readers.read_dataset = wrap("read_dataset, within _check_data", readers.read_dataset)
    check.check_options(plan.commands)
    return spent


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.first_photograph", __doc__.splitlines()[0], "--images 88702"
    )
    parser.add_argument("--images", type=int, default=88_702)
    parser.add_argument("--root", type=Path, action="append", help="checkouts beside this one")
    parser.add_argument("--runs", type=int, default=3, help="of each checkout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place, "data")
        link_photographs(data, options.images, Path(place, "drawn"))
        roots = [ROOT, *(root.resolve() for root in options.root or ())]
        least = {root: (float("inf"), float("inf")) for root in roots}
        for _ in range(options.runs):
            for root in roots:
                timed = time_start(root, data, Path(place, "cache"))
                least[root] = tuple(map(min, least[root], timed))
        for root, (elapsed_s, spent_s) in least.items():
            print(f"{root}: {elapsed_s:.1f} s, {spent_s:.1f} s of processor", flush=True)
        for name, spent_s in time_checks(data, Path(place, "new")).items():
            print(f"  {name}: {spent_s:.2f} s of processor")


if __name__ == "__main__":
    main()
