"""A table of findings: how it is read, whose the images are, how they are divided, and what is refused in one line."""

import cv2
import numpy as np
import pandas as pd
import pytest

from preprocess import __main__ as preprocess
from preprocess import split
from preprocess.cache.rejected import read_reasons
from preprocess.dataset import findings, readers
from preprocess.disk.errors import InputError

HEADER = "Image Index,Finding Labels,Patient ID\n"
ROWS = ["1_0.png,Mass|Nodule,1", "1_1.png,No Finding,1", "2_0.png,Nodule,2", "10_0.png,,10"]


def put_table(data, *rows, name="Data_Entry_2017.csv", header=HEADER):
    data.mkdir(exist_ok=True)
    (data / name).write_text(header + "".join(f"{row}\n" for row in rows))
    return data


@pytest.fixture
def chest(tmp_path):
    """Four x-rays of three patients in the release's folders, one RGBA, and the last patient is to be tested by."""
    data = put_table(tmp_path / "chest", *ROWS)
    (data / "test_list.txt").write_text("10_0.png\n")
    for name in (
        "images_001/images/1_0.png",
        "images_001/images/1_1.png",
        "images_002/2_0.png",
        "images_002/10_0.png",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        channels = (4,) if name.endswith("2_0.png") else ()
        cv2.imwrite(str(data / name), np.full((48, 48, *channels), 90, np.uint8))
    return data


def test_findings_patients_and_splits_are_the_tables(chest):
    dataset = readers.read_dataset(chest)
    assert dataset.question == (
        "findings",
        ("Mass", "Nodule"),
    )  # findings that no image has are left out, with a note
    assert "nobody has Atelectasis, " in dataset.notes[0]
    listed = {part: list(dataset.list_paths(part)) for part in ("train", "test")}
    assert listed == {"train": ["1_0", "1_1", "2_0"], "test": ["10_0"]}
    assert dataset.get_patients(listed["train"]) == ["1", "1", "2"]
    assert dataset.get_targets("train").to_numpy().tolist() == [[1, 1], [0, 0], [0, 1]]
    tested = dataset.get_targets("test")
    assert tested.isna().all(axis=None) and list(tested.index) == ["10_0"]
    assert dataset.get_targets("test", known_only=True).empty and not dataset.has_targets("test")


def test_a_column_per_finding_knows_the_unknown(tmp_path):
    rows = ("a,7,1,", "b,7,0,0", "c,8,,1.0")
    data = put_table(tmp_path, *rows, name="findings.csv", header="image,group,Mass,Odd one\n")
    dataset = readers.read_dataset(data)
    assert dataset.question.names == ("Mass", "Odd one")
    expected = [[1, np.nan], [0, 0], [np.nan, 1]]
    np.testing.assert_array_equal(dataset.get_targets("train"), expected)
    np.testing.assert_array_equal(dataset.read_labels(data / "findings.csv"), expected)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["1.png,Nodul,1"], HEADER, r"row 2: 'Nodul' is not a finding \(near: Nodule\)"),
        (["1.png,No Finding|Mass,1"], HEADER, "row 2: No Finding and findings"),
        (["1.png,Mass,1", "2.png,Mass,"], HEADER, "row 3: Patient ID is ''; every image"),
        (["1.png,Mass"], "Image Index,Finding Labels\n", "no column Patient ID"),
        (["1.png,No Finding,1"], HEADER, "no image has any finding"),
        (["1,1"], "image,group\n", "no column with a finding"),
        (["1,1,1,"], "image,group,Mass,\n", "a column has no name"),
        (["1,1,2"], "image,group,Mass\n", "row 2: Mass is '2', not 0, 1 or nothing"),
        (["1.png,Mass,1", "2.png,Mass,1"], HEADER, "test_list.txt: divides patient 1"),
        (["1.png,Mass,2", "3.png,Mass,1"], HEADER, "image 3 is in neither"),
        (
            ["1.png,Mass,2"],
            HEADER,
            "test_list.txt, row 1: Data_Entry_2017.csv has no image 2 nor 0 more",
        ),
        (
            ["2.png,Mass,2"],
            HEADER,
            "val_list.txt, row 2: Data_Entry_2017.csv has no image 1 nor 1 more",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, rows, header, message):
    put_table(tmp_path, *rows, header=header)
    (tmp_path / "test_list.txt").write_text("2.png\n")
    if "val_list" in message:
        (tmp_path / "val_list.txt").write_text("2.png\n1.png\n3.png\n")
    if "neither" in message:
        (tmp_path / "train_val_list.txt").write_text("1.png\n")
    with pytest.raises(InputError, match=message) as caught:
        readers.read_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_without_a_row_and_rows_without_a_file_are_rejected(chest, cache):
    put_table(chest, *ROWS, "3_0.png,Mass,3")
    (chest / "images_002" / "stray.png").write_bytes(
        (chest / "images_002" / "2_0.png").read_bytes()
    )
    options = "--recipe oct-demo --size-px 32 --jobs 1 --allow-rejected".split()
    preprocess.main([f"--data={chest}", f"--cache={cache}", *options])
    reasons = read_reasons(cache, "train") | read_reasons(cache, "test")
    assert reasons == {"stray.png": "the table of findings lacks it", "3_0": "no such file"}
    square = cv2.imread(str(cache / "resize" / "train" / "2_0.png"), cv2.IMREAD_UNCHANGED)
    assert square.shape[:2] == (32, 32)


