"""Grading raw photographs: the pipeline's own scores, whose fellow is whose, what is refused, and what is printed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from blend.mlp import Blend, apply_blend, load_blend, save_blend
from blend.pairs import pair_eyes
from dr.metrics import agreement
from preprocess.cache import manifest
from preprocess.command import pipeline
from preprocess.dataset import kaggle
from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError
from submissions import ensemble, grade

OWNERS = [Subject("1", "left"), Subject("1", "right")]


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs: image id -> path."""
    return kaggle.list_folder(drawn_folder / "test").paths


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


def test_averaged_runs_are_averaged(finished_cache, pair, tmp_path, capsys):
    cache = shutil.copytree(finished_cache, tmp_path / "cache")
    for name, epochs in (("one", [1]), ("two", [1, 2])):
        shutil.copytree(cache / "dr" / "epochs", cache / "dr" / "runs" / name / "epochs")
        manifest.write_manifest(
            cache / "dr" / "runs" / name, "dr.predict", {"views": 1, "epochs": epochs}, {}, {}
        )
    manifest.write_manifest(cache / "dr", "dr.predict", {"average": ["one", "two"]}, {}, {})
    graded = run(capsys, *pair, "--cache", cache)
    nets = [cache / "dr" / "epochs" / f"000{epoch}.pt" for epoch in (1, 2)]
    each = [scores_of(run(capsys, *pair, "--views=1", "--checkpoint", path)) for path in nets]
    np.testing.assert_allclose(scores_of(graded), 0.75 * each[0] + 0.25 * each[1], atol=2e-6)
    named = run(capsys, *pair, "--cache", cache, "--run", "one")
    np.testing.assert_allclose(scores_of(named), each[0], atol=2e-6)
    assert named["blend"] is None and graded["blend"]
    blend = cache / "blend" / "train" / "model.pt"
    assert (
        run(capsys, *pair, "--cache", cache, "--run", "one", "--blend", blend)["blend"]
        == graded["blend"]
    )
    with pytest.raises(InputError, match="give the one or the other"):
        run(capsys, *pair, "--run", "one", "--checkpoint", nets[0])
    grade.main([*map(str, pair), f"--cache={cache}", "--run=one", "--device=cpu"])
    assert "run one: no blend belongs to it" in capsys.readouterr().err


def test_blended_scores_and_levels_are_the_pipelines(finished_cache, pair, tmp_path, capsys):
    graded = run(capsys, *pair, "--cache", finished_cache)
    blend = load_blend(finished_cache / "blend" / "train" / "model.pt")
    blended = apply_blend(blend, pair_eyes(OWNERS, scores_of(graded)))
    np.testing.assert_allclose(scores_of(graded, "blended"), blended, atol=2e-6)
    assert [eye["level"] for eye in graded["eyes"]] == agreement.round_levels(blended).tolist()
    np.testing.assert_allclose(scores_of(graded, "expected_level"), blended @ range(5), atol=1e-5)
    assert all(eye["has_fellow"] for eye in graded["eyes"])
    assert graded["notice"] == pipeline.NOTICE and graded["refused"] == []
    assert graded["eyes"][0]["crop"].keys() == {
        "center_x",
        "center_y",
        "semi_axis_x",
        "semi_axis_y",
        "confidence",
    }
    assert graded["eyes"][0]["crop"]["confidence"] > 0.9
    save_blend(tmp_path / "fellow.pt", Blend(1.0, []))
    swapped = run(capsys, *pair, "--cache", finished_cache, "--blend", tmp_path / "fellow.pt")
    np.testing.assert_allclose(scores_of(swapped, "blended"), scores_of(swapped)[::-1], atol=2e-6)


def test_eye_without_a_fellow_or_with_a_refused_one_is_its_own(
    finished_cache, pair, tmp_path, capsys
):
    alone = run(capsys, pair[0], "--cache", finished_cache)
    blend = load_blend(finished_cache / "blend" / "train" / "model.pt")
    expected = apply_blend(blend, pair_eyes(OWNERS[:1], scores_of(alone)))
    np.testing.assert_allclose(scores_of(alone, "blended"), expected, atol=2e-6)
    assert not alone["eyes"][0]["has_fellow"]
    broken = tmp_path / f"{pair[1].stem}.jpeg"
    broken.write_bytes(b"")
    for others, eyes in ([pair[0]], alone["eyes"]), ([], []):
        with pytest.raises(
            InputError, match=f"1 photograph is refused .*{broken.name}: the file is empty"
        ):
            run(capsys, *others, broken, "--cache", finished_cache)
        graded = json.loads(capsys.readouterr().out)
        assert graded["eyes"] == eyes
        assert graded["refused"] == [{"photograph": str(broken), "reason": "the file is empty"}]


