"""Training: what a run leaves behind, that it goes on where it stopped, and what it refuses."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dr import train
from dr.machine import device
from dr.nets.net import split_parameters
from dr.squares import batches, crops, store
from dr.squares.store import Squares
from dr.tasks.findings import Findings
from dr.training import checkpoint, learner, passes, runs, schedule
from dr.training.schedule import Epoch
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture.square import keep_values
from tests.tasks import TASK
from tests.tiny import ROOT, TRAIN_OPTIONS, digest_files, make_settings

CPU = torch.device("cpu")


def test_run_leaves_checkpoints_and_history_and_is_cached_then_without_torch(
    run, places, cache, epochs
):
    assert "epoch 2: learning rate" in run("--epochs", 2)
    table = pd.read_csv(epochs / "history.csv")
    assert list(table.columns) == [
        "epoch",
        "learning_rate",
        "train_log_loss",
        "valid_log_loss",
        "valid_qwk",
    ]
    assert table["epoch"].tolist() == [1, 2]
    kept = checkpoint.read(epochs / "0002.pt")
    assert (kept.epoch, kept.settings.crop_px, kept.task, tuple(kept.making)[:3]) == (
        2,
        32,
        TASK,
        ("whole", 37, "none"),
    )
    assert sum(kept.prior) == pytest.approx(1)
    assert kept.optimizer.keys() == {name for name in kept.net if name.endswith(("weight", "bias"))}
    assert json.loads((epochs / "0002.json").read_text())["epoch"] == 2
    before, arguments = digest_files(cache / "dr"), [*places, *TRAIN_OPTIONS, "--epochs", "2"]
    code = f"import sys; from dr import train; train.main({arguments}); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "dr.train: cached\n"
    assert digest_files(cache / "dr") == before


def test_runs_lie_side_by_side_and_do_not_depend_on_where_the_squares_lie(run, cache):
    run("--epochs", 1)
    before = digest_files(cache / "dr")
    for option, is_same in (
        ("--storage=file", True),
        ("--storage=device", True),
        ("--storage=squares", True),
        ("--seed=5", False),
    ):
        name = option.rpartition("=")[2]
        run("--epochs", 1, "--run", name, option)
        after = digest_files(cache / "dr")
        assert {name: after[name] for name in before} == before
        assert (after["epochs/0001.pt"] == after[f"runs/{name}/epochs/0001.pt"]) == is_same


@pytest.mark.parametrize(
    ("options", "damaged", "kept"),
    [
        ([], ["0003.json", "0003.pt"], 2),  # a kill between checkpoint and figures
        ([], ["0002.pt"], 1),
        ([], ["0002.json"], 1),  # the history needs them all
        ([], ["0003.json"], 2),
        ([], ["history.csv"], 3),
        (["--pairs"], ["0003.pt"], 2),
        (["--freeze-epochs", 2], ["0002.pt", "0003.pt"], 1),  # in the middle of the frozen epochs
        (["--freeze-epochs", 2, "--nesterov", "--jitter", 0.1], ["0003.pt"], 2),
        (["--precision", "float16"], ["0003.pt"], 2),  # the scale of the gradients goes on, too
        (
            ["--optimizer=adamw", "--ema", 0.9],
            ["0003.pt"],
            2,
        ),  # and the weights beside their average
    ],
)
def test_damaged_epochs_are_made_again_with_the_same_bytes(
    run, cache, epochs, options, damaged, kept, monkeypatch
):
    monkeypatch.setattr(
        device, "is_native", lambda *_: True
    )  # float16 as it is asked for, though it is emulated here
    run("--epochs", 3, *options)
    whole = digest_files(cache / "dr")
    for name in damaged:
        (epochs / name).unlink()
        if name.endswith(".pt"):
            (epochs / name).write_bytes(b"half")
    assert f"goes on after epoch {kept}" in run("--epochs", 3, *options)
    assert digest_files(cache / "dr") == whole
    run("--epochs", 4, "--keep", 2, *options)
    history = runs.read_figures(epochs)
    assert len(history) == 4
    assert (
        {int(path.stem) for path in epochs.glob("*.pt")}
        == schedule.find_kept(history, "qwk", 2)
        >= {3, 4}
    )


def test_paired_net_starts_from_a_single_one_and_from_another_anew(run, cache, epochs):
    """With a rate of 0 it stays where it started: the single net's weights, a correction of 0, the same scores."""
    run("--epochs", 2)
    single, other = epochs / "0001.pt", epochs / "0002.pt"
    options = ["--run", "both", "--pairs", "--epochs", 1, "--learning-rate", 0, "--weights"]
    run(*options, single)
    first, both = (
        checkpoint.read(path) for path in (single, cache / "dr/runs/both/epochs/0001.pt")
    )
    assert learner.load_net(
        both
    ).head.joint is not None and both.settings.weights == files.hash_file(single)
    learned = [name for name in first.net if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(both.net[name], first.net[name]) for name in learned)
    assert "cached" in run(*options, single)
    assert "weights changed" in run(*options, other)


