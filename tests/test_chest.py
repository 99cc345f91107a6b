"""Findings from pictures to submission: what is learned, measured, believed and written, and what is unknown."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import blend.train
from dr import explain, predict, train
from dr.metrics import operating
from dr.metrics.operating import OperatingPoint
from dr.tasks.classes import Classes
from dr.tasks.findings import Findings
from dr.training import checkpoint
from dr.training.runs import read_members
from kappa import assign
from preprocess import __main__ as preprocess
from preprocess.dataset.findings import BOXES, read_boxes
from preprocess.dataset.folds import assign_folds
from preprocess.disk.errors import InputError
from submissions import grade, page, score, serve, write
from submissions.ensemble import load
from submissions.report import __main__ as report
from tests.tiny import make_settings

NAMES = ["Mass", "Nodule", "Hernia"]
TASK = Findings(tuple(NAMES))
SMALL = "--epochs 12 --batch-size 8 --folds 2 --crop-px 32 --device cpu --precision float32 --flips none".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cache in which the stages up to dr.predict have run: the options that name both folders, the data, the cache.

    The upper half of a picture is bright for a mass, the lower for a nodule; one hernia only, and some nobody knows of.
    """
    folder = tmp_path_factory.mktemp("chest")
    data, cache, rng = folder / "data", folder / "cache", np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    lines, tested = ["image,group,Mass,Nodule,Hernia"], []
    for patient in range(36):
        for number in range(2):
            has = rng.integers(0, 2, 2)
            square = rng.integers(0, 60, (40, 40)) + np.repeat(120 * has, 20)[:, None]
            cv2.imwrite(str(data / "images" / f"{patient}_{number}.png"), square.astype(np.uint8))
            cells = ["" if rng.random() < 0.1 else str(value) for value in has]
            lines.append(
                f"{patient}_{number},{patient},{','.join(cells)},{int((patient, number) == (0, 0))}"
            )
            tested += [f"{patient}_{number}.png"] * (patient >= 30)
    (data / "findings.csv").write_text("\n".join(lines) + "\n")
    (data / "test_list.txt").write_text("\n".join(tested) + "\n")
    places = [f"--data={data}", f"--cache={cache}"]
    preprocess.main([*places, *"--crop whole --normalize none --size-px 40 --jobs 1".split()])
    train.main([*places, *SMALL, "--class-weights=positives", "--most-weight=4"])
    predict.main([*places, *"--views 1 --epochs-averaged last:1 --device cpu".split()])
    return places, data, cache


def test_each_finding_is_learned_and_scored_by_itself(run):
    _, data, cache = run
    scores = pd.read_csv(cache / "dr" / "scores_test.csv", index_col="image")
    assert list(scores) == NAMES and (scores.sum(axis=1) - 1).abs().max() > 0.2
    truth = pd.read_csv(data / "findings.csv", index_col="image").loc[scores.index]
    figures = TASK.measure(scores.to_numpy(), truth[NAMES].to_numpy(float))
    assert figures["auc"] > 0.95  # of the two that the test set has
    history = pd.read_csv(cache / "dr" / "epochs" / "history.csv")
    assert list(history)[3:] == ["valid_log_loss", "valid_auc"]


def test_thresholds_are_chosen_where_the_finding_is_and_tell_what_is_believed(run, capsys):
    _, data, cache = run
    chosen = pd.read_csv(cache / "dr" / "thresholds.csv", index_col="finding")
    thresholds = chosen["threshold"]
    is_sure = chosen["positives"] >= operating.LEAST_POSITIVES
    assert thresholds[["Mass", "Nodule"]].between(0, 1).all()
    images = sorted(str(path) for path in (data / "images").glob("2*_0.png"))
    capsys.readouterr()
    grade.main([*images, f"--cache={cache}", "--device=cpu", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert "not a medical device" in told["notice"] and len(told["images"]) == len(images)
    for image in told["images"]:
        assert image["findings"] == [
            name for name in NAMES if is_sure[name] and image["scores"][name] >= thresholds[name]
        ]
    nets = load(read_members(cache / "dr", None, None), None, None, "cpu")

    def drop(names, believed):
        files = [(Path(name).name, io.BytesIO(Path(name).read_bytes())) for name in names]
        return page.answer(nets._replace(thresholds=believed), False, {"images": files})

    def give(threshold):
        return [OperatingPoint(name, threshold, None) for name in NAMES]

    points = [OperatingPoint(name, *chosen.loc[name, ["threshold", "positives"]]) for name in NAMES]
    rows = drop(images, points)["rows"]
    assert [row["finding"].split("; ") for row in rows] == [
        image["findings"] or [""] for image in told["images"]
    ]
    for believed, verdict in (
        (give(0.0), "Mass, Nodule, Hernia"),
        (give(2.0), "none"),
        (None, "which of them"),
    ):
        shown = serve.render(TASK, drop(images[:1], believed), "")
        assert f"<h2>{verdict}" in shown and shown.count('class="believed"') == verdict.count(
            "s, N"
        ) * len(NAMES)
        assert shown.count('type="radio"') == len(NAMES)
    grade.main([*images, f"--checkpoint={cache}/dr/epochs/0012.pt", "--views=1", "--device=cpu"])
    assert "which of them to believe is not known" in capsys.readouterr().out


def test_the_submission_has_the_probability_of_each_finding(run, tmp_path, capsys):
    write.main([*run[0], f"--out={tmp_path}/out.csv"])
    written = pd.read_csv(tmp_path / "out.csv", index_col="image")
    pd.testing.assert_frame_equal(
        written, pd.read_csv(run[2] / "dr" / "scores_test.csv", index_col="image")
    )
    assert "not a medical device" in capsys.readouterr().out


def test_score_tells_what_is_not_measurable_and_the_rest(run, capsys):
    score.main(run[0])
    shown = capsys.readouterr().out
    assert (
        "mean AUC on the test set (12 images of 6 patients)" in shown
        and "not a medical device" in shown
    )
    lines = [line for line in shown.splitlines() if "Hernia" in line]
    assert lines and all("not measurable" in line for line in lines)


def test_the_report_shows_each_finding_its_curve_its_boxes_and_the_surest_mistakes(run, tmp_path):
    places, data, cache = run
    truth = pd.read_csv(data / "findings.csv", index_col="image")
    scores = pd.read_csv(cache / "dr" / "scores_test.csv", index_col="image")
    boxes = [
        f"{image}.png,Mass,0,0,40,20" for image in scores.index if truth.at[image, "Mass"] == 1
    ]
    (data / BOXES).write_text(
        "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h]", *boxes]) + "\n"
    )
    report.main([*places, f"--out={tmp_path}/out.html"])
    page = (tmp_path / "out.html").read_text()
    assert page.index("Not a medical device") < page.index("<h1>")
    assert all(
        word in page for word in ("mean AUC", "0.814", "not measurable", "What occurs together")
    )
    wrong = (
        scores.where(truth.loc[scores.index, NAMES] == 0).max(axis=1).sort_values(ascending=False)
    )
    finding = scores.where(truth.loc[scores.index, NAMES] == 0).loc[wrong.index[0]].idxmax()
    assert f'alt="Heat map of {finding} over {wrong.index[0]}"' in page
    n_hit = int(
        re.search(rf">Mass</th><td>{len(boxes)}</td><td>(\d+)</td><td>[\d.]+</td><td>0.50<", page)[
            1
        ]
    )
    assert n_hit > 0.8 * len(boxes)  # a mass brightens the upper half
    assert "QWK" not in page and "eyes" not in page
    (data / BOXES).write_text("a,b,c,d,e,f\n1_0.png,Mass,0,0,40,x\n")
    with pytest.raises(InputError, match="row 2: no box of four numbers"):
        read_boxes(data)
    (data / BOXES).unlink()


