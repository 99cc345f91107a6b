"""Prediction: whose scores there are, what they are averaged from, and what it refuses."""

import os
import re
import shutil
import signal
import subprocess
import sys
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from dr import predict, train
from dr.scores import read_scores
from dr.squares import crops, source, store
from dr.training import checkpoint, runs, views
from dr.training.learner import load_net
from preprocess import __main__ as preprocess
from preprocess import normalize
from preprocess.cache import manifest
from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from preprocess.picture.square import keep_values, subtract_local_mean
from tests.tasks import TASK, read_training_set
from tests.tiny import ROOT, TRAIN_OPTIONS, digest_files, draw_squares, prepare


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with tiny squares and a cache in which a net has been trained on them; to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    train.main(
        [*draw_squares(folder / "squares", folder / "cache"), *TRAIN_OPTIONS, "--epochs", "3"]
    )
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the folder that a test may change."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def places(copied):
    return [f"--data={copied}/squares", f"--cache={copied}/cache"]


@pytest.fixture
def folder(copied):
    return copied / "cache" / "dr"


def read(path):
    return read_scores(path, TASK)


def test_every_held_out_and_every_test_eye_has_scores_and_a_second_run_is_cached(
    places, copied, folder, capsys
):
    predict.main([*places, "--views", "2"])
    test = read(folder / "scores_test.csv")
    assert list(test.index) == [
        f"{patient}_{side}" for patient in range(3) for side in ("left", "right")
    ]
    assert list(read(folder / "single_test.csv").index) == list(test.index)
    training_set = read_training_set(copied / "squares", copied / "cache")
    held_out = np.array(training_set.squares.images)[training_set.find_held_out(4, 0)]
    assert len(held_out) == 6
    assert sorted(read(folder / "scores_valid.csv").index) == sorted(held_out)
    before = digest_files(folder)
    predict.main([*places, "--views", "2"])
    assert capsys.readouterr().out.endswith("\ndr.predict: cached\n")
    assert digest_files(folder) == before


def test_one_changed_photograph_is_scored_alone_and_the_tables_are_those_of_scoring_all(
    places, copied, folder, capsys
):
    options = ["--views", "2", "--batch-size", "4", "--epochs-averaged", "3"]
    predict.main([*places, *options])
    shutil.copy(copied / "squares/test/2_left.png", copied / "squares/test/1_left.png")
    capsys.readouterr()
    prepare(copied / "squares", copied / "cache")
    assert "those of train are kept, 6 images of test" in capsys.readouterr().out
    predict.main([*places, *options])
    assert "test: epoch 3, 2 views of 1 images" in capsys.readouterr().out
    partly = digest_files(folder)
    shutil.rmtree(folder / "views")
    (folder / "manifest.json").unlink()
    predict.main([*places, *options])
    assert "test: epoch 3, 2 views of 6 images" in capsys.readouterr().out
    assert digest_files(folder) == partly


KILLED = """
import os, signal, sys
from dr import predict
from preprocess.cache.journal import Journal
append = Journal.append
def append_and_die(journal, *record):
    append(journal, *record)
    if len(journal.records) == 3 and journal.path.name.startswith("test"):
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = append_and_die
predict.main(sys.argv[1:])
"""


def test_a_scoring_killed_half_way_and_ended_by_two_processes_gives_the_bytes_of_one(
    places, copied, folder
):
    options = ["--views=2", "--batch-size=2", "--epochs-averaged=3", "--device=cpu"]
    predict.main([*places, *options])
    whole = digest_files(folder)
    shutil.rmtree(folder / "views")
    for name in ("manifest.json", "scores_test.csv", "scores_valid.csv"):
        (folder / name).unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *places, *options], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=2 -m -- dr.predict".split()
    command = [sys.executable, *launcher, *places, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "dr.predict: test: epoch 3, 2 views of 3 images\n"
    assert digest_files(folder) == whole


def test_net_of_local_contrast_is_given_local_contrast(places, copied, folder, capsys):
    """Training's channels, and prediction, against squares made by hand."""
    prepare(copied / "squares", copied / "cache", "local")
    train.main([*places, *TRAIN_OPTIONS, "--epochs", "3", "--storage", "file"])
    assert "held-out squares changed, learned squares changed" in capsys.readouterr().out
    predict.main([*places, "--views", "1"])

    def make_local(split):
        images, luts = normalize.read_luts(copied / "cache", split)
        pictures = [
            cv2.imread(str(copied / "squares" / split / f"{image}.png"))[:, :, ::-1]
            for image in images
        ]
        flat = [lut[range(3), pixels] for lut, pixels in zip(luts, pictures, strict=True)]
        return {
            image: subtract_local_mean(square) for image, square in zip(images, flat, strict=True)
        }

    training_set, made = (
        read_training_set(copied / "squares", copied / "cache"),
        make_local("train"),
    )
    learned = [
        made[training_set.squares.images[row]]
        for row in np.flatnonzero(~training_set.find_held_out(4, 0))
    ]
    of = checkpoint.read(folder / "epochs" / "0003.pt")
    np.testing.assert_allclose(
        [of.mean, of.std], [np.mean(learned, axis=(0, 1, 2)), np.std(learned, axis=(0, 1, 2))]
    )
    values = (make_local("test")["1_left"][2:34, 2:34] - np.array(of.mean)) / np.array(of.std)
    with torch.inference_mode():
        expected = (
            load_net(of)
            .eval()(torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32)))
            .softmax(1)
        )
    np.testing.assert_allclose(
        read(folder / "single_test.csv").loc[["1_left"]], expected, rtol=0, atol=1e-5
    )


