"""Classes from scans to submission: what the stages write, say and leave out."""

import io
import json
import shutil

import pandas as pd
import pytest

import blend.predict
import blend.train
from dr import explain, predict, train
from dr.training.runs import read_members
from kappa import assign
from preprocess import __main__ as preprocess
from preprocess import audit
from preprocess.disk.errors import InputError
from submissions import grade, page, score, serve, write
from submissions.ensemble import load
from submissions.report import __main__ as report

NAMES = ["CNV", "DME", "DRUSEN", "NORMAL"]
SMALL = "--epochs 2 --batch-size 4 --folds 2 --crop-px 32 --device cpu --precision float32".split()


@pytest.fixture(scope="module")
def run(drawn_scans, tmp_path_factory):
    """A cache in which the stages up to dr.predict have run: the options that name both folders, and the cache."""
    cache = tmp_path_factory.mktemp("classes") / "cache"
    places = ["--recipe=oct-demo", f"--data={drawn_scans}", f"--cache={cache}"]
    preprocess.main([*places, *"--size-px 40 --jobs 1".split()])
    train.main([*places, *SMALL])
    predict.main([*places, *"--views 2 --device cpu".split()])
    return places, cache


def test_scores_have_a_column_per_class_and_the_history_the_tasks_figures(run):
    cache = run[1]
    scores = pd.read_csv(cache / "dr" / "scores_test.csv", index_col="image")
    assert list(scores) == NAMES
    assert scores.sum(axis=1).to_numpy() == pytest.approx(1)
    history = pd.read_csv(cache / "dr" / "epochs" / "history.csv")
    assert list(history)[3:] == ["valid_log_loss", "valid_accuracy", "valid_macro_f1"]


def test_blend_and_kappa_say_that_they_have_no_part(run, capsys):
    for stage, name in (
        (blend.train, "blend.train"),
        (blend.predict, "blend.predict"),
        (assign, "kappa.assign"),
    ):
        stage.main(run[0])
        assert capsys.readouterr().out.startswith(
            f"{name}: no part in this recipe: classes have no pairs"
        )


def test_the_submission_names_the_likeliest_class_of_each_test_image(run, tmp_path, capsys):
    write.main([*run[0], f"--out={tmp_path}/out.csv"])
    written = pd.read_csv(tmp_path / "out.csv", index_col="image")["class"]
    scores = pd.read_csv(run[1] / "dr" / "scores_test.csv", index_col="image")
    assert written.to_dict() == scores.idxmax(axis=1).to_dict()
    assert "not a medical device" in capsys.readouterr().out


def test_score_tells_figures_with_intervals_of_all_and_of_each_class(run, capsys):
    score.main(run[0])
    shown = capsys.readouterr().out
    assert "accuracy on the test set" in shown and "not a medical device" in shown
    assert all(
        word in shown for word in ("accuracy", "log loss", "macro F1", "one-vs-rest AUC", *NAMES)
    )


def test_the_report_shows_confusions_of_classes_and_who_is_taken_for_whom(run, tmp_path):
    report.main([*run[0], f"--out={tmp_path}/out.html"])
    page = (tmp_path / "out.html").read_text()
    assert page.index("Not a medical device") < page.index("<h1>")
    scores = pd.read_csv(run[1] / "dr" / "scores_test.csv", index_col="image").idxmax(axis=1)
    wrong = [(image, given) for image, given in scores.items() if not image.startswith(given)]
    assert wrong
    for image, given in wrong[:12]:
        true = image.split("-")[0]
        assert f"{image}: {true}, taken for {given}" in page
        assert all(
            f'alt="Heat map of {name} over {image}"' in page
            for name in (f"{true}, true", f"{given}, given")
        )
    assert "QWK" not in page and "level 0" not in page and "eyes" not in page


def test_the_report_shows_what_training_and_test_have_in_common(run, drawn_scans, tmp_path):
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):  # a scan of the test set lies in the training set, too
        shutil.copytree(drawn_scans / part, tmp_path / "data" / part)
    copied = next((tmp_path / "data" / "test").glob("*/*.jpeg"))
    shutil.copyfile(copied, tmp_path / "data" / "train" / copied.parent.name / "again.jpeg")
    shared = f"<td>train</td><td>again</td><td>test</td><td>{copied.stem}</td>"
    for data, told in (
        ("nowhere", "nobody has looked"),
        (drawn_scans, "Nothing"),
        (tmp_path / "data", shared),
    ):
        if data != "nowhere":
            audit.main([f"--data={data}", f"--cache={run[1]}", "--jobs=1"])
        report.main([*run[0], f"--out={tmp_path}/out.html"])
        assert told in (tmp_path / "out.html").read_text()


def test_one_image_is_named_with_all_probabilities(run, drawn_scans, tmp_path, capsys):
    scan = next(drawn_scans.glob("test/*/*.jpeg"))
    capsys.readouterr()
    grade.main([str(scan), f"--cache={run[1]}", "--device=cpu", "--json"])
    told = json.loads(capsys.readouterr().out)
    (image,) = told["images"]
    assert list(image["scores"]) == NAMES and image["class"] == max(
        image["scores"], key=image["scores"].get
    )
    assert "not a medical device" in told["notice"]
    grade.main([str(scan.parent), f"--cache={run[1]}", "--device=cpu"])
    assert image["class"] in capsys.readouterr().out
    explain.main([str(scan), f"--cache={run[1]}", f"--out={tmp_path}", "--device=cpu"])
    assert f"{scan}: {image['class']} (" in capsys.readouterr().out
    nets = load(read_members(run[1] / "dr", None, None), None, None, "cpu")
    told = page.answer(nets, False, {"images": [(scan.name, io.BytesIO(scan.read_bytes()))]})
    ((card,), (row,)) = told["cards"], told["rows"]
    assert card["verdict"] == row["class"] == image["class"] and len(card["heats"]) == len(NAMES)
    assert card["grade"].scores == pytest.approx([*image["scores"].values()], abs=1e-6)
    assert f"<h2>{image['class']}</h2>" in serve.render(nets.task, told, "")
    with pytest.raises(InputError, match="--left.* are for eyes"):
        grade.main(["--left", str(scan), f"--cache={run[1]}"])


@pytest.mark.parametrize("option", ["--squared-error=0.5", "--pairs"])
def test_what_needs_an_order_or_pairs_is_refused(run, option):
    with pytest.raises(InputError, match="classes have no order and no pairs"):
        train.main([*run[0], option])
