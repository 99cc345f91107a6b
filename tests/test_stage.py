"""The cache contract: manifests, atomic writes, journals, the lock, one-line errors."""

import os
import subprocess
import sys

import pytest

from preprocess import per_image, stage


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    stage.write_bytes(path, b"old")
    with pytest.raises(OSError, match="full"), stage.replacing(path) as partial:
        partial.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_folder_in_a_files_place_is_one_line_that_names_it(tmp_path):
    with pytest.raises(stage.InputError, match=f"^{tmp_path}: a folder; give the name of a file"):
        stage.write_bytes(tmp_path, b"")


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", ""])
def test_a_wrong_number_of_processes_is_shown_and_what_is_right(capsys, text):
    parser = stage.make_parser("test", "", "")
    per_image.add_image_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--jobs={text}"])
    assert f"argument --jobs: {text!r} is not a whole number from 1 on" in capsys.readouterr().err


def test_temporary_files_keep_suffix_and_folder_and_are_no_image_id(tmp_path):
    with stage.replacing(tmp_path / "10_left.png") as partial:
        partial.touch()
        assert partial.parent == tmp_path
        assert partial.suffix == ".png"
        assert partial.name.startswith(stage.PARTIAL)
    stage.write_bytes(tmp_path / f"{stage.PARTIAL}1.png", b"")
    stage.remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["10_left.png"]


def test_manifest_tells_what_changed(tmp_path):
    assert stage.find_change(tmp_path, {"size": 1}, {}) == "not made yet"
    (tmp_path / "out.txt").write_text("made")
    outputs = {"out.txt": stage.hash_file(tmp_path / "out.txt")}
    stage.write_manifest(tmp_path, "test", {"size": 1, "pair": (1, 2)}, {"input": "a" * 64}, outputs)
    same = {"size": 1, "pair": (1, 2)}
    assert stage.find_change(tmp_path, same, {"input": "a" * 64}) is None
    assert stage.find_change(tmp_path, same | {"size": 2}, {"input": "a" * 64}) == "size changed from 1 to 2"
    assert stage.find_change(tmp_path, same, {"input": "b" * 64}) == "input changed"
    (tmp_path / "out.txt").write_text("edited")
    assert stage.find_change(tmp_path, same, {"input": "a" * 64}) == "out.txt is not what was written"
    (tmp_path / "out.txt").unlink()
    assert stage.find_change(tmp_path, same, {"input": "a" * 64}) == "out.txt is missing"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"parameters": {}}', "\x00\xff"])
