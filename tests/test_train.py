"""Training: what a run leaves behind, that it goes on where it stopped, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from dr import checkpoint, contrast, dataset, inputs, model, passes, schedule, settings, threads, train, workers
from dr.batch_norm import SharedBatchNorm
from dr.settings import Settings
from preprocess import stage
from preprocess.stage import InputError
from tests.ready_made import TRAIN_OPTIONS, digest_files, draw_squares

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def squares(tmp_path):
    """A data folder of tiny ready-made squares."""
    draw_squares(tmp_path / "squares")
    return tmp_path / "squares"


@pytest.fixture
def run(squares, cache, capsys):
    """Run `dr.train` on the squares and return what it printed."""

    def run_train(*options):
        train.main([f"--data={squares}", f"--cache={cache}", *TRAIN_OPTIONS, *map(str, options)])
        return capsys.readouterr().out

    return run_train


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_run_leaves_checkpoints_and_history(run, cache):
    assert "epoch 2: learning rate" in run("--epochs", 2)
    table = pd.read_csv(cache / "dr" / "history.csv")
    assert list(table.columns) == ["epoch", "learning_rate", "train_log_loss", "valid_log_loss", "valid_qwk"]
    assert table["epoch"].tolist() == [1, 2]
    assert (cache / "dr" / "history.png").stat().st_size > 1000
    content = checkpoint.read(cache / "dr" / "epochs" / "0002.pt")
    assert content["epoch"] == 2
    assert content["settings"]["crop_px"] == 32
    assert sum(content["prior"]) == pytest.approx(1)
    assert json.loads((cache / "dr" / "epochs" / "0002.json").read_text())["epoch"] == 2


def test_same_command_twice_is_cached(run, cache):
    run("--epochs", 1)
    before = digest_files(cache)
    assert run("--epochs", 1) == "dr.train: cached\n"
    assert digest_files(cache) == before


def test_removed_history_is_written_again(run, cache):
    run("--epochs", 1)
    before = digest_files(cache)
    (cache / "dr" / "history.png").unlink()
    assert "cached" not in run("--epochs", 1)
    assert digest_files(cache) == before


def test_cached_run_imports_no_torch(run, squares, cache):
    run("--epochs", 1)
    arguments = [f"--data={squares}", f"--cache={cache}", *TRAIN_OPTIONS, "--epochs", "1"]
    code = f"import sys; from dr import train; train.main({arguments!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["dr.train", "dr.predict"])
def test_help_imports_no_torch(module):
    code = f"import sys; from {module} import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    threads.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_runs_lie_side_by_side(run, cache):
    run("--epochs", 1)
    before = digest_files(cache / "dr")
    run("--epochs", 1, "--run", "second", "--seed", 5)
    after = digest_files(cache / "dr")
    assert {name: after[name] for name in before} == before
    assert after["epochs/0001.pt"] != after["runs/second/epochs/0001.pt"]


def test_only_the_newest_checkpoints_are_kept(run, cache):
    run("--epochs", 3, "--keep", 2)
    names = sorted(path.name for path in (cache / "dr" / "epochs").iterdir())
    assert names == ["0001.json", "0002.json", "0002.pt", "0003.json", "0003.pt", "manifest.json"]


@pytest.mark.parametrize("storage", ["file", "device"])
def test_result_does_not_depend_on_where_the_squares_lie(run, cache, storage):
    run("--epochs", 1)
    run("--epochs", 1, "--run", "other", "--storage", storage)
    assert (cache / "dr/epochs/0001.pt").read_bytes() == (cache / "dr/runs/other/epochs/0001.pt").read_bytes()


# --- going on ---------------------------------------------------------------------------------------------------------


def test_killed_runs_end_in_the_same_bytes(run, squares, cache):
    """A real process, a real SIGKILL, at instants spread over its life."""
    run("--epochs", 4)
    undisturbed = digest_files(cache / "dr")
    arguments = [f"--data={squares}", f"--cache={cache.parent / 'killed'}", *TRAIN_OPTIONS, "--epochs", "4"]
    command = [sys.executable, "-m", "dr.train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    epochs = cache.parent / "killed" / "dr" / "epochs"
    for n_done, delay_s in ((1, 0.0), (2, 0.03), (3, 0.01)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        while not checkpoint.path_of(epochs, n_done, ".json").exists():
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    assert digest_files(cache.parent / "killed" / "dr") == undisturbed


def test_half_an_epoch_is_forgotten(run, cache):
    run("--epochs", 3)
    whole = digest_files(cache / "dr")
    (cache / "dr" / "epochs" / "0003.json").unlink()  # a kill between checkpoint and figures
    (cache / "dr" / "epochs" / "0003.pt").write_bytes(b"half")
    assert "goes on after epoch 2" in run("--epochs", 3)
    assert digest_files(cache / "dr") == whole


def test_damaged_checkpoint_is_made_again(run, cache):
    run("--epochs", 2)
    whole = digest_files(cache / "dr")
    (cache / "dr" / "epochs" / "0002.pt").write_bytes(b"no checkpoint")
    assert "goes on after epoch 1" in run("--epochs", 2)
    assert digest_files(cache / "dr") == whole


def test_more_epochs_go_on_where_the_rates_stay(run, cache):
    run("--epochs", 2, "--drop-epochs", 3)
    first = (cache / "dr" / "epochs" / "0001.pt").stat().st_mtime_ns
    assert "epochs changed from 2 to 3; goes on after epoch 2" in run("--epochs", 3, "--drop-epochs", 3)
    assert (cache / "dr" / "epochs" / "0001.pt").stat().st_mtime_ns == first
    longer = (cache / "dr" / "history.csv").read_bytes()
    run("--epochs", 3, "--drop-epochs", 3, "--run", "at_once")
    assert (cache / "dr" / "runs" / "at_once" / "history.csv").read_bytes() == longer


def test_more_epochs_start_over_where_the_rates_change(run):
    run("--epochs", 1, "--schedule", "cosine")
    printed = run("--epochs", 2, "--schedule", "cosine")
    assert "epochs changed from 1 to 2, and with it the learning rates of epochs already done" in printed
    assert "starts over" in printed


def test_changed_setting_is_named(run):
    run("--epochs", 1)
    assert "momentum changed from 0.9 to 0.8; starts over" in run("--epochs", 1, "--momentum", 0.8)


def test_changed_label_is_noticed(run, squares):
    run("--epochs", 1)
    labels = squares / "trainLabels.csv"
    labels.write_text(labels.read_text().replace("3_left,3", "3_left,4"))
    assert "labels changed; starts over" in run("--epochs", 1)


# --- what the net is given --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_local_contrast_is_kept_instead_of_the_pixels(run, squares, cache, storage):
    run("--epochs", 1, "--local-contrast", "--storage", storage)
    content = checkpoint.read(cache / "dr" / "epochs" / "0001.pt")
    paths = inputs.list_photographs(squares, cache, "train", is_ready_made=True)
    pixels = dataset.load_pixels(paths, torch.device("cpu"), "memory", cache / "unused.npy", "")
    local = np.stack([contrast.subtract_local_mean(square) for square in pixels])
    is_held_out = inputs.find_fold(inputs.read_training_set(squares, cache, is_ready_made=True), 4) == 0
    np.testing.assert_allclose(content["mean"], local[~is_held_out].mean(axis=(0, 1, 2)))
    assert "local_contrast changed" in run("--epochs", 1, "--storage", storage)
    assert checkpoint.read(cache / "dr" / "epochs" / "0001.pt")["mean"] != content["mean"]


# --- both eyes --------------------------------------------------------------------------------------------------------


def test_paired_net_starts_from_a_single_one(run, cache):
    """With a rate of 0 it stays where it started: the single net's weights, a correction of 0, the same scores."""
    run("--epochs", 1)
    single = cache / "dr" / "epochs" / "0001.pt"
    run("--run", "both", "--pairs", "--start-from", single, "--epochs", 1, "--learning-rate", 0)
    first, both = (checkpoint.read(path) for path in (single, cache / "dr/runs/both/epochs/0001.pt"))
    assert type(checkpoint.make_net(both)) is model.PairedNet
    assert both["settings"]["start_from"] == stage.hash_file(single)
    for name, value in first["net"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(both["net"][name], value)


def test_another_start_is_another_run(run, cache):
    run("--epochs", 2)
    start = [cache / "dr" / "epochs" / f"000{epoch}.pt" for epoch in (1, 2)]
    run("--run", "next", "--epochs", 1, "--start-from", start[0])
    assert "cached" in run("--run", "next", "--epochs", 1, "--start-from", start[0])
    assert "start_from changed" in run("--run", "next", "--epochs", 1, "--start-from", start[1])


@pytest.mark.parametrize("kind", ["missing", "no checkpoint", "another size"])
def test_unfit_start_is_refused(run, cache, kind):
    start = cache / "start.pt"
    if kind == "no checkpoint":
        cache.mkdir()
        start.write_bytes(b"no checkpoint")
    elif kind == "another size":
        run("--epochs", 1, "--crop-px", 33, "--run", "other")
        content = checkpoint.read(cache / "dr/runs/other/epochs/0001.pt")
        content["net"]["head.0.weight"] = torch.zeros(96, 512)
        checkpoint.write(start, content)
    with pytest.raises(InputError, match="start.pt: "):
        run("--epochs", 1, "--start-from", start)


def test_killed_paired_run_ends_in_the_same_bytes(run, cache):
    """The last epoch is thrown away and done again from the checkpoint before it."""
    run("--epochs", 2, "--pairs")
    whole = digest_files(cache / "dr")
    (cache / "dr" / "epochs" / "0002.pt").unlink()
    assert "goes on after epoch 1" in run("--epochs", 2, "--pairs")
    assert digest_files(cache / "dr") == whole


def test_pairs_under_torchrun_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        train.resolve(Settings(pairs=True), 512, torch.device("cpu"))


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_nan_stops_with_epoch_step_and_rate_and_keeps_the_last_good_checkpoint(run, cache, monkeypatch):
    run("--epochs", 1, "--drop-epochs", 9)
    good = (cache / "dr" / "epochs" / "0001.pt").read_bytes()
    take_step = passes.take_step

    def take_bad_step(learner, batch, epoch):
        return take_step(learner, batch._replace(images=batch.images * torch.nan), epoch)

    monkeypatch.setattr(passes, "take_step", take_bad_step)
    with pytest.raises(InputError, match=r"epoch 2, step 1, learning rate 0.05: the loss is nan; .*epoch 1 is kept"):
        run("--epochs", 2, "--drop-epochs", 9)
    assert (cache / "dr" / "epochs" / "0001.pt").read_bytes() == good
    monkeypatch.setattr(passes, "take_step", take_step)
    assert "goes on after epoch 1" in run("--epochs", 2, "--drop-epochs", 9)


def test_full_disk_leaves_the_last_checkpoint_intact(run, cache, monkeypatch):
    run("--epochs", 1, "--drop-epochs", 9)
    good = digest_files(cache / "dr" / "epochs")

    def write_checkpoint(*_):
        raise OSError(28, "No space left on device", "0002.pt")

    monkeypatch.setattr(checkpoint, "write", write_checkpoint)
    with pytest.raises(OSError, match="No space left"):
        run("--epochs", 2, "--drop-epochs", 9)
    after = digest_files(cache / "dr" / "epochs")
    assert {name: after[name] for name in ("0001.pt", "0001.json")} == {
        name: good[name] for name in ("0001.pt", "0001.json")
    }
    assert not any(name.startswith("0002") or stage.PARTIAL in name for name in after)


def test_patience_stops_early_and_counts_as_finished(run, cache):
    options = ("--epochs", 30, "--patience", 1, "--learning-rate", 0)
    assert "no better validation log loss in 1 epochs; stops" in run(*options)
    n_epochs = len(pd.read_csv(cache / "dr" / "history.csv"))
    assert n_epochs < 30
    assert run(*options) == "dr.train: cached\n"


def test_stalled_means_patience_epochs_without_a_better_loss():
    figures = [{"valid_log_loss": loss} for loss in (3.0, 2.0, 2.5, 2.1)]
    assert train.has_stalled(figures, 2)
    assert not train.has_stalled(figures, 3)
    assert not train.has_stalled(figures, None)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_label_without_image_and_image_without_label_are_named(run, squares):
    labels = squares / "trainLabels.csv"
    text = labels.read_text()
    labels.write_text(text.replace("3_left,3\n", ""))
    with pytest.raises(InputError, match="3_left"):
        run("--epochs", 1)
    labels.write_text(text + "99_left,0\n")
    with pytest.raises(InputError, match="99_left"):
        run("--epochs", 1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--fold", 4], "--fold 4"),
        (["--crop-px", 38], "only 37 px"),
        (["--drop-epochs", 3, "--schedule", "cosine"], "--drop-epochs"),
        (["--nesterov", "--momentum", 0], "--momentum"),
    ],
)
def test_contradictory_options_are_refused(run, options, match):
    with pytest.raises(InputError, match=match):
        run("--epochs", 1, *options)


