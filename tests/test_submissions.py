"""The submission CSV: exactly the expected images, levels 0-4, the sample's order."""

import pytest

from preprocess import stage
from submissions import write


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


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_is_a_path_is_refused(name, capsys):
    with pytest.raises(SystemExit) as caught:
        write.main(["--name", name])
    assert caught.value.code == 2
    assert "plain file name" in capsys.readouterr().err
