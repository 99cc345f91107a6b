"""Whose eye a photograph shows, as `submissions.grade` takes it: by its name, by what is told, or not at all."""

import shutil

import pytest

from preprocess.disk import files
from preprocess.disk.errors import InputError
from submissions import grade
from tests.tasks import TASK
from tests.test_grade import run


def tell_owners(graded):
    return [(eye["photograph"].split("/")[-1], eye["patient"], eye["side"]) for eye in graded["eyes"]]


def test_names_are_believed_in_any_order(finished_cache, pair, capsys):
    cache = f"--cache={finished_cache}"
    forth, back = run(capsys, *pair, cache), run(capsys, *pair[::-1], cache)
    assert forth == back
    assert tell_owners(forth) == [("18_left.jpeg", "18", "left"), ("18_right.jpeg", "18", "right")]
    told = run(capsys, "--right", pair[1], "--left", pair[0], "--patient", "18", cache)
    assert told == forth


def test_other_names_are_told_whose_they_are(finished_cache, pair, tmp_path, capsys):
    odd = [shutil.copy(path, tmp_path / name) for path, name in zip(pair, ("b 7.jpeg", "a.jpeg"), strict=True)]
    cache = f"--cache={finished_cache}"
    named, graded = run(capsys, *pair, cache), run(capsys, f"--left={odd[0]}", f"--right={odd[1]}", cache)
    assert tell_owners(graded) == [("b 7.jpeg", None, "left"), ("a.jpeg", None, "right")]
    assert [eye["blended"] for eye in graded["eyes"]] == [eye["blended"] for eye in named["eyes"]]
    half = run(capsys, f"--left={pair[0]}", f"--right={odd[1]}", cache)
    assert tell_owners(half) == [("18_left.jpeg", "18", "left"), ("a.jpeg", "18", "right")]
    assert tell_owners(run(capsys, odd[0], "--patient=Eve", cache)) == [("b 7.jpeg", "Eve", None)]
    assert tell_owners(run(capsys, odd[0], cache)) == [("b 7.jpeg", None, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("10_left.jpeg 15_left.jpeg", "10_left.jpeg and 15_left.jpeg: of two patients, 10 and 15; .*folder"),
        ("10_left.jpeg 10_left_b.jpeg", "10_left.jpeg and 10_left_b.jpeg: both are the left eye; .*folder"),
        ("10_left.jpeg b.jpeg", "b.jpeg: which eye is it.* --left FILE --right FILE"),
        ("a.jpeg b.jpeg", "a.jpeg: which eye is it.* --left FILE --right FILE"),
        ("--left 10_right.jpeg", "10_right.jpeg: the right eye by its name, given as the left one"),
        ("--left 10_left.jpeg --patient 15", "10_left.jpeg: of patient 10 by its name, of 15 by --patient"),
        ("--left 10_left.jpeg --right 15_right.jpeg", "of two patients, 10 and 15"),
        ("--left 10_left.jpeg 10_right.jpeg", "--left and --right are instead of"),
        ("--left a.jpeg --right ./a.jpeg", "given twice"),
        ("--left a.jpeg --patient=", "--patient ''"),
        ("", "no photographs: give"),
        ("--checkpoint a.jpeg", "no photographs: give some, all of them before --checkpoint"),
        ("a.jpeg b.jpeg c.jpeg --cache none", r"run python -m dr\.predict first"),
        (". .. --checkpoint nope.pt", "nope.pt: no such checkpoint"),
        (". --patient 10", "--patient: .* folder"),
    ],
)
def test_contradictions_are_one_line(finished_cache, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        grade.main([f"--cache={finished_cache}", *arguments.split()])
    assert "\n" not in str(caught.value)


def test_json_names_nets_and_blend(finished_cache, pair, capsys):
    graded = run(capsys, *pair, f"--cache={finished_cache}")
    assert graded["blend"] == files.hash_file(finished_cache / "blend" / "train" / "model.pt")
    (last,) = [net for net in graded["nets"] if net["epoch"] == 2]
    newest = finished_cache / "dr" / "epochs" / "0002.pt"
    assert last["checkpoint"] == files.hash_file(newest)
    assert last["making"] == {"crop": "adaptive", "size_px": 48, "normalize": "cdf"}
    assert last["task"] == {"kind": "levels", "names": list(TASK.names)}
    assert last["n_images"] == 4  # two of four patients
    assert sum(net["share"] for net in graded["nets"]) == pytest.approx(1)
    assert graded["version"]
    alone = run(capsys, pair[0], f"--checkpoint={newest}")
    assert alone["blend"] is None and alone["nets"] == [{**last, "share": 1, "views": 8}]
