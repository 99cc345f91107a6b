"""Runs side by side: a finished net is in use until another one has ended, and nothing trained is lost by a slip."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dr import predict, train
from dr.machine import workers
from dr.scores import read_scores
from dr.training import passes, runs
from preprocess import __main__ as preprocess
from preprocess.disk.errors import InputError
from submissions import grade
from tests.tasks import TASK
from tests.tiny import ROOT, SIZE_PX, TRAIN_OPTIONS, digest_files, draw_squares, prepare, run_stages


@pytest.fixture
def nets(cache):
    return cache / "dr"


@pytest.fixture
def stop(monkeypatch):
    """Have training stop as by Ctrl-C when an epoch begins; without an epoch, let it go on again."""
    train_epoch = passes.train_epoch

    def stop_at(epoch):
        def train_or_stop(*of):
            if of[-1].number == epoch:
                raise KeyboardInterrupt
            return train_epoch(*of)

        monkeypatch.setattr(passes, "train_epoch", train_or_stop)

    return stop_at


def list_folders(folder):
    return sorted(path.name for path in folder.glob("*") if path.is_dir())


CHANGES = ({"epochs": 3}, {"batch-size": 4}, {"seed": 1})


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_option_and_ctrl_c_leave_the_finished_net_in_use(
    run, places, nets, stop, capsys, change
):
    changed = [
        word for name, value in ({"epochs": 2} | change).items() for word in (f"--{name}", value)
    ]
    run("--epochs", 2)
    predict.main([*places, "--views", "1"])
    before = digest_files(nets)
    del before["progress.html"]  # it follows the training that runs
    stop(2)
    with pytest.raises(KeyboardInterrupt):
        run(*changed)
    told = capsys.readouterr().out
    name = next(iter(change)).replace("-", "_")
    assert f"{name} changed from" in told
    assert "the net of 2 epochs stays in use until then" in told
    after = digest_files(nets)
    assert {name: after[name] for name in before} == before
    predict.main([*places, "--views", "1"])
    assert capsys.readouterr().out == "dr.predict: cached\n"
    assert run("--epochs", 2) == "dr.train: cached\n"
    stop(None)
    assert "goes on after epoch 1" in run(*changed)
    (former,) = list_folders(nets / "former")
    kept = {
        f"epochs/{name}": content
        for name, content in digest_files(nets / "former" / former).items()
    }
    assert kept == {name: content for name, content in before.items() if name.startswith("epochs/")}
    assert not (nets / "pending").exists()
    assert "cached" in run(*changed)


def test_a_changed_run_has_the_bytes_of_one_in_an_empty_cache_and_the_former_comes_back_at_once(
    run, nets
):
    run("--epochs", 2)
    first = digest_files(nets / "epochs")
    run("--epochs", 2, "--seed", 1)
    second = digest_files(nets / "epochs")
    run("--epochs", 2, "--seed", 1, "--run", "alone")
    assert second == digest_files(nets / "runs" / "alone" / "epochs")
    told = run("--epochs", 2)
    assert "epoch 1:" not in told
    assert "in use from now on" in told
    assert digest_files(nets / "epochs") == first
    (former,) = list_folders(nets / "former")
    assert digest_files(nets / "former" / former) == second


def test_one_more_labelled_photograph_is_another_run(run, nets, places, tmp_path):
    run("--epochs", 1)
    first = digest_files(nets / "epochs")
    data = tmp_path / "squares"
    (data / "train" / "99_left.png").write_bytes((data / "train" / "1_left.png").read_bytes())
    with open(data / "trainLabels.csv", "a") as labels:
        labels.write("99_left,1\n")
    prepare(data, tmp_path / "cache")
    assert "labels changed" in run("--epochs", 1)
    (former,) = list_folders(nets / "former")
    assert digest_files(nets / "former" / former) == first


def test_overwriting_removes_the_net_that_is_replaced_when_the_new_one_has_ended(run, nets, stop):
    run("--epochs", 2)
    first = digest_files(nets / "epochs")
    stop(2)
    with pytest.raises(KeyboardInterrupt):
        run("--epochs", 2, "--seed", 1, "--overwrite")
    assert digest_files(nets / "epochs") == first
    stop(None)
    run("--epochs", 2, "--seed", 1, "--overwrite")
    assert digest_files(nets / "epochs") != first
    assert list_folders(nets) == ["epochs"]


def test_more_epochs_take_the_done_ones_and_leave_the_shorter_run_whole(run, nets):
    run("--epochs", 2, "--drop-epochs", 9)
    first = digest_files(nets / "epochs")
    assert "epochs changed from 2 to 3; goes on after epoch 2" in run(
        "--epochs", 3, "--drop-epochs", 9, "--keep", 2
    )
    (former,) = list_folders(nets / "former")
    assert digest_files(nets / "former" / former) == first
    assert (nets / "epochs" / "0002.pt").samefile(nets / "former" / former / "0002.pt")
    assert run("--epochs", 3, "--drop-epochs", 9) == "dr.train: cached\n"


def test_what_a_stopped_run_has_done_serves_a_longer_one(run, nets, stop):
    stop(3)
    with pytest.raises(KeyboardInterrupt):
        run("--epochs", 3, "--drop-epochs", 9)
    stop(None)
    assert "goes on after epoch 2" in run("--epochs", 4, "--drop-epochs", 9)
    assert "goes on after epoch 2" in run("--epochs", 3, "--drop-epochs", 9)


@pytest.mark.parametrize("n_renames", [0, 1])
def test_a_kill_between_training_and_its_place_is_made_up_for(run, nets, monkeypatch, n_renames):
    run("--epochs", 1)
    first, rename, left = digest_files(nets / "epochs"), Path.rename, n_renames

    def rename_or_die(path, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename_or_die)
        run("--epochs", 1, "--seed", 1)
    assert "epoch 1:" not in run("--epochs", 1, "--seed", 1)
    assert run("--epochs", 1, "--seed", 1) == "dr.train: cached\n"
    (former,) = list_folders(nets / "former")
    assert digest_files(nets / "former" / former) == first
    assert not (nets / "pending").exists()


def test_a_real_kill_in_a_changed_run_leaves_the_net_and_ends_in_the_same_bytes(run, nets, places):
    run("--epochs", 1)
    first = digest_files(nets / "epochs")
    command = [
        sys.executable,
        "-m",
        "dr.train",
        *places,
        *TRAIN_OPTIONS,
        "--epochs",
        "3",
        "--seed",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list((nets / "pending").glob("*/0001.json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert digest_files(nets / "epochs") == first
    run("--epochs", 3, "--seed", 1)
    run("--epochs", 3, "--seed", 1, "--run", "alone")
    assert digest_files(nets / "epochs") == digest_files(nets / "runs" / "alone" / "epochs")


def test_the_time_that_a_change_costs_is_told_at_the_pace_of_the_old_net(run, nets):
    run("--epochs", 3)
    for number in (1, 2, 3):
        os.utime(nets / "epochs" / f"000{number}.json", (600 * number, 600 * number))
    assert "about 30 min at the old net" in run("--epochs", 3, "--seed", 1)


ALONE = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR"),
        ({"RANK": ""}, "RANK"),
        ({"RANK": "2"}, "RANK is 2"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({}, "2 processes .* within 1 s"),
        ({"RANK": "1"}, "2 processes .* within 1 s"),
    ],
    ids=str,
)
def test_a_process_without_the_others_is_one_line(run, monkeypatch, changes, told):
    monkeypatch.setattr(workers, "JOIN_S", 1)
    for name, value in (ALONE | changes).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=told) as refused:
        run("--epochs", 1)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A folder with squares and a cache with the ordinary net, of fold 0, and nets of the folds 1 to 3, all scored."""
    folder = tmp_path_factory.mktemp("folds")
    places = draw_squares(folder / "squares", folder / "cache")
    for fold in range(4):
        run = ["--run", f"fold-{fold}" if fold else "default"]
        train.main([*places, *TRAIN_OPTIONS, *run, "--epochs", "1", "--fold", str(fold)])
        predict.main([*places, *run, "--views", "1"])
    return folder