def test_paired_scores_do_not_depend_on_the_batch(places, copied, folder):
    """Both eyes of a patient meet in whatever batch: a fellow's picture changed changes the eye's own scores."""
    run, both = ["--run", "both"], folder / "runs" / "both"
    train.main(
        [*places, *TRAIN_OPTIONS, *run, "--pairs", "--epochs", "1", "--learning-rate", "0.03"]
    )

    def predict_anew(size):  # nothing cached
        shutil.rmtree(both / "views", ignore_errors=True)
        (both / "manifest.json").unlink(missing_ok=True)
        predict.main([*places, *run, "--views=1", f"--batch-size={size}"])
        return read(both / "scores_test.csv")

    before = {size: predict_anew(size) for size in (2, 3, 4, 64)}
    shutil.copy(copied / "squares/test/2_left.png", copied / "squares/test/0_right.png")
    prepare(copied / "squares", copied / "cache")
    for size, scores in before.items():
        np.testing.assert_allclose(scores, before[4], rtol=0, atol=1e-5)
        changed = (predict_anew(size) != scores).any(axis=1)
        assert list(changed.index[changed]) == [
            "0_left",
            "0_right",
        ]  # the correction is small as yet, but it is there


def test_eyes_meet_though_another_patients_name_lies_between_theirs(trained):
    """a_left, a_b_left, a_right: in their order."""
    of = runs.read_checkpoint(runs.read_trained(trained / "cache" / "dr"), 3)
    net, n = views.put_net(of, torch.device("cpu")), 5
    pixels = np.random.default_rng(0).integers(0, 256, (n, 37, 37, 3), dtype=np.uint8)
    tables, seen = store.compose_tables(keep_values(n), of.mean, of.std), []
    net.register_forward_pre_hook(
        lambda _net, _images, given: seen.append(given["eyes"].tolist()), with_kwargs=True
    )
    orders = (store.Squares(np.array(eyes), pixels, tables) for eyes in ([0, 2, 4, 1, 3], range(n)))
    torn, whole = (views.score_views(net, of, squares, 1, 2, mock.Mock())[0] for squares in orders)
    assert [sorted(batch) for batch in seen[:3]] == [[0, 1], [2, 3], [4]]
    np.testing.assert_allclose(torn, whole, rtol=0, atol=1e-6)


def test_rejected_eyes_are_not_learned_from_and_need_permission_and_one_not_preprocessed_is_named(
    data, cache, capsys
):
    """From photographs on: one of each split is broken, one of the test set new."""
    for split in ("train", "test"):
        broken = min((data / split).iterdir())
        broken.write_bytes(b"no photograph")
    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main([*places, "--size-px", "37", "--jobs", "1", "--allow-rejected"])
    train.main(
        [*places, *"--epochs 1 --batch-size 2 --folds 2 --device cpu --precision float32".split()]
    )
    assert int(re.search(r"dr.train: (\d+) images", capsys.readouterr().out)[1]) <= 6
    assert checkpoint.read(cache / "dr" / "epochs" / "0001.pt").mean[0] == pytest.approx(127, abs=3)
    with pytest.raises(InputError, match=f"{broken.stem}.*--allow-rejected"):
        predict.main([*places, "--views", "1"])
    shutil.copy(max((data / "test").iterdir()), data / "test" / "999_left.jpeg")
    with pytest.raises(InputError, match="999_left"):
        predict.main([*places, "--views", "1", "--allow-rejected"])
    assert manifest.read_manifest(cache / "dr") is None
    (data / "test" / "999_left.jpeg").unlink()
    predict.main([*places, "--views", "1", "--allow-rejected"])
    scores = read(cache / "dr" / "scores_test.csv")
    prior = checkpoint.read(cache / "dr" / "epochs" / "0001.pt").prior
    both = ["1_left", "1_right"]  # with a fellow rejected, too
    alone = predict.fill_rejected([], np.empty((0, 5)), both, ["1", "1"], np.array(prior))
    assert len(scores) == 4 and np.array_equal(alone, [prior] * 2)
    patient = broken.stem.split("_")[0]
    assert scores.loc[f"{patient}_left"].tolist() == scores.loc[f"{patient}_right"].tolist()


