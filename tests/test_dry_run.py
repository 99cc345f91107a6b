"""A dry run: it stops before anything is made, says why, and leaves the program as it was."""

from pathlib import Path

import pytest

from preprocess import crop, stage
from submissions import dry_run
from tests import ready_made


def list_all(folder):
    """Return name and time of everything below a folder."""
    return [(path, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


def test_what_is_not_drawn_yet_is_not_begun(tmp_path):
    outlook = dry_run.look_ahead("preprocess.synthetic", [f"--data={tmp_path / 'demo'}", "--width-px=200"])
    assert outlook == ("will run", "train/ is not there yet")
    assert list_all(tmp_path) == []


def test_a_stage_that_was_half_done_is_left_so(data, cache):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1"])
    before = list_all(cache)
    outlook = dry_run.look_ahead("preprocess", [f"--data={data}", f"--cache={cache}", "--jobs=1"])
    assert outlook == ("will run", "train/ is not there yet")
    assert list_all(cache) == before


def test_a_photograph_that_was_removed_is_noticed(data, cache):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1"])
    gone = sorted((data / "train").iterdir())[0]
    (data / "trainLabels.csv").unlink()
    gone.unlink()
    before = list_all(cache)
    outlook = dry_run.look_ahead("preprocess.crop", [f"--data={data}", f"--cache={cache}", "--jobs=1"])
    assert outlook == ("will run", "train.jsonl would be written")
    assert list_all(cache) == before


def test_training_is_not_begun(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    ready_made.draw_squares(data)
    (cache / "dr" / "epochs").mkdir(parents=True)
    outlook = dry_run.look_ahead("dr.train", [f"--data={data}", f"--cache={cache}", *ready_made.TRAIN_OPTIONS])
    assert outlook == ("will run", "not made yet")


def test_behind_a_stage_that_will_run_nothing_is_promised(tmp_path):
    place = [f"--data={tmp_path}", f"--cache={tmp_path}"]
    (tmp_path / "labels.csv").write_text("image,level\n")
    commands = [
        ["preprocess.synthetic", f"--data={tmp_path / 'x'}"],
        ["kappa.assign", *place],
        ["submissions.score", *place],
    ]
    outlooks = dict(dry_run.describe_run(commands))
    assert outlooks["kappa.assign"] == ("will run", "after preprocess.synthetic")
    assert outlooks["submissions.score"] == ("will run", "after preprocess.synthetic")


def test_wrong_options_come_to_light_wherever_they_stand(tmp_path, capsys):
    words = ["preprocess.synthetic", f"--data={tmp_path / 'x'}", "--", "kappa.assign", "--method", "guess"]
    with pytest.raises(SystemExit) as caught:
        dry_run.main(words)
    assert caught.value.code == 2
    assert "invalid choice: 'guess'" in capsys.readouterr().err


def test_a_stage_that_would_stop_is_an_error(tmp_path, capsys):
    words = ["kappa.assign", f"--data={tmp_path}", f"--cache={tmp_path}", "--", "submissions.write"]
    with pytest.raises(stage.InputError, match="scores_test.csv: no such file"):
        dry_run.main(words)
    assert "submissions.write     not reached after kappa.assign" in capsys.readouterr().out


def test_what_is_no_stage_is_refused():
    with pytest.raises(stage.InputError, match="tests.stress: no such stage"):
        dry_run.main(["tests.stress"])


def test_the_stand_ins_are_gone_afterwards(tmp_path):
    kept = [getattr(owner, name) for owner, name, _ in dry_run.STAND_INS]
    with pytest.raises(dry_run.Decided), dry_run.only_looking():
        Path(tmp_path / "new").mkdir()
    assert [getattr(owner, name) for owner, name, _ in dry_run.STAND_INS] == kept
    Path(tmp_path / "new").mkdir()