NAMES = ["default", "fold-1", "fold-2", "fold-3"]


@pytest.fixture
def at(folds, tmp_path):
    """The options that name a copy of it."""
    shutil.copytree(folds, tmp_path / "copy")
    return [f"--data={tmp_path}/copy/squares", f"--cache={tmp_path}/copy/cache"]


def read(folder, table):
    return read_scores(folder / f"{table}.csv", TASK)


def test_the_mean_of_folds_has_every_training_image_by_the_net_that_did_not_see_it(
    at, tmp_path, capsys
):
    nets = tmp_path / "copy" / "cache" / "dr"
    before = digest_files(nets)
    predict.main([*at, "--run", "mean", "--average", *NAMES])
    folds_differ = "the folds differ: default held out fold 0 of 4, fold-1 held out fold 1 of 4"
    assert folds_differ in capsys.readouterr().out
    after = digest_files(nets)
    assert {name: after[name] for name in before} == before
    parts = [nets, *(nets / "runs" / name for name in NAMES[1:])]
    for table in ("scores_valid", "single_valid"):
        whole = read(nets / "runs" / "mean", table)
        assert len(whole) == 24
        for part in parts:
            own = read(part, table)
            np.testing.assert_array_equal(whole.loc[own.index], own)
    mean = np.mean([read(part, "scores_test") for part in parts], axis=0)
    np.testing.assert_allclose(read(nets / "runs" / "mean", "scores_test"), mean, atol=1e-8)
    members = runs.read_averaged(nets / "runs" / "mean")
    assert [member.checkpoint.settings.fold for member in members] == [0, 1, 2, 3]
    predict.main([*at, "--views", "1"])
    with pytest.raises(InputError, match="mean: holds the mean of several nets"):
        train.main([*at, *TRAIN_OPTIONS, "--run", "mean", "--epochs", "1"])
    with pytest.raises(
        InputError, match="mean: holds the mean of default, fold-1, fold-2, fold-3; name one"
    ):
        predict.main([*at, "--run", "mean"])
    assert digest_files(nets) == after


