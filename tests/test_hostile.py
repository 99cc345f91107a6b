"""Hostile photographs end as taken or as rows of rejected.csv, in little memory, and change nothing for the others."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.__main__ import main as preprocess
from preprocess.cache.rejected import read_reasons, read_rejected
from preprocess.dataset import kaggle, listing, readers
from preprocess.disk.errors import Unusable
from preprocess.photographs import read_crops
from preprocess.picture import photograph
from preprocess.picture.square import Making, make_square
from tests import hostile

ROOT = Path(__file__).parents[1]
MOST_MB = 500  # of memory for a bomb, the libraries included
MAKING = Making("adaptive", 48, "cdf")


@pytest.fixture(scope="module")
def jpeg(drawn_folder):
    """The bytes of a good photograph, 400 px wide."""
    return min((drawn_folder / "train").iterdir()).read_bytes()


@pytest.mark.parametrize("name", [*hostile.CONTENTS, *hostile.PLACES])
def test_what_is_no_good_photograph_is_taken_or_refused_with_a_reason_for_people(
    jpeg, tmp_path, capfd, name
):
    assert len(hostile.CONTENTS) + len(hostile.PLACES) + len(hostile.NAMES) >= 99
    path, found = tmp_path / "1_left.jpeg", hostile.TAKEN
    make, outcome = (hostile.CONTENTS | hostile.PLACES)[name]
    if name in hostile.CONTENTS:
        path.write_bytes(make(jpeg))
    else:
        make(path, jpeg)
    try:
        make_square(path, MAKING)
    except Unusable as reason:
        found = str(reason)
    assert re.search(outcome, found) and found.isprintable() and len(found) < 120
    assert not re.search(r"Traceback|Error\b|Errno|/tmp|<", found)  # no class of exception, no path
    assert capfd.readouterr() == ("", "")


def run_preprocess(data, cache):
    preprocess(
        [
            f"--data={data}",
            f"--cache={cache}",
            f"--size-px={MAKING.size_px}",
            "--jobs=1",
            "--allow-rejected",
        ]
    )


def test_hostile_files_change_nothing_for_the_others(data, tmp_path, jpeg, monkeypatch, capfd):
    clean, hurt = tmp_path / "clean", tmp_path / "hurt"
    run_preprocess(data, clean)
    for number, kind in enumerate(hostile.CONTENTS.values(), start=1000):
        (data / "train" / f"{number}_left.jpeg").write_bytes(kind.make(jpeg))
    for number, kind in enumerate(hostile.PLACES.values(), start=2000):
        kind.make(data / "train" / f"{number}_left.jpeg", jpeg)
    kinds = [
        *enumerate(hostile.CONTENTS.values(), start=1000),
        *enumerate(hostile.PLACES.values(), start=2000),
    ]
    expected = {f"{number}_left": kind.outcome for number, kind in kinds}
    vanishing = data / "train" / "3000_left.jpeg"
    vanishing.write_bytes(jpeg)

    def list_and_vanish(folder, _):
        dataset = kaggle.read_dataset(folder)
        vanishing.unlink(missing_ok=True)
        return dataset

    monkeypatch.setattr(readers, "read_dataset", list_and_vanish)
    run_preprocess(data, hurt)
    reasons, rows = read_reasons(hurt, "train"), read_crops(hurt, "train")
    for image, outcome in expected.items():
        assert re.search(outcome, reasons.get(image, hostile.TAKEN)), image
        assert (image in reasons) != (hurt / "resize" / "train" / f"{image}.png").exists()
    assert "3000_left" not in rows
    for image, row in read_crops(clean, "train").items():
        assert rows[image] == row
        name = Path("resize", "train", f"{image}.png")
        assert (hurt / name).read_bytes() == (clean / name).read_bytes()
    assert "Traceback" not in "".join(capfd.readouterr())


def test_hostile_names_are_taken_refused_or_none_of_ours(jpeg, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    (data / "train").mkdir(parents=True)
    shutil.copyfile(ROOT / "LICENSE", data / "train" / "LICENSE")
    for name in hostile.NAMES:
        Path(os.fsdecode(os.fsencode(data / "train") + b"/" + name)).write_bytes(jpeg)
    run_preprocess(data, cache)
    rows, rejected = read_crops(cache, "train"), read_rejected(cache)
    outcomes = list(hostile.NAMES.values())
    assert len(rows) == outcomes.count(hostile.TAKEN)
    assert len(rejected) == outcomes.count(hostile.MISNAMED)
    assert all(hostile.MISNAMED in row.reason for row in rejected)
    assert all(
        row.image.isprintable() and not row.image.startswith(listing.FORMULA_STARTS)
        for row in rejected
    )
    assert {path.stem for path in (cache / "resize" / "train").iterdir()} == set(rows)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak"
)
def test_bombs_take_little_memory(jpeg, tmp_path):
    names = [
        name for name in hostile.CONTENTS if "bomb" in name or "60000" in name or "claims" in name
    ]
    assert len(names) >= 7
    for number, name in enumerate(names):
        (tmp_path / f"{number}_left.jpeg").write_bytes(hostile.CONTENTS[name].make(jpeg))
    code = (
        "import re, sys, pathlib\n"
        "from preprocess.disk.errors import Unusable\n"
        "from preprocess.picture.square import Making, make_square\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: make_square(path, Making('adaptive', 48, 'cdf'))\n"
        "    except Unusable: pass\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) * 1024 < MOST_MB * 10**6


SMALL = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
SEEDS = [
    hostile.encode(SMALL),
    hostile.encode(SMALL, progressive=True),
    hostile.encode(SMALL.convert("CMYK")),
    hostile.encode(SMALL, "PNG"),
    hostile.encode(SMALL.convert("P"), "PNG"),
    hostile.turn(hostile.encode(SMALL)),
]
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4), st.integers(0, 4)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), CHANGES)
def test_any_damage_gives_a_whole_picture_or_a_reason(tmp_path_factory, seed, changes):
    content = bytearray(seed)
    for place, new, n_old in changes:
        start = int(place * len(content))
        content[start : start + n_old] = new
    path = tmp_path_factory.getbasetemp() / "fuzz.jpeg"
    path.write_bytes(content)
    try:
        rgb, reduction = photograph.decode(path, 16)
    except Unusable as error:
        assert "\n" not in str(error)
    else:
        assert (rgb.dtype, rgb.shape[2]) == (np.uint8, 3)
        assert reduction in photograph.REDUCTIONS
        with Image.open(io.BytesIO(content)) as header:
            assert sorted(-(-side // reduction) for side in header.size) == sorted(rgb.shape[:2])
