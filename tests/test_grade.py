"""Grading raw photographs: the pipeline's own scores, whose fellow is whose, what is refused, and what is printed."""

import json
import shutil

import numpy as np
import pytest
import torch

from blend.mlp import Blend, apply_blend, load_blend, save_blend
from blend.pairs import pair_eyes
from dr import checkpoint, grade, model, predict, prepare
from dr.scores import read_scores
from kappa import assign
from preprocess import eyes, stage
from preprocess.stage import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs: image id -> path."""
    return eyes.list_images(drawn_folder, "test")[0]


@pytest.fixture
def pair(photographs):
    """The left and the right eye of the first test patient."""
    return list(photographs.values())[:2]


@pytest.fixture
def blend_file(finished_cache):
    return finished_cache / "blend" / "train" / "model.pt"


def run(capsys, *arguments):
    """Grade with --json on the CPU; return what is printed."""
    capsys.readouterr()
    grade.main([*map(str, arguments), "--json", "--device=cpu"])
    return json.loads(capsys.readouterr().out)


def scores_of(graded, name="scores"):
    return np.array([eye[name] for eye in graded["eyes"]])


# --- the scores -------------------------------------------------------------------------------------------------------


def test_one_view_of_one_net_is_the_pipelines_own_score(finished_cache, photographs, capsys):
    single = read_scores(finished_cache / "dr" / "single_test.csv")
    last = finished_cache / "dr" / "epochs" / "0002.pt"
    graded = run(capsys, next(iter(photographs.values())).parent, "--checkpoint", last, "--views=1")
    assert [f"{eye['patient']}_{eye['side']}" for eye in graded["eyes"]] == list(single.index)
    np.testing.assert_allclose(scores_of(graded), single.to_numpy(), atol=2e-6)


def test_views_and_epochs_are_averaged_as_in_the_pipeline(finished_cache, pair, capsys):
    """Against dr.predict's own views of each photograph by itself, of both epochs that it averaged."""
    graded = run(capsys, *pair, "--cache", finished_cache)
    expected = []
    for path in pair:
        views = []
        for epoch in (1, 2):
            content = checkpoint.read(finished_cache / "dr" / "epochs" / f"{epoch:04}.pt")
            photograph = prepare.gather(["1_left"], [prepare.prepare(path, content)], content)
            views.append(predict.score_views(content, photograph, "cpu", n_views=2, batch_size=1))
        expected.append(np.mean(views, axis=(0, 1, 2)))
    np.testing.assert_allclose(scores_of(graded), expected, atol=2e-6)


def test_first_photograph_of_the_test_set_has_the_scores_of_the_table(finished_cache, pair, capsys):
    """The views of a table's other rows are cut elsewhere."""
    graded = run(capsys, *pair, "--cache", finished_cache)
    table = read_scores(finished_cache / "dr" / "scores_test.csv")
    np.testing.assert_allclose(scores_of(graded)[0], table.iloc[0], atol=2e-6)


def test_an_eyes_scores_do_not_depend_on_who_else_is_graded(finished_cache, photographs, capsys):
    together = run(capsys, next(iter(photographs.values())).parent, "--cache", finished_cache)
    for row, path in enumerate(photographs.values()):
        alone = run(capsys, path, "--cache", finished_cache)
        np.testing.assert_allclose(scores_of(alone)[0], scores_of(together)[row], atol=2e-6)


def test_averaged_runs_are_averaged(finished_cache, pair, tmp_path, capsys):
    cache = shutil.copytree(finished_cache, tmp_path / "cache")
    for name, epochs in (("one", [1]), ("two", [1, 2])):
        shutil.copytree(cache / "dr" / "epochs", cache / "dr" / "runs" / name / "epochs")
        stage.write_manifest(cache / "dr" / "runs" / name, "dr.predict", {"views": 1, "epochs": epochs}, {}, {})
    stage.write_manifest(cache / "dr", "dr.predict", {"average": ["one", "two"]}, {}, {})
    graded = run(capsys, *pair, "--cache", cache)
    each = [
        scores_of(run(capsys, *pair, "--views=1", "--checkpoint", cache / "dr" / "epochs" / f"000{epoch}.pt"))
        for epoch in (1, 2)
    ]
    np.testing.assert_allclose(scores_of(graded), 0.75 * each[0] + 0.25 * each[1], atol=2e-6)


def test_blended_scores_and_levels_are_the_pipelines(finished_cache, blend_file, pair, capsys):
    graded = run(capsys, *pair, "--cache", finished_cache)
    own = scores_of(graded)
    blended = apply_blend(load_blend(blend_file), pair_eyes(["1_left", "1_right"], own))
    np.testing.assert_allclose(scores_of(graded, "blended"), blended, atol=2e-6)
    assert [eye["level"] for eye in graded["eyes"]] == assign.decide(blended, "round").levels.tolist()
    assert all(eye["has_fellow"] for eye in graded["eyes"])


