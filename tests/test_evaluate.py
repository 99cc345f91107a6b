"""Evaluation on other data: the same figures by every command, nothing lost by a kill, known images, bad input."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dr.metrics import bootstrap
from dr.scores import read_scores, write_scores
from dr.tasks.kinds import make_task
from preprocess.dataset import readers
from preprocess.dataset.question import RETINOPATHY, Question
from preprocess.disk.errors import InputError
from submissions import ensemble, evaluate, grade, score
from submissions.evaluation import subgroups
from submissions.evaluation.figures import Sample
from submissions.report import __main__ as report
from tests.tiny import ROOT, digest_files

TASK = make_task(RETINOPATHY)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Let intervals rest on few draws: what they are is tested by tests/test_operating.py."""
    monkeypatch.setattr(bootstrap, "N_DRAWS", 60)


@pytest.fixture
def finished(finished_cache, tmp_path):
    """A copy of the finished cache, in which evaluations may be made."""
    return shutil.copytree(finished_cache, tmp_path / "cache")


@pytest.fixture(scope="module")
def elsewhere(drawn_folder, tmp_path_factory):
    """A data folder of another hospital: the photographs of the drawn one under other names, and cameras."""
    folder = tmp_path_factory.mktemp("elsewhere")
    dataset = readers.read_dataset(drawn_folder)
    rows = ["image,path,patient,side,level,camera,age"]
    for number, row in enumerate(dataset.samples.itertuples()):
        camera = ("A", "B")[number // 2 % 2]
        rows.append(
            f"p{number},{row.path},q{number // 2},{row.side},{int(row.level)},{camera},{number}"
        )
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def alone(tmp_path):
    """A table of scores and one of labels, with cameras, of 60 images of 30 patients; and what both hold."""
    rng = np.random.default_rng(0)
    images = [f"{patient}_{side}" for patient in range(30) for side in ("left", "right")]
    levels = rng.integers(0, 5, 60)
    scores = rng.dirichlet(np.ones(5), 60) + np.eye(5)[levels]
    write_scores(tmp_path / "scores.csv", images, scores / 2, TASK)
    rows = [f"{image},{level},{'AB'[number // 2 % 2]},{number}\n"
            for number, (image, level) in enumerate(zip(images, levels, strict=True))]  # fmt: skip
    (tmp_path / "labels.csv").write_text("image,level,camera,age\n" + "".join(rows))
    return [
        f"--scores={tmp_path}/scores.csv",
        f"--labels={tmp_path}/labels.csv",
        f"--cache={tmp_path}/cache",
    ]


def run(capsys, *options):
    """Evaluate and return what is printed."""
    capsys.readouterr()
    evaluate.main([*map(str, options)])
    return capsys.readouterr().out


def list_tables(printed, first, last):
    """Return the lines of tables between two lines that begin in some way."""
    lines = printed.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(first)][:1]
    ends = [number for number, line in enumerate(lines) if line.startswith(last) and number > start]
    return lines[start + 1 : ends[0]]


def read_figures(folder):
    with open(folder / "figures.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_on_the_runs_own_test_folder_score_report_and_grade_say_the_same(
    drawn_folder, finished, tmp_path, capsys
):
    places = [f"--data={drawn_folder}", f"--cache={finished}"]
    evaluated = run(capsys, *places, "--device=cpu", "--jobs=1", "--name=own")
    score.main(places)
    scored = capsys.readouterr().out
    (title,) = re.findall(r"^data: 4 images of 2 patients$", evaluated, re.MULTILINE)
    tables = list_tables(evaluated, title, "validation patients: ")
    assert tables == list_tables(scored, "test set: ", "95 % intervals")
    report.main([*places, f"--out={tmp_path}/report.html"])
    cells = re.compile(r"<td>(.*?)</td>", re.DOTALL)
    shown = (tmp_path / "report.html").read_text().partition('id="figures"')[2]
    own = (finished / "evaluations/own/evaluation.html").read_text().partition('id="figures"')[2]
    n_cells = 3 * 5 + 4 * 5 + 7 * 4 + 7 * 8  # overall, levels, conditions, operating points
    assert cells.findall(shown)[:n_cells] == cells.findall(own)[:n_cells]

    scores = read_scores(finished / "evaluations/own/scores.csv", TASK)
    np.testing.assert_allclose(
        scores, read_scores(finished / "blend/scores_test.csv", TASK), atol=1e-6
    )
    for patient in sorted({image.partition("_")[0] for image in scores.index}):
        photographs = sorted((drawn_folder / "test").glob(f"{patient}_*"))
        capsys.readouterr()
        grade.main([*map(str, photographs), f"--cache={finished}", "--device=cpu", "--json"])
        for eye in json.loads(capsys.readouterr().out)["eyes"]:
            image = f"{eye['patient']}_{eye['side']}"
            np.testing.assert_allclose(eye["blended"], scores.loc[image], atol=2e-6)


