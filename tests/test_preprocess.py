"""The four stages together: one decode gives the same bytes as two. Kills and Ctrl-C are in test_faults."""

import shutil

import pytest

from preprocess import crop, normalize, photographs, resize, standardize
from preprocess.__main__ import main as preprocess
from preprocess.cache import rejected
from preprocess.dataset import kaggle, readers
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture import photograph, square
from tests.benchmarks.crash import read_all


def options(data, cache):
    return [f"--data={data}", f"--cache={cache}", "--jobs=1", "--allow-rejected"]


def test_one_decode_gives_the_bytes_of_two_though_photographs_are_bad(
    data, cache, tmp_path, monkeypatch
):
    first, second, *_ = sorted((data / "train").iterdir())
    first.write_bytes(first.read_bytes()[:3000])
    second.write_bytes(b"\xff\xd8 rubbish")
    with pytest.raises(InputError, match="2 photographs are rejected"):
        preprocess([f"--data={data}", f"--cache={tmp_path / 'strict'}", "--jobs=1"])
    assert not (tmp_path / "strict" / "normalize").exists()
    crop.main(options(data, cache))
    resize.main(options(data, cache))
    normalize.main([f"--cache={cache}"])
    standardize.main([f"--cache={cache}"])
    decode, calls = photograph.decode, []
    monkeypatch.setattr(
        photograph, "decode", lambda *arguments: calls.append(arguments) or decode(*arguments)
    )
    preprocess(options(data, tmp_path / "once"))
    assert read_all(tmp_path / "once") == read_all(cache)
    assert len(rejected.read_rejected(cache)) == 2
    assert len(calls) == 11  # the header of one is rubbish


@pytest.mark.parametrize("method", square.NORMALIZATIONS)
def test_blocks_do_not_show_in_the_bytes(drawn_folder, cache, tmp_path, monkeypatch, method):
    given = ["--size-px=48", f"--normalize={method}"]
    preprocess([*options(drawn_folder, cache), *given])
    monkeypatch.setattr(photographs, "BLOCK", 3)
    preprocess([*options(drawn_folder, tmp_path / "blocks"), *given])
    assert read_all(tmp_path / "blocks") == read_all(cache)


def test_a_damaged_journal_leaves_the_tables_that_are_there(drawn_folder, cache):
    preprocess([*options(drawn_folder, cache), "--size-px=48"])
    before = read_all(cache / "normalize")
    journal = cache / "resize" / "train.jsonl"
    journal.write_bytes(journal.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"train\.jsonl: not what was written"):
        normalize.main([f"--cache={cache}", "--method=none"])
    assert read_all(cache / "normalize") == before


def test_ids_may_lead_through_folders(data, cache, monkeypatch):
    """As in layouts with a folder per class."""

    def read_dataset(folder, layout):
        assert layout is None
        dataset = kaggle.read_dataset(folder)
        dataset.samples["image"] = "class/" + dataset.samples["image"]
        return dataset

    monkeypatch.setattr(readers, "read_dataset", read_dataset)
    preprocess(options(data, cache))
    squares = cache / "resize" / "train" / "class"
    assert len(list(squares.glob("*.png"))) == 8
    (squares / f"{files.PARTIAL}1.png").touch()
    shutil.rmtree(data / "test")
    preprocess(options(data, cache))
    assert not (squares / f"{files.PARTIAL}1.png").exists()
