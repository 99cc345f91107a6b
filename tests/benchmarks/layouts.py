"""What is read of the field's sets, each drawn small in the shape that it is downloaded in; and of 88,702 rows.

    python -m tests.benchmarks.layouts [--idrid FOLDER] [--rows 88702]

Photographs are drawn; those of --rows are empty files, as no reader opens them. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from tests import layouts

COLUMNS = ("set", "command", "images", "patients", "left, right", "targets", "unknown", "unread")
N_LEVELS = 5
TABLES = ("samples.csv", "trainLabels.csv", "declared")  # readers that are measured at full size


def count(name: str, command: str, dataset: DataSet) -> list[str]:
    """Return the row of a set."""
    samples = dataset.samples
    sides = list(samples["side"])
    targets = samples[dataset.question.columns]
    unread = [note for note in dataset.notes if "not read" in note]
    n_unread = sum(len(reasons) for reasons in dataset.unread.values())
    for note in unread:
        n_unread += int(note.rpartition(" not read")[0].split()[-2].replace(",", ""))
    return [
        name,
        f"`{command}`",
        f"{len(samples):,}",
        f"{samples['patient'].nunique():,}",
        f"{sides.count('left'):,}, {sides.count('right'):,}",
        f"{len(dataset.question.names)} {dataset.question.kind}",
        f"{int(targets.isna().all(axis=1).sum()):,}",
        f"{n_unread:,}",
    ]


def list_sets(folder: Path, idrid: Path | None) -> list[list[str]]:
    """Return a row for each drawn set, and for the real IDRiD if there is a folder of it."""
    rows = []
    drawn = layouts.DRAWN | {"odir-patients": layouts.draw_odir_patients}
    for name, draw in drawn.items():
        data = folder / name
        draw(data)
        command = f"./run_all.sh --data {name}"
        rows.append(count(name, command, readers.read_dataset(data)))
    if idrid:
        command = "./run_all.sh --data idrid-grading"
        rows.append(count("IDRiD, the real one", command, readers.read_dataset(idrid)))
    return rows


def draw_rows(folder: Path, n: int, how: str) -> None:
    """Make a set of n rows for one of TABLES."""
    pictures = folder / "train"
    pictures.mkdir(parents=True)
    lines = ["image,level"]
    for number in range(n):
        image = f"{number // 2}_{'left' if number % 2 else 'right'}"
        (pictures / f"{image}.jpeg").touch()
        lines.append(f"{image},{number % N_LEVELS}")
    name = "labels.csv" if how == "declared" else how
    (folder / name).write_text("\n".join(lines) + "\n")
    if how == "declared":
        keys = "kind = 'levels'\nimage = 'image'\ntarget = 'level'\npatient_from = '(\\d+)_'\n"
        sides = "side_from = '_(left|right)'\n"
        part = "[train]\ntable = 'labels.csv'\nimages = 'train'\n"
        (folder / "data.toml").write_text(keys + sides + part)


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return a call's processor seconds, and the process's highest memory after it in MB."""
    start = time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB on Linux, bytes on macOS
    memory_mb = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return time.process_time() - start, memory_mb


def measure_rows(folder: Path, n: int) -> list[list[str]]:
    """Return a row for each of TABLES: seconds of the reader and of describe, and memory."""
    from preprocess import describe

    rows = []
    for how in TABLES:
        data = folder / f"{how} of {n}"
        draw_rows(data, n, how)
        read_s, _ = measure(lambda data=data: readers.read_dataset(data))
        out = folder / f"{how}-out.csv"
        options = [f"--data={data}", f"--out={out}"]
        describe_s, memory_mb = measure(lambda options=options: describe.main(options))
        rows.append([how, f"{n:,}", f"{read_s:.1f}", f"{describe_s:.1f}", f"{memory_mb:,.0f}"])
        print(f"{rows[-1]}", file=sys.stderr, flush=True)
    return rows


def print_table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idrid", type=Path, help="folder of the real IDRiD, disease grading")
    parser.add_argument("--rows", type=int, help="measure the readers on so many rows instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.rows:
            rows = measure_rows(Path(name), options.rows)
            columns = ("table", "rows", "reader, s", "describe --out, s", "highest memory, MB")
            print_table(columns, rows)
            return
        print_table(COLUMNS, list_sets(Path(name), options.idrid))


if __name__ == "__main__":
    main()
