"""Validation photographs that change: the net is measured anew, and trained anew only if it learned by them."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dr import predict
from dr.scores import read_scores
from dr.training import checkpoint, distribution, epochs, passes, runs, schedule
from preprocess.cache import manifest
from preprocess.disk import files
from preprocess.disk.errors import InputError
from tests.tasks import read_training_set
from tests.tiny import TRAIN_OPTIONS, digest_files, prepare

MEASURED_ANEW = "the images held out changed, those learned from did not"


@pytest.fixture
def nets(cache):
    return cache / "dr"


def list_images(tmp_path):
    """Return the images held out, and those learned from."""
    training_set = read_training_set(tmp_path / "squares", tmp_path / "cache")
    is_held_out = training_set.find_held_out(4, 0)
    images = np.array(training_set.squares.images)
    return images[is_held_out].tolist(), images[~is_held_out].tolist()


def correct_crop(tmp_path, image):
    """Move the eye of an image as a person would, in corrections.csv, and preprocess again."""
    path = tmp_path / "cache" / "crop" / "corrections.csv"
    path.write_text(f"image,center_x,center_y,semi_axis_x,semi_axis_y\n{image},20,17,14,14\n")
    before = (tmp_path / "cache" / "resize" / "train" / f"{image}.png").read_bytes()
    prepare(tmp_path / "squares", tmp_path / "cache")
    assert (tmp_path / "cache" / "resize" / "train" / f"{image}.png").read_bytes() != before


@pytest.fixture
def forbid_training(monkeypatch):
    """From its call on let no epoch be trained."""

    def refuse(*_):
        raise AssertionError("an epoch is trained")

    return lambda: monkeypatch.setattr(passes, "train_epoch", refuse)


@pytest.fixture
def described(monkeypatch):
    """Have so few squares give a summary of their distribution, which depends on those held out."""
    monkeypatch.setattr(distribution, "LEAST_IMAGES", 6)


def test_a_corrected_validation_crop_is_measured_anew_to_the_bytes_of_training_anew(
    run, nets, places, tmp_path, described, monkeypatch
):
    run("--epochs", 3)
    predict.main([*places, "--views", "1"])
    before = digest_files(nets / "epochs")
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    with pytest.raises(InputError, match=r"held-out squares changed\); run python -m dr.train"):
        predict.main([*places, "--views", "1"])
    with monkeypatch.context() as patch:
        patch.setattr(passes, "train_epoch", None)  # whose call would raise
        told = run("--epochs", 3)
    assert "held-out squares changed" in told
    assert f"{MEASURED_ANEW}: 3 epochs are measured anew" in told
    assert run("--epochs", 3) == "dr.train: cached\n"
    run("--epochs", 3, "--run", "alone")
    after = digest_files(nets / "epochs")
    assert after == digest_files(nets / "runs" / "alone" / "epochs")
    assert after["0003.json"] != before["0003.json"]
    weights = [
        checkpoint.read(folder / "0003.pt").net
        for folder in (nets / "epochs", *(nets / "former").iterdir())
    ]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])

    scores = read_scores(nets / "scores_valid.csv", checkpoint.read(nets / "epochs/0003.pt").task)
    predict.main([*places, "--views", "1"])
    anew = read_scores(nets / "scores_valid.csv", checkpoint.read(nets / "epochs/0003.pt").task)
    is_other = (anew != scores).any(axis=1)
    assert is_other[is_other].index.tolist() == [held_out[0]]

    (tmp_path / "cache" / "crop" / "corrections.csv").unlink()  # the correction is taken back
    prepare(tmp_path / "squares", tmp_path / "cache")
    assert "in use from now on" in run("--epochs", 3)
    assert digest_files(nets / "epochs") == before


def test_a_corrected_training_crop_trains_the_net_anew(run, nets, tmp_path):
    run("--epochs", 1)
    _, learned = list_images(tmp_path)
    correct_crop(tmp_path, learned[0])
    told = run("--epochs", 1)
    assert "learned squares changed; starts over" in told
    assert "epoch 1:" in told


@pytest.mark.parametrize(
    "options", [("--patience", 5), ("--schedule", "plateau")], ids=lambda options: options[0]
)
def test_a_net_that_learned_by_its_validation_figures_is_trained_anew(run, tmp_path, options):
    run("--epochs", 2, *options)
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    told = run("--epochs", 2, *options)
    assert "held-out squares changed, and by their log loss --patience or the plateau" in told
    assert "starts over" in told and "epoch 2:" in told


def test_epochs_without_a_checkpoint_lose_their_validation_figures(
    run, nets, tmp_path, forbid_training
):
    run("--epochs", 4, "--keep", 1)
    forbid_training()
    kept = sorted(path.stem for path in (nets / "epochs").glob("*.pt"))
    assert len(kept) < 4
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    told = run("--epochs", 4, "--keep", 1)
    assert f"{4 - len(kept)} epochs, whose checkpoints are not kept (--keep), have no" in told
    history = runs.read_figures(nets / "epochs")
    unknown = [f"{row['epoch']:04}" for row in history if np.isnan(row["valid_log_loss"])]
    assert sorted([*kept, *unknown]) == ["0001", "0002", "0003", "0004"]
    assert all(np.isfinite(row["train_log_loss"]) for row in history)
    assert f"{schedule.find_best(history):04}" in kept
    assert run("--epochs", 4, "--keep", 1) == "dr.train: cached\n"


def test_a_stopped_training_goes_on_with_the_validation_images_of_now(
    run, nets, tmp_path, monkeypatch
):
    train_epoch = passes.train_epoch

    def stop(*given):
        if given[-1].number == 3:
            raise KeyboardInterrupt
        return train_epoch(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(passes, "train_epoch", stop)
        run("--epochs", 3)
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    told = run("--epochs", 3)
    assert MEASURED_ANEW in told and "epoch 2:" not in told and "epoch 3:" in told
    run("--epochs", 3, "--run", "alone")
    assert digest_files(nets / "epochs") == digest_files(nets / "runs" / "alone" / "epochs")


@pytest.mark.parametrize("n_written", [0, 1, 2])
def test_a_stop_while_measuring_anew_loses_no_epoch(
    run, nets, tmp_path, monkeypatch, n_written, forbid_training
):
    run("--epochs", 3)
    forbid_training()
    before = digest_files(nets / "epochs")
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    write = checkpoint.write
    written = []

    def write_or_stop(path, content):
        if len(written) == n_written:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(epochs.checkpoint, "write", write_or_stop)
        run("--epochs", 3)
    assert digest_files(nets / "epochs") == before
    assert "3 epochs are measured anew" in run("--epochs", 3)
    assert not (nets / "pending").exists()
    assert run("--epochs", 3) == "dr.train: cached\n"


def test_a_real_kill_while_measuring_anew_ends_in_the_same_bytes(run, nets, places, tmp_path):
    run("--epochs", 6)
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    command = [sys.executable, "-m", "dr.train", *places, *TRAIN_OPTIONS, "--epochs", "6"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list((nets / "pending").glob("*/0001.json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("--epochs", 6)
    run("--epochs", 6, "--run", "alone")
    assert digest_files(nets / "epochs") == digest_files(nets / "runs" / "alone" / "epochs")


def make_former(tmp_path, folder):
    """Give a net's manifest the inputs that the version before kept: one digest of all squares."""
    training_set = read_training_set(tmp_path / "squares", tmp_path / "cache")
    assert set(training_set.digests) == {"resize train", "normalize train", "labels"}
    kept = manifest.read_manifest(folder)
    files.write_json(folder / "manifest.json", kept | {"inputs": training_set.digests})