def test_images_of_one_level_have_no_curve_and_a_report_all_the_same(
    finished, data, tmp_path, capsys
):
    labels = pd.read_csv(data / "testLabels.csv")
    labels.assign(level=0).to_csv(data / "testLabels.csv", index=False)
    places = [f"--data={data}", f"--cache={finished}"]
    report.main([*places, f"--out={tmp_path}/report.html"])
    assert "not measurable" in (tmp_path / "report.html").read_text()
    shown = run(capsys, *places, "--device=cpu", "--jobs=1", "--name=zero")
    assert "warning: no image has any retinopathy (≥ 1), " in shown


def test_operating_points_are_the_validation_patients_and_what_is_evaluated_has_no_part(
    drawn_folder, finished, tmp_path, capsys
):
    data = shutil.copytree(drawn_folder, tmp_path / "data")
    options = [f"--data={data}", f"--cache={finished}", "--device=cpu", "--jobs=1"]
    run(capsys, *options, "--name=first")
    labels = pd.read_csv(data / "testLabels.csv")
    labels["level"] = 4 - labels["level"]
    labels.to_csv(data / "testLabels.csv", index=False)
    run(capsys, *options, "--name=other")
    thresholds = []
    for name in ("first", "other"):
        rows = read_figures(finished / "evaluations" / name)
        thresholds.append(
            [(row["about"], row["point"], row["threshold"]) for row in rows if row["point"]]
        )
    assert thresholds[0] == thresholds[1] and len(thresholds[0]) > 8


KILL = """
import os, signal, sys
from submissions import ensemble, evaluate
ensemble.EYES_AT_ONCE = 2
own = ensemble.score_eyes
def score_once(*arguments):
    if hasattr(score_once, "called"):
        os.kill(os.getpid(), signal.SIGKILL)
    score_once.called = True
    return own(*arguments)
ensemble.score_eyes = score_once
evaluate.main(sys.argv[1:])
"""


