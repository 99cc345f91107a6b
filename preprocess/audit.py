"""Find patients and images that training, validation and test sets share: DATA -> a table of them.

Images are compared byte by byte, and by a difference hash of 256 bits that finds near copies (tuned
on OCT scans). A model must not be tested on what it was trained on.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from preprocess.command import cli, parallel, process, resources
from preprocess.dataset import readers
from preprocess.dataset.dataset import DataSet
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import photograph

HASH_PX = 16  # of a picture's small copy whose columns are compared: 256 bits
DECODED_PX = 128  # least shorter side that a copy is made from
# Bits by which two pictures may differ and count as near-identical. Of 512 of Kermany's scans no two differed in fewer
# than 59; copies of each at half the size, brighter, or as a JPEG of quality 40 in at most 46, cut by 2 pixels in 52.
MOST_BITS = 48
ROWS_AT_ONCE = 256
TABLE = "audit.csv"  # in the cache
COLUMNS = ("what", "part", "image", "other_part", "other_image", "group")


class Seen(NamedTuple):
    """One image: the part it lies in, its id and group, its file's digest, and its pixels' hash, None if unreadable."""

    part: str
    image: str
    group: str
    digest: str
    bits: np.ndarray | None


def look(path: Path) -> dict[str, Any]:
    """Return a photograph's digest and difference hash, (4,) uint64: which columns of a small grey copy are brighter.

    Of what is no photograph this hash is None.
    """
    try:
        rgb, _ = photograph.decode(path, DECODED_PX)
    except Unusable:
        return {"digest": files.hash_file(path) if path.is_file() else "", "bits": None}
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_PX + 1, HASH_PX), interpolation=cv2.INTER_AREA).astype(int)
    return {
        "digest": files.hash_file(path),
        "bits": np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64),
    }


def find_near(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the pairs of rows of hashes (n, 4) and (m, 4) that differ in at most MOST_BITS, (pairs, 2)."""
    found = []
    for start in range(0, len(bits), ROWS_AT_ONCE):
        part = bits[start : start + ROWS_AT_ONCE, None]
        n_differing = sum(
            np.bitwise_count(part[..., word] ^ others[:, word]).astype(int) for word in range(4)
        )
        found.append(np.argwhere(n_differing <= MOST_BITS) + [start, 0])
    return np.concatenate(found) if found else np.empty((0, 2), int)


def compare(one: Sequence[Seen], other: Sequence[Seen]) -> list[tuple[str, ...]]:
    """Return a row of COLUMNS for each group and each picture that lies in both of two parts."""
    shared = {seen.group for seen in one} & {seen.group for seen in other}
    groups = [
        ("same group", one[0].part, "", other[0].part, "", group)
        for group in tables.sort_images(shared)
    ]
    readable, other_readable = list_readable(one), list_readable(other)
    pictures = []
    for row, other_row in find_near(stack_bits(readable), stack_bits(other_readable)).tolist():
        first, second = readable[row], other_readable[other_row]
        what = "identical" if first.digest == second.digest else "near-identical"
        patient = "same" if first.group == second.group else ""
        pictures.append((what, first.part, first.image, second.part, second.image, patient))
    return [*groups, *sorted(pictures)]


def list_readable(part: Sequence[Seen]) -> list[Seen]:
    return [seen for seen in part if seen.bits is not None]


def stack_bits(readable: Sequence[Seen]) -> np.ndarray:
    return np.array([seen.bits for seen in readable], np.uint64).reshape(-1, 4)


def list_parts(dataset: DataSet) -> dict[str, dict[str, Path]]:
    """Return the photographs that are learned from, held out by the data set, and tested by: part -> image -> path."""
    parts: dict[str, dict[str, Path]] = {}
    held_out = set(dataset.list_images("valid"))
    for image, path in dataset.list_paths("train").items():
        part = "val" if image in held_out else "train"
        parts.setdefault(part, {})[image] = path
    tested = dataset.list_paths("test")
    if tested:
        parts["test"] = tested
    if len(parts) < 2:
        raise InputError(
            f"{dataset.folder}: photographs in {' '.join(parts) or 'no folder'} only; nothing to compare"
        )
    return parts


def look_at_part(dataset: DataSet, part: str, paths: Mapping[str, Path], jobs: int) -> list[Seen]:
    """Return what is seen of each photograph of a part."""
    tasks = {image: (path,) for image, path in paths.items()}
    looks = dict(parallel.map_parallel(look, tasks, jobs, f"audit {part}"))
    patients = dataset.get_patients(paths)
    return [
        Seen(part, image, patient, **looks[image])
        for image, patient in zip(paths, patients, strict=True)
    ]


def audit(options: argparse.Namespace, dataset: DataSet) -> None:
    """Write the table, and say how many there are of each kind."""
    parts = [
        look_at_part(dataset, part, paths, options.jobs)
        for part, paths in list_parts(dataset).items()
    ]
    stream = files.summary_stream(options.out)
    rows: list[tuple[str, ...]] = []
    for one, other in itertools.combinations(parts, 2):
        shared = compare(one, other)
        rows += shared
        n_kinds = Counter(row[0] for row in shared)
        print(
            f"preprocess.audit: {one[0].part} and {other[0].part}: {n_kinds['same group']} patients in both, "
            f"{n_kinds['identical']} pairs of identical images, {n_kinds['near-identical']} of near-identical ones",
            file=stream,
        )
    unreadable = [seen.image for part in parts for seen in part if seen.bits is None]
    if unreadable:
        named = ", ".join(unreadable[:5])
        print(
            f"preprocess.audit: {len(unreadable)} images cannot be read, compared by patient only: {named}",
            file=stream,
        )
    tables.write_rows(options.out, COLUMNS, rows)
    print(f"preprocess.audit: {len(rows)} rows -> {options.out}", file=stream)


def main(argv: list[str] | None = None) -> None:
    parser = cli.make_bare_parser("preprocess.audit", __doc__, "--data data --cache cache")
    cli.add_data_options(parser, "folder of the photographs")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("cache"),
        help="folder where the report looks for the table",
    )
    parser.add_argument("--out", type=Path, help=f"table to write (CACHE/{TABLE})")
    parser.add_argument(
        "--jobs", type=cli.whole(1), default=resources.count_jobs(), help="processes to work with"
    )
    options = parser.parse_args(argv)
    options.out = options.out or options.cache / TABLE
    audit(options, readers.open_dataset(options))


if __name__ == "__main__":
    process.run(main)
