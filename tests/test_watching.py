"""What a person sees of a training: its lines, its page, its help, and what is said of a net that guesses."""

import math
import re

import numpy as np
import pytest

from dr.training import schedule, settings
from dr.training.schedule import Epoch
from dr.watching import outcome, pace, page
from dr.watching.pace import EpochTime
from preprocess.command import cli
from tests.tiny import make_settings


def make_history(*losses, train=1.0, qwk=0.5):
    rows = []
    for epoch, loss in enumerate(losses, 1):
        row = {"epoch": epoch, "train_log_loss": train, "valid_log_loss": loss}
        rows.append(row | {"valid_qwk": qwk, "learning_rate": 0.1})
    return rows


def test_each_epoch_says_its_time_speed_the_best_so_far_and_the_time_left(run, cache):
    lines = [line for line in run("--epochs", 3).splitlines() if line.startswith("epoch ")]
    pattern = r"; \d+\.\d s, \d+\.\d images/s; best epoch \d, QWK -?\d\.\d{4}; about \d+ s left$"
    assert re.search(pattern, lines[0])
    assert re.search(pattern, lines[1])
    assert "left" not in lines[2]
    assert "progress.html follows the training" in run("--epochs", 4)


def test_a_run_says_which_fold_it_holds_out_and_leaves_a_page_that_no_longer_reloads(run, cache):
    assert "held out (fold 2 of 4), on" in run("--epochs", 1, "--fold", 1)
    shown = (cache / "dr" / "progress.html").read_text()
    assert "Training has ended: nine-conv · fold 2 of 4" in shown
    assert 'http-equiv="refresh"' not in shown
    assert "not a medical device" in shown


def make_content(history, **changes):
    content = page.Content(
        title="<b>",
        facts={"epoch": "1 of 2"},
        history=history,
        headline="qwk",
        headline_name="QWK",
        guessed={"log_loss": 0.9, "qwk": 0.0},
        has_ended=False,
        warning="",
    )
    return content._replace(**changes)


def test_the_page_loads_itself_again_and_refers_to_nothing_outside():
    shown = page.render(make_content(make_history(1.0, math.nan, 0.8)))
    assert f'http-equiv="refresh" content="{page.RELOAD_S}"' in shown
    assert "&lt;b&gt;" in shown and "<b>:" not in shown
    assert not re.search(r"https?://|<script|src=", shown)
    assert shown.count("<polyline") == 6
    assert "nan" not in shown


def test_a_single_epoch_is_a_point():
    assert page.render(make_content(make_history(1.0))).count("<circle") == 6


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.21, 1.19, [0.0, 0.5, 1.0, 1.5]),
        (0.0, 0.03, [0.0, 0.01, 0.02, 0.03]),
        (-0.2, 0.2, [-0.2, -0.1, 0.0, 0.1, 0.2]),
    ],
)
def test_ticks_are_round_and_hold_all_values(low, high, ticks):
    np.testing.assert_allclose(page.choose_ticks(low, high), ticks, atol=1e-12)


def test_equal_values_have_an_axis():
    assert len(page.choose_ticks(0.5, 0.5)) >= 2
    assert len(page.choose_ticks(0.0, 0.0)) >= 2


def test_the_time_left_is_that_of_the_last_epochs():
    times = [EpochTime(1, 100.0), *[EpochTime(1, 10.0)] * 5]
    assert pace.estimate_left(times, 3) == 30
    assert [pace.show_duration(s) for s in (40, 600, 11_100)] == ["40 s", "10 min", "3 h 05 min"]


def test_epochs_left_count_both_phases():
    plain = make_settings(epochs=10)
    due = schedule.find_next(plain, make_history(1, 1))
    assert schedule.count_left(plain, due) == 7
    two = make_settings(epochs=10, freeze_epochs=4, thaw_rate=0.1)
    first = Epoch(1, is_frozen=True, goes_on_from=0, place=1, n_places=4, rate=0.1)
    assert schedule.count_left(two, first) == 9


def test_a_net_that_guesses_is_called_so_with_the_likeliest_reason(run):
    told = run("--epochs", 2, "--learning-rate", 0)
    warning = next(line for line in told.splitlines() if line.startswith("warning: dr.train"))
    assert "no better than guessing on the images held out: QWK" in warning
    assert "most likely it began with random weights and learned from 18 images only" in warning
    assert "--recipe few-photographs" in warning


def test_reasons_follow_the_figures():
    many = {"n_images": 10**6}
    wanted = make_settings(batch_size=10)
    assert "targets are not those" in outcome.explain(wanted, history=make_history(1), **many)
    by_heart = make_history(1.0, train=0.1)
    assert "by heart" in outcome.explain(wanted, history=by_heart, **many)
    steps = outcome.explain(make_settings(weights="imagenet"), 100, make_history(1.0))
    assert "it took 1 steps only" in steps and "random" not in steps


def test_every_option_of_training_stands_in_a_named_group(capsys):
    names = [name for group in settings.GROUPS.values() for name in group]
    assert sorted(names) == sorted(settings.Settings.__dataclass_fields__)
    parser = cli.make_parser("dr.train", "", "")
    settings.add_device_options(parser)
    settings.add_options(parser)
    with pytest.raises(SystemExit):
        settings.parse(parser, ["--help"])
    shown = capsys.readouterr().out
    for title in settings.GROUPS:
        assert shown.count(f"\n{title}:\n") == 1
