"""What is due after the epochs that are done: phases, rates, the end, the best; a run resumed knows no other."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from dr.training import schedule
from preprocess.disk.errors import InputError
from tests.tiny import digest_files, make_settings


def record(*losses):
    """Return a history of these validation log losses."""
    return [{"epoch": epoch, "valid_log_loss": loss} for epoch, loss in enumerate(losses, 1)]


def find_rates(settings, losses, share=0):
    """Return the rate of each epoch with these losses, and of the one after them."""
    due = [schedule.find_next(settings, record(*losses[:n])) for n in range(len(losses) + 1)]
    return [schedule.find_rate(settings, epoch, share) for epoch in due if epoch]


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"epochs": 10, "drop_epochs": [4, 8]}, {1: 1, 4: 1, 5: 0.2, 8: 0.2, 9: 0.04, 10: 0.04}),
        ({"epochs": 60}, {36: 1, 37: 0.2, 48: 0.2, 49: 0.04, 54: 0.04, 55: 0.008}),
        ({"epochs": 4, "schedule": "cosine"}, {1: 1, 3: 0.5, 4: 0.1464}),
        (
            {"epochs": 6, "schedule": "cosine", "warm_up_epochs": 2},
            {1: 0.04, 2: 0.52, 3: 1, 5: 0.5, 6: 0.1464},
        ),
        (
            {"epochs": 4, "schedule": "constant", "freeze_epochs": 2, "thaw_rate": 0.1},
            {1: 1, 2: 1, 3: 0.1, 4: 0.1},
        ),
        (
            {"epochs": 6, "schedule": "cosine", "freeze_epochs": 2, "thaw_rate": 0.1},
            {1: 1, 2: 0.5, 3: 0.1, 5: 0.05},
        ),
    ],
)
def test_rates_drop_after_their_epochs_rise_and_fall_and_begin_anew_with_all_of_the_net(
    changes, rates
):
    found = find_rates(make_settings(learning_rate=1.0, **changes), [1.0] * changes["epochs"])
    assert len(found) == changes["epochs"]
    assert [found[epoch - 1] for epoch in rates] == pytest.approx(list(rates.values()), abs=1e-4)


def test_one_cycle_is_torchs():
    """Against torch.optim.lr_scheduler.OneCycleLR, whose last step would be ours one step later."""
    cycle = make_settings(epochs=10, learning_rate=0.5, schedule="one-cycle")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    factors = {"div_factor": 25, "final_div_factor": 1e9}
    reference = lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=1001, cycle_momentum=False, **factors
    )
    for step in range(1000):
        due = schedule.find_next(cycle, record(*[1.0] * (step // 100)))
        assert schedule.find_rate(cycle, due, step % 100 / 100) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=2e-3
        )
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateau_is_torchs(patience):
    """Torch waits for one epoch more than it is told."""
    losses = (
        1 + np.random.default_rng(patience).normal(0, 0.2, 40) - np.linspace(0, 0.5, 40)
    ).tolist()
    options = {
        "plateau_epochs": patience,
        "plateau_factor": 0.5,
        "least_rate": 0.02,
        "least_gain": 0.05,
    }
    settings = make_settings(learning_rate=1.0, schedule="plateau", **options)
    optimizer, expected = torch.optim.SGD([torch.zeros(1)], lr=1.0), [1.0]
    bounds = {"threshold": 0.05, "threshold_mode": "abs", "min_lr": 0.02, "eps": 0}
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, **bounds
    )
    for loss in losses:
        reference.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    assert find_rates(settings, losses) == pytest.approx(expected)
    assert len(set(expected)) > 2


@pytest.mark.parametrize(
    ("losses", "due"),  # of at most 3 epochs of the head and 4 of all: number, frozen, goes on from
    [
        ([], (1, True, 0)),
        ([1.0, 0.8], (3, True, 2)),
        ([1.0, 0.8, 0.7], (4, False, 3)),
        ([1.0, 0.8, 0.9], (4, False, 2)),  # the best of the head
        ([0.5, 0.8, 0.9], (4, False, 1)),
        ([0.5, 0.8, 0.9, 0.8, 0.81], (6, False, 5)),  # counted anew
        ([0.5, 0.8, 0.9, 0.8, 0.81, 0.75], None),  # too small a gain
        ([1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], None),
    ],
)
def test_phases_end_by_patience_or_by_number_and_the_best_head_is_unfrozen(losses, due):
    settings = make_settings(epochs=7, freeze_epochs=3, patience=2, least_gain=0.06)
    found = schedule.find_next(settings, record(*losses))
    assert (found and found[:3]) == due


def test_a_head_that_stops_early_leaves_all_of_the_net_its_epochs_and_their_rates():
    settings = make_settings(
        epochs=7, freeze_epochs=4, patience=1, learning_rate=1.0, drop_epochs=[5]
    )
    losses = [1.0, 1.1, 0.9, 0.8, 0.7]  # two of the head
    assert find_rates(settings, losses[:4]) == pytest.approx([1, 1, 1, 0.2, 0.2])
    assert schedule.find_next(settings, record(*losses)) is None


def test_best_epoch_is_of_the_highest_figure_and_of_equals_the_lowest_loss():
    history = [
        row | {"valid_qwk": qwk}
        for row, qwk in zip(record(0.9, 0.7, 0.5, 0.6), (0.1, 0.8, 0.2, 0.8), strict=True)
    ]
    assert [schedule.find_best(history, figure) for figure in ("log_loss", "qwk")] == [3, 4]
    assert schedule.find_kept(history[:3], "qwk", 1) == {2, 3}


def test_resuming_at_every_epoch_of_both_phases_ends_in_the_same_bytes(run, cache):
    """The rate is so high that the head gets worse at once: its first epoch is unfrozen, and the plateau falls."""
    options = "--epochs 7 --freeze-epochs 4 --patience 2".split()
    options += "--schedule plateau --plateau-epochs 1 --plateau-factor 0.9".split()
    options += "--learning-rate 5 --thaw-rate 0.001 --least-gain 9".split()
    told, epochs = run(*options), cache / "dr" / "epochs"
    assert "goes on from epoch 1" in told and "in 2 epochs; stops" not in told
    assert [f"rate {rate}," in told for rate in ("5", "4.5", "0.001", "0.0009")] == [True] * 4
    whole = digest_files(cache / "dr")
    for epoch in (2, 4, 6):
        (epochs / f"000{epoch}.pt").write_bytes(b"half")
        assert f"goes on after epoch {epoch - 1}" in run(*options)
        assert digest_files(cache / "dr") == whole


@pytest.mark.parametrize(
    "options", ["--thaw-rate 1", "--freeze-epochs 2 --thaw-rate 1", "--warm-up-epochs 2"]
)
def test_schedules_that_cannot_be_are_refused(run, options):
    with pytest.raises(InputError, match=options.split()[-2]):
        run("--epochs", 2, *options.split())
