"""Whose eye a photograph shows, as `submissions.grade` takes it: by its name, by what is told, or not at all."""

import shutil

import pytest

from preprocess.disk import files
from preprocess.disk.errors import InputError
from submissions import grade, photographs
from tests.tasks import TASK
from tests.test_grade import run


def tell_owners(graded):
    return [
        (eye["photograph"].split("/")[-1], eye["patient"], eye["side"]) for eye in graded["eyes"]
    ]


def test_names_are_believed_in_any_order(finished_cache, pair, capsys):
    cache = f"--cache={finished_cache}"
    forth, back = run(capsys, *pair, cache), run(capsys, *pair[::-1], cache)
    assert forth == back
    assert tell_owners(forth) == [("18_left.jpeg", "18", "left"), ("18_right.jpeg", "18", "right")]
    told = run(capsys, "--right", pair[1], "--left", pair[0], "--patient", "18", cache)
    assert told == forth


def test_other_names_are_told_whose_they_are(finished_cache, pair, tmp_path, capsys):
    odd = [
        shutil.copy(path, tmp_path / name)
        for path, name in zip(pair, ("b 7.jpeg", "a.jpeg"), strict=True)
    ]
    cache = f"--cache={finished_cache}"
    named, graded = (
        run(capsys, *pair, cache),
        run(capsys, f"--left={odd[0]}", f"--right={odd[1]}", cache),
    )
    assert tell_owners(graded) == [("b 7.jpeg", None, "left"), ("a.jpeg", None, "right")]
    assert [eye["blended"] for eye in graded["eyes"]] == [eye["blended"] for eye in named["eyes"]]
    half = run(capsys, f"--left={pair[0]}", f"--right={odd[1]}", cache)
    assert tell_owners(half) == [("18_left.jpeg", "18", "left"), ("a.jpeg", "18", "right")]
    assert tell_owners(run(capsys, odd[0], "--patient=Eve", cache)) == [("b 7.jpeg", "Eve", None)]
    assert tell_owners(run(capsys, odd[0], cache)) == [("b 7.jpeg", None, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("10_left.jpeg 10_left_b.jpeg --patient 10", "both are the left eye; .*folder"),
        ("10_left.jpeg b.jpeg --patient 10", "b.jpeg: which eye is it.* --left FILE --right FILE"),
        (
            "a.jpeg b.jpeg c.jpeg --patient 10",
            "--patient: 3 photographs; give the patient's one or two",
        ),
        ("--left 10_right.jpeg", "10_right.jpeg: the right eye by its name, given as the left one"),
        (
            "--left 10_left.jpeg --patient 15",
            "10_left.jpeg: of patient 10 by its name, of 15 by --patient",
        ),
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


def test_files_of_any_names_are_graded_each_alone_and_a_table_tells_whose_they_are(
    finished_cache, pair, tmp_path, capsys
):
    odd = [
        shutil.copy(path, tmp_path / name)
        for path, name in zip(pair, ("scan 2.jpeg", "scan 1.jpeg"), strict=True)
    ]
    cache = f"--cache={finished_cache}"
    alone = run(capsys, *odd, pair[0], cache)
    assert tell_owners(alone)[1:] == [("scan 1.jpeg", None, None), ("scan 2.jpeg", None, None)]
    assert not any(eye["has_fellow"] for eye in alone["eyes"])
    (tmp_path / "samples.csv").write_text("image,patient,side\nscan 2,Eve,left\nscan 1,Eve,right\n")
    named = run(capsys, *pair, cache)
    for given in (tmp_path, tmp_path / "samples.csv"):
        told = run(capsys, given, cache)
        assert tell_owners(told) == [
            ("scan 2.jpeg", "Eve", "left"),
            ("scan 1.jpeg", "Eve", "right"),
        ]
        assert [eye["blended"] for eye in told["eyes"]] == [eye["blended"] for eye in named["eyes"]]


def test_an_uploaded_table_names_uploaded_files_alone(tmp_path):
    (tmp_path / "upload").mkdir()
    (tmp_path / "other_left.jpeg").write_bytes(b"of somebody else")
    (tmp_path / "upload" / "a.jpeg").write_bytes(b"sent")
    rows = f"a,far/away/a.jpeg,Eve,left\nother_left,{tmp_path}/other_left.jpeg,Eve,right\n"
    (tmp_path / "upload" / "samples.csv").write_text(f"image,path,patient,side\n{rows}")
    listed = photographs.list_eyes([tmp_path / "upload"], None, None, None, is_uploaded=True)
    assert [path.parent for path in listed.subjects] == [tmp_path / "upload"] * 2
    assert listed.subjects[tmp_path / "upload" / "a.jpeg"] == ("Eve", "left")


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


def test_a_folder_that_macos_copied_has_no_photographs_but_its_own(tmp_path):
    """macOS puts a file ._NAME beside each NAME: neither eyes nor other images take it for a photograph."""
    for name in ("10_left.jpeg", "._10_left.jpeg", ".hidden.png"):
        (tmp_path / name).touch()
    assert list(photographs.list_images([tmp_path]).subjects) == [tmp_path / "10_left.jpeg"]
    eyes = photographs.list_eyes([tmp_path], None, None, None)
    assert list(eyes.subjects) == [tmp_path / "10_left.jpeg"] and not eyes.misnamed
