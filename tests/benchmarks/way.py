"""How far a photograph travels: the functions and files of the project that each stage of a small run passes.

python -m tests.benchmarks.way

Draws two patients more than the folds need and runs every stage in this process, on one thread, under a profiler;
distinct functions are counted, a comprehension or nested function with the one it stands in.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("preprocess", "dr", "blend", "kappa", "submissions")
STAGES = {
    "preprocess.__main__": "--size-px 64 --jobs 1",
    "dr.train": "--epochs 1 --folds 2 --batch-size 4 --device cpu --precision float32",
    "dr.predict": "--views 2 --device cpu",
    "blend.train": "",
    "blend.predict": "",
    "kappa.assign": "",
    "submissions.write": "--out {folder}/out.csv",
}


def trace(module: str, arguments: list[str]) -> set[tuple[str, str]]:
    """Return (file, function) of the project for all that a stage's main calls."""
    passed: set[tuple[str, str]] = set()

    def look(frame, event, _):
        path = Path(frame.f_code.co_filename)
        is_function = event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED  # no body of a class or module
        if is_function and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS:
            name = frame.f_code.co_qualname.split(".<locals>")[0]
            if not name.startswith("<"):
                passed.add((str(path.relative_to(ROOT)), name))

    main = importlib.import_module(module).main
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return passed


def main() -> None:
    """Run the stages, print how many functions and files each passes, and all together."""
    with tempfile.TemporaryDirectory() as folder:
        data, cache = f"{folder}/data", f"{folder}/cache"
        synthetic = importlib.import_module("preprocess.synthetic")
        synthetic.main(f"--data={data} --patients-train 8 --patients-test 3 --width-px 300 --jobs 1".split())
        everything: set[tuple[str, str]] = set()
        told = []
        for module, options in STAGES.items():
            own = trace(module, [f"--data={data}", f"--cache={cache}", *options.format(folder=folder).split()])
            told.append(describe(module.removesuffix(".__main__"), own))
            everything |= own
    print(*told, describe("together", everything), sep="\n")


def describe(name: str, passed: set[tuple[str, str]]) -> str:
    """Return a line of the table."""
    return f"{name:20} {len(passed):4} functions {len({path for path, _ in passed}):3} files"


if __name__ == "__main__":
    main()
