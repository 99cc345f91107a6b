"""Grading raw photographs: the pipeline's own scores, whose fellow is whose, what is refused, and what is printed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from blend.mlp import Blend, apply_blend, load_blend, save_blend
from blend.pairs import pair_eyes
from dr import measures
from dr.nets import net
from dr.scores import read_scores
from dr.training import checkpoint
from preprocess.cache import manifest, stage
from preprocess.cache.errors import InputError
from preprocess.picture import square
from preprocess.samples import retina
from preprocess.samples.layout import Owner
from submissions import grade, panel

pytestmark = pytest.mark.usefixtures("one_thread")
OWNERS = [Owner("1", "left"), Owner("1", "right")]


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs: image id -> path."""
    return retina.list_images(drawn_folder, "test").paths


@pytest.fixture
def pair(photographs):
    """The left and the right eye of the first test patient."""
    return list(photographs.values())[:2]


def run(capsys, *arguments):
    """Grade with --json on the CPU; return what is printed."""
    capsys.readouterr()
    grade.main([*map(str, arguments), "--json", "--device=cpu"])
    return json.loads(capsys.readouterr().out)


def refuse(message, cache, *photographs):
    """Grade from a cache, which is an error."""
    with pytest.raises(InputError, match=message):
        grade.main([*map(str, photographs), f"--cache={cache}", "--device=cpu"])


def scores_of(graded, name="scores"):
    return np.array([eye[name] for eye in graded["eyes"]])


def make_untrained(finished_cache, is_paired):
    """Return a net that was not trained, its BatchNorms fitted to many images, so that no score is 0 or 1."""
    of = checkpoint.read(finished_cache / "dr" / "epochs" / "0002.pt")
    made = net.make_net("nine-conv", 32, 5, 0.0, is_paired)
    net.initialize_weights(made, seed=1)
    generator = torch.Generator().manual_seed(0)
    if is_paired:
        torch.nn.init.normal_(made.head.joint[-1].weight, std=0.2, generator=generator)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        made.train()(torch.randn(256, 3, 32, 32, generator=generator))
    return dataclasses.replace(of, settings=dataclasses.replace(of.settings, pairs=is_paired), net=made.state_dict())


def test_scores_of_raw_photographs_are_the_pipelines_whoever_else_is_graded(finished_cache, photographs, capsys):
    expected = read_scores(finished_cache / "dr" / "scores_test.csv", retina.TASK)
    together = run(capsys, next(iter(photographs.values())).parent, "--cache", finished_cache)
    assert [f"{eye['patient']}_{eye['side']}" for eye in together["eyes"]] == list(expected.index)
    alone = [scores_of(run(capsys, path, "--cache", finished_cache))[0] for path in photographs.values()]
    for scores in (scores_of(together), alone):
        np.testing.assert_allclose(scores, expected.to_numpy(), atol=2e-6)


def test_averaged_runs_are_averaged(finished_cache, pair, tmp_path, capsys):
    cache = shutil.copytree(finished_cache, tmp_path / "cache")
    for name, epochs in (("one", [1]), ("two", [1, 2])):
        shutil.copytree(cache / "dr" / "epochs", cache / "dr" / "runs" / name / "epochs")
        manifest.write_manifest(cache / "dr" / "runs" / name, "dr.predict", {"views": 1, "epochs": epochs}, {}, {})
    manifest.write_manifest(cache / "dr", "dr.predict", {"average": ["one", "two"]}, {}, {})
    graded = run(capsys, *pair, "--cache", cache)
    nets = [cache / "dr" / "epochs" / f"000{epoch}.pt" for epoch in (1, 2)]
    each = [scores_of(run(capsys, *pair, "--views=1", "--checkpoint", path)) for path in nets]
    np.testing.assert_allclose(scores_of(graded), 0.75 * each[0] + 0.25 * each[1], atol=2e-6)


def test_nets_that_want_other_squares_each_get_their_own(finished_cache, pair, tmp_path, capsys):
    of, nets = make_untrained(finished_cache, is_paired=False), []
    for position, (crop, normalize) in enumerate((("adaptive", "cdf"), ("adaptive", "local"), ("whole", "none"))):
        nets.append(tmp_path / f"{position}.pt")
        checkpoint.write(nets[-1], dataclasses.replace(of, making=square.Making(crop, 48, normalize)))
    each = [scores_of(run(capsys, *pair, "--views=1", "--checkpoint", path)) for path in nets]
    together = run(capsys, *pair, "--views=1", "--checkpoint", *nets)
    np.testing.assert_allclose(scores_of(together), np.mean(each, axis=0), atol=2e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-4 and np.abs(each[0] - each[2]).max() > 1e-4


def test_blended_scores_and_levels_are_the_pipelines(finished_cache, pair, tmp_path, capsys):
    graded = run(capsys, *pair, "--cache", finished_cache)
    blend = load_blend(finished_cache / "blend" / "train" / "model.pt")
    blended = apply_blend(blend, pair_eyes(OWNERS, scores_of(graded)))
    np.testing.assert_allclose(scores_of(graded, "blended"), blended, atol=2e-6)
    assert [eye["level"] for eye in graded["eyes"]] == measures.round_levels(blended).tolist()
    np.testing.assert_allclose(scores_of(graded, "expected_level"), blended @ range(5), atol=1e-5)
    assert all(eye["has_fellow"] for eye in graded["eyes"])
    assert graded["notice"] == stage.NOTICE and graded["refused"] == []
    assert graded["eyes"][0]["crop"].keys() == {"center_x", "center_y", "semi_axis_x", "semi_axis_y", "confidence"}
    assert graded["eyes"][0]["crop"]["confidence"] > 0.9
    save_blend(tmp_path / "fellow.pt", Blend(1.0, []))
    swapped = run(capsys, *pair, "--cache", finished_cache, "--blend", tmp_path / "fellow.pt")
    np.testing.assert_allclose(scores_of(swapped, "blended"), scores_of(swapped)[::-1], atol=2e-6)


def test_two_photographs_are_one_patients_whatever_their_names(finished_cache, pair, tmp_path, capsys):
    renamed = [shutil.copy(path, tmp_path / name) for path, name in zip(pair, ("b 7.jpeg", "a.jpeg"), strict=True)]
    graded, named = (run(capsys, *paths, "--cache", finished_cache) for paths in (renamed, pair))
    assert [eye["photograph"] for eye in graded["eyes"]] == list(map(str, renamed))
    assert [eye["side"] for eye in graded["eyes"]] == ["left", "right"]
    assert scores_of(graded, "blended").tolist() == scores_of(named, "blended").tolist()


def test_eye_without_a_fellow_or_with_a_refused_one_is_its_own(finished_cache, pair, tmp_path, capsys):
    alone = run(capsys, pair[0], "--cache", finished_cache)
    blend = load_blend(finished_cache / "blend" / "train" / "model.pt")
    expected = apply_blend(blend, pair_eyes(OWNERS[:1], scores_of(alone)))
    np.testing.assert_allclose(scores_of(alone, "blended"), expected, atol=2e-6)
    assert not alone["eyes"][0]["has_fellow"]
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"")
    for others, eyes in ([pair[0]], alone["eyes"]), ([], []):
        with pytest.raises(InputError, match="1 photograph is refused .*broken.jpeg: the file is empty"):
            run(capsys, *others, broken, "--cache", finished_cache)
        graded = json.loads(capsys.readouterr().out)
        assert graded["eyes"] == eyes
        assert graded["refused"] == [{"photograph": str(broken), "reason": "the file is empty"}]