@pytest.mark.parametrize(
    ("scores", "level"), [([0.5, 0, 0, 0, 0.5], 2), ([0.6, 0.2, 0, 0.2, 0], 1), ([0, 0, 0, 0, 1], 4)]
)
def test_level_is_the_one_nearest_to_the_expected_level(tmp_path, scores, level):
    decided = grade.decide(None, {"1_left": tmp_path}, {"1_left": {(): None}}, np.array([scores]))
    assert decided["1_left"].level == level
    assert grade.expect(decided["1_left"]) == pytest.approx(np.dot(scores, range(5)))


# --- whose fellow is whose --------------------------------------------------------------------------------------------


def test_two_photographs_are_one_patients_whatever_their_names(blend_file, finished_cache, pair, tmp_path, capsys):
    renamed = [shutil.copy(path, tmp_path / name) for path, name in zip(pair, ("b 7.jpeg", "a.jpeg"), strict=True)]
    graded = run(capsys, *renamed, "--cache", finished_cache)
    assert [(eye["photograph"], eye["side"]) for eye in graded["eyes"]] == [
        (str(renamed[0]), "left"),
        (str(renamed[1]), "right"),
    ]
    assert (
        scores_of(graded, "blended").tolist()
        == scores_of(run(capsys, *pair, "--cache", finished_cache), "blended").tolist()
    )


def test_eye_without_a_fellow_or_with_a_refused_one_is_its_own(finished_cache, blend_file, pair, tmp_path, capsys):
    alone = run(capsys, pair[0], "--cache", finished_cache)
    own = scores_of(alone)
    expected = apply_blend(load_blend(blend_file), pair_eyes(["1_left"], own))
    np.testing.assert_allclose(scores_of(alone, "blended"), expected, atol=2e-6)
    assert not alone["eyes"][0]["has_fellow"]
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="1 photograph is refused .*broken.jpeg: the file is empty"):
        run(capsys, pair[0], broken, "--cache", finished_cache)
    graded = json.loads(capsys.readouterr().out)
    assert graded["eyes"] == alone["eyes"]
    assert graded["refused"] == [{"photograph": str(broken), "reason": "the file is empty"}]


def test_fellow_counts_in_the_blend(finished_cache, pair, tmp_path, capsys):
    save_blend(tmp_path / "blend.pt", Blend(1.0, []))
    graded = run(capsys, *pair, "--cache", finished_cache, "--blend", tmp_path / "blend.pt")
    np.testing.assert_allclose(scores_of(graded, "blended"), scores_of(graded)[::-1], atol=2e-6)


def make_paired(content):
    """Return an untrained net for both eyes, its BatchNorms fitted to many images, so that no score is 0 or 1."""
    net = model.make_net(32, 0.0, is_paired=True)
    model.initialize_weights(net, seed=1)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(net.joint[-1].weight, std=0.2, generator=generator)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(256, 3, 32, 32, generator=generator))
    return content | {"settings": content["settings"] | {"pairs": True}, "net": net.state_dict()}


def test_net_for_both_eyes_is_shown_both(finished_cache, pair, tmp_path, capsys):
    content = checkpoint.read(finished_cache / "dr" / "epochs" / "0002.pt")
    squares = [prepare.prepare(path, content) for path in pair]
    photographs = prepare.gather(["1_left", "1_right"], squares, content)
    content = make_paired(content)
    checkpoint.write(tmp_path / "paired.pt", content)
    both = scores_of(run(capsys, *pair, "--checkpoint", tmp_path / "paired.pt", "--views=1"))
    alone = scores_of(run(capsys, pair[0], "--checkpoint", tmp_path / "paired.pt", "--views=1"))
    np.testing.assert_allclose(both, predict.score_views(content, photographs, "cpu", 1, 2)[0], atol=2e-6)
    assert np.abs(both[0] - alone[0]).max() > 0.01


def test_folder_is_graded_patient_by_patient(finished_cache, photographs, tmp_path, capsys, monkeypatch):
    """In parts of which none divides a patient, though they hold only one eye each by their size."""
    for image, path in photographs.items():
        shutil.copy(path, tmp_path / f"{image}.jpeg")
    (tmp_path / "notes.txt").write_text("no photograph")
    whole = run(capsys, tmp_path, "--cache", finished_cache)
    assert [eye["photograph"] for eye in whole["eyes"]] == [str(tmp_path / f"{image}.jpeg") for image in photographs]
    monkeypatch.setattr(grade, "EYES_AT_ONCE", 1)
    assert [list(part) for part in grade.split_patients(photographs)] == [
        list(photographs)[:2],
        list(photographs)[2:],
    ]
    parts = run(capsys, tmp_path, "--cache", finished_cache)
    np.testing.assert_allclose(scores_of(parts, "blended"), scores_of(whole, "blended"), atol=2e-6)


