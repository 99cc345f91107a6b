"""A folder per class: what lies where, whose it is, who is held out, and what is refused in one line."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from dr.squares.source import TrainingSet
from preprocess import __main__ as preprocess
from preprocess.cache.rejected import read_reasons
from preprocess.dataset import readers
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk.errors import InputError
from preprocess.photographs import read_crops


def put(data, *names, pixels=None):
    """Write small grey pictures below a data folder."""
    for number, name in enumerate(names):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((40, 60), 10 + number, np.uint8) if pixels is None else pixels
        cv2.imwrite(str(data / name), grey)


def put_groups(data, *rows):
    (data / "groups.csv").write_text("\n".join(["image,group", *rows, ""]))


@pytest.fixture
def scans(tmp_path):
    """Three classes, a patient in two of them, one in train and val, and a test set of which some are known."""
    data = tmp_path / "scans"
    put(
        data,
        "train/CNV/CNV-7-1.jpeg",
        "train/CNV/CNV-8-1.png",
        "train/DME/DME-7-2.jpg",
        "train/NORMAL/odd.jpeg",
    )
    put(
        data,
        "val/CNV/CNV-9-1.jpeg",
        "val/DME/DME-8-1.jpeg",
        "test/DME/DME-5-1.jpeg",
        "test/6-1.jpeg",
    )
    return data


def test_classes_are_the_folders_and_groups_the_patients_whatever_their_class(scans):
    dataset = readers.read_dataset(scans)
    assert dataset.question == ("classes", ("CNV", "DME", "NORMAL"))
    images = list(dataset.list_paths("train"))
    assert images == ["CNV-7-1", "CNV-8-1", "CNV-9-1", "DME-7-2", "DME-8-1", "odd"]
    assert dataset.get_patients(images) == ["7", "8", "9", "7", "8", "odd"]
    assert dataset.get_targets("train").tolist() == [0, 0, 0, 1, 1, 2]
    assert dataset.get_targets("test").to_dict() == {"DME-5-1": 1}  # the other's class is unknown
    assert list(dataset.list_paths("test")) == ["6-1", "DME-5-1"]
    put_groups(scans, "odd,7", "6-1,5")
    assert readers.read_dataset(scans).find_subject("odd") == ("7", "")


def test_a_table_of_classes_is_read_by_name(scans):
    read, path = readers.read_dataset(scans).read_labels, scans / "testLabels.csv"
    path.write_text("image,class\nb,NORMAL\na,\n")
    assert read(path, known_only=True).to_dict() == {"b": 2}
    with pytest.raises(InputError, match="row 3: class is '', none of CNV, DME, NORMAL"):
        read(path)


def test_retinas_stay_retinas(scans, drawn_folder, tmp_path):
    assert readers.read_dataset(drawn_folder).question == RETINOPATHY
    assert readers.read_dataset(tmp_path / "nothing").question == RETINOPATHY
    (scans / "trainLabels.csv").write_text("image,level\n")
    assert readers.read_dataset(scans).question == RETINOPATHY


def test_val_is_fold_0_with_the_rest_of_its_patients(scans):
    dataset = readers.read_dataset(scans)
    images = list(dataset.list_paths("train"))
    squares = type("Squares", (), {"subjects": dataset.get_subjects(images), "images": images})
    of = TrainingSet(
        squares, np.array([0, 0, 0, 1, 1, 2]), {}, frozenset(dataset.list_images("valid"))
    )
    assert of.find_held_out(3, 0).tolist() == [False, True, True, False, True, False]
    folds = [of.find_held_out(3, fold) for fold in range(3)]
    assert (np.sum(folds, axis=0) == 1).all()
    assert folds[1][0] == folds[1][3]  # the patient with two classes
    notes = dataset.notes
    assert (
        notes[0].startswith("1 of 8 images each count as a patient")
        and "the same 1 patients" in notes[1]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "train" / "DRUSEN").mkdir(), "train/DRUSEN: a class without images"),
        (
            lambda data: put(data, "test/AMD/AMD-1-1.png"),
            r"test/AMD: a class that .*train lacks \(CNV, DME, NORMAL\)",
        ),
        (
            lambda data: [shutil.rmtree(data / "train" / name) for name in ("DME", "NORMAL")],
            "CNV is the only class",
        ),
        (
            lambda data: put(data, "train/DME/CNV-7-1.png"),
            "DME/CNV-7-1.png and .*CNV-7-1.jpeg are both image CNV-7-1",
        ),
        (
            lambda data: put(data, "val/CNV/CNV-7-1.jpeg"),
            "val/CNV/CNV-7-1.jpeg and .*train/CNV/CNV-7-1.jpeg are both",
        ),
        (lambda data: put(data, "train/cnv/a.png"), "CNV and cnv: one class or two"),
        (
            lambda data: put(data, "train/AMD/AMD/a.png"),
            "AMD/AMD: its photographs lie too deep; move them up to",
        ),
        (
            lambda data: put(data, "test/test/a.png"),
            "test/test: lies in a folder of its own name; move what is in it",
        ),
        (
            lambda data: (data / "val").rename(data / "validation"),
            "validation: is not read; rename it to val/",
        ),
        (lambda data: put(data, "train/image/a.png"), "'image' cannot be a class's name"),
        (
            lambda data: put_groups(data, "odd,7", "CNV-7-1,"),
            "groups.csv, row 3: group is ''; every image",
        ),
        (
            lambda data: put_groups(data, "odd,7", "CNV/odd,7", "6-2,7"),
            "row 3: .*no image CNV/odd nor 1 more of these",
        ),
    ],
)
def test_what_cannot_be_learned_is_one_line(scans, change, message):
    change(scans)
    with pytest.raises(InputError, match=message) as caught:
        readers.read_dataset(scans)
    assert "\n" not in str(caught.value)


def test_a_stray_eye_and_other_files_beside_the_classes_are_told_of(scans):
    put(scans, "train/10_left.jpeg")
    (scans / "train" / "CNV" / "Thumbs.db").write_text("")
    dataset = readers.read_dataset(scans)
    assert dataset.question.kind == "classes"
    assert dataset.unread["train"] == {"10_left.jpeg": "lies in no class's folder"}
    assert "train: 1 file not read: 1 .db (no photograph)" in dataset.notes


def test_two_eyes_of_a_name_are_one_patient_whatever_their_classes(scans):
    put(scans, "train/CNV/30_left.jpeg")
    put(scans, "train/DME/30_RIGHT.jpeg")
    left, right = readers.read_dataset(scans).get_subjects(["30_left", "30_RIGHT"])
    assert left == ("30", "left") and right == ("30", "right")


def test_an_unknown_folder_is_told_what_layouts_there_are(tmp_path):
    with pytest.raises(InputError, match=r"PATIENT_left .* or folders of classes, train/CLASS/"):
        preprocess.main([f"--data={tmp_path}", f"--cache={tmp_path}/cache"])


def test_odd_files_are_rejected_and_16_bit_and_cmyk_scans_taken(scans, cache, capsys):
    put(
        scans,
        "train/CNV/deep-1-1.png",
        pixels=np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27,
    )
    Image.new("CMYK", (60, 40), (0, 0, 0, 128)).save(scans / "train" / "CNV" / "print-1-2.jpeg")
    (scans / "train" / "DME" / "page-1-3.jpeg").write_text("<html>")
    (scans / "train" / "stray.png").write_bytes(b"")
    preprocess.main(
        [
            f"--data={scans}",
            f"--cache={cache}",
            *"--recipe oct-demo --size-px 32 --jobs 1 --allow-rejected".split(),
        ]
    )
    assert read_reasons(cache, "train") == {
        "page-1-3": "neither a JPEG nor a PNG image, nor TIFF, BMP, PPM, PGM, WebP or DICOM",
        "stray.png": "lies in no class's folder",
    }
    assert {"deep-1-1", "print-1-2"} <= set(read_crops(cache, "train"))
    deep = cv2.imread(str(cache / "resize" / "train" / "deep-1-1.png"))
    assert (
        deep.shape == (32, 32, 3) and deep[0].max() < 20 and deep[-1].min() > 230
    )  # stretched: nothing is padded
    assert f"{scans}: val/ is held out as fold 0: 2 images" in capsys.readouterr().out


def test_real_scans_are_read(real_data):
    data = real_data / "oct-tiny"
    dataset = readers.read_dataset(data)
    assert dataset.question.names == ("CNV", "DME", "DRUSEN", "NORMAL")
    assert len(dataset.list_paths("train")) == 16 and len(dataset.list_images("valid")) == 8
    assert dataset.find_subject("DRUSEN-1001666-2").patient == "1001666"
    assert len(dataset.get_targets("test")) == len(dataset.list_paths("test"))