def test_a_net_of_the_version_before_is_cached_and_then_measured_anew(
    run, nets, places, tmp_path, forbid_training, monkeypatch, capsys
):
    run("--epochs", 2)
    forbid_training()
    made = digest_files(nets / "epochs")
    make_former(tmp_path, nets / "epochs")
    predict.main([*places, "--views", "1"])  # also before dr.train has seen it
    assert run("--epochs", 2) == "dr.train: cached\n"
    assert digest_files(nets / "epochs") == made
    predict.main([*places, "--views", "1"])
    assert capsys.readouterr().out.endswith("dr.predict: cached\n")
    held_out, _ = list_images(tmp_path)
    correct_crop(tmp_path, held_out[0])
    assert "2 epochs are measured anew" in run("--epochs", 2)


def test_a_net_of_the_version_before_whose_training_stopped_goes_on(
    run, nets, tmp_path, monkeypatch
):
    train_epoch = passes.train_epoch

    def stop(*given):
        if given[-1].number == 2:
            raise KeyboardInterrupt
        return train_epoch(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(passes, "train_epoch", stop)
        run("--epochs", 2)
    (pending,) = (nets / "pending").iterdir()
    make_former(tmp_path, pending)
    pending.rename(pending.with_name("0123456789ab"))  # the id was of the inputs, too
    told = run("--epochs", 2)
    assert "goes on after epoch 1" in told and "epoch 1:" not in told