@pytest.mark.parametrize("how", split.HOW)
def test_no_patient_is_lost_or_in_two_parts(tmp_path, how, capsys):
    put_table(
        tmp_path,
        *(
            f"{patient}_{n}.png,Mass,{patient}"
            for patient in range(1, 101)
            for n in range(patient % 4)
        ),
    )
    if how != split.HOW[0]:
        (tmp_path / "test_list.txt").write_text(
            "".join(f"{p}_{n}.png\n" for p in range(81, 101) for n in range(p % 4))
        )
    split.main([f"--data={tmp_path}", f"--how={how}"])
    dataset = readers.read_dataset(tmp_path)
    parts = {
        name: set(findings.read_list(tmp_path / f"{name}_list.txt")) for name in ("val", "test")
    }
    images = set(dataset.samples["image"])
    assert (
        set(dataset.list_images("valid")) == parts["val"]
        and set(dataset.list_images("test")) == parts["test"]
    )
    owners = {image: dataset.find_subject(image).patient for image in images}
    groups = [
        {owners[image] for image in part}
        for part in (images - parts["val"] - parts["test"], *parts.values())
    ]
    assert [len(of) for of in groups] in ([53, 7, 15], [52, 8, 15])
    assert not set.intersection(*groups[:2]) and not groups[2] & (groups[0] | groups[1])
    assert "validation: 1" in capsys.readouterr().out
    with pytest.raises(InputError, match="is there already; --overwrite"):
        split.main([f"--data={tmp_path}", f"--how={how}"])


@pytest.mark.parametrize(
    ("how", "n"), [*((split.HOW[0], n) for n in (0, 1, 2, 6)), (split.HOW[1], 2)]
)
def test_too_few_patients_to_divide_are_one_line_and_no_list(tmp_path, how, n):
    put_table(tmp_path, *(f"{patient}.png,Mass,{patient}" for patient in range(n)))
    (tmp_path / "test_list.txt").write_text("0.png\n")
    before = set(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=f"csv: too few patients, {n}: .*_list.txt would have none"
    ):
        split.main([f"--data={tmp_path}", f"--how={how}", "--overwrite"])
    assert (
        set(tmp_path.iterdir()) == before and (tmp_path / "test_list.txt").read_text() == "0.png\n"
    )


def test_the_whole_table_of_chest_xray14_is_divided_as_published(real_data, tmp_path, capsys):
    source = real_data / "chest-nih64"
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        (tmp_path / f"{name}.gz").write_bytes((source / f"{name}.gz").read_bytes())
    split.main([f"--data={tmp_path}", "--how=official-sorted"])
    dataset = readers.read_dataset(tmp_path)
    assert dataset.question.names == findings.NAMES
    labels = {part: dataset.get_targets(part) for part in ("train", "test")}
    assert [len(targets) for targets in labels.values()] == [86_524, 25_596]
    patients = [set(dataset.get_patients(targets.index)) for targets in labels.values()]
    assert len(patients[0] | patients[1]) == 30_805 and not patients[0] & patients[1]
    assert set(dataset.get_patients(dataset.list_images("valid"))) < patients[0]
    assert int(pd.concat(labels.values())["Hernia"].sum()) == 227  # of the published table
    capsys.readouterr()
    split.main([f"--data={tmp_path}", "--overwrite"])
    counted = [line.split(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert sum(int(line.split()[0].replace(",", "")) for line in counted) == 112_120
    assert [line.split()[-2] for line in counted] == ["21,563", "3,081", "6,161"]
