"""From a set as it was downloaded to its submission: every stage reads it alike, and unknown targets are left out."""

import csv

import pytest

from kappa import score
from preprocess.command import run
from tests import layouts
from tests.layouts import put, write
from tests.tiny import run_stages

FEW = "--size-px 37 --epochs 1 --views 1 --device cpu --jobs 1".split()
TINY = "preprocess --crop whole dr.train --batch-size 4 --folds 2 --precision float32".split()
TINY += "blend.train --method linear".split()


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def list_outputs(path):
    """Return the options that put submission and report beside each other, outside of the project."""
    return ["submissions.write", f"--out={path}.csv", "submissions.report", f"--out={path}.html"]


def test_aptos_as_downloaded_ends_in_its_own_submission(tmp_path, capsys, monkeypatch):
    layouts.draw_aptos(tmp_path / "aptos")
    monkeypatch.chdir(tmp_path)
    options = [
        f"--data={tmp_path / 'aptos'}",
        f"--cache={tmp_path / 'cache'}",
        "--name=aptos",
        *FEW,
    ]
    run_stages(tmp_path, *options, *TINY, *list_outputs(tmp_path / "aptos"))
    sample = read_rows(tmp_path / "aptos" / "sample_submission.csv")
    rows = read_rows(tmp_path / "aptos.csv")
    assert rows[0] == ["id_code", "diagnosis"] and [row[0] for row in rows] == [
        row[0] for row in sample
    ]
    assert {row[1] for row in rows[1:]} <= set("01234")
    shown = capsys.readouterr().out
    assert "recognised as layout aptos" in shown
    assert "blend.train: no image has a side: each is its own fellow" in shown


def test_three_levels_in_folders_with_sides_end_in_levels_a_blend_and_kappa(
    tmp_path, capsys, monkeypatch
):
    for number in range(8):
        for side in ("left", "right"):
            word = ("none", "some", "much")[number % 3]
            put(
                tmp_path
                / "mine"
                / ("train" if number < 6 else "test")
                / word
                / f"{number}_{side}.tif"
            )
    put(tmp_path / "mine" / "train" / "unsure" / "9_left.bmp")
    keys = 'kind = "levels"\nnames = ["none", "some", "much"]\nunknown = ["unsure"]\n'
    patterns = "patient_from = '(\\d+)_'\nside_from = '_(left|right)'\n"
    write(
        tmp_path / "layout.toml",
        f'{keys}{patterns}[train]\nimages = "train"\n[test]\nimages = "test"\n',
    )
    monkeypatch.chdir(tmp_path)
    options = [
        f"--data={tmp_path / 'mine'}",
        f"--layout={tmp_path / 'layout.toml'}",
        f"--cache={tmp_path / 'cache'}",
    ]
    run_stages(tmp_path, *options, "--name=mine", *FEW, *TINY, *list_outputs(tmp_path / "mine"))
    shown = capsys.readouterr().out
    assert "1 of 13 images have no known level: left out" in shown
    assert (
        "quadratic weighted kappa on the test set (4 images of " in shown
        and "each is its own fellow" not in shown
    )
    rows = read_rows(tmp_path / "mine.csv")
    assert rows[0] == ["image", "level"] and {row[1] for row in rows[1:]} <= set("012")
    assert read_rows(tmp_path / "cache" / "blend" / "scores_test.csv")[0] == [
        "image",
        "p0",
        "p1",
        "p2",
    ]


def test_kappa_score_takes_scales_of_more_than_five_levels(tmp_path, capsys):
    for name, levels in (("given", "0,6,3,5"), ("true", "0,6,2,5")):
        rows = "".join(
            f"{image},{level}\n" for image, level in zip("abcd", levels.split(","), strict=True)
        )
        write(tmp_path / f"{name}.csv", f"image,level\n{rows}")
    score.main([f"--levels={tmp_path / 'given.csv'}", f"--labels={tmp_path / 'true.csv'}"])
    assert "quadratic weighted kappa 0.9" in capsys.readouterr().out


def test_the_run_hands_the_layout_to_every_stage_that_reads_data():
    plan = run.plan_run(["--data", "aptos", "--layout", "aptos"])
    assert all(command.options[2:4] == ["--layout", "aptos"] for command in plan.commands)
    with pytest.raises(Exception, match="--layout needs a value"):
        run.plan_run(["--layout", ""])
