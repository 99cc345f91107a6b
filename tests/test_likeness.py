"""Is a photograph out of distribution? The distance, where it is kept, what grade and explain say of it."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from dr import explain, out_of_distribution, train
from dr.squares import store
from dr.training import checkpoint, distribution
from preprocess.dataset import kaggle
from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError
from preprocess.picture import square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Square
from submissions import grade
from tests import tiny

N = 60  # squares, of which the even ones are learned from


def vary(pixels, rng):
    """Return squares like some, (N, size_px, size_px, 3): each with a contrast of its own and a little noise."""
    chosen = pixels[np.arange(N) % len(pixels)] * rng.uniform(0.8, 1, (N, 1, 1, 1))
    return (chosen + rng.uniform(0, 12, chosen.shape)).astype(np.uint8)


def summarize(of, pixels):
    """Return a checkpoint that knows what squares of these pixels look like, and how far each lies from them."""
    luts = square.keep_values(len(pixels))
    made = [
        Square(own, lut, Disc(0.0, 0.0, 1.0, 1.0, 1.0))
        for own, lut in zip(pixels, luts, strict=True)
    ]
    squares = store.gather([Subject(str(row)) for row in range(len(made))], made, of.mean, of.std)
    learned = np.arange(0, len(made), 2)
    held_out = np.arange(1, len(made), 2)
    known = distribution.summarize_training_squares(squares, learned, held_out, of.settings.crop_px)
    told = dataclasses.replace(of, distribution=known)
    return told, np.array([distribution.measure_distance(told, own) for own in made], float)


@pytest.fixture
def trained(finished_cache):
    """The checkpoint of two epochs on drawn eyes, which are too few to tell what they look like."""
    return checkpoint.read(finished_cache / "dr" / "epochs" / "0002.pt")


@pytest.fixture
def knowing(trained, drawn_folder, tmp_path):
    """The file of the same net, which knows what drawn eyes look like."""
    of = trained
    paths = (
        kaggle.list_folder(drawn_folder / "train").paths
        | kaggle.list_folder(drawn_folder / "test").paths
    )
    eyes = [square.make_square(path, of.making) for path in paths.values()]
    pixels = np.stack([cv2.LUT(eye.pixels, eye.lut.T[None]) for eye in eyes])
    told, _ = summarize(
        of, np.concatenate([vary(pixels, np.random.default_rng(0)), pixels, pixels])
    )
    checkpoint.write(tmp_path / "knowing.pt", told)
    return tmp_path / "knowing.pt"


@pytest.fixture
def eye(drawn_folder):
    """The left eye of the first test patient."""
    return next(iter(kaggle.list_folder(drawn_folder / "test").paths.values()))


@pytest.fixture
def lamp(tmp_path):
    """A file with a picture of a lamp: a bright disc before black, as the photograph of an eye is."""
    rows, columns = np.indices((300, 400))
    inside = np.hypot(rows - 150, columns - 200) < 130
    cv2.imwrite(
        str(tmp_path / "lamp.png"), (inside[..., None] * np.array([40, 140, 250])).astype(np.uint8)
    )
    return tmp_path / "lamp.png"


def test_new_squares_of_the_kind_are_alike_and_others_are_not(trained):
    rng = np.random.default_rng(0)
    noise = vary(rng.integers(0, 120, (5, 48, 48, 3)), rng)
    told, far = summarize(trained, noise)
    assert far[1::2].max() == pytest.approx(
        1, abs=1e-4
    )  # 99 of 100 of those held out, so all of 30
    assert np.median(far) < 0.9
    for other in (
        np.tile(np.arange(48, dtype=np.uint8)[:, None, None] * 5, (1, 48, 3)),
        np.zeros((48, 48, 3), np.uint8),
    ):
        assert (
            distribution.measure_distance(
                told, Square(other, square.keep_values(1)[0], Disc(0, 0, 1, 1, 1))
            )
            > 2
        )


def test_few_squares_tell_nothing_and_equal_ones_do_not_divide_by_zero(trained):
    same = np.full((N, 48, 48, 3), 100, np.uint8)
    told, far = summarize(trained, same[: 2 * distribution.LEAST_IMAGES - 1])
    assert told.distribution == {} and np.isnan(far).all()
    assert (summarize(trained, same)[1] <= 1).all()


def test_training_keeps_it_and_a_rerun_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(distribution, "LEAST_IMAGES", 4)
    places = tiny.draw_squares(tmp_path / "data", tmp_path / "cache")
    options = [*places, *tiny.TRAIN_OPTIONS]
    train.main([*options, "--epochs=2", "--run=once"])
    train.main([*options, "--epochs=2", "--run=again"])
    once, again = (
        tmp_path / "cache" / "dr" / "runs" / name / "epochs" / "0002.pt"
        for name in ("once", "again")
    )
    assert once.read_bytes() == again.read_bytes()
    of = checkpoint.read(once)
    assert of.n_images == 18 and of.distribution.keys() == {"known", "scale"}


def test_nets_of_few_images_do_not_know_and_senseless_ones_are_refused(
    trained, knowing, eye, tmp_path, capsys
):
    content, few = (
        torch.load(knowing, weights_only=True),
        [str(eye), f"--checkpoint={tmp_path}/few.pt"],
    )
    torch.save(content | {"likeness": {}}, tmp_path / "few.pt")
    grade.main([*few, "--device=cpu"])
    assert out_of_distribution.UNKNOWN in capsys.readouterr().out.splitlines()
    grade.main([*few, "--device=cpu", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["eyes"][0]["is_unlike"] is printed["eyes"][0]["unlikeness"] is None
    for command in (grade, explain):
        with pytest.raises(InputError, match=f"--strict: {out_of_distribution.UNKNOWN}"):
            command.main(["whose.jpeg", *few, "--strict"])
    known = content["likeness"]
    for change in (
        *({"n_images": "4"}, {"likeness": [1]}, {"likeness": {"known": known["known"]}}),
        *({"likeness": known | {name: part * torch.nan}} for name, part in known.items()),
        {"likeness": known | {"scale": known["scale"][:3]}},
    ):
        torch.save(content | change, tmp_path / "bad.pt")
        with pytest.raises(InputError, match="makes no sense"):
            checkpoint.read(tmp_path / "bad.pt")
    for other in (
        {"known": known["known"][:, :3], "scale": known["scale"][:3]},
        known | {"known": known["known"][:3]},
    ):
        torch.save(content | {"likeness": other}, tmp_path / "other.pt")
        with pytest.raises(InputError, match="another version of dr.train described"):
            grade.main([str(eye), f"--checkpoint={tmp_path}/other.pt", "--device=cpu"])


def test_grade_doubts_and_strictly_refuses_what_is_no_eye(knowing, eye, lamp, capsys):
    given = [
        f"--left={eye}",
        f"--right={lamp}",
        f"--checkpoint={knowing}",
        "--views=1",
        "--device=cpu",
    ]
    grade.main(given)
    left, right = capsys.readouterr().out.splitlines()[2:4]
    assert out_of_distribution.OUTSIDE not in left and right.endswith(out_of_distribution.OUTSIDE)
    grade.main([*given, "--json"])
    eyes = json.loads(capsys.readouterr().out)["eyes"]
    assert [of["is_unlike"] for of in eyes] == [False, True] and eyes[0]["unlikeness"] <= 1 < eyes[
        1
    ]["unlikeness"]
    with pytest.raises(
        InputError,
        match=rf"1 photograph is refused .*lamp.png: {out_of_distribution.OUTSIDE}.*; 1 done",
    ):
        grade.main([*given, "--json", "--strict"])
    strict = json.loads(capsys.readouterr().out)
    (kept,), wanted = strict["eyes"], eyes[0] | {"has_fellow": False, "warnings": ["no fellow"]}
    for key in ("scores", "expected_level"):  # a batch of another size rounds otherwise
        assert kept.pop(key) == pytest.approx(wanted.pop(key), abs=1e-5)
    for one in (kept, wanted):
        one["screening"] = one["screening"] | {
            "probability": round(one["screening"]["probability"], 5)
        }
    assert kept == wanted
    assert strict["refused"][0]["photograph"] == str(lamp)


def test_explain_doubts_and_strictly_refuses_what_is_no_eye(knowing, eye, lamp, tmp_path, capsys):
    given = [
        str(eye),
        str(lamp),
        f"--checkpoint={knowing}",
        f"--out={tmp_path}/out",
        "--device=cpu",
    ]
    explain.main(given)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert (
        out_of_distribution.OUTSIDE not in first
        and f", {out_of_distribution.OUTSIDE} -> " in second
    )
    with pytest.raises(InputError, match=rf"lamp.png: {out_of_distribution.OUTSIDE}.*; 1 done"):
        explain.main([*given, "--strict"])


def test_explain_explains_the_level_that_grade_gives(trained, eye, tmp_path, capsys):
    """Likeliest is level 0, the mean 1.9."""
    of = trained
    scores = torch.tensor([0.4, 0.05, 0.1, 0.15, 0.3])
    of.net["head.outputs.weight"].zero_()
    of.net["head.outputs.bias"].copy_(scores.log())
    checkpoint.write(tmp_path / "torn.pt", of)
    given = [str(eye), f"--checkpoint={tmp_path}/torn.pt", "--device=cpu"]
    grade.main([*given, "--json"])
    assert json.loads(capsys.readouterr().out)["eyes"][0]["level"] == 2
    explain.main([*given, f"--out={tmp_path}"])
    assert f"{eye}: level 2 (10% by this net), for which" in capsys.readouterr().out
    explain.main([*given, f"--out={tmp_path}", "--level=0"])
    assert (
        f"{eye}: level 0 (40% by this net), nearest to the mean 2 (10%)" in capsys.readouterr().out
    )


def test_the_file_of_a_checkpoint_keeps_its_old_key(knowing):
    """Checkpoints from before the field had another name are read and graded."""
    content = torch.load(knowing, weights_only=True)
    assert list(content)[-3:] == ["n_images", "likeness", "raw"]
    read = checkpoint.read(knowing).distribution
    assert all(torch.equal(content["likeness"][name], value) for name, value in read.items())