def test_stages_of_eyes_have_no_part_and_heat_is_of_the_finding_asked_for(run, tmp_path, capsys):
    for stage in (blend.train, assign):
        stage.main(run[0])
        assert "no part in this recipe: findings have no pairs" in capsys.readouterr().out
    image = run[1] / "images" / "0_0.png"
    explain.main(
        [str(image), f"--cache={run[2]}", f"--out={tmp_path}", "--device=cpu", "--level=1"]
    )
    assert f"{image}: Nodule (" in capsys.readouterr().out
    for option in ("--pairs", "--squared-error=1"):
        with pytest.raises(InputError, match="findings have no order"):
            train.main([*run[0], option])


def test_what_is_unknown_is_neither_learned_nor_lost_and_positives_weigh_more():
    """Against the formula in float64: a cell of NaN counts as nothing lost, and has no gradient."""
    targets = torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [0.0, torch.nan]])
    logits = torch.tensor(
        [[0.3, -1.0], [2.0, 0.5], [-0.7, 9.0]], dtype=torch.float64, requires_grad=True
    )
    weights = torch.tensor([4.0, 2.0], dtype=torch.float64)
    loss = TASK.measure_loss(logits, targets.double(), weights, make_settings())
    p = logits.detach().sigmoid().numpy()
    lost = [4 * np.log(p[0, 0]), np.log(1 - p[0, 1]), 2 * np.log(p[1, 1]), np.log(1 - p[2, 0])]
    assert loss.item() == pytest.approx(-sum(lost) / 6)
    loss.backward()
    assert (logits.grad == 0).tolist() == targets.isnan().tolist()


def test_weights_and_priors_are_of_the_known_images():
    targets = np.array([[1, 0, np.nan], [0, 0, 1], [0, 0, 0], [np.nan, 0, 1]])
    assert TASK.weigh_targets(targets, "positives").tolist() == [3, 1, 1.5]
    assert TASK.weigh_targets(targets, "balanced").tolist() == [2, 1, 0.5]
    assert TASK.weigh_targets(targets, "positives", 2.0).tolist() == [2, 1, 1.5]
    with pytest.raises(InputError, match="one of the classes; balanced"):
        Classes(("A", "B")).weigh_targets(np.array([0, 1]), "positives")
    assert TASK.find_prior(targets).tolist() == [1 / 3, 0, 2 / 3]
    assert TASK.measure(np.full((4, 3), 0.5), targets) == {
        "log_loss": pytest.approx(np.log(2)),
        "auc": 0.5,
    }


def test_folds_spread_the_rarest_finding_of_each_patient():
    targets = np.zeros((40, 2))
    targets[:, 0], targets[::10, 1] = 1, 1  # everybody has the first, four the second
    folds = assign_folds(list(map(str, range(40))), targets, 4, 0)
    assert sorted(folds[::10]) == [0, 1, 2, 3]


def test_two_processes_come_to_the_same_auc_as_one(run, tmp_path):
    places, _, cache = run
    for name in ("one", "two"):
        shutil.copytree(cache, tmp_path / name, ignore=shutil.ignore_patterns("dr"))
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=2 -m dr.train".split()
    options = [places[0], *SMALL, "--epochs=1", "--learning-rate=0.001"]
    train.main([*options, f"--cache={tmp_path}/one"])
    command = [sys.executable, *launcher, *options, f"--cache={tmp_path}/two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "dr" / "epochs" for name in ("one", "two"))
    weights, others = (checkpoint.read(epochs / "0001.pt").net for epochs in (one, two))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=0, atol=1e-4)
    pd.testing.assert_frame_equal(
        *(pd.read_csv(epochs / "history.csv") for epochs in (one, two)), atol=1e-4
    )