def test_scores_are_the_mean_over_views_and_epochs(places, copied, folder, capsys):
    """Against every net and view run one image at a time; every view shows all images at the same place.

    Epochs that have been scored are not scored again.
    """
    predict.main([*places, "--views", "3", "--epochs-averaged", "3"])
    assert "test: epoch 3" in capsys.readouterr().out
    predict.main([*places, "--views", "3", "--epochs-averaged", "2,3"])
    printed = capsys.readouterr().out
    assert "test: epoch 2" in printed
    assert "epoch 3" not in printed
    expected = []
    for epoch in (2, 3):
        of = checkpoint.read(folder / "epochs" / f"{epoch:04}.pt")
        net = load_net(of).eval()
        cached = source.read_squares(copied / "cache", "test", kaggle.read_dataset(copied / "data"))
        squares = store.load(
            cached, of.mean, of.std, torch.device("cpu"), "memory", folder / "unused.npy"
        )
        for view in range(3):
            cuts = views.cut_view(view, 6, 5, 0, "both")
            assert all((field == field[0]).all() for field in cuts)
            with torch.inference_mode():
                batches = [crops.cut_batch(squares, np.array([row]), cuts, 32) for row in range(6)]
                expected.append(torch.cat([net(batch).softmax(1) for batch in batches]).numpy())
    np.testing.assert_allclose(
        read(folder / "scores_test.csv"), np.mean(expected, axis=0), atol=1e-5
    )
    np.testing.assert_allclose(read(folder / "single_test.csv"), expected[3], atol=1e-5)


def test_the_best_epoch_is_chosen_by_either_figure_and_one_that_is_not_kept_is_refused(trained):
    finished = runs.read_trained(trained / "cache" / "dr")
    history = pd.read_csv(finished.folder / "history.csv", index_col="epoch")
    chosen = [predict.choose_epochs(text, finished, TASK) for text in ("best:log_loss", "best")]
    assert chosen == [[history["valid_log_loss"].idxmin()], [history["valid_qwk"].idxmax()]]
    pruned = finished._replace(checkpoints={epoch: "" for epoch in (2, 3)})
    for text, whose, message in (
        ("7", finished, "epoch 7 is not kept"),
        ("last:3", pruned, "epoch 1 is not kept"),
    ):
        with pytest.raises(InputError, match=message):
            predict.choose_epochs(text, whose, TASK)


def test_runs_are_averaged_if_they_are_of_the_same_eyes(places, folder):
    for name, epoch in (("one", "1"), ("other", "3")):
        shutil.copytree(folder / "epochs", folder / "runs" / name / "epochs")
        predict.main([*places, "--views", "1", "--run", name, "--epochs-averaged", epoch])
    predict.main([*places, "--average", "one", "other", "--run", "both"])
    for table in ("scores_valid.csv", "scores_test.csv", "single_test.csv"):
        one, other, both = (
            read(folder / "runs" / name / table) for name in ("one", "other", "both")
        )
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-8)
    table = folder / "runs" / "other" / "scores_test.csv"
    pd.read_csv(table).iloc[1:].to_csv(table, index=False)
    with pytest.raises(InputError, match="0_left"):
        predict.main([*places, "--average", "one", "other", "--run", "both"])


def test_changed_checkpoint_other_labels_than_those_trained_on_and_no_training_are_refused(
    places, copied, capsys
):
    newest = copied / "cache" / "dr" / "epochs" / "0003.pt"
    kept = checkpoint.read(newest)
    kept.net["head.outputs.bias"] += 1
    checkpoint.write(newest, kept)
    with pytest.raises(InputError, match="0003.pt"):
        predict.main([*places, "--views", "1"])
    labels = copied / "squares" / "trainLabels.csv"
    labels.write_text(labels.read_text().replace("3_left,3", "3_left,4"))
    with pytest.raises(InputError, match="labels changed.*dr.train again"):
        predict.main([*places, "--views", "1"])
    train.main([*places, *TRAIN_OPTIONS, "--epochs", "3"])
    assert "labels changed, learned squares changed; starts over" in capsys.readouterr().out
    shutil.rmtree(copied / "cache" / "dr")
    with pytest.raises(InputError, match="python -m dr.train"):
        predict.main(places)
