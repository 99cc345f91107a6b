"""Zips in parts: unpacked as if they were whole, each part gone when it is done; stopped, damaged, hostile."""

import random
import zipfile

import pytest

from preprocess import unpack
from preprocess.disk import files
from preprocess.disk.errors import InputError

PART_BYTES = 7000
N_FILES = 30


@pytest.fixture
def contents():
    """Files, name -> content, that do not compress: photographs."""
    rng = random.Random(0)
    return {
        f"train/{number}_left.jpeg": rng.randbytes(rng.randint(500, 3000))
        for number in range(N_FILES)
    }


def split(folder, contents):
    """Write a zip in parts and return their paths."""
    whole = folder / "whole.zip"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("train")
        for name, content in contents.items():
            archive.writestr(name, content)
    packed = whole.read_bytes()
    whole.unlink()
    paths = []
    for number, start in enumerate(range(0, len(packed), PART_BYTES), 1):
        path = folder / f"train.zip.{number:03}"
        path.write_bytes(packed[start : start + PART_BYTES])
        paths.append(path)
    return paths


@pytest.fixture
def parts(tmp_path, contents):
    return split(tmp_path / "zip", contents)


def read(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def measure(folder):
    return sum(len(content) for content in read(folder).values())


def test_each_part_is_removed_when_it_is_done_and_the_disk_never_holds_much_more_than_the_photographs(
    tmp_path, contents, parts, monkeypatch
):
    before = measure(tmp_path)
    size_bytes = sum(map(len, contents.values()))
    peaks = []
    extract = unpack.extract

    def watch(*given):
        extract(*given)
        peaks.append(measure(tmp_path))

    monkeypatch.setattr(unpack, "extract", watch)
    out = tmp_path / "data"
    unpack.main([*map(str, parts), f"--out={out}", "--remove"])
    assert read(out) == contents
    assert list((tmp_path / "zip").iterdir()) == []
    largest = max(map(len, contents.values()))
    assert max(peaks) < before + PART_BYTES + 2 * largest + 500  # 500: the sizes of the parts
    assert max(peaks) < 1.3 * size_bytes


def test_without_remove_the_parts_stay_and_a_second_start_unpacks_what_is_missing(
    tmp_path, contents, parts, capsys
):
    out = tmp_path / "data"
    unpack.main([*map(str, parts), f"--out={out}"])
    assert read(out) == contents
    assert all(path.exists() for path in parts)
    first, second, *_ = contents
    (out / first).write_bytes(b"torn")
    (out / second).unlink()
    capsys.readouterr()
    unpack.main([*map(str, parts), f"--out={out}"])
    assert "2 of 30 files" in capsys.readouterr().out
    assert read(out) == contents


@pytest.mark.parametrize("n_done", [0, 7, 29])
def test_what_was_stopped_goes_on_with_the_parts_that_are_left(
    tmp_path, contents, parts, monkeypatch, n_done
):
    out = tmp_path / "data"
    extract = unpack.extract
    calls = []

    def stop(*given):
        if len(calls) == n_done:
            raise KeyboardInterrupt
        calls.append(given)
        extract(*given)

    command = [*map(str, parts), f"--out={out}", "--remove"]
    monkeypatch.setattr(unpack, "extract", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack.main(command)
    monkeypatch.setattr(unpack, "extract", extract)
    left = [path for path in parts if path.exists()]  # as the shell lists them
    assert (len(left) < len(parts)) == (n_done > 0)
    unpack.main([*map(str, left), f"--out={out}", "--remove"])
    assert read(out) == contents
    assert list((tmp_path / "zip").iterdir()) == []


def test_a_missing_and_a_damaged_part_are_one_line(tmp_path, contents, parts):
    out = str(tmp_path / "data")
    for given, message in (
        ([parts[0], *parts[2:]], r"train\.zip\.002: missing"),
        (parts[:-1], "not the end of a zip .* are all parts there"),
        ([tmp_path / "other.zip"], r"other\.zip: no such file"),
        ([parts[0], tmp_path / "test.zip.002"], "parts of several zips"),
    ):
        with pytest.raises(InputError, match=message):
            unpack.main([*map(str, given), "--out", out])
    assert not (tmp_path / "data").exists()
    content = bytearray(parts[1].read_bytes())
    content[3000:3100] = bytes(100)
    parts[1].write_bytes(content)
    with pytest.raises(InputError, match=r"train/\d+_left.jpeg in it is damaged .*download"):
        unpack.main([*map(str, parts), "--out", out, "--remove"])
    assert parts[1].exists()  # what is not unpacked is not removed


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    for name in ("../evil.jpeg", "/evil.jpeg", "train/../../evil.jpeg"):
        parts = split(tmp_path / "zip", {name: b"x"})
        with pytest.raises(InputError, match="leads out of"):
            unpack.main([*map(str, parts), f"--out={tmp_path / 'a' / 'data'}"])
    assert not list(tmp_path.rglob("evil*"))


def test_a_disk_without_room_is_said_before_the_first_file(tmp_path, contents, parts, monkeypatch):
    size_bytes = sum(map(len, contents.values()))
    monkeypatch.setattr(files, "measure_free_space", lambda _: size_bytes - 1)
    out = tmp_path / "data"
    with pytest.raises(InputError, match="GB free; make room, or remove each part"):
        unpack.main([*map(str, parts), f"--out={out}"])
    assert not out.exists()
    unpack.main([*map(str, parts), f"--out={out}", "--remove"])
    assert read(out) == contents
