"""Prediction: whose scores there are, what they are averaged from, and what it refuses."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from dr import checkpoint, contrast, dataset, draws, inputs, predict, train
from dr.scores import read_scores
from preprocess import stage
from preprocess.stage import InputError
from tests.ready_made import TRAIN_OPTIONS, digest_files, draw_squares

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with tiny squares and a cache in which a net has been trained on them; to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    draw_squares(folder / "squares")
    train.main([f"--data={folder}/squares", f"--cache={folder}/cache", *TRAIN_OPTIONS, "--epochs", "3"])
    return folder


@pytest.fixture
def places(trained, tmp_path):
    """The options that name a copy of the folder that a test may change."""
    folder = shutil.copytree(trained, tmp_path / "copy")
    for split in ("train", "test"):  # the copies' dates are not the photographs' own
        for path in (folder / "squares" / split).iterdir():
            shutil.copystat(trained / "squares" / split / path.name, path)
    return [f"--data={folder}/squares", f"--cache={folder}/cache"]


@pytest.fixture
def folder(places):
    """Where the scores are written."""
    return Path(places[1].removeprefix("--cache=")) / "dr"


# --- whose scores -----------------------------------------------------------------------------------------------------


def test_every_held_out_and_every_test_eye_has_scores(places, folder):
    predict.main([*places, "--views", "2"])
    test = read_scores(folder / "scores_test.csv")
    assert list(test.index) == [f"{patient}_{side}" for patient in range(3) for side in ("left", "right")]
    assert list(read_scores(folder / "single_test.csv").index) == list(test.index)
    valid = read_scores(folder / "scores_valid.csv")
    assert len(valid) == 6
    training_set = inputs.read_training_set(folder.parents[1] / "squares", folder.parent, is_ready_made=True)
    held_out = np.array(list(training_set.paths))[inputs.find_fold(training_set, 4) == 0]
    assert sorted(valid.index) == sorted(held_out)


def test_second_run_is_cached(places, folder, capsys):
    predict.main([*places, "--views", "2"])
    before = digest_files(folder)
    capsys.readouterr()
    predict.main([*places, "--views", "2"])
    assert capsys.readouterr().out == "dr.predict: cached\n"
    assert digest_files(folder) == before


def test_prediction_looks_at_local_contrast_if_training_did(places, folder):
    """Against the net run on the middle of one square."""
    train.main([*places, *TRAIN_OPTIONS, "--local-contrast", "--run", "local", "--epochs", "1"])
    predict.main([*places, "--run", "local", "--views", "1"])
    content = checkpoint.read(folder / "runs" / "local" / "epochs" / "0001.pt")
    square = cv2.imread(str(folder.parents[1] / "squares" / "test" / "1_left.png"))[:, :, ::-1]
    local = contrast.subtract_local_mean(square)[2:34, 2:34]
    values = (local - np.array(content["mean"])) / np.array(content["std"])
    with torch.inference_mode():
        images = torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))
        expected = checkpoint.make_net(content).eval()(images).softmax(1)[0]
    scores = read_scores(folder / "runs" / "local" / "single_test.csv").loc["1_left"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_paired_scores_do_not_depend_on_the_batch(places, folder, batch_size):
    """Both eyes of a patient meet in whatever batch: a fellow's picture changed changes the eye's own scores."""
    options = [*TRAIN_OPTIONS, "--pairs", "--run", "both", "--epochs", "1", "--learning-rate", "0.03"]
    train.main([*places, *options])
    both = folder / "runs" / "both"
    predict.main([*places, "--run", "both", "--views", "1", "--batch-size", "4"])
    expected = read_scores(both / "scores_test.csv")
    shutil.rmtree(both / "views")
    (both / "manifest.json").unlink()
    predict.main([*places, "--run", "both", "--views", "1", "--batch-size", str(batch_size)])
    before = read_scores(both / "scores_test.csv")
    np.testing.assert_allclose(before, expected, rtol=0, atol=1e-5)
    shutil.copy(folder.parents[1] / "squares/test/2_left.png", folder.parents[1] / "squares/test/0_right.png")
    predict.main([*places, "--run", "both", "--views", "1", "--batch-size", str(batch_size)])
    changed = (read_scores(both / "scores_test.csv") != before).any(axis=1)
    assert list(changed.index[changed]) == ["0_left", "0_right"]  # the correction is small as yet, but it is there


def test_no_test_set_is_no_fault(places, folder):
    shutil.rmtree(folder.parents[1] / "squares" / "test")
    predict.main([*places, "--views", "1"])
    assert (folder / "scores_valid.csv").exists()
    assert not (folder / "scores_test.csv").exists()


def test_no_labels_leave_the_test_set(places, folder):
    (folder.parents[1] / "squares" / "trainLabels.csv").unlink()
    predict.main([*places, "--views", "1"])
    assert (folder / "scores_test.csv").exists()
    assert not (folder / "scores_valid.csv").exists()


def test_rejected_eye_gets_its_fellows_scores_else_the_prior():
    scores = np.array([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0]])
    prior = np.array([0.7, 0.1, 0.1, 0.05, 0.05])
    wanted = ["1_left", "1_right", "2_left", "2_right", "3_left", "3_right"]
    filled = predict.fill_rejected(["1_left", "3_left", "3_right"], scores, wanted, prior)
    np.testing.assert_array_equal(filled, [scores[0], scores[0], prior, prior, scores[1], scores[2]])


def test_rejected_test_eye_needs_permission(data, cache):
    """From photographs on: one test photograph is broken."""
    from preprocess import __main__ as preprocess

    broken = sorted(path.stem for path in (data / "test").iterdir())[0]
    next((data / "test").glob(f"{broken}.*")).write_bytes(b"no photograph")
    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main([*places, "--size-px", "37", "--jobs", "1", "--allow-rejected"])
    train.main([*places, *"--epochs 1 --batch-size 2 --folds 2 --device cpu --precision float32".split()])
    with pytest.raises(InputError, match=f"{broken}.*--allow-rejected"):
        predict.main([*places, "--views", "1"])
    predict.main([*places, "--views", "1", "--allow-rejected"])
    scores = read_scores(cache / "dr" / "scores_test.csv")
    assert len(scores) == 4
    patient = broken.split("_")[0]
    assert scores.loc[f"{patient}_left"].tolist() == scores.loc[f"{patient}_right"].tolist()


# --- what they are averaged from --------------------------------------------------------------------------------------


def test_scores_are_the_mean_over_views_and_epochs(places, folder):
    """Against every net and view run one image at a time."""
    predict.main([*places, "--views", "3", "--epochs-averaged", "2,3"])
    paths = {path.stem: path for path in sorted((folder.parents[1] / "squares" / "test").iterdir())}
    pixels = dataset.load_pixels(paths, torch.device("cpu"), "memory", folder / "unused.npy", "")
    expected, single = [], None
    for epoch in (2, 3):
        content = checkpoint.read(folder / "epochs" / f"{epoch:04}.pt")
        net = checkpoint.make_net(content).eval()
        tables = inputs.read_luts(folder, "test", list(paths), is_ready_made=True)
        photographs = dataset.make_photographs(
            list(paths), pixels, tables, np.array(content["mean"]), np.array(content["std"])
        )
        for view in range(3):
            crops = dataset.draw_crops(6, 5, 0, view, draws.VIEWS) if view else dataset.center_crops(6, 5)
            with torch.inference_mode():
                batches = [dataset.cut_batch(photographs, np.array([row]), crops, 32) for row in range(6)]
                expected.append(torch.cat([net(batch).softmax(1) for batch in batches]).numpy())
            single = expected[-1] if view == 0 else single
    np.testing.assert_allclose(read_scores(folder / "scores_test.csv"), np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(read_scores(folder / "single_test.csv"), single, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batch_size_does_not_change_scores(places, folder, batch_size):
    predict.main([*places, "--views", "2"])
    expected = read_scores(folder / "scores_test.csv")
    shutil.rmtree(folder / "views")
    (folder / "manifest.json").unlink()
    predict.main([*places, "--views", "2", "--batch-size", str(batch_size)])
    np.testing.assert_allclose(read_scores(folder / "scores_test.csv"), expected, rtol=0, atol=1e-5)


def test_more_epochs_score_only_the_new_ones(places, folder, capsys):
    predict.main([*places, "--views", "1", "--epochs-averaged", "3"])
    capsys.readouterr()
    predict.main([*places, "--views", "1", "--epochs-averaged", "last:2"])
    printed = capsys.readouterr().out
    assert "test: epoch 2" in printed
    assert "epoch 3" not in printed


@pytest.mark.parametrize(("text", "epochs"), [("last:2", [2, 3]), ("last:5", [1, 2, 3]), ("3", [3]), ("3,1", [1, 3])])
def test_epochs_are_chosen(trained, text, epochs):
    assert predict.choose_epochs(text, predict.read_trained(trained / "cache" / "dr" / "epochs")) == epochs


def test_epoch_that_is_not_kept_is_refused(trained):
    finished = predict.read_trained(trained / "cache" / "dr" / "epochs")
    with pytest.raises(InputError, match="epoch 7 is not kept"):
        predict.choose_epochs("7", finished)
    pruned = finished._replace(checkpoints={epoch: "" for epoch in (2, 3)})
    with pytest.raises(InputError, match="only epochs 2 to 3"):
        predict.choose_epochs("last:3", pruned)


def test_killed_prediction_ends_in_the_same_bytes(places, folder):
    command = [sys.executable, "-m", "dr.predict", *places, "--views", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name in ("valid_0002.npz", "test_0001.npz"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        while not (folder / "views" / name).exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    predict.main([*places, "--views", "4"])
    resumed = digest_files(folder)
    shutil.rmtree(folder / "views")
    (folder / "manifest.json").unlink()
    predict.main([*places, "--views", "4"])
    assert digest_files(folder) == resumed


def test_runs_are_averaged(places, folder):
    predict.main([*places, "--views", "1"])
    for name in ("one", "other"):
        shutil.copytree(folder / "epochs", folder / "runs" / name / "epochs")
    predict.main([*places, "--views", "1", "--run", "one", "--epochs-averaged", "1"])
    predict.main([*places, "--views", "1", "--run", "other", "--epochs-averaged", "3"])
    predict.main([*places, "--average", "one", "other", "--run", "both"])
    for table in ("scores_valid.csv", "scores_test.csv", "single_test.csv"):
        one, other, both = (read_scores(folder / "runs" / name / table) for name in ("one", "other", "both"))
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-8)


def test_runs_of_other_eyes_are_not_averaged(places, folder):
    predict.main([*places, "--views", "1"])
    for name in ("one", "other"):
        (folder / "runs" / name).mkdir(parents=True)
        for table in folder.glob("*.csv"):
            shutil.copy(table, folder / "runs" / name)
    table = folder / "runs" / "other" / "scores_test.csv"
    pd.read_csv(table).iloc[1:].to_csv(table, index=False)
    with pytest.raises(InputError, match="0_left"):
        predict.main([*places, "--average", "one", "other"])


# --- refusals ---------------------------------------------------------------------------------------------------------


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("kind", ["foreign", "truncated", "pickled", "bomb", "empty"])
def test_what_is_no_checkpoint_is_refused_in_one_line(trained, tmp_path, kind):
    path, target = tmp_path / "0001.pt", tmp_path / "exploded"
    whole = (trained / "cache" / "dr" / "epochs" / "0001.pt").read_bytes()
    if kind == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "bomb":
        torch.save(Bomb(str(target)), path)
    else:
        path.write_bytes({"truncated": whole[:-5000], "pickled": pickle.dumps({"epoch": 1}), "empty": b""}[kind])
    with pytest.raises(InputError, match="0001.pt") as refusal:
        checkpoint.read(path)
    assert "\n" not in str(refusal.value)
    assert not target.exists()


def test_checkpoint_of_another_net_is_refused(trained):
    content = checkpoint.read(trained / "cache" / "dr" / "epochs" / "0001.pt")
    content["net"].pop("head.0.weight")
    with pytest.raises(InputError, match="net"):
        checkpoint.make_net(content)


def test_damaged_checkpoint_is_noticed_by_its_digest(places, folder):
    content = torch.load(folder / "epochs" / "0003.pt", weights_only=True)
    content["net"]["head.3.bias"] += 1
    torch.save(content, folder / "epochs" / "0003.pt")
    with pytest.raises(InputError, match="0003.pt"):
        predict.main([*places, "--views", "1"])


def test_no_training_is_refused(places, cache):
    with pytest.raises(InputError, match="python -m dr.train"):
        predict.main([places[0], f"--cache={cache}"])


def test_other_photographs_than_those_trained_on_are_refused(places, folder):
    labels = folder.parents[1] / "squares" / "trainLabels.csv"
    labels.write_text(labels.read_text().replace("3_left,3", "3_left,4"))
    with pytest.raises(InputError, match="labels changed.*dr.train again"):
        predict.main([*places, "--views", "1"])


def test_test_photograph_that_was_not_preprocessed_is_named(data, cache):
    from preprocess import __main__ as preprocess

    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main([*places, "--size-px", "37", "--jobs", "1", "--allow-rejected"])
    train.main([*places, *"--epochs 1 --batch-size 2 --folds 2 --device cpu --precision float32".split()])
    shutil.copy(next((data / "test").iterdir()), data / "test" / "999_left.jpeg")
    with pytest.raises(InputError, match="999_left"):
        predict.main([*places, "--views", "1", "--allow-rejected"])
    assert stage.read_manifest(cache / "dr") is None