def test_unfit_start_is_refused(run, cache, tmp_path):
    missing, torn, larger = (tmp_path / name / "start.pt" for name in ("missing", "torn", "larger"))
    files.write_bytes(torn, b"no checkpoint")
    run("--epochs", 1, "--run", "other")
    kept = checkpoint.read(cache / "dr/runs/other/epochs/0001.pt")
    kept.net["body.blocks.2.0.weight"] = torch.zeros(32, 16, 5, 5)
    checkpoint.write(larger, kept)
    for start in (missing, torn, larger):
        with pytest.raises(InputError, match="start.pt: "):
            run("--epochs", 1, "--weights", start)


def test_inputs_are_as_asked(run, epochs):
    run("--epochs", 1, "--inputs", "0-1")
    kept = checkpoint.read(epochs / "0001.pt")
    assert (kept.mean, kept.std) == ([0.0] * 3, [255.0] * 3)


def test_in_frozen_epochs_only_the_head_learns(run, epochs):
    """So does the body of a net in training; its BatchNorm keeps its statistics, though an update follows training."""
    run("--epochs", 2, "--freeze-epochs", 1, "--rotation-deg", 10)
    first, second = (checkpoint.read(epochs / f"000{epoch}.pt") for epoch in (1, 2))
    start = learner.make_learner(first.settings, TASK, np.arange(5), CPU).net.state_dict()
    changed = {name for name, value in first.net.items() if not torch.equal(value, start[name])}
    assert changed == {name for name in start if name.startswith("head.")}
    assert not any(
        torch.equal(second.net[name], first.net[name])
        for name in first.net
        if "num_batches" not in name
    )
    assert all(name.startswith("head.") for name in first.optimizer)
    assert any(name.startswith("body.") for name in second.optimizer)


def test_nan_and_a_full_disk_stop_and_keep_the_last_good_checkpoint(run, epochs, monkeypatch):
    run("--epochs", 1, "--drop-epochs", 9)
    good, iterate = digest_files(epochs), batches.iterate_batches
    for module, name, fault, told in (
        (batches, "iterate_batches", lambda *of: ((rows, images * torch.nan) for rows, images in iterate(*of)),
         "epoch 2, step 1, learning rate 0.05: the loss is nan; .*epoch 1 is kept"),
        (passes, "take_step", lambda *_: torch.empty(2**60), "^out of memory: try a smaller --batch-size"),
        (checkpoint, "write", mock.Mock(side_effect=OSError(28, "No space left", "0002.pt")), "No space left"),
    ):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises((InputError, OSError), match=told):
            patch.setattr(module, name, fault)
            run("--epochs", 2, "--drop-epochs", 9)
        after = digest_files(epochs)
        assert all(after[name] == good[name] for name in ("0001.pt", "0001.json"))
        assert not any(name.startswith("0002") or files.PARTIAL in name for name in after)
    assert "goes on after epoch 1" in run("--epochs", 2, "--drop-epochs", 9)


