"""On a GPU, skipped where there is none: nets learn and score as on the processor, and what does not fit is told."""

import json
import shutil

import numpy as np
import pytest
import torch

from dr import predict
from dr.machine import device
from dr.scores import read_scores
from dr.squares import crops, store
from dr.training import checkpoint
from preprocess.disk.errors import InputError
from preprocess.picture.square import keep_values
from tests.tasks import TASK

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = ["--device", "cuda"]


def read_history(epochs):
    return [json.loads(path.read_text()) for path in sorted(epochs.glob("0*.json"))]


@pytest.mark.parametrize(
    "changes", [{}, {"jitter": 0.3, "brightness": (0.3, 2)}, {"rotation_deg": 90.0}], ids=str
)
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_the_processors(changes, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, channels), dtype=np.uint8)
    pixels[:, 1:] = pixels[:, :1]  # rows alike, lest what rounding moves by a pixel be another
    tables = store.compose_tables(keep_values(6), [0] * 3, [1] * 3)
    cuts = crops.draw_crops(6, 24, 3, 2, **changes)
    given = pixels, torch.from_numpy(pixels).cuda()
    host, there = (
        crops.cut_batch(store.Squares(np.arange(6), of, tables), np.arange(6), cuts, 40)
        for of in given
    )
    assert there.is_cuda and there.is_contiguous(memory_format=torch.channels_last)
    assert (host - there.cpu()).abs().max() <= (5 if "rotation_deg" in changes else 0)


@pytest.mark.parametrize("storage", ["device", "memory"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "more", [[], ["--pairs"], ["--optimizer=adamw", "--ema=0.9", "--jitter=0.1"]], ids=str
)
def test_training_goes_as_on_the_processor_and_on_from_a_checkpoint(
    run, epochs, precision, storage, more
):
    """Within what rounding does: in steps as large as the other tests' it would soon be another net."""
    options = ["--epochs", 2, "--learning-rate", 0.01 if precision == "float32" else 1e-6, *more]
    run(*options, "--run", "host")
    told = run(*options, *GPU, "--precision", precision, "--storage", storage)
    assert "on 1 x cuda:0" in told
    host, there = (
        read_history(folder) for folder in (epochs.parent / "runs" / "host" / "epochs", epochs)
    )
    rounding = 0.002 if precision == "float32" else 0.03
    for one, other in zip(host, there, strict=True):
        assert other["train_log_loss"] == pytest.approx(one["train_log_loss"], rel=rounding)
    (epochs / "0002.pt").unlink()
    assert "goes on after epoch 1" in run(
        *options, *GPU, "--precision", precision, "--storage", storage
    )
    again = read_history(epochs)
    assert again[1]["train_log_loss"] == pytest.approx(there[1]["train_log_loss"], rel=rounding)
    assert checkpoint.read(epochs / "0002.pt").net["head.outputs.weight"].device.type == "cpu"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_scores_are_the_processors(run, places, cache, precision):
    run("--epochs", 2, "--precision", precision)
    scores = []
    for options in (["--device", "cpu"], GPU):
        predict.main([*places, "--views", "3", *options])
        scores.append(read_scores(cache / "dr" / "scores_test.csv", TASK).to_numpy())
        (cache / "dr" / "scores_test.csv").unlink()
        shutil.rmtree(cache / "dr" / "views")  # or they would be taken as they are
    np.testing.assert_allclose(scores[1], scores[0], atol=0.002 if precision == "float32" else 0.02)


def test_a_step_beyond_float16_is_skipped_and_counted(run, epochs):
    run(
        "--epochs",
        1,
        *GPU,
        "--precision",
        "float16",
        "--squared-error",
        1e6,
        "--learning-rate",
        1e-9,
    )
    figures, kept = read_history(epochs)[0], checkpoint.read(epochs / "0001.pt")
    assert kept.scaler["scale"] == 2.0**16 / 2 ** figures["skipped_steps"] < 2.0**16


def test_what_the_gpu_does_not_hold_and_a_gpu_that_is_not_there_are_one_line(run):
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(InputError, match="out of memory: try a smaller --batch-size"):
            run("--epochs", 1, *GPU, "--storage", "memory", "--batch-size", 20)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    with pytest.raises(InputError, match="--device cuda:9: "):
        run("--epochs", 1, "--device", "cuda:9")


def test_precision_is_what_the_gpu_multiplies_itself():
    on = device.choose_device("auto")
    chosen, capability = device.choose_precision("auto", on), torch.cuda.get_device_capability()
    assert on.type == "cuda"
    assert chosen == (
        "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else chosen
    )
