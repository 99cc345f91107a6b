"""Hostile tables: whatever stands in a CSV or a journal, it is read right or refused in one line."""

import csv
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr import scores
from preprocess import crop, eyes, per_image, stage
from submissions import write

COLUMNS = {
    eyes.read_labels: ["image", "level"],
    scores.read_scores: ["image", *scores.COLUMNS],
    crop.read_corrections: ["image", *crop.ELLIPSE],
    stage.read_rejected: ["image", "stage", "reason", "split"],
    write.list_expected: ["image", "level"],
}
PLACES = {
    crop.read_corrections: "crop/corrections.csv",
    stage.read_rejected: "rejected.csv",
    write.list_expected: "sampleSubmission.csv",
}
FIELDS = {"image": "1_left", "level": "1", "stage": "crop", "reason": "no eye", "split": "train"} | {
    name: str(value)
    for name, value in {"p0": 0.2, "p1": 0.2, "p2": 0.2, "p3": 0.2, "p4": 0.2}.items()
    | dict.fromkeys(crop.ELLIPSE, 100).items()
}
READERS = list(COLUMNS)
NUMERIC = {eyes.read_labels: "level", scores.read_scores: "p3", crop.read_corrections: "center_y"}


def read(reader, folder, content):
    """Have a reader read some bytes, from where it looks for them."""
    path = folder / PLACES.get(reader, "table.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return reader(path if path.name == "table.csv" else folder)


def make_table(reader, rows=({},), **options):
    """Return a good table for a reader as bytes, with other fields in some rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", **options)
    writer.writerow(COLUMNS[reader])
    writer.writerows([(FIELDS | row)[column] for column in COLUMNS[reader]] for row in rows)
    return text.getvalue().encode()


def check_refusal(reader, folder, content, message):
    with pytest.raises(stage.InputError, match=message) as caught:
        read(reader, folder, content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("reader", READERS)
def test_byte_order_mark_line_ends_quotes_and_empty_last_lines_do_no_harm(tmp_path, reader):
    plain = make_table(reader)
    expected = read(reader, tmp_path, plain)
    quoted = make_table(reader, quoting=csv.QUOTE_ALL)
    for content in (b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"), quoted, plain + b"\n\n", plain[:-1]):
        assert str(read(reader, tmp_path, content)) == str(expected)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: b"", "no header"),
        (lambda table: b"\n" + table, "no header"),
        (lambda table: table.replace(b",", b";"), "separate the columns by commas|damaged|no column level"),
        (lambda table: table.decode().encode("utf-16"), "no UTF-8 text"),
        (lambda table: table[:-1] + b",7\n", "row 2: .* fields, the header has"),
        (lambda table: table + b"2_left\n", "row 3: 1 fields, the header has|row 3: image id"),
        (lambda table: table + b'"2_left', "not a CSV table"),
        (lambda table: table[:-1] + b",7" * 1_000_000 + b"\n", "row 2: 100000. fields, the header has"),
        (lambda table: b"x," * 1_000_000 + b"x\n" + b"7," * 1_000_000 + b"7\n", "no column|damaged"),
        (lambda table: table[:-1] + b"9" * 10**6 + b"\n", "field larger than field limit"),
    ],
    ids="empty,empty line,semicolons,UTF-16,surplus,short,open quote,long row,long header,long field".split(","),
)
def test_what_is_no_table_is_refused(tmp_path, reader, damage, message):
    content = damage(make_table(reader))
    if reader is write.list_expected and b";" in content:
        content = content.replace(b"image;level", b"imagelevel")
        message = "no column image"
    check_refusal(reader, tmp_path, content, message)


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader is not stage.read_rejected])
@pytest.mark.parametrize(
    "image",
    ["../1_left", "/etc/1_left", "a/../../1_left", "..\\1_left", "C:\\1_left", "", " ", ".1_left", "1", "1_middle"]
    + ["1\n_left", "1\r_left", "\x001_left", "\x1b[2J_left", "1\u2028_left", "\u202e1_left", "7" * 300 + "_left"]
    + ["=1+1_left", "+1_left", "-1_left", "@SUM(A1)_left", "=cmd|'/c calc'!A1_left"],
    ids=ascii,
)
def test_ids_that_are_paths_formulas_or_control_characters_are_refused(tmp_path, reader, image):
    check_refusal(
        reader, tmp_path, make_table(reader, [{"image": image}]), "row 2: (image id|1 fields)|not a CSV table"
    )


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader is not stage.read_rejected])
def test_repeated_ids_and_columns_are_refused(tmp_path, reader):
    check_refusal(reader, tmp_path, make_table(reader, [{}, {}]), "row 3: image 1_left comes a second time")
    header, row = make_table(reader).splitlines()
    check_refusal(reader, tmp_path, header + b",image\n" + row + b",2_left\n", "column image comes 2 times")


@pytest.mark.parametrize("reader", NUMERIC)
@pytest.mark.parametrize(
    "value",
    [*"nan inf -inf -1 1e308 -1e308 1e400 0x1 1_0 x True १ =1".split(), "", "9" * 400],
)
def test_numbers_that_are_none_or_out_of_range_are_refused(tmp_path, reader, value):
    content = make_table(reader, [{"image": "2_left"}, {NUMERIC[reader]: value}])
    if reader is crop.read_corrections and value == "-1":  # a centre may lie outside the photograph
        assert read(reader, tmp_path, content)["1_left"][1] == -1
        return
    check_refusal(reader, tmp_path, content, "row 3")


@pytest.mark.parametrize("content", [b"", b"rubbish", gzip.compress(b"image,level\n1_left,0\n")[:-9]])
def test_a_torn_gzip_is_refused(tmp_path, content):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(content)
    with pytest.raises(stage.InputError, match="not a CSV table"):
        eyes.read_labels(path)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(READERS), st.binary(max_size=60), st.floats(0, 1), st.integers(0, 9))
@example(eyes.read_labels, b"\x00", 0.9, 0)
def test_any_bytes_in_a_table_give_rows_or_one_line(tmp_path_factory, reader, new, place, n_old):
    content = make_table(reader, [{}, {"image": "1_right"}])
    start = int(place * len(content))
    try:
        read(reader, tmp_path_factory.getbasetemp(), content[:start] + new + content[start + n_old :])
    except stage.InputError as error:
        assert str(error).isprintable()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=8) | st.sampled_from(["1_left", "0.5", "1", "1_right"]), min_size=6, max_size=18))
def test_any_fields_give_distributions_or_one_line(tmp_path_factory, fields):
    text = io.StringIO()
    rows = [fields[start : start + 6] for start in range(0, len(fields), 6)]
    csv.writer(text).writerows([COLUMNS[scores.read_scores], *rows])
    try:
        table = read(scores.read_scores, tmp_path_factory.getbasetemp(), text.getvalue().encode())
    except stage.InputError as error:
        assert str(error).isprintable()
    else:
        assert np.allclose(table.sum(axis=1), 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.floats(0, 1), st.integers(0, 30))
@example(b'\n["1_left",1]\n', 0.5, 0)
@example(b'\n[["a"],[],{}]\n', 0.5, 0)
@example(b'\n["1_left",[],7]\n', 0.5, 0)
@example(b"\n" + b"[" * 20_000 + b"\n", 0.5, 0)
def test_a_damaged_journal_loses_only_what_is_damaged(tmp_path_factory, new, place, n_old):
    folder = tmp_path_factory.getbasetemp() / "journal"
    (folder / "train.jsonl").unlink(missing_ok=True)
    journal = per_image.Journal(folder, "train", {"a": 1})
    with journal.appending() as append:
        for number in range(4):
            append(f"{number}_left", [number], {"value": number})
    content = journal.path.read_bytes()
    start = int(place * len(content))
    journal.path.write_bytes(content[:start] + new + content[start + n_old :])
    again = per_image.Journal(folder, "train", {"a": 1})
    keys = {f"{number}_left": [number] for number in range(4)}
    due = again.due(keys)
    assert again.digest
    assert set(again.rows) | set(again.reasons) == set(again.records)
    with again.appending() as append:
        for image in due:
            append(image, keys[image], {"value": keys[image][0]})
    again.finish(list(keys))
    assert list(per_image.Journal(folder, "train", {"a": 1}).records) == list(keys)
    assert json.loads(again.path.read_bytes().splitlines()[0]) == {"a": 1}
