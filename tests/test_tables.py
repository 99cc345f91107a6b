"""Hostile tables: whatever stands in a CSV or a journal, it is read right or refused in one line."""

import csv
import dataclasses
import gzip
import io
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr.scores import read_scores
from preprocess import photographs
from preprocess.cache.journal import Journal
from preprocess.cache.rejected import read_rejected
from preprocess.dataset import dataset, kaggle
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk.errors import InputError
from preprocess.disk.tables import sort_images
from preprocess.picture.outline import ELLIPSE
from submissions import write
from tests.tasks import TASK

SCORES = [f"p{level}" for level in range(5)]


def make_dataset(folder):
    """A data set of three images that have no photographs here."""
    rows = [
        {"image": image, "path": f"{image}.jpeg", "split": "train", "patient": image[0], "side": ""}
        for image in ("1_left", "1_right", "2_left")
    ]
    return dataclasses.replace(
        kaggle.read_dataset(folder / "nowhere"),
        samples=dataset.make_table(pd.DataFrame(rows), RETINOPATHY),
    )


def list_expected(path):
    """The images of a sample submission."""
    empty = kaggle.read_dataset(path.parent / "nowhere")
    return write.list_expected(dataclasses.replace(empty, sample_submission=path))


READERS = {  # name: the function, of the table or of the folder that it is in; where it is; the columns it wants
    "labels": (kaggle.read_labels, None, ["image", "level"]),
    "scores": (partial(read_scores, task=TASK), None, ["image", *SCORES]),
    "corrections": (
        lambda f: photographs.read_corrections(f, make_dataset(f)),
        "crop/corrections.csv",
        ["image", *ELLIPSE],
    ),
    "rejected": (read_rejected, "rejected.csv", ["image", "stage", "reason", "split"]),
    "sample": (list_expected, None, ["image", "level"]),
}
NUMERIC = {"labels": "level", "scores": "p3", "corrections": "center_y"}
WITH_IDS = [name for name in READERS if name != "rejected"]
FIELDS = {"image": "1_left", "level": "1", "stage": "crop", "reason": "no eye", "split": "train"}
FIELDS |= dict.fromkeys(SCORES, "0.2") | dict.fromkeys(ELLIPSE, "100")


def read(name, folder, content):
    reader, place, _ = READERS[name]
    path = folder / (place or "table.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return reader(folder if place else path)


def make_table(name, rows=({},), **options):
    text, columns = io.StringIO(), READERS[name][2]
    lines = [columns, *([(FIELDS | row)[column] for column in columns] for row in rows)]
    csv.writer(text, lineterminator="\n", **options).writerows(lines)
    return text.getvalue().encode()


def check_refusal(name, folder, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(name, folder, content)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", READERS)
def test_byte_order_mark_line_ends_quotes_and_empty_last_lines_do_no_harm(tmp_path, name):
    plain, quoted = make_table(name), make_table(name, quoting=csv.QUOTE_ALL)
    expected = read(name, tmp_path, plain)
    for content in (
        b"\xef\xbb\xbf" + plain,
        plain.replace(b"\n", b"\r\n"),
        quoted,
        plain + b"\n\n",
        plain[:-1],
    ):
        assert str(read(name, tmp_path, content)) == str(expected)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: b"", "no header"),
        (lambda table: b"\n" + table, "no header"),
        (
            lambda table: table.replace(b",", b";"),
            "separate the columns by commas|damaged|no column level",
        ),
        (lambda table: table.decode().encode("utf-16"), "no UTF-8 text"),
        (lambda table: table[:-1] + b",7\n", "row 2: .* fields, the header has"),
        (lambda table: table + b"2_left\n", "row 3: 1 fields, the header has"),
        (lambda table: table + b'"2_left', "not a CSV table"),
        (
            lambda table: table[:-1] + b",7" * 1_000_000 + b"\n",
            "row 2: 100000. fields, the header has",
        ),
        (
            lambda table: b"x," * 1_000_000 + b"x\n" + b"7," * 1_000_000 + b"7\n",
            "no column|damaged",
        ),
        (lambda table: table[:-1] + b"9" * 10**6 + b"\n", "field larger than field limit"),
    ],
    ids="empty,empty line,semicolons,UTF-16,surplus,short,open quote,long row,long header,long field".split(
        ","
    ),
)
def test_what_is_no_table_is_refused(tmp_path, name, damage, message):
    check_refusal(name, tmp_path, damage(make_table(name)), message)


