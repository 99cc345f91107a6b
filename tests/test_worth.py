"""What a reader of grades is told of the model: its figure and date, operating points, the rule, and how far it is."""

import io

import numpy as np
import pytest

from dr.metrics.operating import OperatingPoint
from dr.training import runs
from submissions import ensemble, grade, guard, page, serve
from submissions.output import model
from tests.tasks import TASK

REFERABLE = TASK.conditions[1]
SPREAD = np.array([0.72, 0.05, 0.03, 0.1, 0.1])  # nearest to its mean 0.81 is level 1


@pytest.fixture(scope="module")
def known(finished_cache):
    """What is known of the finished run."""
    members = runs.read_members(finished_cache / "dr", None, None)
    return model.read_known(finished_cache, None, members)


def make_known(*points):
    return model.Known("a net", REFERABLE, list(points), warning="")


def make_grade(scores, blended=None, has_fellow=False):
    return ensemble.Grade(
        eye=None,
        scores=scores,
        blended=blended,
        expected=float(scores @ range(5)),
        output=int(TASK.decide(scores[None])[0]),
        has_fellow=has_fellow,
        decision=None,
        warnings=[],
    )


def test_a_run_says_its_net_figure_and_day_and_that_it_guesses(known):
    assert known.model.startswith("nine-conv, mean of 2 checkpoints; learned from ")
    assert "images held out; trained on 20" in known.model
    assert "QWK" in known.model
    assert known.warning.startswith("No better than guessing: ")
    assert "most likely" in known.warning
    assert known.condition == REFERABLE


def test_checkpoints_alone_say_what_they_are(finished_cache):
    members = runs.read_members(finished_cache / "dr", None, None)
    alone = model.know_little(members)
    assert "QWK" not in alone.model
    assert "no operating points are known" in model.describe_points(alone)


def test_an_operating_point_counts_only_if_it_is_sure():
    sure = OperatingPoint("high sensitivity", 0.2, 12)
    unsure = OperatingPoint("high specificity", 0.1, 3)
    screened = model.screen(TASK, make_known(sure, unsure), SPREAD)
    assert screened["probability"] == pytest.approx(0.23)
    assert screened["points"] == {"high sensitivity": {"threshold": 0.2, "is_reached": True}}
    assert "high sensitivity from 20.0%" in model.describe_points(make_known(sure, unsure))
    assert "decides nothing" in model.describe_points(make_known(unsure))


def test_where_the_likeliest_level_is_another_both_are_shown_with_the_rule():
    graded = make_grade(SPREAD)
    assert (graded.output, graded.likeliest) == (1, 0)
    rule = page.describe_rule(TASK, graded)
    assert "likeliest level is 0, no retinopathy (72%)" in rule
    assert "nearest to the expected level" in rule and "0.81" in rule
    assert page.describe_rule(TASK, make_grade(np.eye(5)[3])) == ""


def test_a_table_says_what_to_refer_the_likeliest_level_and_the_model(finished_cache, pair, capsys):
    grade.main([*map(str, pair), f"--cache={finished_cache}", "--device=cpu"])
    shown = capsys.readouterr().out
    assert shown.startswith("warning: No better than guessing")
    assert "level  likeliest  referable (≥ 2)" in shown
    assert "\nmodel: nine-conv" in shown


def test_one_eye_has_no_bars_of_the_other_and_its_page_a_legend_and_the_model(
    finished_cache, pair, known
):
    members = runs.read_members(finished_cache / "dr", None, None)
    loaded = ensemble.load(members, finished_cache / "blend/train/model.pt", None, "cpu")
    noted = []
    upload = {"left": [("a.jpeg", io.BytesIO(pair[0].read_bytes()))]}
    told = page.answer(loaded, False, upload, note=lambda *of: noted.append(of), known=known)
    (card,) = told["cards"]
    assert list(card["scores"]) == ["net"]
    np.testing.assert_allclose(card["scores"]["net"], card["grade"].blended)
    assert noted == [(1, 1)]
    shown = serve.render(TASK, told, "", known)
    assert "with the other eye" not in shown
    assert "linear-gradient(to right, rgb(" in shown
    assert "Model: nine-conv" in shown and "No better than guessing" in shown
    assert "Referable (≥ 2): " in shown


def test_how_far_a_job_is_only_its_browser_learns():
    tracker = guard.Tracker()
    tracker.begin("a-job")
    tracker.note(3, 12)
    assert tracker.describe("a-job") == {"done": 3, "of": 12}
    assert tracker.describe("another") == tracker.describe("") == {}
    tracker.begin("")
    assert tracker.describe("") == {}