@pytest.mark.parametrize("options", [["--epochs", 0], ["--learning-rate", "nan"], ["--run", "../x"], ["--dropout", 1]])
def test_absurd_options_are_refused(run, options):
    with pytest.raises(SystemExit):
        run(*options)


# --- the parts --------------------------------------------------------------------------------------------------------


def test_rejected_labels_are_left_out(data, cache, capsys):
    """On the squares of the preprocess stages, one photograph broken."""
    from preprocess import __main__ as preprocess

    (data / "train" / sorted(os.listdir(data / "train"))[0]).write_bytes(b"no photograph")
    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main([*places, "--size-px", "37", "--jobs", "1", "--allow-rejected"])
    train.main([*places, *"--epochs 1 --batch-size 2 --folds 2 --device cpu --precision float32".split()])
    rejected = stage.read_rejected(cache)
    assert len(rejected[rejected["split"] == "train"]) >= 1
    n_train = int(capsys.readouterr().out.split("dr.train: ")[1].split(" images")[0])
    assert n_train <= 6
    assert checkpoint.read(cache / "dr" / "epochs" / "0001.pt")["mean"][0] == pytest.approx(127, abs=3)


def test_drops_happen_after_their_epochs():
    stepped = Settings(epochs=10, learning_rate=1.0, drop_epochs=[4, 8], drop_factor=0.1)
    rates = [schedule.find_rate(stepped, epoch, 0.5) for epoch in (1, 4, 5, 8, 9, 10)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_default_drops_follow_the_epochs():
    assert Settings(epochs=60).drops == [36, 48, 54]


def test_one_cycle_is_torchs():
    """Against torch.optim.lr_scheduler.OneCycleLR, whose last step would be ours one step later."""
    cycle = Settings(epochs=10, learning_rate=0.5, schedule="one-cycle")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=1001, div_factor=25, final_div_factor=1e9, cycle_momentum=False
    )
    for step in range(0, 1000):
        ours = schedule.find_rate(cycle, step // 100 + 1, step % 100 / 100)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=2e-3)
        optimizer.step()
        reference.step()


def test_cosine_falls_from_the_rate_to_nothing():
    falling = Settings(epochs=4, learning_rate=2.0, schedule="cosine")
    rates = [schedule.find_rate(falling, epoch, 0) for epoch in (1, 3, 5)]
    assert rates == pytest.approx([2, 1, 0])


def test_recipe_gives_defaults_that_options_override():
    parser = stage.make_parser("dr.train", "", "")
    settings.add_options(parser)
    _, wanted = settings.parse(parser, ["--recipe", "nesterov-one-cycle", "--weight-decay", "0.25"])
    assert (wanted.nesterov, wanted.schedule, wanted.weight_decay) == (True, "one-cycle", 0.25)


def test_balanced_weights_make_levels_count_alike():
    levels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    weights = train.weigh_levels(levels)
    assert weights[levels].mean() == pytest.approx(1)
    assert [weights[level] * (levels == level).sum() for level in range(3)] == pytest.approx([100 / 3] * 3)
    assert weights[3] == weights[4] == 0


def make_batch(levels):
    """A batch of noise, two eyes per patient."""
    images = torch.randn(len(levels), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(len(levels))
    return passes.Batch(images, torch.tensor(levels), rows, rows)


def test_step_is_sgd_with_l2_on_weights_alone():
    """One step by hand: momentum's first step is the gradient, L2 adds its share of the weight to it."""
    wanted = Settings(crop_px=32, weight_decay=0.1, learning_rate=0.01, precision="float32", label_smoothing=0.1)
    learner = train.make_learner(wanted, np.arange(5), torch.device("cpu"))
    passes.set_rate(learner.optimizer, 0.01)
    before = {name: value.clone() for name, value in learner.net.named_parameters()}
    learner.net.train()
    passes.take_step(learner, make_batch([0, 1, 2, 3, 4, 0]), epoch=1)
    weights = {id(weight) for weight in model.split_parameters(learner.net)[0]}
    for name, value in learner.net.named_parameters():
        decay = 0.1 if id(value) in weights else 0
        torch.testing.assert_close(value, before[name] - 0.01 * (value.grad + decay * before[name]))


@pytest.mark.parametrize("options", [{"rotation_deg": 90.0}, {"zoom": 1.2}, {"jitter": 0.3}, {}])
def test_batch_norm_settles_on_images_as_prediction_shows_them(options):
    """Only if training shows them otherwise; against the channels' mean and variance, summed up by hand."""
    wanted = Settings(batch_size=4, crop_px=32, precision="float32", dropout=0.0, **options)
    learner = train.make_learner(wanted, np.arange(5), torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    images = [f"{patient}_left" for patient in range(8)]
    photographs = dataset.make_photographs(images, pixels, inputs.keep_values(8), np.full(3, 128.0), np.full(3, 64.0))
    before = {name: value.clone() for name, value in learner.net.state_dict().items()}
    passes.settle_batch_norm(learner, photographs, np.arange(8), epoch=2)
    after = learner.net.state_dict()
    is_statistic = {name for name in before if "running" in name}
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    if not options:
        assert unchanged == set(before)
        return
    assert unchanged & is_statistic == set()
    assert set(learner.net.state_dict()) - unchanged <= is_statistic | {n for n in before if "num_batches" in n}
    crops = dataset.draw_crops(8, 8, wanted.seed, 2)
    means = []
    for batch in dataset.order_epoch(np.arange(8), 4, wanted.seed, 2):
        maps = learner.net.blocks[0][0](dataset.cut_batch(photographs, batch, crops, 32))
        means.append(maps.mean(dim=(0, 2, 3)).detach())
    torch.testing.assert_close(after["blocks.0.1.running_mean"], torch.stack(means).mean(dim=0))
    assert all(layer.momentum == 0.1 for layer in learner.net.modules() if hasattr(layer, "running_mean"))


def test_squared_error_of_the_expected_level_is_added_to_the_loss():
    """The gradient of the last bias, against that of the formula in float64."""
    wanted = Settings(crop_px=32, precision="float32", dropout=0.0, weight_decay=0.0, squared_error=0.7)
    learner = train.make_learner(wanted, np.arange(5), torch.device("cpu"))
    learner.net.train()
    batch = make_batch([0, 4, 2, 1])
    with torch.no_grad():
        logits = learner.net(batch.images).double()
    logits.requires_grad_()
    shares = logits.softmax(dim=1)
    expected = sum(level * shares[:, level] for level in range(5))
    own_shares = shares[torch.arange(4), batch.targets]
    (-own_shares.log() + 0.7 * (expected - batch.targets) ** 2).mean().backward()
    passes.take_step(learner, batch, epoch=1)
    gradient = learner.net.head[3].bias.grad
    torch.testing.assert_close(gradient.double(), logits.grad.sum(dim=0), rtol=1e-4, atol=1e-6)


def test_label_smoothing_weights_and_clipping_change_the_step():
    moved = []
    for change in (
        {},
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"clip_norm": 1e-3},
        {"nesterov": True},
    ):
        wanted = Settings(crop_px=32, precision="float32", **change)
        learner = train.make_learner(wanted, np.array([0, 0, 0, 1, 2]), torch.device("cpu"))
        learner.net.train()
        passes.take_step(learner, make_batch([0, 0, 0, 1, 2, 2]), epoch=1)
        moved.append(learner.net.head[3].weight.detach())
    assert all(not torch.equal(moved[0], other) for other in moved[1:])


# --- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_train_the_same_net_as_one(run, squares, cache):
    """torchrun for real, two Gloo processes: after an epoch the weights agree within 1e-4.

    The gradients agree to 1e-14 in float64. In float32 large steps let rounding grow: ReLUs flip.
    """
    options = ["--epochs", "1", "--learning-rate", "0.001"]
    run(*options)
    together = cache.parent / "together"
    arguments = [f"--data={squares}", f"--cache={together}", *TRAIN_OPTIONS, *options]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, "-m", "dr.train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (checkpoint.read(path / "dr" / "epochs" / "0001.pt") for path in (cache, together))
    for name, value in one["net"].items():
        torch.testing.assert_close(two["net"][name], value, rtol=0, atol=1e-4)
    first, second = (pd.read_csv(path / "dr" / "history.csv") for path in (cache, together))
    np.testing.assert_allclose(second["train_log_loss"], first["train_log_loss"], atol=1e-4)
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    told = [line for line in again.stdout.splitlines() if not line.startswith("[Gloo]")]  # torch 2.10 greets
    assert (again.returncode, told) == (0, ["dr.train: cached"])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_shared_batch_norm_is_torchs_in_a_group_of_one(tmp_path, momentum):
    """With momentum, and without it: then the statistics are the mean over the batches."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        shared, own = SharedBatchNorm(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
        for batch in torch.randn(4, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0)):
            torch.testing.assert_close(shared(batch), own(batch))
        torch.testing.assert_close(shared.state_dict(), own.state_dict())
    finally:
        torch.distributed.destroy_process_group()


def test_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="8 images cannot be divided evenly among 3"):
        workers.take_share(np.arange(8))


@pytest.mark.parametrize("options", [("--folds", 100), ("--crop-px", 9999), ("--device", "nowhere", "--seed", 3)])
def test_a_refused_command_leaves_the_finished_epochs(run, cache, options):
    run("--epochs", 1)
    before = digest_files(cache / "dr" / "epochs")
    with pytest.raises(InputError):
        run("--epochs", 1, *options)
    assert digest_files(cache / "dr" / "epochs") == before
    assert "cached" in run("--epochs", 1)