def test_net_for_both_eyes_is_shown_both(finished_cache, pair, tmp_path, capsys):
    """The road's tests tell that the scores are those of dr.predict; this net's hang on the fellow."""
    checkpoint.write(tmp_path / "paired.pt", make_untrained(finished_cache, is_paired=True))
    options = ["--checkpoint", tmp_path / "paired.pt", "--views=1"]
    both, alone = (scores_of(run(capsys, *eyes, *options)) for eyes in (pair, pair[:1]))
    assert np.abs(both[0] - alone[0]).max() > 0.01


def test_folder_is_graded_patient_by_patient(finished_cache, photographs, tmp_path, capsys, monkeypatch):
    """In parts of which none divides a patient, though they hold only one eye each by their size."""
    for image, path in photographs.items():
        shutil.copy(path, tmp_path / f"{image}.jpeg")
    (tmp_path / "notes.txt").write_text("no photograph")
    whole = run(capsys, tmp_path, "--cache", finished_cache)
    assert [eye["photograph"] for eye in whole["eyes"]] == [str(tmp_path / f"{image}.jpeg") for image in photographs]
    monkeypatch.setattr(panel, "EYES_AT_ONCE", 1)
    assert [list(part) for part in panel.split_patients(photographs)] == [list(photographs)[:2], list(photographs)[2:]]
    (tmp_path / "whose.jpeg").write_text("a misnamed file is refused, and all others are graded")
    with pytest.raises(InputError, match="whose.jpeg: the file's name is not PATIENT_left or PATIENT_right"):
        run(capsys, tmp_path, "--cache", finished_cache)
    parts = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(scores_of(parts, "blended"), scores_of(whole, "blended"), atol=2e-6)


def test_table_is_aligned_and_says_that_it_is_no_medical_device(finished_cache, pair, tmp_path, capsys):
    broken = tmp_path / "a longer name than the other one.jpeg"
    broken.write_bytes(b"GIF89a")
    refuse("refused", finished_cache, pair[0], broken)
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
    assert lines[-1] == stage.NOTICE and "not a medical device" in stage.NOTICE


def test_without_a_blend_only_the_nets_scores_are_shown(finished_cache, pair, capsys):
    last = finished_cache / "dr" / "epochs" / "0002.pt"
    grade.main([str(pair[0]), f"--checkpoint={last}", "--views=1", "--device=cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["the", "net"]
    assert lines[1].split() == ["eye", "crop", *"01234", "mean", "level"]
    (eye,) = run(capsys, pair[0], "--checkpoint", last)["eyes"]
    assert run(capsys, pair[0], "--checkpoint", last, "--views=8")["eyes"] == [eye]  # the article's
    assert eye["blended"] is None and eye["level"] == measures.round_levels(np.array(eye["scores"]))


def test_wrong_arguments_are_one_line(finished_cache, pair, tmp_path):
    (tmp_path / "twice").mkdir()
    for suffix in ("jpeg", "png"):
        shutil.copy(pair[0], tmp_path / "twice" / f"1_left.{suffix}")
    refuse("given twice", finished_cache, pair[0], pair[0])
    refuse("3 photographs", finished_cache, *pair, pair[0])
    refuse("a folder is graded alone", finished_cache, tmp_path, pair[0])
    refuse("holds no photographs", finished_cache, tmp_path)
    refuse("both image 1_left", finished_cache, tmp_path / "twice")


def test_unfinished_cache_is_refused_with_the_command_that_is_missing(finished_cache, pair, cache, tmp_path):
    refuse(r"run python -m dr\.predict first", cache, pair[0])
    unfinished = shutil.copytree(finished_cache, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "blend")
    refuse(r"run python -m blend\.train first", unfinished, pair[0])
    manifest.write_manifest(unfinished / "dr", "dr.predict", {"views": 1, "epochs": [7]}, {}, {})
    refuse(r"epoch 7 is gone .*python -m dr\.predict", unfinished, pair[0])
