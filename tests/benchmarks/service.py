"""Many clients at once: none is told of another's photograph, and the memory of the service stays flat.

python -m tests.benchmarks.service [--clients 50] [--gradings 500]

A net of one epoch is trained on drawn photographs; the service grades with it. Told after each 50 gradings are the
service's resident memory, and at the end how many answers were not of the photograph that was sent (0), and how many
times a client was told to come back (503).
"""

import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from blend import train as blend
from dr import predict, train
from preprocess import __main__ as preprocess
from preprocess.command import cli
from preprocess.synthetic import __main__ as synthetic

ROOT = Path(__file__).parents[2]
STEP = 50  # gradings between two figures
TOLERANCE = 1e-6  # of a score: the same photograph alone


def make_cache(place):
    """Draw photographs, train a net on them for an epoch and score with it; return the photographs and the cache."""
    data = place / "data"
    cache = place / "cache"
    folders = [f"--data={data}", f"--cache={cache}"]
    with contextlib.redirect_stdout(io.StringIO()):
        synthetic.main(
            f"--data={data} --patients-train=8 --patients-test=2 --width-px=400 --levels=balanced".split()
        )
        preprocess.main([*folders, *"--size-px 64 --jobs 1".split()])
        train.main(
            [
                *folders,
                *"--epochs 1 --folds 2 --batch-size 8 --device cpu --precision float32".split(),
            ]
        )
        predict.main([*folders, *"--views 1 --device cpu".split()])
        blend.main([*folders, "--method=linear"])
    return sorted((data / "train").iterdir())[:8], cache


@contextlib.contextmanager
def serving(cache, log):
    """Start the service; give its process and its address."""
    options = [f"--cache={cache}", "--port=0", "--device=cpu", "--views=1", "--quiet"]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "submissions.serve", *options],
            stdout=out,
            stderr=out,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            while "http://" not in log.read_text():
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield psutil.Process(process.pid), re.search(r"http://\S+", log.read_text())[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def grade(address, path, name, refusals):
    """Send one photograph as a program does, again where the service is busy; return what is told of its eye."""
    part = f'--x\r\nContent-Disposition: form-data; name="left"; filename="{name}"\r\n\r\n'.encode()
    body = part + path.read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    while True:
        request = urllib.request.Request(f"{address}/api/grade", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)["eyes"][0]
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            refusals.append(int(error.headers["Retry-After"]))
            time.sleep(0.5)


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.service", __doc__.splitlines()[0], "--clients 50 --gradings 500"
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--gradings", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        paths, cache = make_cache(Path(place))
        with serving(cache, Path(place, "log")) as (process, address):
            refusals = []
            expected = [
                grade(address, path, "alone_left.jpeg", refusals)["scores"] for path in paths
            ]
            print(f"before: {process.memory_info().rss / 2**20:.0f} MB", flush=True)
            counting = threading.Lock()
            done = itertools.count(1)

            def ask(number):
                name = f"{number}_left.jpeg"
                told = grade(address, paths[number % len(paths)], name, refusals)
                with counting:
                    n_done = next(done)
                    if n_done % STEP == 0:
                        rss_mb = process.memory_info().rss / 2**20
                        print(f"{n_done} gradings: {rss_mb:.0f} MB", flush=True)
                gaps = zip(told["scores"], expected[number % len(paths)], strict=True)
                is_near = all(abs(score - alone) <= TOLERANCE for score, alone in gaps)
                return told["photograph"] == name and is_near

            began_s = time.perf_counter()
            with ThreadPoolExecutor(options.clients) as clients:
                are_own = list(clients.map(ask, range(options.gradings)))
            elapsed_s = time.perf_counter() - began_s
            print(
                f"{options.gradings} gradings by {options.clients} clients in {elapsed_s:.0f} s: "
                f"{are_own.count(False)} mixed up, {len(refusals)} times told to come back"
            )


if __name__ == "__main__":
    main()