def test_a_mean_of_means_in_other_caches_and_of_other_squares_is_that_of_their_nets(
    at, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    predict.main([*at, "--run", "mean", "--average", "fold-1", "fold-2"])
    small = [at[0], "--cache=copy/small"]
    preprocess.main([*small, *"--crop whole --size-px 48 --normalize none --jobs 1".split()])
    train.main([*small, *TRAIN_OPTIONS, "--epochs", "1", "--crop-px", "40"])
    predict.main([*small, "--views", "1"])
    predict.main(
        [*small, "--run", "both", "--average", "default", "copy/cache/dr/runs/mean", "copy/cache"]
    )
    shutil.move("copy", "moved")  # the ways between them stay
    small, cache = (tmp_path / "moved" / name for name in ("small", "cache"))
    members = runs.read_averaged(small / "dr" / "runs" / "both")
    assert [member.share for member in members] == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3])
    assert [member.checkpoint.making.size_px for member in members] == [
        48,
        SIZE_PX,
        SIZE_PX,
        SIZE_PX,
    ]
    parts = small / "dr", cache / "dr" / "runs" / "mean", cache / "dr"
    mean = np.mean([read(part, "scores_test") for part in parts], axis=0)
    np.testing.assert_allclose(read(small / "dr" / "runs" / "both", "scores_test"), mean, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--average", "fold-1", "fold-2"], "holds a net of its own.*--run"),
        (["--run", "fold-1", "--average", "fold-1", "fold-2"], "holds a net of its own.*--run"),
        (["--run", "mean", "--average", "mean", "fold-1"], "would be part of its own mean"),
        (["--run", "mean", "--average", "fold-1", "fold-1"], "fold-1 comes twice"),
        (["--run", "mean", "--average", "fold-1", "fold-9"], "fold-9.*no such file"),
        (
            ["--run", "mean", "--average", "fold-1", "copy/cache/dr/runs/fold-1"],
            "fold-1 comes twice",
        ),
        (["--run", "mean", "--average", "default", "copy/cache/"], "default comes twice"),
        (
            ["--run", "mean", "--average", "fold-1", "copy/squares/"],
            "squares/scores_valid.csv: no such file",
        ),
        (
            ["--run", "mean", "--average", "fold-2", "halves"],
            "the folds differ: fold-2 held out fold 2 of 4, halves held out fold 0 of 2: .*images of .* are not in",
        ),
    ],
    ids=str,
)
def test_a_mean_replaces_no_net_and_needs_the_same_or_other_patients(
    at, tmp_path, monkeypatch, options, told
):
    monkeypatch.chdir(tmp_path)
    nets = tmp_path / "copy" / "cache" / "dr"
    if "halves" in options:
        half = ["--run", "halves", "--folds", "2"]
        train.main([*at, *TRAIN_OPTIONS, *half, "--epochs", "1"])
        predict.main([*at, "--run", "halves", "--views", "1"])
    before = digest_files(nets)
    with pytest.raises(InputError, match=told):
        predict.main([*at, *options])
    assert digest_files(nets) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--folds x", "--folds x: "),
        ("--folds 1", "--folds 1: "),
        ("--folds 2 dr.train --fold 1", "sets --run, --folds and --fold"),
    ],
)
def test_the_run_script_refuses_folds_that_make_no_sense(options, told):
    refused = subprocess.run(
        [ROOT / "run_all.sh", *options.split()], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert told in refused.stderr


def test_folds_go_through_the_later_stages_in_a_cache_of_their_own(
    finished_cache, drawn_folder, tmp_path, capsys
):
    """run_all.sh --folds, where a plain run has been: its net, scores and blend stay."""
    cache = shutil.copytree(finished_cache, tmp_path / "cache")
    before = digest_files(cache)
    small = "--folds 2 --size-px 48 --epochs 1 --views 1 --jobs 1 --device cpu dr.train --batch-size 2".split()
    written = [
        "submissions.write",
        "--out",
        tmp_path / "o.csv",
        "submissions.report",
        "--out",
        tmp_path / "o.html",
    ]
    run_stages(
        tmp_path,
        "--data",
        drawn_folder,
        "--cache",
        cache,
        *small,
        "blend.train",
        "--method=linear",
        *written,
    )
    after = digest_files(cache)
    assert [name for name in before if name != "times.csv" and after[name] != before[name]] == []
    assert "8 images, mean of fold-0, fold-1" in capsys.readouterr().out
    assert len(read(cache / "folds-2" / "blend", "scores_valid")) == 8


def test_the_mean_of_runs_goes_to_a_submission_in_a_cache_of_its_own_and_is_graded_from_there(
    finished_cache, drawn_folder, pair, tmp_path, capsys
):
    """run_all.sh --average: of the ordinary net and of the same one, scored by another number of views."""
    cache = shutil.copytree(finished_cache, tmp_path / "cache")
    shutil.copytree(cache / "dr" / "epochs", cache / "dr" / "runs" / "one" / "epochs")
    predict.main(
        [f"--data={drawn_folder}", f"--cache={cache}", *"--run one --views 1 --device cpu".split()]
    )
    before = digest_files(cache)
    small = "--average default --average one --size-px 48 --jobs 1 --device cpu blend.train --method=linear".split()
    written = [
        "submissions.write",
        "--out",
        tmp_path / "o.csv",
        "submissions.report",
        "--out",
        tmp_path / "o.html",
    ]
    run_stages(tmp_path, "--data", drawn_folder, "--cache", cache, *small, *written)
    after = digest_files(cache)
    assert [name for name in before if name != "times.csv" and after[name] != before[name]] == []
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + 4
    own = cache / "average-default+one"
    assert [member.n_views for member in runs.read_averaged(own / "dr")] == [2, 2, 1, 1]
    capsys.readouterr()
    grade.main([*map(str, pair), f"--cache={own}", "--device=cpu", "--json"])
    graded = json.loads(capsys.readouterr().out)
    assert graded["blend"]
    expected = read(own / "dr", "scores_test").loc[["18_left", "18_right"]]
    np.testing.assert_allclose([eye["scores"] for eye in graded["eyes"]], expected, atol=1e-5)