def test_patience_stops_early_and_counts_as_finished(run):
    options = ("--epochs", 30, "--patience", 1, "--learning-rate", 0)
    assert "no better validation log loss in 1 epochs; stops" in run(*options)
    assert run(*options) == "dr.train: cached\n"


REFUSED = {
    **{"--fold 4": "--fold 4", "--folds 100": "100 folds", "--crop-px 38": "only 37 px"},
    "--drop-epochs 3 --schedule cosine": "--drop-epochs",
    "--nesterov --momentum 0": "--momentum",
    "--zoom 1.1 0.9": "--zoom: the lower bound",
    "--accumulate 5": "--accumulate: at least 2",
}


def test_a_refused_command_leaves_the_finished_epochs(run, epochs):
    run("--epochs", 1)
    for options, match in REFUSED.items():
        with pytest.raises(InputError, match=match):
            run("--epochs", 1, *options.split())
    for options in (
        "--epochs 0",
        "--device nowhere",
        "--learning-rate nan",
        "--run ../x",
        "--dropout 1",
    ):
        with pytest.raises(SystemExit):
            train.main(options.split())
    assert "cached" in run("--epochs", 1)


def test_balanced_weights_make_levels_count_alike():
    weights = TASK.weigh_targets(np.array([0] * 70 + [1] * 20 + [2] * 10), "balanced")
    np.testing.assert_allclose(weights * [70, 20, 10, 1, 1], [100 / 3] * 3 + [0, 0], rtol=1e-6)


def make_learner(targets=range(5), task=TASK, **changes):
    wanted = make_settings(**{"crop_px": 32, "precision": "float32"} | changes)
    made = learner.make_learner(wanted, task, np.array(targets), CPU)
    made.net.train()
    return made


def make_batch(levels):
    """Noise, its levels, keys and eyes, two per patient."""
    images = torch.randn(len(levels), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(len(levels))
    return images, torch.tensor(levels), rows, rows


def test_step_is_sgd_with_l2_on_weights_alone():
    """One step by hand: momentum's first step is the gradient, L2 adds its share of the weight to it."""
    made = make_learner(weight_decay=0.1, learning_rate=0.01, label_smoothing=0.1)
    before = {name: value.clone() for name, value in made.net.named_parameters()}
    passes.take_step(made, *make_batch([0, 1, 2, 3, 4, 0]))
    weights = {id(weight) for weight in split_parameters(made.net)[0]}
    for name, value in made.net.named_parameters():
        decay = 0.1 if id(value) in weights else 0
        torch.testing.assert_close(value, before[name] - 0.01 * (value.grad + decay * before[name]))


@pytest.mark.parametrize("task", [TASK, Findings(tuple("ABCDE"))])
def test_a_batch_in_parts_makes_the_same_step_where_no_statistics_are_of_the_batch(task):
    """Unequal parts, weighed by their images; each label's own weight, and findings that nobody knows."""
    images, targets, *others = make_batch([0, 4, 2, 1, 1, 0, 3])
    if not task.is_exclusive:
        targets = torch.eye(5)[targets].masked_fill(
            torch.rand(7, 5, generator=torch.Generator().manual_seed(1)) < 0.2, torch.nan
        )
    steps = []
    for n_parts in (1, 3):
        made = make_learner(targets.numpy(), task, class_weights="balanced", accumulate=n_parts)
        for layer in made.net.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        lost = passes.take_step(made, images, targets, *others)
        steps.append([lost, *(value.detach() for value in made.net.parameters())])
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-5, atol=1e-6)