@pytest.mark.parametrize("name", WITH_IDS)
@pytest.mark.parametrize(
    "image",
    [
        "../1_left",
        "/etc/1_left",
        "a/../../1_left",
        "..\\1_left",
        "C:\\1_left",
        "",
        " ",
        ".1_left",
        "1_left/",
    ]
    + [
        "1\n_left",
        "1\r_left",
        "\x001_left",
        "\x1b[2J_left",
        "1\u2028_left",
        "\u202e1_left",
        "7" * 300 + "_left",
    ]
    + ["=1+1_left", "+1_left", "-1_left", "@SUM(A1)_left", "=cmd|'/c calc'!A1_left"],
    ids=ascii,
)
def test_ids_that_are_paths_formulas_or_control_characters_are_refused(tmp_path, name, image):
    content = make_table(name, [{"image": image}])
    check_refusal(
        name, tmp_path, content, "row 2: (.* is not an image id|1 fields)|not a CSV table"
    )


@pytest.mark.parametrize("name", WITH_IDS)
def test_repeated_ids_and_columns_are_refused(tmp_path, name):
    check_refusal(name, tmp_path, make_table(name, [{}, {}]), "row 3: image 1_left is listed twice")
    header, row = make_table(name).splitlines()
    check_refusal(
        name, tmp_path, header + b",image\n" + row + b",2_left\n", "column image comes 2 times"
    )


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize(
    "value", [*"nan inf -inf -1 1e308 -1e308 1e400 0x1 1_0 x True १ =1".split(), "", "9" * 400]
)
def test_numbers_that_are_none_or_out_of_range_are_refused(tmp_path, name, value):
    content = make_table(name, [{"image": "2_left"}, {NUMERIC[name]: value}])
    if name == "corrections" and value == "-1":  # a centre may lie outside the photograph
        assert read(name, tmp_path, content)["1_left"][1] == -1
        return
    check_refusal(name, tmp_path, content, "row 3")


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", gzip.compress(b"image,level\n1_left,0\n", mtime=0)[:-9]]
)
def test_a_torn_gzip_is_refused(tmp_path, content):
    (tmp_path / "labels.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match="not a CSV table"):
        kaggle.read_labels(tmp_path / "labels.csv.gz")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(READERS)), st.binary(max_size=60), st.floats(0, 1), st.integers(0, 9))
@example("labels", b"\x00", 0.9, 0)
def test_any_bytes_in_a_table_give_rows_or_one_line(tmp_path_factory, name, new, place, n_old):
    content = make_table(name, [{}, {"image": "1_right"}])
    start = int(place * len(content))
    try:
        table = read(
            name, tmp_path_factory.getbasetemp(), content[:start] + new + content[start + n_old :]
        )
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert name != "scores" or np.allclose(table.sum(axis=1), 1, atol=1e-5)


def test_ids_are_sorted_by_their_numbers_and_a_digit_that_is_no_number_is_a_letter():
    images = ["10_left", "2_left", "x", "2²", "2_right", "²"]
    assert sort_images(images) == ["2_left", "2_right", "2²", "10_left", "x", "²"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.floats(0, 1), st.integers(0, 30))
@example(b'\n["1_left",1]\n', 0.5, 0)
@example(b'\n[["a"],[],{}]\n', 0.5, 0)
@example(b'\n["1_left",[],7]\n', 0.5, 0)
@example(b"\n" + b"[" * 20_000 + b"\n", 0.5, 0)
def test_a_damaged_journal_loses_only_what_is_damaged(tmp_path_factory, new, place, n_old):
    open_journal = partial(Journal, tmp_path_factory.mktemp("journal"), "train", {"a": 1})
    journal, keys = open_journal(), {f"{number}_left": [number] for number in range(4)}
    for image, key in keys.items():
        journal.append(image, key, {"value": key[0]})
    content = journal.path.read_bytes()
    start = int(place * len(content))
    journal.path.write_bytes(content[:start] + new + content[start + n_old :])
    again = open_journal()
    made = again.find_made(keys)
    assert again.digest and again.rows.keys() | again.reasons.keys() == again.records.keys()
    for image in keys.keys() - made:
        again.append(image, keys[image], {"value": keys[image][0]})
    again.finish(list(keys))
    assert list(open_journal().records) == list(keys)
    assert json.loads(again.path.read_bytes().splitlines()[0]) == {"a": 1}
