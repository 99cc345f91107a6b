"""The stage that decides: its methods, its files with and without a cache, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from dr.scores import write_scores
from kappa import assign
from kappa.exact import optimal_levels
from kappa.qwk import quadratic_weighted_kappa
from preprocess.stage import InputError

IMAGES = [f"{patient}_{side}" for patient in range(1, 101) for side in ("left", "right")]
RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet([2, 0.5, 0.7, 0.2, 0.2], len(IMAGES))
LEVELS = (RNG.random((len(IMAGES), 1)) > SCORES.cumsum(axis=1)[:, :4]).sum(axis=1)


@pytest.fixture
def files(tmp_path):
    """Scores and labels as explicit files."""
    write_scores(tmp_path / "scores.csv", IMAGES, SCORES)
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


@pytest.fixture
def cached(tmp_path):
    """Options of a data folder and a cache in which the blend is done."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv(data / "trainLabels.csv", index=False)
    write_scores(cache / "blend" / "scores_valid.csv", IMAGES[:100], SCORES[:100])
    write_scores(cache / "blend" / "scores_test.csv", IMAGES[100:], SCORES[100:])
    return [f"--data={data}", f"--cache={cache}"]


def run(*arguments):
    assign.main([str(argument) for argument in arguments])


def read_levels(path):
    table = pd.read_csv(path)
    assert list(table.columns) == ["image", "level"]
    return table.set_index("image")["level"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("anneal", optimal_levels(SCORES)),
        ("exact", optimal_levels(SCORES)),
        ("round", np.floor(SCORES @ np.arange(5) + 0.5)),
        ("argmax", SCORES.argmax(axis=1)),
    ],
)
def test_each_method_decides_as_its_name_says(files, method, expected, capsys):
    run("--scores", files / "scores.csv", "--out", files / "levels.csv", "--method", method)
    assert (read_levels(files / "levels.csv")[IMAGES] == expected).all()
    shown = capsys.readouterr().out
    assert shown.startswith(f"kappa.assign: 200 images by {method}: proxy 0.") and shown.count("\n") == 1
    assert all(word in shown for word in ("optimum", "gap")) and ("acceptance" in shown) == (method == "anneal")


def test_anneal_is_the_default(files, capsys):
    run("--scores", files / "scores.csv", "--out", files / "levels.csv")
    assert "by anneal" in capsys.readouterr().out


def test_thresholds_are_better_than_rounding_where_they_are_fitted(files):
    run(
        *("--scores", files / "scores.csv", "--out", files / "levels.csv", "--method", "thresholds"),
        *("--valid-scores", files / "scores.csv", "--labels", files / "labels.csv"),
    )
    rounded = assign.decide(SCORES, "round").levels
    fitted = read_levels(files / "levels.csv")[IMAGES]
    assert quadratic_weighted_kappa(LEVELS, fitted) > quadratic_weighted_kappa(LEVELS, rounded)


def test_fitted_thresholds_find_those_that_were_planted():
    expected = np.random.default_rng(1).uniform(0, 4, 4000)
    scores = np.column_stack([1 - expected / 4, *np.zeros((3, 4000)), expected / 4])
    planted = np.array([0.3, 1.7, 2.2, 3.4])
    fitted = assign.fit_thresholds(scores, assign.apply_thresholds(scores, planted))
    assert fitted == pytest.approx(planted, abs=0.02)


def test_a_threshold_that_is_reached_counts():
    scores = np.array([[0.5, 0.5, 0, 0, 0], [0.75, 0.25, 0, 0, 0]])
    assert assign.apply_thresholds(scores, np.array([0.5, 1.5, 2.5, 3.5])).tolist() == [1, 0]


def test_the_order_of_rows_does_not_matter(files):
    table = pd.read_csv(files / "scores.csv")
    table.sample(frac=1, random_state=0).to_csv(files / "shuffled.csv", index=False)
    for name in ("scores", "shuffled"):
        run("--scores", files / f"{name}.csv", "--out", files / f"{name}_levels.csv")
    assert (files / "scores_levels.csv").read_bytes() == (files / "shuffled_levels.csv").read_bytes()


def test_the_cache_is_used_and_a_change_is_named(cached, tmp_path, capsys):
    out = tmp_path / "cache" / "kappa" / "levels_test.csv"
    run(*cached)
    shown = capsys.readouterr().out
    assert "100 images by anneal" in shown and "validation fold: QWK" in shown and "(not made yet)" in shown
    first = out.read_bytes()
    assert list(read_levels(out).index) == IMAGES[100:]
    run(*cached)
    assert capsys.readouterr().out == "kappa.assign: cached\n"
    run(*cached, "--method", "thresholds")
    assert "(method changed from anneal to thresholds)" in capsys.readouterr().out
    out.unlink()
    run(*cached)
    assert out.read_bytes() == first
    write_scores(tmp_path / "cache" / "blend" / "scores_test.csv", IMAGES[100:], SCORES[:100])
    capsys.readouterr()
    run(*cached)
    assert "(scores_test changed)" in capsys.readouterr().out


def test_without_blended_scores_it_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="scores_test.csv: no such file; run python -m blend.predict first"):
        run(f"--cache={tmp_path / 'cache'}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scores=S.csv"],
        ["--out=L.csv"],
        ["--scores=S.csv", "--out=L.csv", "--method=thresholds"],
        ["--scores=S.csv", "--out=L.csv", "--labels=L.csv"],
        ["--method=best"],
    ],
)
def test_options_that_do_not_fit_together_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err
