"""The score table: what is written is read back, and what is no distribution is refused by file and row."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dr.scores import COLUMNS, find_fault, measure_log_loss, read_labels_of, read_scores, write_scores
from preprocess.stage import InputError

HEADER = "image,p0,p1,p2,p3,p4\n"
GOOD = "0.5,0.25,0.25,0,0"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.csv"


def test_rows_come_back_by_patient_then_left_then_right(path):
    path.write_text(HEADER + f"10_right,1,0,0,0,0\n10_left,{GOOD}\n9_right,0,0,0,0,1\n")
    table = read_scores(path)
    assert list(table.index) == ["9_right", "10_left", "10_right"]
    assert table.columns.tolist() == list(COLUMNS)
    assert table.loc["10_left"].tolist() == [0.5, 0.25, 0.25, 0, 0]
    assert (table.dtypes == np.float64).all()


def test_columns_are_found_by_name_not_by_place(path):
    path.write_text("level,p4,p3,p2,p1,p0,image\n,1,0,0,0,0,1_left\n")
    assert read_scores(path).loc["1_left"].tolist() == [0, 0, 0, 0, 1]


@given(arrays(np.float32, (3, 5), elements=st.floats(2**-20, 1, width=32)))
def test_what_is_written_is_read_and_written_again_alike(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("round") / "scores.csv"
    scores = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    images = ["2_right", "1_left", "2_left"]
    write_scores(path, images, scores)
    first = path.read_bytes()
    table = read_scores(path)
    assert (table.loc[images].to_numpy().astype(np.float32) == scores).all()
    write_scores(path, list(table.index), table.to_numpy())
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0.5,0.25,0.25,0,nan", "p4 is 'nan'"),
        ("0.5,0.25,0.25,0,", "p4 is ''"),
        ("0.5,0.25,0.25,0,inf", "p4 is 'inf'"),
        ("1.5,-0.5,0,0,0", "a score is negative (-0.5)"),
        ("0.5,0.25,0.25,0,0.0001", "the scores sum to 1.0001, not 1"),
        ("0.5,0.25,0.24997,0,0", "the scores sum to 0.99997, not 1"),
    ],
)
def test_a_row_that_is_no_distribution_is_named(path, row, reason):
    path.write_text(HEADER + f"1_left,{GOOD}\n1_right,{row}\n")
    with pytest.raises(InputError) as error:
        read_scores(path)
    assert f"{path}, row 3: " in str(error.value) and reason in str(error.value)


def test_sums_within_the_tolerance_pass(path):
    path.write_text(HEADER + "1_left,0.5,0.25,0.250009,0,0\n")
    assert len(read_scores(path)) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,p0,p1,p2,p3\n1_left,1,0,0,0\n", "no column p4"),
        (HEADER, "holds no image"),
        ("", "not a CSV table"),
        (HEADER + f"1_left,{GOOD}\n1_left,{GOOD}\n", "row 3: image 1_left comes a second time"),
        (HEADER + f"../1_left,{GOOD}\n", "row 2: image id '../1_left'"),
    ],
)
def test_a_table_of_another_kind_is_refused(path, text, reason):
    path.write_text(text)
    with pytest.raises(InputError, match="scores.csv") as error:
        read_scores(path)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("images", "scores"),
    [
        (["1_left"], np.full((2, 5), 0.2)),
        (["1_left", "1_left"], np.full((2, 5), 0.2)),
        (["1_left"], np.full((1, 5), np.nan)),
        (["1_left"], np.full((1, 5), 0.3)),
    ],
)
def test_bad_scores_are_not_written(path, images, scores):
    with pytest.raises(InputError, match="scores.csv"):
        write_scores(path, images, scores)
    assert not path.exists()


def test_the_first_fault_is_found():
    scores = np.full((4, 5), 0.2)
    assert find_fault(scores) is None
    scores[3] = np.inf
    scores[2, 0] = 0.3
    assert find_fault(scores) == (2, "the scores sum to 1.1, not 1")


def test_labels_are_joined_by_image(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("image,level\n2_left,3\n1_left,1\n1_right,4\n")
    index = pd.Index(["1_left", "2_left"], name="image")
    assert read_labels_of(index, "S.csv", labels).tolist() == [1, 3]
    with pytest.raises(InputError, match="1 images of S.csv are not in .*labels.csv: 7_left"):
        read_labels_of(index.append(pd.Index(["7_left"])), "S.csv", labels)


def test_real_scores_are_a_table(real_data):
    assert read_scores(real_data / "eyepacs-test-scores" / "scores.csv.gz").shape == (53_576, 5)


def test_log_loss_by_hand():
    scores = np.array([[0.5, 0.5, 0, 0, 0], [0.25, 0.75, 0, 0, 0]])
    assert measure_log_loss(scores, np.array([1, 0])) == pytest.approx(1.5 * np.log(2))
    assert measure_log_loss(scores, np.array([2, 2])) == pytest.approx(-np.log(1e-6))
    assert measure_log_loss(np.full((3, 5), 0.2), np.array([0, 2, 4])) == pytest.approx(np.log(5))
