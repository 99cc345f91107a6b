"""The run script: its options, a whole small run to the submission, a cached rerun, a stop at the first failure."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from preprocess.cache.stage import read_times
from preprocess.command.run import plan_run
from preprocess.disk.errors import InputError
from preprocess.synthetic import __main__ as synthetic
from tests.tiny import ROOT, run_stages

DECIDING = ("dr.train", "dr.predict", "blend.train", "blend.predict", "kappa.assign")
SMALL = "--size-px 64 --epochs 2 --views 2 --jobs 1 dr.train --folds 2 --batch-size 4".split()


def run_all(*arguments, data, cache, out):
    """Run run_all.sh in the environment of the tests; what it writes for people goes to OUT/out.csv and .html."""
    return call("--data", data, "--cache", cache, *arguments, *SMALL, *write_to(out))


def write_to(out):
    """Return the options that have a run write below a folder."""
    return [
        "submissions.write",
        "--out",
        out / "out.csv",
        "submissions.report",
        "--out",
        out / "out.html",
    ]


def call(*arguments):
    """Run run_all.sh in the environment of the tests."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        [ROOT / "run_all.sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dta", "x"], "unknown option or stage --dta"),
        (["--data"], "--data needs a value"),
        (["dr.tarin", "--epochs", "1"], "unknown option or stage dr.tarin"),
        (["preprocess.crop", "--method", "box"], "preprocess.crop is not a stage of this run"),
        (["--recipe", "artcle"], "--recipe artcle: no such recipe (near: article)"),
        (["dr.train", "--data", "x"], "--data: belongs to the whole run; give it before"),
        (["dr.train", "--epoch", "1"], "unrecognized arguments: --epoch"),
        (["submissions.report", "--lables", "x"], "unrecognized arguments: --lables"),
        (
            ["dr.train", "--help"],
            "dr.train --help: for the options of a stage, use python -m dr.train --help",
        ),
    ],
)
def test_a_mistyped_option_of_whatever_stage_ends_the_run_before_the_first(
    tmp_path, arguments, message
):
    shown = call("--data", tmp_path, "--cache", tmp_path / "cache", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert message in shown.stderr
    assert (
        shown.stderr.count("\n") == 1 or "unrecognized" in message
    )  # argparse tells the usage, too
    assert not (tmp_path / "cache").exists()


def test_bash_reads_the_plan_as_it_was_made_whatever_the_paths_hold():
    data, cache = "a\nb \"c\" $d `e` 'f'\udcff*", "--c \\ d\t;"
    plan = plan_run(
        [f"--data={data}", f"--cache={cache}", "--folds=2", "dr.train", "--seed", "'1 \n"]
    )
    code = """
        eval "$0"
        printf "%s\\0" "$folds_cache"
        for one in "${commands[@]}"; do eval "printf '%s\\0' $one"; done
    """
    shown = subprocess.run(
        ["bash", "-euc", code, os.fsencode(plan.quote())], capture_output=True, check=True
    ).stdout
    expected = [plan.folds_cache]
    for command in plan.commands:
        expected += [command.stage, command.run, *command.options]
    assert os.fsdecode(shown).split("\0")[:-1] == expected
    assert plan.folds_cache == f"{cache}/folds-2"


def test_a_net_per_fold_is_trained_and_scored_and_all_that_follows_goes_on_with_their_mean():
    plan = plan_run(
        "--data d --cache c --folds 2 --jobs 3 --device cpu dr.predict --views 4".split()
    )
    assert (plan.runs, plan.folds_cache) == (["fold-0", "fold-1"], "c/folds-2")
    lines = [command.quote() for command in plan.commands]
    assert lines[:6] == [
        "preprocess default --data d --cache c --recipe article --jobs 3",
        "dr.train fold-0 --data d --cache c/folds-2 --recipe article --device cpu --run fold-0 --folds 2 --fold 0",
        "dr.train fold-1 --data d --cache c/folds-2 --recipe article --device cpu --run fold-1 --folds 2 --fold 1",
        "dr.predict fold-0 --data d --cache c/folds-2 --recipe article --device cpu --run fold-0 --views 4",
        "dr.predict fold-1 --data d --cache c/folds-2 --recipe article --device cpu --run fold-1 --views 4",
        "dr.predict mean --data d --cache c/folds-2 --recipe article --device cpu --average fold-0 fold-1 --views 4",
    ]
    assert (
        "submissions.write default --data d --cache c/folds-2 --recipe article --name submission-folds"
        in lines
    )


def test_the_mean_of_runs_is_submitted_from_a_cache_of_its_own_and_nothing_is_trained():
    plan = plan_run(
        "--data d --cache c --average default --average lite0 --average other/dr kappa.assign --seed 2".split()
    )
    assert plan.folds_cache == "c/average-default+lite0+dr"
    lines = [command.quote() for command in plan.commands]
    assert lines[:2] == [
        "preprocess default --data d --cache c --recipe article",
        f"dr.predict mean --data d --cache {plan.folds_cache} --recipe article --average c/dr c/dr/runs/lite0 other/dr",
    ]
    assert not [line for line in lines if line.startswith("dr.train")]
    assert (
        f"kappa.assign default --data d --cache {plan.folds_cache} --recipe article --seed 2"
        in lines
    )
    assert lines[-1].endswith("--name submission-average")
    for options in ("--folds 2", "--epochs 3", "--views 2"):
        with pytest.raises(InputError, match="cannot be combined with --average"):
            plan_run(["--data", "d", "--average", "a", *options.split()])
    with pytest.raises(InputError, match="dr.train is not a stage of this run"):
        plan_run("--data d --average a dr.train --seed 1".split())


def test_data_is_drawn_for_the_demo_and_where_a_demos_recipe_finds_none_or_drew_before(tmp_path):
    def is_drawn(*options):
        return plan_run(options).commands[0].stage == "preprocess.synthetic"

    assert is_drawn()
    assert is_drawn("--data", str(tmp_path / "new"), "--recipe", "oct-demo")
    assert not is_drawn("--data", str(tmp_path), "--recipe", "oct-demo")
    assert not is_drawn("--data", str(tmp_path / "new"))
    (tmp_path / "synthetic").mkdir()
    assert is_drawn("--data", str(tmp_path), "--recipe", "oct-demo")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small data folder and what a whole run over it left: (data, cache, folder of the submission, output)."""
    folder = tmp_path_factory.mktemp("run_all")
    data, cache = folder / "data", folder / "cache"
    synthetic.main(
        [
            f"--data={data}",
            *"--patients-train 8 --patients-test 3 --width-px 200 --levels balanced --jobs 1".split(),
        ]
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
    stages = [
        line.removeprefix("== ") for line in shown.stdout.splitlines() if line.startswith("== ")
    ]
    assert stages == [
        "preprocess",
        *DECIDING,
        "submissions.write",
        "submissions.score",
        "submissions.report",
    ]
    assert "annealed labels" in shown.stdout and "not a medical device" in shown.stdout
    assert "\r" not in shown.stdout + shown.stderr  # no bar moves where there is no terminal
    page = (out / "out.html").read_text()
    assert 'alt="Heat map of level' in page
    assert "what was found of the eye" in page
    assert list(read_times(cache)) == ["preprocess", *DECIDING]


def test_a_second_run_is_all_cached(finished, tmp_path):
    data, cache, out, _ = finished
    again = run_all(data=data, cache=cache, out=tmp_path)
    for stage in ("normalize", "standardize", *DECIDING, "submissions.report"):
        assert f"{stage}: cached" in again.stdout
    assert (tmp_path / "out.csv").read_bytes() == (out / "out.csv").read_bytes()


def test_a_rejected_eye_stops_the_run_or_is_in_the_submission_and_a_recipe_reaches_every_stage(
    finished, tmp_path, capsys
):
    """Without the test set's labels, the validation fold is scored."""
    data, cache, out, _ = finished
    data, cache = (
        shutil.copytree(data, tmp_path / "data"),
        shutil.copytree(cache, tmp_path / "cache"),
    )
    (tmp_path / "own.toml").write_text(
        '[blend.train]\nmethod = "linear"\n[kappa.assign]\nmethod = "exact"\n'
    )
    (data / "testLabels.csv").unlink()
    next((data / "test").iterdir()).write_bytes(b"")
    stopped = run_all(data=data, cache=cache, out=tmp_path)
    assert stopped.returncode == 2 and "== dr.train" not in stopped.stdout
    assert "1 photograph is rejected" in stopped.stderr and "Traceback" not in stopped.stderr
    options = [
        "--allow-rejected",
        "--recipe",
        tmp_path / "own.toml",
        "--data",
        data,
        "--cache",
        cache,
        *SMALL,
    ]
    run_stages(tmp_path, *options, *write_to(tmp_path))
    told, shown = (
        ("dr.train: cached", "from mlp to linear", "from anneal to exact"),
        capsys.readouterr().out,
    )
    assert all(text in shown for text in (*told, "on the validation fold (8 images of 4 patients)"))
    assert "QWK, validation fold" in (tmp_path / "out.html").read_text()
    assert list(pd.read_csv(tmp_path / "out.csv")["image"]) == list(
        pd.read_csv(out / "out.csv")["image"]
    )
