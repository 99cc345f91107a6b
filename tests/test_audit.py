"""What training and test set have in common is found, and what only looks alike is not."""

import shutil

import cv2
import pandas as pd
import pytest

from preprocess import audit
from preprocess.disk.errors import InputError
from preprocess.synthetic import scans


@pytest.fixture
def rows_of(drawn_scans, tmp_path):
    """A copy of the drawn scans, and how to audit it: (data, function -> table)."""
    data = shutil.copytree(drawn_scans, tmp_path / "data")

    def run():
        audit.main([f"--data={data}", f"--out={tmp_path}/audit.csv", "--jobs=1"])
        return pd.read_csv(tmp_path / "audit.csv", dtype=str, keep_default_na=False)

    return data, run


def test_patients_and_copies_in_two_parts_are_named(rows_of, capsys):
    data, run = rows_of
    assert run().empty  # drawn scans of different patients are no copies
    first, second = sorted((data / "train" / "CNV").iterdir())[:2]
    shutil.copyfile(first, data / "test" / "CNV" / "CNV-1-1.jpeg")
    brighter = cv2.convertScaleAbs(cv2.imread(str(second)), alpha=1.1)
    cv2.imwrite(
        str(data / "test" / "CNV" / "CNV-2-1.jpeg"), cv2.resize(brighter, None, fx=0.9, fy=0.9)
    )
    other = data / "test" / "DME" / f"DME-{first.stem.split('-')[1]}-99.png"
    cv2.imwrite(str(other), scans.draw(scans.Scan("", 1, 1, "DME"), 9, 128)[0])
    (data / "test" / "DME" / "DME-3-1.png").write_bytes(b"none")
    rows = run()
    assert {(row.what, row.image, row.other_image, row.group) for row in rows.itertuples()} == {
        ("same group", "", "", first.stem.split("-")[1]),
        ("identical", first.stem, "CNV-1-1", ""),
        ("near-identical", second.stem, "CNV-2-1", ""),
    }
    told = (
        "train and test: 1 patients in both, 1 pairs of identical images, 1 of near-identical ones"
    )
    shown = capsys.readouterr().out
    assert told in shown and "1 images cannot be read, compared by patient only: DME-3-1\n" in shown


def test_one_part_alone_is_nothing_to_compare(rows_of):
    data, run = rows_of
    shutil.rmtree(data / "test")
    with pytest.raises(InputError, match="photographs in train only"):
        run()