def test_a_damaged_manifest_counts_as_none(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    assert stage.read_manifest(tmp_path) is None


def test_missing_output_names_the_command(tmp_path):
    with pytest.raises(stage.InputError, match=r"run python -m preprocess\.crop first"):
        stage.read_output(tmp_path, "train", "preprocess.crop")


def fill(journal, images):
    with journal.appending() as append:
        for image in images:
            append(image, [image], {"value": image.upper()})


def test_a_torn_line_loses_only_its_image(tmp_path):
    fill(per_image.Journal(tmp_path, "train", {"a": 1}), ["1_left", "2_left", "3_left"])
    path = tmp_path / "train.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    journal = per_image.Journal(tmp_path, "train", {"a": 1})
    keys = {image: [image] for image in ("1_left", "2_left", "3_left")}
    assert journal.due(keys) == ["3_left"]
    fill(journal, ["3_left"])
    journal.finish(list(keys))
    whole = per_image.Journal(tmp_path / "whole", "train", {"a": 1})
    fill(whole, list(keys))
    whole.finish(list(keys))
    assert path.read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()


def test_every_cut_of_a_journal_can_be_read(tmp_path):
    fill(per_image.Journal(tmp_path, "train", {"a": 1}), ["1_left", "2_left"])
    path = tmp_path / "train.jsonl"
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        found = per_image.Journal(tmp_path, "train", {"a": 1}).records
        assert list(found) == ["1_left", "2_left"][: max(0, content[:length].count(b"\n") - 1)]


def test_order_of_completion_does_not_show_in_the_bytes(tmp_path):
    images = ["1_left", "1_right", "2_left"]
    contents = []
    for order in (images, images[::-1]):
        journal = per_image.Journal(tmp_path, "train", {})
        fill(journal, order)
        journal.finish(images)
        contents.append((journal.digest, journal.path.read_bytes()))
    assert contents[0] == contents[1]


def test_changed_parameters_make_every_image_due_and_say_so(tmp_path):
    fill(per_image.Journal(tmp_path, "train", {"size_px": 512}), ["1_left"])
    journal = per_image.Journal(tmp_path, "train", {"size_px": 256})
    assert journal.due({"1_left": ["1_left"]}) == ["1_left"]
    assert journal.change == "size_px changed from 512 to 256"


def test_digest_does_not_depend_on_keys(tmp_path):
    digests = []
    for key in (["size", 1], ["size", 2]):
        journal = per_image.Journal(tmp_path / str(key[1]), "train", {})
        with journal.appending() as append:
            append("1_left", key, {"value": 1})
        digests.append(journal.digest)
    assert digests[0] == digests[1]


def double(number):
    return {"value": 2 * number}


@pytest.mark.parametrize("jobs", [1, 2])
def test_map_works_on_due_images_only_and_drops_the_gone(tmp_path, capsys, jobs):
    for numbers, counted in ([1, 2], "2 of 2 images are due"), ([2, 3], "1 of 2 images are due"):
        journal = per_image.Journal(tmp_path, "train", {})
        tasks = {f"{number}_left": ([number], (number,)) for number in numbers}
        dropped = per_image.map_images(double, journal, tasks, jobs)
        assert counted in capsys.readouterr().out
    assert dropped == ["1_left"]
    assert per_image.Journal(tmp_path, "train", {}).rows == {"2_left": {"value": 4}, "3_left": {"value": 6}}


def test_a_second_run_is_told_that_the_cache_is_in_use(tmp_path):
    with stage.locked(tmp_path), pytest.raises(stage.InputError, match="another run"), stage.locked(tmp_path):
        pass
    with stage.locked(tmp_path):
        pass


def test_the_lock_does_not_outlive_a_killed_holder(tmp_path):
    code = f"""
from pathlib import Path
from preprocess import stage
with stage.locked(Path({str(tmp_path)!r})):
    print(flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(stage.InputError), stage.locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with stage.locked(tmp_path):
        pass


def test_rejected_table_replaces_only_its_own_part(tmp_path):
    stage.record_rejected(tmp_path, "crop", "train", {"1_left": "no eye", "2_left": "empty, file"})
    stage.record_rejected(tmp_path, "crop", "test", {"9_left": "truncated"})
    stage.record_rejected(tmp_path, "crop", "train", {"2_left": "empty, file"})
    assert stage.read_rejected(tmp_path).to_numpy().tolist() == [
        ["9_left", "crop", "truncated", "test"],
        ["2_left", "crop", "empty, file", "train"],
    ]


def test_rejected_images_stop_the_run_unless_allowed(tmp_path, capsys):
    stage.check_rejected(tmp_path, {}, allow_rejected=False)
    with pytest.raises(stage.InputError, match=r"1 photograph is rejected \(1_left: no eye\).*--allow-rejected"):
        stage.check_rejected(tmp_path, {"1_left": "no eye"}, allow_rejected=False)
    stage.check_rejected(tmp_path, {"1_left": "no eye"}, allow_rejected=True)
    assert "rejected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (stage.InputError("x.csv, row 3: bad"), 2),
        (PermissionError(13, "denied", "file"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_expected_failures_end_in_one_line(capsys, error, status):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        stage.run(main)
    assert caught.value.code == status
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_an_unexpected_exception_is_not_hidden():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.run(main)
