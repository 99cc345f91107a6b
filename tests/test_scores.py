"""The score table: what is written is read back, and what is no distribution is refused by file and row."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dr import scores
from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from tests.tasks import TASK

HEADER = "image,p0,p1,p2,p3,p4\n"
GOOD = "0.5,0.25,0.25,0,0"
read, write = (
    partial(function, task=TASK) for function in (scores.read_scores, scores.write_scores)
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.csv"


def test_rows_come_back_by_patient_then_left_then_right_whatever_the_order_of_columns(path):
    path.write_text(HEADER + f"10_right,1,0,0,0,0\n10_left,{GOOD}\n9_right,0,0,0,0,1\n")
    table = read(path)
    assert list(table.index) == ["9_right", "10_left", "10_right"]
    assert table.columns.tolist() == ["p0", "p1", "p2", "p3", "p4"]
    assert table.loc["10_left"].tolist() == [0.5, 0.25, 0.25, 0, 0]
    assert (table.dtypes == np.float64).all()
    path.write_text("level,p4,p3,p2,p1,p0,image\n,1,0,0,0,0,1_left\n")
    assert read(path).loc["1_left"].tolist() == [0, 0, 0, 0, 1]


@given(arrays(np.float32, (3, 5), elements=st.floats(2**-20, 1, width=32)))
def test_what_is_written_is_read_and_written_again_alike(tmp_path_factory, weights):
    path, images = tmp_path_factory.mktemp("round") / "scores.csv", ["2_right", "1_left", "2_left"]
    drawn = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    write(path, images, drawn)
    first, table = path.read_bytes(), read(path)
    assert (table.loc[images].to_numpy().astype(np.float32) == drawn).all()
    write(path, list(table.index), table.to_numpy())
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEADER + f"1_left,{GOOD}\n1_right,0.5,0.25,0.25,0,nan\n", ", row 3: p4 is 'nan'"),
        (
            HEADER + f"1_left,{GOOD}\n1_right,1.5,-0.5,0,0,0\n",
            ", row 3: image 1_right: a score is negative .-0.5.",
        ),
        (
            HEADER + f"1_left,{GOOD}\n1_right,0.5,0.25,0.25,0,0.0003\n",
            ", row 3: .* sum to 1.0003, not 1",
        ),
        (
            HEADER + f"1_left,{GOOD}\n1_right,0.5,0.25,0.24997,0,0\n",
            ", row 3: .* sum to 0.99997, not 1",
        ),
        ("image,p0,p1,p2,p3\n1_left,1,0,0,0\n", ": no column p4"),
        (HEADER, ": holds no image"),
    ],
)
def test_a_table_of_another_kind_and_a_row_that_is_no_distribution_are_named(path, text, reason):
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(path)) + reason):
        read(path)


@pytest.mark.parametrize(
    ("images", "shape", "score"),
    [
        (["1_left"], (2, 5), 0.2),
        (["1_left"] * 2, (2, 5), 0.2),
        (["1_left"], (1, 5), np.nan),
        (["1_left"], (1, 5), 0.3),
    ],
)
def test_bad_scores_are_not_written(path, images, shape, score):
    with pytest.raises(InputError, match="scores.csv"):
        write(path, images, np.full(shape, score))
    assert not path.exists()


def test_the_first_fault_is_found():
    table = np.full((4, 5), 0.2)
    table[0, 0] += 9e-6  # within the tolerance
    assert TASK.find_fault(table) is None
    table[3] = np.inf
    table[2, 0] = 0.3
    assert TASK.find_fault(table) == (2, "the scores sum to 1.1, not 1")


def test_labels_are_sorted_and_joined_by_image(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "\ufefflevel,Usage,image\r\n3,Public,2_left\r\n1,Private,1_left\r\n4,Public,1_right\r\n"
    )
    assert list(kaggle.read_labels(labels).items()) == [
        ("1_left", 1),
        ("1_right", 4),
        ("2_left", 3),
    ]
    index = pd.Index(["1_left", "2_left"], name="image")
    assert scores.match_targets(index, "S.csv", kaggle.read_labels(labels), labels).tolist() == [
        1,
        3,
    ]
    with pytest.raises(InputError, match="1 images of S.csv are not in .*labels.csv: 7_left"):
        scores.match_targets(
            index.append(pd.Index(["7_left"])), "S.csv", kaggle.read_labels(labels), labels
        )