def test_batch_norm_has_the_statistics_that_it_meets_in_prediction():
    """Images unturned and no feature dropped: against means summed up by hand."""
    made = make_learner(batch_size=4, dropout=0.5, rotation_deg=90.0, jitter=0.3)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    squares = Squares(
        2 * np.arange(8), pixels, store.compose_tables(keep_values(8), [128.0] * 3, [64.0] * 3)
    )
    before = {name: value.clone() for name, value in made.net.state_dict().items()}
    passes.update_batch_norm(made, squares, np.arange(8), Epoch(2, False, 1, 2, 2, 0.1))
    after, name = made.net.state_dict(), "body.blocks.0.1.running_mean"
    changed = {
        name
        for name in before
        if not torch.equal(before[name], after[name]) and "num_batches" not in name
    }
    assert changed == {name for name in before if "running" in name}
    cuts, blocks = crops.draw_crops(8, 8, made.settings.seed, 2), made.net.body.blocks
    (chosen, _) = batches.order_epoch(
        np.arange(8), 4, made.settings.seed, 2
    )  # half of an epoch is enough
    images = crops.cut_batch(squares, chosen, cuts, 32)
    torch.testing.assert_close(after[name], blocks[0][0](images).mean(dim=(0, 2, 3)).detach())
    undropped = made.net.head.hidden[0](made.net.body(images).flatten(1)).mean(dim=0)
    torch.testing.assert_close(after["head.hidden.1.running_mean"], undropped.detach())
    assert all(
        layer.momentum == 0.1 for layer in made.net.modules() if hasattr(layer, "running_mean")
    )


def test_a_share_of_the_rate_is_the_bodys_and_adamws_weights_decay_by_themselves():
    """The first step of Adam is the rate along the gradient's sign, of whatever size; the decay is on top of it."""
    made = make_learner(optimizer="adamw", learning_rate=0.01, body_rate=0.1, weight_decay=0.5)
    groups = made.optimizer.param_groups
    assert [group["factor"] for group in groups] == [1.0, 1.0, 0.1, 0.1]
    for group in groups:
        group["lr"] = group["factor"] * 0.01
    before = {name: value.clone() for name, value in made.net.named_parameters()}
    passes.take_step(made, *make_batch([0, 1, 2, 3, 4, 0]))
    for name, rate, decay in (("head.outputs.weight", 0.01, 0.5), ("body.blocks.8.0.weight", 0.001, 0.5),
                              ("head.outputs.bias", 0.01, 0.0)):  # fmt: skip
        value = made.net.get_parameter(name)
        step = torch.where(value.grad.abs() > 1e-4, value.grad.sign(), torch.nan)
        expected = before[name] * (1 - rate * decay) - rate * step
        is_clear = ~expected.isnan()
        assert is_clear.any()
        torch.testing.assert_close(value[is_clear], expected[is_clear], rtol=0, atol=1e-2 * rate)


def test_what_is_kept_is_the_average_of_the_weights_of_all_steps(run, epochs, monkeypatch):
    """Summed up by hand: 9 of 10 parts stay, in the first steps fewer, of what the weights began with, too."""
    seen, own = [], learner.average

    def remember(of, n_steps):
        seen.append(of.net.head.outputs.weight.detach().clone())
        own(of, n_steps)

    begun = learner.make_learner(
        make_settings(crop_px=32, precision="float32"), TASK, np.arange(5), CPU
    ).net
    monkeypatch.setattr(passes, "average", remember)
    run("--epochs", 2, "--ema", 0.5)
    expected = begun.head.outputs.weight.detach()
    for n_steps, weight in enumerate(seen, 1):
        share = min(0.5, n_steps / (9 + n_steps))
        expected = share * expected + (1 - share) * weight
    kept = checkpoint.read(epochs / "0002.pt")
    torch.testing.assert_close(kept.net["head.outputs.weight"], expected)
    assert torch.equal(kept.raw["head.outputs.weight"], seen[-1])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_squared_error_of_the_expected_level_is_added_to_a_share_of_the_log_loss(share):
    """The gradient of the last bias, against that of the formula in float64."""
    made = make_learner(dropout=0.0, weight_decay=0.0, squared_error=0.7, log_loss=share)
    images, targets, *others = make_batch([0, 4, 2, 1])
    logits = made.net(images).detach().double().requires_grad_()
    shares = logits.softmax(dim=1)
    error = shares @ torch.arange(5.0).double() - targets
    (-share * shares[torch.arange(4), targets].log() + 0.7 * error**2).mean().backward()
    passes.take_step(made, images, targets, *others)
    gradient = made.net.head.outputs.bias.grad
    torch.testing.assert_close(gradient.double(), logits.grad.sum(dim=0), rtol=1e-4, atol=1e-6)