def test_folder_is_graded_patient_by_patient(
    finished_cache, photographs, tmp_path, capsys, monkeypatch
):
    """In parts of which none divides a patient, though they hold only one eye each by their size."""
    for image, path in photographs.items():
        shutil.copy(path, tmp_path / f"{image}.jpeg")
    (tmp_path / "notes.txt").write_text("no photograph")
    whole = run(capsys, tmp_path, "--cache", finished_cache)
    assert [eye["photograph"] for eye in whole["eyes"]] == [
        str(tmp_path / f"{image}.jpeg") for image in photographs
    ]
    monkeypatch.setattr(ensemble, "EYES_AT_ONCE", 1)
    owners = {path: kaggle.find_subject(image) for image, path in photographs.items()}
    assert [list(part) for part in ensemble.split_patients(owners)] == [
        list(owners)[:2],
        list(owners)[2:],
    ]
    (tmp_path / "whose.jpeg").write_text("a broken file is refused, and all others are graded")
    with pytest.raises(InputError, match="whose.jpeg: neither a JPEG"):
        run(capsys, tmp_path, "--cache", finished_cache)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"{tmp_path}: 1 file not read: 1 .txt (no photograph)\n")
    parts = json.loads(shown.out)
    np.testing.assert_allclose(scores_of(parts, "blended"), scores_of(whole, "blended"), atol=2e-6)


def test_table_is_aligned_and_says_that_it_is_no_medical_device(
    finished_cache, pair, tmp_path, capsys
):
    broken = tmp_path / pair[1].name
    broken.write_bytes(b"GIF89a")
    refuse("refused", finished_cache, pair[0], broken)
    lines, alone = capsys.readouterr().out.splitlines(), "  no fellow: blended with itself"
    warning, above, header, row = lines[:4]
    assert warning.startswith("warning: No better than guessing: QWK ")  # a net of two epochs
    assert above.split() == ["the", "net", "blended", "with", "the", "fellow"]
    screened = "referable (≥ 2)"
    assert header.endswith(screened)
    titles = ["eye", "crop", *"0123401234", "mean", "level", "likeliest"]
    assert header.removesuffix(screened).split() == titles
    assert row.startswith(f"left   {pair[0].name}") and row.endswith(alone)
    confidence, *numbers, level, likeliest, probability = row.removesuffix(alone).split()[2:]
    assert (len(numbers), len(level), len(likeliest), probability[-1]) == (11, 1, 1, "%")
    assert row.index(confidence) + len(confidence) == header.index("crop") + len("crop")
    assert f"refused: {broken}: neither a JPEG nor a PNG image" in "\n".join(lines)
    assert lines[-1] == pipeline.NOTICE and "not a medical device" in pipeline.NOTICE


def test_without_a_blend_only_the_nets_scores_are_shown(finished_cache, pair, capsys):
    net_alone = pair[0], "--checkpoint", finished_cache / "dr" / "epochs" / "0002.pt"
    grade.main([*map(str, net_alone), "--views=1", "--device=cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0].split(), lines[1].split()) == (
        ["the", "net"],
        ["eye", "crop", *"01234", "mean", "level", "likeliest", "referable", "(≥", "2)"],
    )
    (eye,) = run(capsys, *net_alone)["eyes"]
    assert run(capsys, *net_alone, "--views=8")["eyes"] == [eye]  # the article's
    assert eye["blended"] is None and eye["level"] == agreement.round_levels(
        np.array(eye["scores"])
    )


def test_wrong_arguments_and_unfinished_caches_are_one_line(finished_cache, pair, cache, tmp_path):
    (tmp_path / "twice").mkdir()
    for suffix in ("jpeg", "png"):
        shutil.copy(pair[0], tmp_path / "twice" / f"1_left.{suffix}")
    refuse("given twice", finished_cache, pair[0], pair[0])
    refuse("given twice", finished_cache, *pair, pair[0])
    (tmp_path / "empty").mkdir()
    refuse("holds no photographs", finished_cache, tmp_path / "empty")
    refuse("both image 1_left", finished_cache, tmp_path / "twice")
    refuse(r"run python -m dr\.predict first", cache, pair[0])
    unfinished = shutil.copytree(finished_cache, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "blend")
    refuse(r"run python -m blend\.train first", unfinished, pair[0])
    manifest.write_manifest(unfinished / "dr", "dr.predict", {"views": 1, "epochs": [7]}, {}, {})
    refuse(r"epoch 7 is gone .*python -m dr\.predict", unfinished, pair[0])


def test_a_patient_whose_names_are_parted_by_anothers_is_graded_whole(monkeypatch):
    """In the order of image ids a_m_left stands between a_left and a_right."""
    names = ("a_left", "a_m_left", "a_m_right", "a_right")
    subjects = {Path(f"{name}.jpeg"): kaggle.find_subject(name) for name in names}
    monkeypatch.setattr(ensemble, "EYES_AT_ONCE", 1)
    parts = [[path.stem for path in part] for part in ensemble.split_patients(subjects)]
    assert parts == [["a_left", "a_right"], ["a_m_left", "a_m_right"]]
