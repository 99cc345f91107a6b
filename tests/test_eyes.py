"""Image ids, folders, label CSVs and patient-wise folds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import eyes
from preprocess.stage import InputError


def write(path, text):
    path.write_text(text)
    return path


def test_image_id_names_patient_and_side():
    assert eyes.parse_image_id("10_left") == ("10", "left", "")
    assert eyes.parse_image_id("a_b_right") == ("a_b", "right", "")
    assert eyes.parse_image_id("10_left_b") == ("10", "left", "b")


@pytest.mark.parametrize(
    "image",
    [
        "",
        "10",
        "10_middle",
        "../10_left",
        "/10_left",
        "a/b_left",
        "a\\b_left",
        ".x_left",
        "_left",
        "1\n_left",
        "x" * 300 + "_left",
    ],
)
def test_what_is_no_plain_eye_id_is_refused(image):
    with pytest.raises(InputError, match="PATIENT_left"):
        eyes.parse_image_id(image)


def test_patients_are_ordered_by_number_and_left_before_right():
    images = ["b_left", "10_right", "9_right", "10_left", "a_left", "010_left"]
    assert sorted(images, key=eyes.order_of) == ["9_right", "010_left", "10_left", "10_right", "a_left", "b_left"]


def test_listing_finds_photographs_and_names_the_misnamed(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("10_left.jpeg", "2_right.JPG", "2_left.png", "holiday.jpeg", ".hidden_left.jpeg", "notes.txt"):
        (folder / name).touch()
    paths, misnamed = eyes.list_images(tmp_path, "train")
    assert list(paths) == ["2_left", "2_right", "10_left"]
    assert list(misnamed) == ["holiday.jpeg"]


def test_listing_includes_labelled_images_without_a_file(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "10_left.jpeg").touch()
    write(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n10_right,0\n")
    paths, _ = eyes.list_images(tmp_path, "train")
    assert list(paths) == ["10_left", "10_right"]
    assert not paths["10_right"].exists()


def test_missing_and_empty_folders_list_nothing(tmp_path):
    write(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n")
    assert eyes.list_images(tmp_path, "train") == ({}, {})
    (tmp_path / "train").mkdir()
    assert eyes.list_images(tmp_path, "train") == ({}, {})


def test_two_files_for_one_image_are_refused(tmp_path):
    (tmp_path / "test").mkdir()
    for suffix in ("jpeg", "png"):
        (tmp_path / "test" / f"10_left.{suffix}").touch()
    with pytest.raises(InputError, match=r"10_left\.png"):
        eyes.list_images(tmp_path, "test")


def test_labels_are_joined_by_id_and_sorted(tmp_path):
    path = write(tmp_path / "labels.csv", "\ufefflevel,Usage,image\r\n4,Public,10_right\r\n1,Private,10_left\r\n")
    labels = eyes.read_labels(path)
    assert labels.to_dict() == {"10_left": 1, "10_right": 4}
    assert list(labels.index) == ["10_left", "10_right"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV"),
        ("image;level\n10_left;0\n", "no column image, level"),
        ("image,grade\n10_left,0\n", "no column level"),
        ("image,level\n10_left,5\n", "row 2: level is 5"),
        ("image,level\n10_left,0\n10_right,1.5\n", "row 3: level is 1.5"),
        ("image,level\n10_left,nan\n", "row 2: level is 'nan'"),
        ("image,level\n10_left,\n", "row 2: level is ''"),
        ("image,level\n10_left,0\n10_left,1\n", "row 3: image 10_left comes a second time"),
        ("image,level\n../../10_left,0\n", "row 2: image id '../../10_left'"),
        ('image,level\n"10\n_left",0\n', "row 2: image id"),
        ("image,level\n10_left,0,7,8\n10_right,0,1\n", "not a CSV|row"),
    ],
)
def test_bad_labels_are_one_line_naming_file_and_row(tmp_path, text, message):
    path = write(tmp_path / "labels.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        eyes.read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_rubbish_is_no_table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match="not a CSV"):
        eyes.read_labels(path)


@given(st.binary(max_size=200))
def test_any_bytes_give_labels_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "labels.csv"
    path.write_bytes(content)
    try:
        eyes.read_labels(path)
    except InputError as error:
        assert str(path) in str(error)


def test_differing_ids_are_named():
    with pytest.raises(InputError, match="2 images of A are not in B: 2_left, 10_left"):
        eyes.check_same_images(["1_left", "2_left", "10_left"], ["1_left"], "A", "B")
    with pytest.raises(InputError, match="1 images of B are not in A: 3_left"):
        eyes.check_same_images(["1_left"], ["1_left", "3_left"], "A", "B")


@given(st.integers(0, 2**32), st.integers(2, 7))
def test_folds_keep_patients_together_and_do_not_depend_on_order(seed, n_folds):
    rng = np.random.default_rng(seed)
    images = [f"{patient}_{side}" for patient in range(40) for side in ("left", "right")]
    levels = rng.integers(0, 5, len(images))
    folds = eyes.assign_folds(images, levels, n_folds, seed)
    assert (folds[::2] == folds[1::2]).all()
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 2  # one patient
    order = rng.permutation(len(images))
    again = eyes.assign_folds([images[i] for i in order], levels[order], n_folds, seed)
    assert (again == folds[order]).all()


def test_folds_spread_each_level_evenly():
    images = [f"{patient}_left" for patient in range(500)]
    levels = np.repeat([0, 1, 2, 3, 4], 100)
    folds = eyes.assign_folds(images, levels, 5, seed=3)
    assert all((np.bincount(folds[levels == level]) == 20).all() for level in range(5))


def test_more_folds_than_patients_raises():
    with pytest.raises(InputError, match="1 patients cannot be divided into 2 folds"):
        eyes.assign_folds(["10_left", "10_right"], np.array([0, 0]), 2, seed=0)
