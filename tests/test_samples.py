"""Image ids, folders, labels and folds that divide no group."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.dataset import folds, kaggle
from preprocess.disk import tables
from preprocess.disk.errors import InputError


def test_image_id_names_patient_and_side_and_ids_are_ordered_by_number():
    images = ["b_left", "10_right", "9_right", "10_left", "a_left", "010_left"]
    assert tables.sort_images(["a1", "10a", "a", "10"]) == [
        "10",
        "10a",
        "a",
        "a1",
    ]  # one is the other's beginning
    assert tables.sort_images(images) == [
        "9_right",
        "010_left",
        "10_left",
        "10_right",
        "a_left",
        "b_left",
    ]
    for image, owner in (
        ("10_left", ("10", "left")),
        ("a_b_right", ("a_b", "right")),
        ("10_left_b", ("10", "left")),
    ):
        assert kaggle.find_subject(image) == owner
    dataset = kaggle.read_dataset(Path("nowhere"))
    assert dataset.get_patients(["10_left", "9_right", "10_right"]) == ["10", "9", "10"]
    for image in (
        "",
        "10",
        "10_middle",
        "../10_left",
        "a/b_left",
        "a\\b_left",
        ".x_left",
        "_left",
        "1\n_left",
    ):
        with pytest.raises(InputError, match="PATIENT_left"):
            kaggle.find_subject(image)


def test_listing_finds_photographs_names_the_misnamed_and_includes_the_labelled_without_a_file(
    tmp_path,
):
    folder, labels = tmp_path / "train", tmp_path / "trainLabels.csv"
    labels.write_text("image,level\n10_left,0\n10_right,0\n")
    assert kaggle.read_dataset(tmp_path).list_paths("train") == {}
    folder.mkdir()
    assert kaggle.read_dataset(tmp_path).list_paths("train") == {}
    for name in (
        "10_left.jpeg",
        "2_right.JPG",
        "2_left.png",
        "holiday.jpeg",
        ".hidden_left.jpeg",
        "notes.txt",
    ):
        (folder / name).touch()
    dataset = kaggle.read_dataset(tmp_path)
    paths = dataset.list_paths("train")
    assert list(paths) == ["2_left", "2_right", "10_left", "10_right"]
    assert [image for image in paths if not paths[image].exists()] == ["10_right"]
    assert list(dataset.unread["train"]) == ["holiday.jpeg"]
    (folder / "10_left.png").touch()
    with pytest.raises(InputError, match=r"10_left\.png"):
        kaggle.read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,grade\n10_left,0\n", "no column level"),
        ("image,level\n10_left,5\n", "row 2: level is 5"),
        ("image,level\n10_left,0\n10_right,1.5\n", "row 3: level is 1.5"),
        ("image,level\n10_left,\n", "row 2: level is ''"),
    ],
)
def test_bad_labels_are_one_line_naming_file_and_row(tmp_path, text, message):
    """And see test_tables."""
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        kaggle.read_labels(path)
    assert str(path) in str(caught.value)


def test_differing_ids_are_named():
    with pytest.raises(InputError, match="2 images of A are not in B: 2_left, 10_left"):
        tables.check_same_images(["1_left", "2_left", "10_left"], ["1_left"], "A", "B")
    with pytest.raises(InputError, match="1 images of B are not in A: 3_left"):
        tables.check_same_images(["1_left"], ["1_left", "3_left"], "A", "B")


@given(st.integers(0, 2**32), st.integers(2, 7))
def test_folds_keep_groups_together_and_do_not_depend_on_order(seed, n_folds):
    rng = np.random.default_rng(seed)
    groups = np.repeat([str(patient) for patient in range(40)], 2)
    levels = rng.integers(0, 5, len(groups))
    found = folds.assign_folds(groups, levels, n_folds, seed)
    assert (found[::2] == found[1::2]).all()
    sizes = np.bincount(found, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 2  # one patient
    order = rng.permutation(len(groups))
    assert (folds.assign_folds(groups[order], levels[order], n_folds, seed) == found[order]).all()


def test_folds_spread_each_level_evenly_and_more_than_groups_are_refused():
    levels = np.repeat([0, 1, 2, 3, 4], 100)
    found = folds.assign_folds([str(patient) for patient in range(500)], levels, 5, seed=3)
    assert all((np.bincount(found[levels == level]) == 20).all() for level in range(5))
    with pytest.raises(InputError, match="1 patients cannot be divided into 2 folds"):
        folds.assign_folds(["10", "10"], np.array([0, 0]), 2, seed=0)
