"""The cache contract: manifests, atomic writes, journals, times, rejected images, one-line errors."""

import os

import pytest

from preprocess.cache import manifest, rejected, stage
from preprocess.cache.journal import Journal, iterate_rows, read_rows
from preprocess.command import process
from preprocess.disk import files
from preprocess.disk.errors import InputError

IMAGES = ["1_left", "2_left", "3_left"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    files.write_bytes(path, b"old")
    with pytest.raises(OSError, match="full"), files.replacing(path) as partial:
        partial.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"]
    with pytest.raises(InputError, match=f"^{tmp_path}: is a folder; name a file"):
        files.write_bytes(tmp_path, b"")


def test_manifest_tells_what_changed(tmp_path):
    assert manifest.find_change(tmp_path, {"size": 1}, {}) == "not made yet"
    (tmp_path / "out.txt").write_text("made")
    outputs = {"out.txt": files.hash_file(tmp_path / "out.txt")}
    same, inputs = {"size": 1, "pair": (1, 2)}, {"input": "a" * 64}
    manifest.write_manifest(tmp_path, "test", same, inputs, outputs)
    assert manifest.find_change(tmp_path, same, inputs) is None
    assert manifest.find_change(tmp_path, same | {"size": 2}, inputs) == "size changed from 1 to 2"
    assert manifest.find_change(tmp_path, same, {"input": "b" * 64}) == "input changed"
    assert manifest.kept_outputs(tmp_path, same) == outputs
    assert manifest.kept_outputs(tmp_path, same | {"size": 2}) == {}
    (tmp_path / "out.txt").write_text("edited")
    assert manifest.find_change(tmp_path, same, inputs) == "out.txt is not what was written"
    (tmp_path / "out.txt").unlink()
    assert manifest.find_change(tmp_path, same, inputs) == "out.txt is missing"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"parameters": {}}', "\x00\xff"])
def test_a_damaged_manifest_counts_as_none_and_the_command_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    assert manifest.read_manifest(tmp_path) is None
    for read in (manifest.read_output, manifest.read_parameter):
        with pytest.raises(InputError, match=r"run python -m preprocess\.crop first"):
            read(tmp_path, "train", "preprocess.crop")


def fill(journal, images):
    for image in images:
        journal.append(image, [image], {"value": image.upper()})


def test_every_cut_of_a_journal_can_be_read_and_loses_only_the_torn_image(tmp_path):
    fill(Journal(tmp_path, "train", {"a": 1}), IMAGES)
    path = tmp_path / "train.jsonl"
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        found = Journal(tmp_path, "train", {"a": 1})
        kept = IMAGES[: max(0, content[:length].count(b"\n") - 1)]
        assert list(found.records) == kept
        assert list(found.find_made({image: [image] for image in IMAGES})) == kept
    path.write_bytes(content[:-5])
    mended = Journal(tmp_path, "train", {"a": 1})
    fill(mended, ["3_left"])
    mended.finish(IMAGES)
    assert path.read_bytes() == content


def test_order_of_completion_does_not_show_in_the_bytes(tmp_path):
    contents = []
    for order in (IMAGES, IMAGES[::-1]):
        journal = Journal(tmp_path, "train", {})
        fill(journal, order)
        journal.finish(IMAGES)
        contents.append((journal.digest, journal.path.read_bytes()))
    assert contents[0] == contents[1]


def test_finish_drops_the_gone_and_changed_parameters_make_every_image_due(tmp_path):
    fill(Journal(tmp_path, "train", {"size_px": 512}), IMAGES)
    assert Journal(tmp_path, "train", {"size_px": 512}).finish(["3_left"]) == ["1_left", "2_left"]
    assert Journal(tmp_path, "train", {"size_px": 512}).rows == {"3_left": {"value": "3_LEFT"}}
    journal = Journal(tmp_path, "train", {"size_px": 256})
    assert journal.find_made({"3_left": ["3_left"]}) == {}
    assert journal.change == "size_px changed from 512 to 256"


def test_rows_one_at_a_time_are_those_of_all_and_what_was_not_written_is_named(tmp_path):
    journal = Journal(tmp_path, "train", {"size": 1})
    for image in IMAGES:
        journal.append(image, [1], {"reason": "none"} if image == "2_left" else {"of": image})
    journal.finish(IMAGES)
    manifest.write_manifest(tmp_path, "x", {"size": 1}, {}, {"train": journal.digest})
    rows = dict(iterate_rows(tmp_path, "train", "preprocess.x"))
    assert rows == read_rows(tmp_path, "train", "preprocess.x") == journal.rows
    assert list(rows) == ["1_left", "3_left"]
    whole = journal.path.read_bytes()
    for damaged in (whole.replace(b'"1_left"}', b'"9_left"}'), whole[:-9], b""):
        journal.path.write_bytes(damaged)
        with pytest.raises(InputError, match="not what was written; run python -m preprocess.x"):
            dict(iterate_rows(tmp_path, "train", "preprocess.x"))
    journal.path.unlink()
    with pytest.raises(InputError, match="not what was written"):
        dict(iterate_rows(tmp_path, "train", "preprocess.x"))


def test_digest_does_not_depend_on_keys(tmp_path):
    journals = [Journal(tmp_path, name, {}) for name in ("train", "test")]
    for journal in journals:
        journal.append("1_left", [journal.path.name], {"value": 1})
    assert journals[0].digest == journals[1].digest


def test_the_time_is_kept_of_what_made_something(tmp_path):
    for value in ("a", "a", "b"):
        with stage.working(tmp_path, "preprocess.crop"):
            files.write_bytes(tmp_path / "crop" / "manifest.json", value.encode())
    assert (tmp_path / "times.csv").read_text().count("preprocess.crop,") == 2
    with open(tmp_path / "times.csv", "a") as table:
        table.write("dr.train,12.5\ndr.predict,1.0\nblend.train,3")
    times = stage.read_times(tmp_path)
    assert list(times) == ["preprocess.crop", "dr.train", "dr.predict"]
    assert times["dr.train"] == 12.5


def test_rejected_table_replaces_only_its_own_part(tmp_path):
    rejected.record_rejected(
        tmp_path, "crop", "train", {"1_left": "no eye", "2_left": "empty, file"}
    )
    rejected.record_rejected(tmp_path, "crop", "test", {"9_left": "truncated"})
    rejected.record_rejected(tmp_path, "crop", "train", {"2_left": "empty, file"})
    assert rejected.read_rejected(tmp_path) == [
        ("9_left", "crop", "truncated", "test"),
        ("2_left", "crop", "empty, file", "train"),
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x.csv, row 3: bad"), 2),
        (PermissionError(13, "denied", "file"), 2),
        (MemoryError("Unable to allocate\n70 GiB"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.usefixtures("hear_ctrl_c")
def test_expected_failures_end_in_one_line(capsys, error, status):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        process.run(main)
    assert caught.value.code == status
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_an_unexpected_exception_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        process.run(lambda: 1 // 0)