def test_a_killed_evaluation_loses_the_photographs_in_flight_and_ends_in_the_same_bytes(
    drawn_folder, finished, monkeypatch, capsys
):
    monkeypatch.setattr(ensemble, "EYES_AT_ONCE", 2)  # a patient
    options = [f"--data={drawn_folder}", f"--cache={finished}", "--device=cpu", "--jobs=1"]
    killed = subprocess.run(
        [sys.executable, "-c", KILL, *options, "--name=killed"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    folder = finished / "evaluations" / "killed"
    assert not (folder / "scores.csv").exists()
    shown = run(capsys, *options, "--name=killed")
    assert (
        "scores: 2 of 4 images are due" in shown and "crop: test: all 4 images are cached" in shown
    )
    run(capsys, *options, "--name=whole")
    whole = finished / "evaluations" / "whole"
    for name in ("scores.jsonl", "scores.csv", "truth.csv", "figures.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    before = digest_files(folder)
    monkeypatch.setattr(ensemble, "score_eyes", None)  # nothing is scored again, nothing written
    assert "scores: all 4 images are cached" in run(capsys, *options, "--name=killed")
    assert digest_files(folder) == before


def test_images_of_the_training_set_are_found_by_content_counted_and_dropped(
    elsewhere, finished, capsys
):
    options = [
        f"--data={elsewhere}",
        f"--cache={finished}",
        "--device=cpu",
        "--jobs=1",
        "--name=elsewhere",
    ]
    shown = run(capsys, *options)
    warning = shown.splitlines()[
        [line.startswith("warning: 8 of 12") for line in shown.splitlines()].index(True)
    ]
    assert "images are of the run's training set (p0 is " in warning and "--drop-known" in warning
    assert "elsewhere0: 12 images of 6 patients" in shown
    shown = run(capsys, *options, "--drop-known")
    assert "they are left out" in shown and "elsewhere0: 4 images of 2 patients" in shown
    kept = read_scores(finished / "evaluations/elsewhere/scores.csv", TASK)
    assert len(kept) == 4
    page = (finished / "evaluations/elsewhere/evaluation.html").read_text()
    assert "of the run&#39;s training set" in page and page.index(
        "Not a medical device"
    ) < page.index("<h1>")
    assert not re.findall(
        r"""(?:src|href|action|url\()\s*=?\s*["']?\s*(?:https?:)?//""", page, re.IGNORECASE
    )


def test_subgroups_are_measured_with_the_same_draws_and_the_largest_gap_is_theirs(
    alone, tmp_path, capsys
):
    shown = run(capsys, *alone, "--by", "camera", "age", "--operating-point=0.5")
    rows = read_figures(tmp_path / "cache/evaluations/scores")
    table = pd.read_csv(tmp_path / "labels.csv").set_index("image")
    scores = read_scores(tmp_path / "scores.csv", TASK).loc[table.index]
    referable = scores[["p2", "p3", "p4"]].sum(axis=1).clip(upper=1)
    for camera in "AB":
        here = table["camera"] == camera
        (row,) = [row for row in rows if (row["group"], row["about"], row["figure"])
                  == (camera, "referable (≥ 2)", "AUC")]  # fmt: skip
        assert float(row["value"]) == pytest.approx(
            roc_auc_score(table["level"][here] >= 2, referable[here])
        )
        assert (row["images"], row["positives"]) == ("30", str((table["level"][here] >= 2).sum()))
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    quarters = {
        row["group"]: row["images"]
        for row in rows
        if row["column"] == "age" and " - " not in row["group"]
    }
    assert quarters == {
        "up to 14.75": "15",
        "14.75 to 29.5": "15",
        "29.5 to 44.25": "15",
        "above 44.25": "15",
    }
    gaps = [
        row for row in rows if row["column"] == "camera" and row["figure"] == "largest gap, QWK"
    ]
    values = {row["group"]: float(row["value"]) for row in rows if row["column"] == "camera"
              and row["about"] == "all" and row["figure"] == "QWK"}  # fmt: skip
    assert float(gaps[0]["value"]) == pytest.approx(abs(values["A"] - values["B"]))
    assert "largest gaps" in shown and "by camera" in shown
    assert (tmp_path / "cache/evaluations/scores/evaluation.html").read_text().count(
        "<svg"
    ) == 2 + 1 + 4


def test_a_group_that_a_draw_leaves_out_is_not_measured_there():
    sample = Sample(
        title="sample",
        images=[*"abcdef"],
        patients=[*"112233"],
        scores=np.full((6, 5), 0.2),
        targets=np.array([0, 1, 2, 3, 4, 0]),
    )
    is_here = np.array([True, True, False, False, False, False])
    drawn = subgroups.draw_group(TASK, sample, {}, is_here)
    qwk = drawn[subgroups.Key("", "", "QWK")]
    assert np.isfinite(qwk[0]) and 0.1 < np.isnan(qwk).mean() < 0.5  # (2/3)^3


def test_a_run_that_is_no_better_than_a_guess_says_so_first(alone, tmp_path, capsys):
    images = list(read_scores(tmp_path / "scores.csv", TASK).index)
    constant = np.tile([0.9, 0.1, 0, 0, 0], (60, 1))
    write_scores(tmp_path / "scores.csv", images, constant, TASK)
    shown = run(capsys, *alone)
    assert shown.startswith("warning: no better than majority level: QWK 0.0000")
    assert "warning: no better than guessing by frequency: log loss" in shown
    page = (tmp_path / "cache/evaluations/scores/evaluation.html").read_text()
    assert page.index("No better than majority level") < page.index('class="cards"')


def test_other_evaluations_stand_beside_with_paired_differences(alone, tmp_path, capsys):
    run(capsys, *alone, "--name=first")
    shown = run(capsys, *alone, "--name=second", "--compare", "first")
    row = [line for line in shown.splitlines() if line.startswith("  first ")][0]
    assert row.count("+0.0000 (no draw differed)") == 3 + 4  # the same scores
    with pytest.raises(InputError, match="--compare third: no evaluation of this name"):
        evaluate.main([*alone, "--compare", "third"])


@pytest.mark.parametrize(
    ("names", "header"), [((*"ABC",), "image,class,patient"), ((*"AB",), "image,A,B,patient")]
)
def test_tables_of_classes_and_findings_are_evaluated(tmp_path, names, header, capsys):
    rng = np.random.default_rng(0)
    question = Question("classes" if "class" in header else "findings", names)
    images = [f"i{number}" for number in range(80)]
    truth = rng.integers(0, len(names), 80)
    scores = (rng.dirichlet(np.ones(len(names)), 80) + np.eye(len(names))[truth]) / 2
    write_scores(tmp_path / "scores.csv", images, scores, make_task(question))
    rows = []
    for number, target in enumerate(truth):
        cells = (
            names[target]
            if question.kind == "classes"
            else f"{int(target == 0)},{'' if number < 9 else target}"
        )
        rows.append(f"i{number},{cells},{number // 2}\n")
    (tmp_path / "labels.csv").write_text(f"{header}\n{''.join(rows)}")
    shown = run(
        capsys,
        f"--scores={tmp_path}/scores.csv",
        f"--labels={tmp_path}/labels.csv",
        f"--cache={tmp_path}/cache",
    )
    assert "80 images of 40 patients" in shown and "guessing by frequency" in shown
    assert "operating points: none" in shown
    if question.kind == "findings":
        assert re.search(r"^  B +71 ", shown, re.MULTILINE)


def change_labels(folder, change):
    """Change the table of labels."""
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    change(table).to_csv(folder / "labels.csv", index=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.assign(level="7"),
            r"labels.csv, row 2: level is 7, not 0, 1, 2, 3 or 4",
        ),
        (lambda table: table.drop(columns="level"), "no column level or class"),
        (
            lambda table: table.assign(image="x" + table["image"]),
            "60 images of .*scores.csv are not in",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(alone, tmp_path, change, message):
    change_labels(tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        evaluate.main(alone)
    assert "\n" not in str(caught.value)


def test_without_positives_the_rest_is_measured_and_a_line_says_so(alone, tmp_path, capsys):
    change_labels(tmp_path, lambda table: table.assign(level=(table["level"] != "0").astype(int)))
    shown = run(capsys, *alone)
    assert (
        "warning: no image has referable (≥ 2), vision-threatening (≥ 3), proliferative (≥ 4): "
        in shown
    )
    assert re.search(r"^  referable \(≥ 2\) +60 +0 +not measurable", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by=shutter"], r"--by shutter: no such column in .*labels.csv"),
        (["--run=x"], "are for photographs, not for --scores"),
        (["--by=image_name"], "no such column"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(alone, options, message):
    with pytest.raises(InputError, match=message):
        evaluate.main([*alone, *options])
    with pytest.raises(InputError, match="--scores and --labels come together"):
        evaluate.main(alone[:1])


def test_a_run_without_validation_scores_or_of_another_scale_is_one_line(
    elsewhere, finished, tmp_path, capsys
):
    options = [f"--data={elsewhere}", f"--cache={finished}", "--device=cpu", "--jobs=1", "--name=x"]
    (finished / "dr" / "targets_valid.csv").unlink()
    with pytest.raises(
        InputError, match=r"targets_valid.csv: no such file.*give --operating-point"
    ):
        evaluate.main(options)
    shown = run(capsys, *options, "--operating-point=0.5")
    assert (
        re.search(r"referable \(≥ 2\), given +0.5 +given", shown)
        and "validation patients" not in shown
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "samples.csv").write_text("image,path,class\n1,a.png,A\n2,b.png,B\n")
    with pytest.raises(InputError, match="asks for classes A, B; the run tells levels"):
        evaluate.main([f"--data={other}", f"--cache={finished}", "--operating-point=0.5"])
    with pytest.raises(InputError, match="holds no finished run"):
        evaluate.main([f"--data={elsewhere}", f"--cache={Path(tmp_path, 'none')}"])


def test_refused_photographs_are_counted_and_the_others_evaluated(
    elsewhere, finished, tmp_path, capsys
):
    folder = shutil.copytree(elsewhere, tmp_path / "refused")
    with open(folder / "samples.csv", "a") as table:
        table.write("bad,bad.jpeg,zz,,0,A,1\n")
    (folder / "bad.jpeg").write_bytes(b"no photograph")
    options = [f"--data={folder}", f"--cache={finished}", "--device=cpu", "--jobs=1"]
    shown = run(capsys, *options)
    assert "refused: 1 of 13 (7.7%)" in shown and "12 images of 6 patients" in shown
    assert (
        '<th scope="row">bad</th>' in (finished / "evaluations/refused/evaluation.html").read_text()
    )
