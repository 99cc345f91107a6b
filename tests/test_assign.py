"""The stage that decides: its methods, its files with and without a cache, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from dr.scores import write_scores
from kappa import assign
from kappa.exact import optimal_levels
from preprocess.disk.errors import InputError
from tests.tasks import TASK

IMAGES = [f"{patient}_{side}" for patient in range(1, 101) for side in ("left", "right")]
RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet([2, 0.5, 0.7, 0.2, 0.2], len(IMAGES))
LEVELS = (RNG.random((len(IMAGES), 1)) > SCORES.cumsum(axis=1)[:, :4]).sum(axis=1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("anneal", optimal_levels(SCORES)),
        ("exact", optimal_levels(SCORES)),
        ("round", np.floor(SCORES @ np.arange(5) + 0.5)),
        ("argmax", SCORES.argmax(axis=1)),
    ],
)
def test_each_method_decides_as_its_name_says_whatever_the_order_of_rows(
    method, expected, tmp_path, capsys
):
    scores, out = tmp_path / "scores.csv", tmp_path / "levels.csv"
    arguments = [f"--scores={scores}", f"--out={out}", f"--method={method}"]
    write_scores(scores, IMAGES, SCORES, TASK)
    assign.main(arguments)
    table = pd.read_csv(out)
    assert list(table.columns) == ["image", "level"]
    assert (table.set_index("image")["level"][IMAGES] == expected).all()
    shown = capsys.readouterr().out
    assert (
        shown.startswith(f"kappa.assign: 200 images by {method}: proxy 0.")
        and shown.count("\n") == 1
    )
    assert all(word in shown for word in ("optimum", "gap")) and ("acceptance" in shown) == (
        method == "anneal"
    )
    written = out.read_bytes()
    pd.read_csv(scores).sample(frac=1, random_state=0).to_csv(scores, index=False)
    assign.main(arguments)
    assert out.read_bytes() == written


def test_the_cache_is_used_and_a_change_is_named(tmp_path, capsys):
    cached, out = (
        [f"--data={tmp_path}", f"--cache={tmp_path}"],
        tmp_path / "kappa" / "levels_test.csv",
    )
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv(
        tmp_path / "trainLabels.csv", index=False
    )
    write_scores(tmp_path / "blend" / "scores_valid.csv", IMAGES[:100], SCORES[:100], TASK)
    write_scores(tmp_path / "blend" / "scores_test.csv", IMAGES[100:], SCORES[100:], TASK)
    assign.main(cached)
    shown = capsys.readouterr().out
    assert (
        "100 images by anneal" in shown
        and "validation fold: QWK" in shown
        and "(not made yet)" in shown
    )
    first = out.read_bytes()
    assert list(pd.read_csv(out)["image"]) == IMAGES[100:]
    assign.main(cached)
    assert capsys.readouterr().out == "kappa.assign: cached\n"
    assign.main([*cached, "--method=round"])
    assert "(method changed from anneal to round)" in capsys.readouterr().out
    out.unlink()
    assign.main(cached)
    assert out.read_bytes() == first
    write_scores(tmp_path / "blend" / "scores_test.csv", IMAGES[100:], SCORES[:100], TASK)
    capsys.readouterr()
    assign.main(cached)
    assert "(scores_test changed)" in capsys.readouterr().out


def test_what_is_missing_is_said_and_options_that_do_not_fit_together_are_refused(tmp_path, capsys):
    with pytest.raises(
        InputError, match="scores_test.csv: no such file; run python -m preprocess first"
    ):
        assign.main([f"--cache={tmp_path}"])
    for alone in ("--scores=S.csv", "--out=L.csv", "--method=best"):
        with pytest.raises(SystemExit, match="^2$"):
            assign.main([alone])
        assert "error:" in capsys.readouterr().err
