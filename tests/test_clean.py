"""What no run of a cache uses: listed, and removed only when asked for; what runs use stays."""

import json
import shutil

import numpy as np
import pytest

from dr import clean, predict, train
from preprocess import __main__ as preprocess
from preprocess.disk import files
from preprocess.disk.errors import InputError
from tests.tiny import SIZE_PX, TRAIN_OPTIONS, digest_files


@pytest.fixture(scope="session")
def used_cache(tmp_path_factory):
    """A cache of two folds that were trained and predicted on mapped pixels; to be copied."""
    from tests.tiny import draw_squares

    folder = tmp_path_factory.mktemp("clean")
    places = draw_squares(folder / "data", folder / "cache")
    for fold, run in (("0", "first"), ("1", "second")):
        more = [f"--run={run}", "--storage=file"]
        train.main([*places, *TRAIN_OPTIONS, "--epochs=1", f"--fold={fold}", *more])
        predict.main([*places, "--views=1", "--epochs-averaged=last:1", "--device=cpu", *more])
    return folder / "cache"


@pytest.fixture
def cache(used_cache, tmp_path):
    return shutil.copytree(used_cache, tmp_path / "cache")


def run(cache, capsys, *options):
    """Clean and return what was printed, without the folder."""
    capsys.readouterr()
    clean.main([f"--cache={cache}", *options])
    return capsys.readouterr().out.replace(f"{cache}/", "").replace(f"{cache}", "cache")


def test_folds_share_the_pixels_of_a_part_and_nothing_that_they_use_is_removed(cache, capsys):
    pixels = cache / "dr" / "pixels"
    assert sorted(path.name for path in pixels.iterdir()) == [
        "test.json",
        "test.npy",
        "train.json",
        "train.npy",
    ]
    assert len(np.load(pixels / "train.npy")) == 24
    before = digest_files(cache)
    assert run(cache, capsys, "--former", "--remove") == "cache: nothing that no run uses\n"
    assert digest_files(cache) == before


def test_what_nothing_uses_is_listed_and_only_removed_when_asked_for(cache, capsys):
    before = digest_files(cache)
    pixels = cache / "dr" / "pixels"
    unused = {
        pixels / "valid.npy": "no longer read",
        pixels / "valid.json": "no longer read",
        cache / "resize" / "train" / "99_left.png": "a square of no image",
        cache / "resize" / "test" / f"{files.PARTIAL}1.png": "half-written",
    }
    for name in ("test_0009.npz", "test_0009.jsonl", "test_0009.0.jsonl"):
        unused[cache / "dr" / "runs" / "first" / "views" / name] = "an epoch that is not kept"
    for path in unused:
        path.write_bytes(b"123")
    listed = run(cache, capsys)
    for path, reason in unused.items():
        assert str(path.relative_to(cache)) in listed
        assert reason in listed
    assert listed.endswith("cache: 0.0 kB that no run uses; --remove removes it\n")
    assert all(path.exists() for path in unused)
    assert run(cache, capsys, "--remove").endswith("cache: 0.0 kB removed\n")
    assert digest_files(cache) == before


def test_pixels_of_other_squares_are_unused_and_those_of_now_are_removed_only_by_name(
    cache, capsys
):
    key_file = cache / "dr" / "pixels" / "train.json"
    key = json.loads(key_file.read_text())
    old = str([key["images"], *key["made_from"].items()])  # as it was before files were shared
    key_file.write_text(json.dumps(old))
    assert "nothing that no run uses" in run(cache, capsys)
    for changed in (old.replace("resize train', '", "resize train', 'x"), None):
        content = changed or key | {"made_from": {"resize train": "x"}}
        key_file.write_text(json.dumps(content))
        assert "train.npy" in run(cache, capsys)
    files.write_json(key_file, key)
    assert "nothing that no run uses" in run(cache, capsys)
    listed = run(cache, capsys, "--pixels", "--remove")
    assert "can be made again" in listed
    assert not list((cache / "dr" / "pixels").iterdir())


def test_pixels_with_local_contrast_are_not_taken_for_those_without(used_cache, cache, capsys):
    data = used_cache.parent / "data"
    given = f"--crop whole --size-px {SIZE_PX} --normalize local --jobs 1".split()
    preprocess.main([f"--data={data}", f"--cache={cache}", *given])
    assert "made from other squares" in run(cache, capsys)


def test_replaced_nets_go_only_where_it_is_said(used_cache, cache, capsys):
    places = [f"--data={used_cache.parent / 'data'}", f"--cache={cache}"]
    train.main([*places, *TRAIN_OPTIONS, "--epochs=1", "--run=first", "--seed=5"])
    (former,) = (cache / "dr" / "runs" / "first" / "former").iterdir()
    assert "nothing that no run uses" in run(cache, capsys)
    assert "a net that was replaced" in run(cache, capsys, "--former", "--remove")
    assert not former.exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        clean.main([f"--cache={tmp_path / 'none'}"])
