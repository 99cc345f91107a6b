"""Progress: a line now and then in a log, and on a terminal never long without a sign of life."""

import os
import pty
import select
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from blend import mlp
from blend.pairs import Pairs
from preprocess.command import progress
from preprocess.disk import clock

WAIT = """\
import time
from preprocess.disk import clock
clock.SHOWN_AFTER_S = 0.1
clock.REFRESHED_S = 0.1
with clock.waiting("reading"):
    time.sleep(1)
print("done")
"""


def test_a_terminal_shows_how_long_it_waits_and_a_pipe_does_not():
    command = [sys.executable, "-c", WAIT]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    process = subprocess.Popen(command, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            content = os.read(terminal, 1000)
        except OSError:  # Linux's word for the end
            break
        if not content:
            break
        shown += content
    assert process.wait() == 0
    os.close(terminal)
    assert shown.count(b"reading: ") > 2
    assert shown.endswith(b"\rdone\r\n")  # at the start of a line that is empty again


def test_a_log_is_told_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(clock, "FIRST_LINE_S", 0.05)
    monkeypatch.setattr(clock, "NEXT_LINE_S", 0.05)
    with progress.waiting("reading"):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert set(lines) == {"reading: 0 s so far"}
    with progress.waiting("reading", is_shown=False):
        time.sleep(0.3)
    with pytest.raises(ZeroDivisionError), progress.waiting("reading"):
        print(1 // 0)
    assert capsys.readouterr().err == ""


def test_a_log_counts_in_the_unit_that_is_counted(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    with progress.tracking(10, "blend.train", unit="step") as bar:
        bar.update(4)
    assert capsys.readouterr().err.startswith("blend.train: 4 of 10 steps, ")


def test_fitting_a_blend_moves_a_bar_by_as_many_steps_as_it_takes():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(5), size=(2, 60))
    bar = progress.Bar(0, "", is_shown=False)
    mlp.fit_blend(Pairs(*scores), rng.integers(0, 5, 60), "mlp", 0, bar)
    assert bar.done == mlp.N_SEEDS * mlp.count_steps(60) > 0
