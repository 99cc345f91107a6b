"""samples.csv: what is written of a data set is read back as the same, and what cannot be used is one line."""

import pandas as pd
import pytest

from preprocess import describe
from preprocess.dataset import readers
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk.errors import InputError

KINDS = ("drawn_folder", "drawn_scans", "drawn_chest")


def write(folder, text):
    (folder / "samples.csv").write_text(text)
    return readers.read_dataset(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_what_describe_writes_is_read_as_the_same_data_set(kind, request, tmp_path, capsys):
    folder = request.getfixturevalue(kind)
    table = tmp_path / "samples.csv"
    describe.main([f"--data={folder}", f"--out={table}"])
    first, again = readers.read_dataset(folder), readers.read_dataset(tmp_path)
    assert again.question == first.question
    assert f"{len(first.samples):,} rows -> {table}" in capsys.readouterr().out
    for part in ("train", "test"):
        assert again.list_paths(part) == first.list_paths(part)
        assert again.get_targets(part).equals(first.get_targets(part))
        images = list(first.list_paths(part))
        assert again.get_subjects(images) == first.get_subjects(images)
    assert again.list_images("valid") == first.list_images("valid")
    describe.main([f"--data={tmp_path}", f"--out={tmp_path / 'twice.csv'}"])
    assert (tmp_path / "twice.csv").read_bytes() == table.read_bytes()


def test_paths_are_relative_to_the_table_and_further_columns_stay(tmp_path):
    dataset = write(
        tmp_path,
        "image,path,level,patient,side,split,camera\n"
        "b,pictures/b.png,0,7,Left,train,Canon\n"
        "a,/somewhere/a.png,4,7,right,train,\n"
        "c,pictures/c.png,,8,,valid,Topcon\n"
        "d,,2,9,,test,Topcon\n",
    )
    assert dataset.question == RETINOPATHY
    assert {image: str(path) for image, path in dataset.list_paths("train").items()} == {
        "a": "/somewhere/a.png",
        "b": f"{tmp_path}/pictures/b.png",
        "c": f"{tmp_path}/pictures/c.png",
    }
    assert dataset.list_paths("test") == {} and dataset.get_targets("test").to_dict() == {"d": 2}
    assert dataset.get_subjects(["b", "c"]) == [("7", "left"), ("8", "")]
    assert dataset.list_images("valid") == ["c"]
    assert dataset.samples.set_index("image").loc["b", "camera"] == "Canon"


def test_without_a_path_the_photograph_is_searched_below_the_folder(tmp_path):
    for name in ("deep/er/a.JPG", "b.png", "twice/c.png", "again/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    dataset = write(tmp_path, "image,level\na,0\nb.png,1\ntwice/c.png,2\nd,3\n")
    paths = dataset.list_paths("train")
    assert [paths[image].name for image in ("a", "b", "twice/c")] == ["a.JPG", "b.png", "c.png"]
    assert paths["twice/c"] == tmp_path / "twice" / "c.png"
    assert not paths["d"].exists()  # found out by the stage that reads it
    assert dataset.notes[0].startswith("samples.csv: no column patient: each of 4 images")


def test_findings_are_the_columns_of_0_and_1(tmp_path):
    dataset = write(tmp_path, "image,patient,Mass,age,Edema\n1,7,1,60,\n2,8,0,1,1.0\n")
    assert dataset.question == ("findings", ("Mass", "Edema"))
    assert dataset.get_targets("train").isna().to_numpy().tolist() == [
        [False, True],
        [False, False],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,level\na,-1\n", "row 2: level is -1"),
        ("image,level\na,0\na,1\n", "row 3: image a is listed twice"),
        ("image,level,split\na,0,tset\n", r"row 2: split is 'tset' \(near: test\)"),
        ("image,level,side\na,0,both\n", "row 2: side is 'both'"),
        ("image,class\na,CNV\n", "classes CNV: at least two are needed"),
        ("image,age\na,60\n", "no column level or class, and none of 0 and 1"),
        ("photograph,level\na,0\n", "no column image"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, text)
    assert "\n" not in str(caught.value) and "samples.csv" in str(caught.value)


def test_describe_counts_each_split_and_what_is_not_read(data, capsys):
    (data / "train" / "holiday.jpeg").touch()
    rows = pd.read_csv(data / "trainLabels.csv")
    describe.main([f"--data={data}"])
    printed = capsys.readouterr().out
    assert f"train: {len(rows)} images of 4 patients; 4 left, 4 right; level 0" in printed
    assert (
        "1 files not read (holiday.jpeg): the file's name is not PATIENT_left or PATIENT_right"
        in printed
    )
