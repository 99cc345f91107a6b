"""The submission CSV: exactly the expected images, levels 0-4, the sample's order."""

import numpy as np
import pytest

from dr.scores import write_scores
from kappa.proxy import expected_kappa
from preprocess.cache import manifest, rejected
from preprocess.dataset import kaggle
from preprocess.disk import files, tables
from preprocess.disk.errors import InputError
from submissions import write
from tests.tasks import TASK

SCORES = np.array([[0.7, 0.1, 0.1, 0.1, 0], [0, 0.1, 0.1, 0.2, 0.6]])


def make(data, levels="image,level\n1_left,0\n1_right,4\n"):
    """Put a data folder and a levels file down; return the latter."""
    (data / "test").mkdir(parents=True)
    for image in ("1_left", "1_right"):
        (data / "test" / f"{image}.jpeg").touch()
    path = data / "levels.csv"
    path.write_text(levels)
    return path


@pytest.mark.parametrize("sample", [["1_right", "1_left"], None])
def test_submission_follows_the_sample_or_else_the_test_folder(tmp_path, sample):
    levels = make(tmp_path)
    if sample:
        (tmp_path / "sampleSubmission.csv").write_text(
            "image,level\n" + "".join(f"{image},0\n" for image in sample)
        )
    write.main([f"--data={tmp_path}", f"--levels={levels}", f"--out={tmp_path / 'out.csv'}"])
    expected = [
        f"{image},{0 if image == '1_left' else 4}\n" for image in sample or ["1_left", "1_right"]
    ]
    assert (tmp_path / "out.csv").read_text() == "image,level\n" + "".join(expected)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("1_left,0\n", "1 images of .*test are not in .*levels.csv: 1_right"),
        ("1_left,0\n1_right,1\n2_left,1\n", "1 images of .*levels.csv are not in .*test: 2_left"),
        ("1_left,0\n1_left,1\n", "row 3: image 1_left is listed twice"),
        *(
            (f"1_left,0\n1_right,{level}\n", f"row 3: level is {level}")
            for level in ("5", "-1", "0.5")
        ),
    ],
)
def test_anything_else_is_an_error_and_writes_nothing(tmp_path, levels, message):
    path = make(tmp_path, f"image,level\n{levels}")
    with pytest.raises(InputError, match=message):
        write.main([f"--data={tmp_path}", f"--levels={path}", f"--out={tmp_path / 'out.csv'}"])
    assert not (tmp_path / "out.csv").exists()


def test_before_submitting_it_tells_levels_training_levels_rejected_images_and_the_promise(
    tmp_path, capsys
):
    make(tmp_path)
    (tmp_path / "trainLabels.csv").write_text(
        "image,level\n7_left,0\n7_right,0\n8_left,0\n8_right,2\n"
    )
    cache = tmp_path / "cache"
    scores, levels = cache / "blend" / "scores_test.csv", cache / "kappa" / "levels_test.csv"
    write_scores(scores, ["1_left", "1_right"], SCORES, TASK)
    tables.write_rows(levels, ("image", "level"), [("1_left", 0), ("1_right", 4)])
    digests = {"scores_test": files.hash_file(scores)}
    manifest.write_manifest(cache / "kappa", "kappa.assign", {"method": "anneal"}, digests, {})
    rejected.record_rejected(cache, "crop", "test", {"1_left": "no eye"})
    write.main([f"--data={tmp_path}", f"--cache={cache}", f"--out={tmp_path / 'out.csv'}"])
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (
        "images 1 0 0 0 1",
        "% of them 50.0 0.0 0.0 0.0 50.0",
        "% of training labels 75.0 0.0 25.0 0.0 0.0",
    ):
        assert line in lines
    promised = expected_kappa(SCORES, np.array([0, 4]))
    for text in (
        f"expected QWK {promised:.4f}:",
        "1 of them rejected photographs",
        "not a medical device",
    ):
        assert text in printed
    write_scores(
        scores, ["1_left", "1_right"], SCORES[::-1], TASK
    )  # newer than the levels: nothing is promised
    assert "newer than the levels" in write.describe_promise(
        cache, kaggle.read_dataset(tmp_path), TASK
    )


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_is_a_path_is_refused(name, capsys):
    with pytest.raises(SystemExit) as caught:
        write.main(["--name", name])
    assert caught.value.code == 2
    assert "plain file name" in capsys.readouterr().err
