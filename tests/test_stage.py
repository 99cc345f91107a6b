"""The cache contract: manifests, atomic writes, journals, the lock, times, rejected images, one-line errors."""

import os
import signal
import subprocess
import sys

import pytest

from preprocess.cache import files, manifest, parallel, rejected, stage
from preprocess.cache.errors import InputError
from preprocess.cache.journal import Journal
from preprocess.recipes import recipe

IMAGES = ["1_left", "2_left", "3_left"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    files.write_bytes(path, b"old")
    with pytest.raises(OSError, match="full"), files.replacing(path) as partial:
        partial.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"]
    with pytest.raises(InputError, match=f"^{tmp_path}: a folder; give the name of a file"):
        files.write_bytes(tmp_path, b"")


def test_temporary_files_keep_suffix_and_folder_and_are_removed_at_any_depth(tmp_path):
    with files.replacing(tmp_path / "class" / "10_left.png") as partial:
        partial.touch()
        assert (partial.parent, partial.suffix) == (tmp_path / "class", ".png")
        assert partial.name.startswith(files.PARTIAL)
    for folder in (tmp_path, tmp_path / "class"):
        files.write_bytes(folder / f"{files.PARTIAL}1.png", b"")
    files.remove_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["10_left.png"]


def test_a_second_run_is_told_that_the_cache_is_in_use_until_the_holder_is_gone_though_killed(tmp_path):
    code = f"""
from pathlib import Path
from preprocess.cache import files
with files.locked(Path({str(tmp_path)!r})):
    print(flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(InputError, match=f"another run is using this cache .process {holder.pid}"):
        files.locked(tmp_path).__enter__()
    holder.kill()
    holder.communicate()
    with files.locked(tmp_path), pytest.raises(InputError, match="another run"), files.locked(tmp_path):
        pass


# --- manifests --------------------------------------------------------------------------------------------------------


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


# --- journals ---------------------------------------------------------------------------------------------------------


def fill(journal, images):
    with journal.appending() as append:
        for image in images:
            append(image, [image], {"value": image.upper()})


def test_every_cut_of_a_journal_can_be_read_and_loses_only_the_torn_image(tmp_path):
    fill(Journal(tmp_path, "train", {"a": 1}), IMAGES)
    path = tmp_path / "train.jsonl"
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        found = Journal(tmp_path, "train", {"a": 1})
        kept = IMAGES[: max(0, content[:length].count(b"\n") - 1)]
        assert list(found.records) == kept
        assert found.due({image: [image] for image in IMAGES}) == IMAGES[len(kept) :]
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


def test_finish_drops_the_gone_and_says_which(tmp_path):
    fill(Journal(tmp_path, "train", {}), IMAGES)
    assert Journal(tmp_path, "train", {}).finish(["3_left"]) == ["1_left", "2_left"]
    assert Journal(tmp_path, "train", {}).rows == {"3_left": {"value": "3_LEFT"}}


def test_changed_parameters_make_every_image_due_and_say_so(tmp_path):
    fill(Journal(tmp_path, "train", {"size_px": 512}), ["1_left"])
    journal = Journal(tmp_path, "train", {"size_px": 256})
    assert journal.due({"1_left": ["1_left"]}) == ["1_left"]
    assert journal.change == "size_px changed from 512 to 256"


def test_digest_does_not_depend_on_keys(tmp_path):
    digests = set()
    for size in (1, 2):
        journal = Journal(tmp_path / str(size), "train", {})
        with journal.appending() as append:
            append("1_left", ["size", size], {"value": 1})
        digests.add(journal.digest)
    assert len(digests) == 1


# --- parallel ---------------------------------------------------------------------------------------------------------


def double(number):
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 2])
def test_map_gives_every_image_its_result(jobs):
    tasks = {f"{number}_left": (number,) for number in range(5)}
    found = dict(parallel.map_parallel(double, tasks, jobs, "test"))
    assert found == {image: 2 * number for image, (number,) in tasks.items()}


def is_shielded():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_do_not_hear_ctrl_c_and_their_parent_still_does():
    found = parallel.map_parallel(is_shielded, {image: () for image in IMAGES}, 3, "test")
    assert dict(found) == dict.fromkeys(IMAGES, True)
    assert not is_shielded()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", ""])
def test_a_wrong_number_of_processes_is_shown_and_what_is_right(capsys, text):
    parser = stage.make_parser("test", "", "")
    parallel.add_options(parser)
    with pytest.raises(SystemExit):
        recipe.parse(parser, [f"--jobs={text}"])
    assert f"argument --jobs: {text!r} is not a whole number from 1 on" in capsys.readouterr().err


def test_the_time_is_kept_of_what_made_something(tmp_path):
    for value in ("a", "a", "b"):
        with stage.working(tmp_path, "preprocess.crop"):
            files.write_bytes(tmp_path / "crop" / "manifest.json", value.encode())
    assert (tmp_path / "times.csv").read_text().count("preprocess.crop,") == 2
    with open(tmp_path / "times.csv", "a") as table:
        table.write("dr.train,12.5\ndr.predict,1\nblend.tr")
    times = stage.read_times(tmp_path)
    assert list(times) == ["preprocess.crop", "dr.train", "dr.predict"]
    assert times["dr.train"] == 12.5


def test_rejected_table_replaces_only_its_own_part(tmp_path):
    rejected.record_rejected(tmp_path, "crop", "train", {"1_left": "no eye", "2_left": "empty, file"})
    rejected.record_rejected(tmp_path, "crop", "test", {"9_left": "truncated"})
    rejected.record_rejected(tmp_path, "crop", "train", {"2_left": "empty, file"})
    assert rejected.read_rejected(tmp_path).to_numpy().tolist() == [
        ["9_left", "crop", "truncated", "test"],
        ["2_left", "crop", "empty, file", "train"],
    ]


def test_rejected_images_stop_the_run_unless_allowed(tmp_path, capsys):
    rejected.check_rejected(tmp_path, {}, allow_rejected=False)
    with pytest.raises(InputError, match=r"1 photograph is rejected \(1_left: no eye\).*--allow-rejected"):
        rejected.check_rejected(tmp_path, {"1_left": "no eye"}, allow_rejected=False)
    rejected.check_rejected(tmp_path, {"1_left": "no eye"}, allow_rejected=True)
    assert "rejected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [(InputError("x.csv, row 3: bad"), 2), (PermissionError(13, "denied", "file"), 2), (KeyboardInterrupt(), 130)],
)
@pytest.mark.usefixtures("hear_ctrl_c")
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
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda: 1 // 0)