def test_two_processes_train_the_same_net_as_one(run, places, cache):
    """torchrun for real, two Gloo processes: after an epoch of the head and one of all the weights agree within 1e-4.

    The gradients agree to 1e-14 in float64. In float32 large steps let rounding grow: ReLUs flip.
    """
    options = (
        "--epochs 2 --learning-rate 0.001 --freeze-epochs 1 --jitter 0.1".split()
    )  # so that statistics change
    run(*options)
    (cache / "dr").rename(cache / "alone")
    documented = "torchrun --nproc_per_node=2 -m -- dr.train --data data --cache cache --run two"
    assert documented in (ROOT / "dr" / "README.md").read_text()
    words = documented.split()[1:]  # as written, but for the folders
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, *words, *places, *TRAIN_OPTIONS, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    together = cache / "dr" / "runs" / "two"
    for path in (cache / "alone" / "epochs").glob("*.pt"):
        one, two = (
            checkpoint.read(folder / "epochs" / path.name).net
            for folder in (cache / "alone", together)
        )
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-4)
    first, second = (
        pd.read_csv(folder / "epochs" / "history.csv") for folder in (cache / "alone", together)
    )
    np.testing.assert_allclose(second["train_log_loss"], first["train_log_loss"], atol=1e-4)


def test_a_step_beyond_float16_is_skipped_counted_and_the_scale_halved(run, epochs, monkeypatch):
    """The first scale, 2^16, is far too large for a loss weighed a million times."""
    monkeypatch.setattr(device, "is_native", lambda *_: True)  # though it is emulated here
    told = run(
        "--epochs", 1, "--precision", "float16", "--squared-error", 1e6, "--learning-rate", 1e-9
    )
    figures, kept = (
        json.loads((epochs / "0001.json").read_text()),
        checkpoint.read(epochs / "0001.pt"),
    )
    assert (n_skipped := figures["skipped_steps"]) and f"{n_skipped} steps skipped" in told
    assert kept.scaler["scale"] == 2.0**16 / 2**n_skipped
    assert all(torch.isfinite(value).all() for value in kept.net.values())


def test_float16_takes_the_step_of_float32_but_for_its_rounding(monkeypatch):
    monkeypatch.setattr(device, "is_native", lambda *_: True)  # though it is emulated here
    steps = []
    for precision in ("float32", "float16"):
        made = make_learner(precision=precision, clip_norm=1e-2, learning_rate=1.0)
        weight = made.net.head.hidden[0].weight
        before = weight.clone()
        while torch.equal(weight, before):  # the first scales of the gradients are beyond float16
            passes.take_step(made, *make_batch([0, 1, 2, 3, 4, 0]))
        steps.append((weight - before).flatten())
    assert not torch.equal(*steps)
    assert (steps[1] - steps[0]).norm() < 0.02 * steps[0].norm()


def test_label_smoothing_weights_and_clipping_change_the_step():
    moved = []
    changes = (
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"clip_norm": 1e-3},
        {"nesterov": True},
    )
    for change in ({}, *changes):
        made = make_learner([0, 0, 0, 1, 2], **change)
        passes.take_step(made, *make_batch([0, 0, 0, 1, 2, 2]))
        moved.append(made.net.head.outputs.weight.detach())
    assert all(not torch.equal(moved[0], other) for other in moved[1:])


def test_without_squares_the_missing_stage_is_named(places, tmp_path):
    with pytest.raises(InputError, match="run python -m preprocess first"):
        train.main([places[0], f"--cache={tmp_path}/none"])
