"""The run script: its options, a whole small run to the submission, a cached rerun, a stop at the first failure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from preprocess import synthetic
from submissions import dry_run, score

ROOT = Path(__file__).parents[1]
DECIDING = ("dr.train", "dr.predict", "blend.train", "blend.predict", "kappa.assign", "submissions.report")
SMALL = "--size-px 64 --epochs 2 --views 2 --jobs 1 dr.train --folds 2 --batch-size 4".split()


def written_to(folder):
    """Return the options that keep what a run writes for people out of the project's folder."""
    return ["submissions.write", "--out", folder / "out.csv", "submissions.report", "--out", folder / "out.html"]


def run_all(*arguments):
    """Run run_all.sh in the environment of the tests."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        [ROOT / "run_all.sh", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_help_explains_and_names_every_stage():
    shown = run_all("--help")
    assert shown.returncode == 0
    for word in ("--data DIR", "--cache DIR", "--name NAME", "dr.train", "kappa.assign", "not a medical device"):
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--dta", "x"], "unknown option or stage --dta"), (["--data"], "--data needs a value")],
)
def test_wrong_options_are_one_line(arguments, message):
    shown = run_all(*arguments)
    assert shown.returncode == 2
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_the_environment_of_the_tests_is_used_as_it_is():
    shown = run_all("--python", ROOT / "tests" / "requirements.txt")
    assert shown.stdout.strip() == f"{sys.prefix}/bin/python"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small data folder and what a whole run over it left: (data, cache, submission, output)."""
    folder = tmp_path_factory.mktemp("run_all")
    data, cache, submission = folder / "data", folder / "cache", folder / "out.csv"
    synthetic.main(
        [f"--data={data}", *"--patients-train 8 --patients-test 3 --width-px 200 --levels balanced --jobs 1".split()]
    )
    shown = run_all("--data", data, "--cache", cache, *SMALL, *written_to(folder))
    assert shown.returncode == 0, shown.stderr
    return data, cache, submission, shown.stdout


def test_a_whole_run_ends_in_a_valid_submission_and_a_table(finished):
    data, _, submission, output = finished
    table = pd.read_csv(submission)
    assert list(table.columns) == ["image", "level"]
    assert list(table["image"]) == list(pd.read_csv(data / "sampleSubmission.csv")["image"])
    assert table["level"].isin(range(5)).all()
    stages = [line.removeprefix("== ") for line in output.splitlines() if line.startswith("== ")]
    assert stages[:3] == ["preprocess", "dr.train", "dr.predict"]
    assert "annealed labels" in output
    assert "not a medical device" in output


def test_a_second_run_is_all_cached(finished, tmp_path):
    data, cache, submission, _ = finished
    arguments = ("--data", data, "--cache", cache, *SMALL, *written_to(tmp_path))
    again = run_all(*arguments)
    for stage in ("normalize", "standardize", *DECIDING):
        assert f"{stage}: cached" in again.stdout
    assert (tmp_path / "out.csv").read_bytes() == submission.read_bytes()


def test_a_run_ends_in_a_report_with_pictures_and_times(finished):
    _, cache, submission, _ = finished
    page = submission.with_suffix(".html").read_text()
    assert 'alt="Heat map of level' in page
    assert "<ellipse " in page
    timed = pd.read_csv(cache / "times.csv")["stage"].tolist()
    assert timed == ["preprocess", *DECIDING[:-1]]


def list_files(*folders):
    """Return name, size and time of all files below some folders."""
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def look_ahead(*arguments):
    """Return what a dry run says of each stage: name -> state and reason."""
    shown = run_all("--dry-run", *arguments)
    rows = (line.split(maxsplit=1) for line in shown.stdout.splitlines())
    return {first: outlook for first, outlook in rows if first in dry_run.STAGES}, shown


def test_a_dry_run_of_a_finished_run_finds_all_cached_and_touches_nothing(finished, tmp_path):
    data, cache, submission, _ = finished
    before = list_files(data, cache, submission.parent)
    outlook, shown = look_ahead("--data", data, "--cache", cache, *SMALL, *written_to(submission.parent))
    assert shown.returncode == 0, shown.stderr
    assert {stage for stage, state in outlook.items() if state == "cached"} == {
        "preprocess",
        "submissions.write",
        *DECIDING,
    }
    assert outlook["submissions.score"] == "will run: prints its table"
    assert list_files(data, cache, submission.parent) == before


def test_a_dry_run_names_what_changed_and_what_hangs_on_it(finished):
    data, cache, submission, _ = finished
    before = list_files(data, cache)
    options = [
        "--data",
        data,
        "--cache",
        cache,
        *SMALL,
        *written_to(submission.parent),
        "blend.train",
        "--method",
        "linear",
    ]
    outlook, _ = look_ahead(*options)
    assert outlook["dr.predict"] == "cached"
    assert outlook["blend.train"] == "will run: method changed from mlp to linear"
    for stage in ("blend.predict", "kappa.assign", "submissions.write", "submissions.score", "submissions.report"):
        assert outlook[stage] == "will run after blend.train"
    assert list_files(data, cache) == before


def test_a_dry_run_without_a_cache_makes_none(data, tmp_path):
    outlook, shown = look_ahead("--data", data, "--cache", tmp_path / "cache", "--size-px", "64")
    assert shown.returncode == 0
    assert outlook["preprocess"] == "will run: 8 of 8 images of train are due"
    assert outlook["submissions.report"] == "will run after preprocess"
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_tells_where_a_run_would_stop(tmp_path):
    outlook, shown = look_ahead("--data", tmp_path / "nowhere", "--cache", tmp_path / "cache")
    assert shown.returncode == 2
    assert outlook["preprocess"] == f"will stop: {tmp_path / 'nowhere'}: no such folder"
    assert outlook["dr.train"] == "not reached after preprocess"
    wrong = run_all("--dry-run", "--data", tmp_path, "kappa.assign", "--method", "guess")
    assert wrong.returncode == 2
    assert "invalid choice: 'guess'" in wrong.stderr


def test_a_rejected_test_eye_is_still_in_the_submission(finished, tmp_path):
    data, cache, submission, _ = finished
    data = shutil.copytree(data, tmp_path / "data")
    cache = shutil.copytree(cache, tmp_path / "cache")
    next((data / "test").iterdir()).write_bytes(b"")
    arguments = ("--data", data, "--cache", cache, *SMALL, *written_to(tmp_path))
    assert run_all(*arguments).returncode == 2
    allowed = run_all("--allow-rejected", *arguments)
    assert allowed.returncode == 0, allowed.stderr
    assert "dr.train: cached" in allowed.stdout
    assert list(pd.read_csv(tmp_path / "out.csv")["image"]) == list(pd.read_csv(submission)["image"])


def test_without_a_test_set_the_net_and_the_blend_are_trained_and_the_run_says_what_is_missing(finished, tmp_path):
    data, *_ = finished
    shutil.copytree(data / "train", tmp_path / "data" / "train")
    shutil.copy(data / "trainLabels.csv", tmp_path / "data")
    place = ["--data", tmp_path / "data", "--cache", tmp_path / "cache"]
    shown = run_all(*place, *SMALL)
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


def test_the_first_failure_stops_the_run_with_its_message(finished, tmp_path):
    data, *_ = finished
    broken = shutil.copytree(data, tmp_path / "data")
    next((broken / "train").iterdir()).write_bytes(b"")
    shown = run_all("--data", broken, "--cache", tmp_path / "cache", *SMALL)
    assert shown.returncode == 2
    assert "1 photograph is rejected" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert "== dr.train" not in shown.stdout
