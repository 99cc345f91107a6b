"""The run script: its options, a whole small run to the submission, a cached rerun, a stop at the first failure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from preprocess import synthetic
from preprocess.cache.stage import read_times
from submissions import score

ROOT = Path(__file__).parents[1]
DECIDING = ("dr.train", "dr.predict", "blend.train", "blend.predict", "kappa.assign")
SMALL = "--size-px 64 --epochs 2 --views 2 --jobs 1 dr.train --folds 2 --batch-size 4".split()


def run_all(*arguments, data, cache, out):
    """Run run_all.sh in the environment of the tests; what it writes for people goes to OUT/out.csv and .html."""
    written = ["submissions.write", "--out", out / "out.csv", "submissions.report", "--out", out / "out.html"]
    return call("--data", data, "--cache", cache, *arguments, *SMALL, *written)


def call(*arguments):
    """Run run_all.sh in the environment of the tests."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        [ROOT / "run_all.sh", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_help_explains_and_names_every_stage():
    shown = call("--help")
    assert shown.returncode == 0
    for word in ("--data DIR", "--cache DIR", "--name NAME", "--recipe NAME", "kappa.assign", "not a medical device"):
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dta", "x"], "unknown option or stage --dta"),
        (["--data"], "--data needs a value"),
        (["dr.tarin", "--epochs", "1"], "unknown option or stage dr.tarin"),
        (["preprocess.crop", "--method", "box"], "preprocess.crop is no stage of this run"),
        (["--data", "x", "--recipe", "artcle"], "--recipe artcle: no such recipe (near: article)"),
    ],
)
def test_wrong_options_are_one_line(arguments, message):
    shown = call(*arguments)
    assert shown.returncode == 2
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dr.train", "--epoch", "1"], "unrecognized arguments: --epoch"),
        (["kappa.assign", "--method", "guess"], "invalid choice: 'guess'"),
        (["submissions.report", "--lables", "x"], "unrecognized arguments: --lables"),
    ],
)
def test_a_mistyped_option_of_a_late_stage_ends_the_run_before_the_first(tmp_path, arguments, message):
    shown = call("--data", tmp_path, "--cache", tmp_path / "cache", *arguments)
    assert shown.returncode == 2
    assert message in shown.stderr
    assert shown.stdout == ""
    assert not (tmp_path / "cache").exists()


def test_the_environment_of_the_tests_is_used_as_it_is():
    shown = call("--python", ROOT / "tests" / "requirements.txt")
    assert shown.stdout.strip() == f"{sys.prefix}/bin/python"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small data folder and what a whole run over it left: (data, cache, folder of the submission, output)."""
    folder = tmp_path_factory.mktemp("run_all")
    data, cache = folder / "data", folder / "cache"
    synthetic.main(
        [f"--data={data}", *"--patients-train 8 --patients-test 3 --width-px 200 --levels balanced --jobs 1".split()]
    )
    shown = run_all(data=data, cache=cache, out=folder)
    assert shown.returncode == 0, shown.stderr
    return data, cache, folder, shown


def test_a_whole_run_ends_in_a_valid_submission_a_table_and_a_report(finished):
    data, cache, out, shown = finished
    table = pd.read_csv(out / "out.csv")
    assert list(table.columns) == ["image", "level"]
    assert list(table["image"]) == list(pd.read_csv(data / "sampleSubmission.csv")["image"])
    assert table["level"].isin(range(5)).all()
    stages = [line.removeprefix("== ") for line in shown.stdout.splitlines() if line.startswith("== ")]
    assert stages == ["preprocess", *DECIDING, "submissions.write", "submissions.score", "submissions.report"]
    assert "annealed labels" in shown.stdout
    assert "not a medical device" in shown.stdout
    page = (out / "out.html").read_text()
    assert 'alt="Heat map of level' in page
    assert "what was found of the eye" in page
    assert list(read_times(cache)) == ["preprocess", *DECIDING]


def test_without_a_terminal_a_run_moves_no_bar(finished):
    assert "\r" not in finished[3].stdout + finished[3].stderr


def test_a_second_run_is_all_cached(finished, tmp_path):
    data, cache, out, _ = finished
    again = run_all(data=data, cache=cache, out=tmp_path)
    for stage in ("normalize", "standardize", *DECIDING, "submissions.report"):
        assert f"{stage}: cached" in again.stdout
    assert (tmp_path / "out.csv").read_bytes() == (out / "out.csv").read_bytes()


def test_a_recipe_reaches_every_stage(finished, tmp_path):
    data, cache, out, _ = finished
    (tmp_path / "own.toml").write_text('[blend.train]\nmethod = "linear"\n[kappa.assign]\nmethod = "exact"\n')
    cache = shutil.copytree(cache, tmp_path / "cache")
    shown = run_all("--recipe", tmp_path / "own.toml", data=data, cache=cache, out=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "dr.predict: cached" in shown.stdout
    assert "method changed from mlp to linear" in shown.stdout
    assert "method changed from anneal to exact" in shown.stdout


def test_a_rejected_eye_stops_the_run_or_is_in_the_submission_all_the_same(finished, tmp_path):
    data, cache, out, _ = finished
    data = shutil.copytree(data, tmp_path / "data")
    cache = shutil.copytree(cache, tmp_path / "cache")
    next((data / "test").iterdir()).write_bytes(b"")
    stopped = run_all(data=data, cache=cache, out=tmp_path)
    assert stopped.returncode == 2
    assert "1 photograph is rejected" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "== dr.train" not in stopped.stdout
    allowed = run_all("--allow-rejected", data=data, cache=cache, out=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    assert "dr.train: cached" in allowed.stdout
    assert list(pd.read_csv(tmp_path / "out.csv")["image"]) == list(pd.read_csv(out / "out.csv")["image"])


def test_without_a_test_set_the_net_and_the_blend_are_trained_and_the_run_says_what_is_missing(finished, tmp_path):
    data, *_ = finished
    shutil.copytree(data / "train", tmp_path / "data" / "train")
    shutil.copy(data / "trainLabels.csv", tmp_path / "data")
    shown = run_all(data=tmp_path / "data", cache=tmp_path / "cache", out=tmp_path)
    assert shown.returncode == 2
    assert (tmp_path / "cache" / "blend" / "scores_valid.csv").exists()
    assert "== kappa.assign" in shown.stdout
    assert "is there no test set?" in shown.stderr


def test_without_test_labels_the_validation_fold_is_scored(finished, tmp_path, capsys):
    data, cache, *_ = finished
    data = shutil.copytree(data, tmp_path / "data")
    (data / "testLabels.csv").unlink()
    score.main([f"--data={data}", f"--cache={cache}"])
    assert "on the validation fold (8 images)" in capsys.readouterr().out