def test_misnamed_photograph_in_a_folder_is_refused_and_the_others_are_graded(finished_cache, pair, tmp_path, capsys):
    shutil.copy(pair[0], tmp_path / "1_left.jpeg")
    shutil.copy(pair[1], tmp_path / "whose.jpeg")
    with pytest.raises(InputError, match="whose.jpeg: the file's name is not PATIENT_left or PATIENT_right"):
        run(capsys, tmp_path, "--cache", finished_cache)
    assert len(json.loads(capsys.readouterr().out)["eyes"]) == 1


# --- what is printed --------------------------------------------------------------------------------------------------


def test_table_is_aligned_and_says_that_it_is_no_medical_device(finished_cache, pair, tmp_path, capsys):
    broken = tmp_path / "a longer name than the other one.jpeg"
    broken.write_bytes(b"GIF89a")
    with pytest.raises(InputError):
        grade.main([str(pair[0]), str(broken), f"--cache={finished_cache}", "--device=cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["the", "net", "blended", "with", "the", "fellow"]
    assert lines[1].split() == ["eye", "crop", *"0123401234", "mean", "level"]
    assert lines[2].startswith(f"left   {pair[0].name}")
    assert lines[2].endswith("no fellow: blended with itself")
    confidence, *numbers, level = lines[2].removesuffix("  no fellow: blended with itself").split()[2:]
    assert (len(numbers), len(level)) == (11, 1)
    assert lines[2].index(confidence) + len(confidence) == lines[1].index("crop") + len("crop")
    assert lines[2].index(f" {level}  no") + 1 == lines[1].index("level") + len("level") - 1
    assert f"refused: {broken}: neither a JPEG nor a PNG image" in lines
    assert lines[-1] == stage.NOTICE
    assert "not a medical device" in stage.NOTICE


def test_without_a_blend_only_the_nets_scores_are_shown(finished_cache, pair, capsys):
    last = finished_cache / "dr" / "epochs" / "0002.pt"
    grade.main([str(pair[0]), f"--checkpoint={last}", "--views=1", "--device=cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["the", "net"]
    assert lines[1].split() == ["eye", "crop", *"01234", "mean", "level"]
    assert run(capsys, pair[0], "--checkpoint", last)["eyes"][0]["blended"] is None


def test_json_has_the_crop_and_the_notice(finished_cache, pair, drawn_folder, capsys):
    graded = run(capsys, *pair, "--cache", finished_cache)
    assert graded["notice"] == stage.NOTICE
    crop = graded["eyes"][0]["crop"]
    assert set(crop) == {"center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence"}
    assert crop["confidence"] > 0.9
    assert graded["refused"] == []


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_one_line(finished_cache, pair, tmp_path):
    cache = f"--cache={finished_cache}"
    for arguments, message in (
        ([pair[0], pair[0]], "given twice"),
        ([*pair, pair[0]], "3 photographs"),
        ([tmp_path, pair[0]], "a folder is graded alone"),
        ([tmp_path], "holds no photographs"),
    ):
        with pytest.raises(InputError, match=message):
            grade.main([*map(str, arguments), cache])


def test_two_files_of_one_image_are_refused(pair, tmp_path):
    for suffix in ("jpeg", "png"):
        shutil.copy(pair[0], tmp_path / f"1_left.{suffix}")
    with pytest.raises(InputError, match="both image 1_left"):
        grade.list_photographs([tmp_path])


def test_unfinished_cache_is_refused_with_the_command_that_is_missing(finished_cache, pair, cache, tmp_path):
    with pytest.raises(InputError, match=r"run python -m dr\.predict first"):
        grade.main([str(pair[0]), f"--cache={cache}"])
    unblended = shutil.copytree(finished_cache, tmp_path / "unblended")
    shutil.rmtree(unblended / "blend")
    with pytest.raises(InputError, match=r"run python -m blend\.train first"):
        grade.main([str(pair[0]), f"--cache={unblended}"])


def test_epoch_that_is_gone_is_named(finished_cache, pair, tmp_path):
    cache = shutil.copytree(finished_cache, tmp_path / "copy")
    stage.write_manifest(cache / "dr", "dr.predict", {"views": 1, "epochs": [7]}, {}, {})
    with pytest.raises(InputError, match=r"epoch 7 is gone .*python -m dr\.predict"):
        grade.main([str(pair[0]), f"--cache={cache}"])


def test_all_refused_is_still_said(finished_cache, tmp_path, capsys):
    broken = tmp_path / "1_left.jpeg"
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="1 photograph is refused"):
        grade.main([str(broken), f"--cache={finished_cache}", "--device=cpu"])
    assert capsys.readouterr().out.splitlines() == [f"refused: {broken}: the file is empty", stage.NOTICE]
