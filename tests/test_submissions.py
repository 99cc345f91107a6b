"""The submission CSV: exactly the expected images, levels 0-4, the sample's order."""

import numpy as np
import pytest

from dr.scores import write_scores
from kappa.qwk import expected_kappa
from preprocess import stage
from submissions import write

SCORES = np.array([[0.7, 0.1, 0.1, 0.1, 0], [0, 0.1, 0.1, 0.2, 0.6]])


def make(data, sample=None, levels="image,level\n1_left,0\n1_right,4\n"):
    """Put a data folder and a levels file down; return the latter."""
    (data / "test").mkdir(parents=True)
    for image in ("1_left", "1_right"):
        (data / "test" / f"{image}.jpeg").touch()
    if sample:
        (data / "sampleSubmission.csv").write_text(sample)
    path = data / "levels.csv"
    path.write_text(levels)
    return path


def test_submission_follows_the_sample(tmp_path):
    levels = make(tmp_path, sample="image,level\n1_right,0\n1_left,0\n")
    write.main([f"--data={tmp_path}", f"--levels={levels}", f"--out={tmp_path / 'out.csv'}"])
    assert (tmp_path / "out.csv").read_bytes() == b"image,level\n1_right,4\n1_left,0\n"


def test_without_a_sample_the_test_folder_counts(tmp_path):
    levels = make(tmp_path)
    write.main([f"--data={tmp_path}", f"--levels={levels}", f"--out={tmp_path / 'out.csv'}"])
    assert (tmp_path / "out.csv").read_bytes() == b"image,level\n1_left,0\n1_right,4\n"


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("image,level\n1_left,0\n", "1 images of .*test are not in .*levels.csv: 1_right"),
        ("image,level\n1_left,0\n1_right,1\n2_left,1\n", "1 images of .*levels.csv are not in .*test: 2_left"),
        ("image,level\n1_left,0\n1_left,1\n", "row 3: image 1_left comes a second time"),
        ("image,level\n1_left,0\n1_right,5\n", "row 3: level is 5"),
        ("image,level\n1_left,0\n1_right,-1\n", "row 3: level is -1"),
        ("image,level\n1_left,0\n1_right,0.5\n", "row 3: level is 0.5"),
        ("image\n1_left\n", "no column level"),
    ],
)
def test_anything_else_is_an_error_and_writes_nothing(tmp_path, levels, message):
    path = make(tmp_path, levels=levels)
    with pytest.raises(stage.InputError, match=message):
        write.main([f"--data={tmp_path}", f"--levels={path}", f"--out={tmp_path / 'out.csv'}"])
    assert not (tmp_path / "out.csv").exists()


def fill_cache(folder):
    """Put scores and the levels made from them into a cache; return it."""
    write_scores(folder / "blend" / "scores_test.csv", ["1_left", "1_right"], SCORES)
    stage.write_table(
        folder / "kappa" / "levels_test.csv", ("image", "level"), {"1_left": {"level": 0}, "1_right": {"level": 4}}
    )
    digests = {"scores_test": stage.hash_file(folder / "blend" / "scores_test.csv")}
    stage.write_manifest(folder / "kappa", "kappa.assign", {"method": "anneal"}, digests, {})
    return folder


def test_before_submitting_it_tells_levels_training_levels_and_the_promise(tmp_path, capsys):
    make(tmp_path)
    (tmp_path / "trainLabels.csv").write_text("image,level\n7_left,0\n7_right,0\n8_left,0\n8_right,2\n")
    cache = fill_cache(tmp_path / "cache")
    write.main([f"--data={tmp_path}", f"--cache={cache}", f"--out={tmp_path / 'out.csv'}"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "1", "0", "0", "0", "1"] in lines
    assert ["%", "of", "them", "50.0", "0.0", "0.0", "0.0", "50.0"] in lines
    assert ["%", "of", "training", "labels", "75.0", "0.0", "25.0", "0.0", "0.0"] in lines
    promised = expected_kappa(SCORES, np.array([0, 4]))
    assert ["expected", "QWK", f"{promised:.4f}:"] in [line[:3] for line in lines]
    assert ["not", "a", "medical", "device,"] in [line[4:8] for line in lines]


def test_scores_newer_than_the_levels_promise_nothing(tmp_path):
    cache = fill_cache(tmp_path)
    write_scores(cache / "blend" / "scores_test.csv", ["1_left", "1_right"], SCORES[::-1])
    assert "newer than the levels" in write.describe_promise(cache)


def test_rejected_photographs_in_a_submission_are_counted(tmp_path, capsys):
    make(tmp_path)
    cache = fill_cache(tmp_path / "cache")
    stage.record_rejected(cache, "crop", "test", {"1_left": "no eye"})
    write.main([f"--data={tmp_path}", f"--cache={cache}", f"--out={tmp_path / 'out.csv'}"])
    assert "1 of them rejected photographs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_is_a_path_is_refused(name, capsys):
    with pytest.raises(SystemExit) as caught:
        write.main(["--name", name])
    assert caught.value.code == 2
    assert "plain file name" in capsys.readouterr().err
