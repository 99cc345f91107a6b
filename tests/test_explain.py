"""Heat over a photograph: in the photograph's own size and place, from a checkpoint alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dr import explain
from dr.scores import read_scores
from dr.training import checkpoint
from preprocess import synthetic
from preprocess.cache.errors import InputError
from preprocess.picture import square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making
from preprocess.samples import retina
from tests.benchmarks.explain import DrawnEyes, describe_chance, describe_layer, mask_lesions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs, as the command line names them."""
    return [str(path) for path in retina.list_images(drawn_folder, "test").paths.values()]


@pytest.fixture
def net_file(finished_cache):
    return finished_cache / "dr" / "epochs" / "0002.pt"


@pytest.mark.parametrize("layer", explain.LAYERS)
def test_overlay_has_the_photographs_size_and_changes_nothing_outside_the_eye(
    photographs, net_file, tmp_path, capsys, layer
):
    """By a net to which all that it sees speaks for every level: no weight of its head is negative."""
    eager, out = checkpoint.read(net_file), tmp_path / "out"
    for name in ("head.hidden.0.weight", "head.outputs.weight"):
        eager.net[name] = eager.net[name].abs()
    eager.net["head.hidden.1.running_mean"].zero_()
    checkpoint.write(tmp_path / "eager.pt", eager)
    explain.main(
        [*photographs[:2], f"--checkpoint={tmp_path}/eager.pt", f"--out={out}", f"--layer={layer}", "--level=2"]
    )
    printed = capsys.readouterr().out
    assert "not a medical device" in printed
    for name in photographs[:2]:
        assert f"{name}: level 2 (" in printed
        before, after = (cv2.imread(str(path)).astype(int) for path in (name, out / f"{Path(name).stem}_heat.jpeg"))
        assert after.shape == before.shape
        disc = square.make_square(Path(name), eager.making).disc
        rows, columns = np.indices(before.shape[:2])
        away = np.hypot(columns - disc.center_x, rows - disc.center_y) / disc.semi_axis_x
        changed = np.abs(after - before).max(axis=2)
        assert changed[away < 1].max() > 60
        assert np.percentile(changed[away > 1.1], 99) < 12  # of JPEG
    assert len(list(out.iterdir())) == 2


def test_cache_and_its_last_checkpoint_explain_alike(photographs, finished_cache, net_file, tmp_path, capsys):
    explain.main([photographs[0], f"--checkpoint={net_file}", f"--out={tmp_path}/one"])
    explain.main([photographs[0], f"--cache={finished_cache}", f"--out={tmp_path}/two"])
    one, two = ((tmp_path / folder).iterdir() for folder in ("one", "two"))
    assert next(one).read_bytes() == next(two).read_bytes()
    scores = read_scores(finished_cache / "dr" / "single_test.csv", retina.TASK).to_numpy()
    assert f"level {scores[0].argmax()} ({scores[0].max():.0%} by this net)" in capsys.readouterr().out


@pytest.mark.parametrize("crop", ["adaptive", "whole"])
def test_crop_is_undone(crop):
    """A spot on the heat of a square's middle against the place in the photograph that resize takes it from."""
    disc, making = Disc(210.0, 130.0, 96.0, 96.0, 1.0), Making(crop, 32, "cdf")
    heat = np.zeros((28, 28), np.float32)
    heat[5, 20] = 1
    placed = explain.undo_crop(heat, disc, making, (260, 400))
    place = (130 + (5 + 2 - 15.5) * 6, 210 + (20 + 2 - 15.5) * 6)  # of pixel (7, 22), from the middle 15.5, 6 px each
    assert placed.shape == (260, 400) and np.unravel_index(placed.argmax(), placed.shape) == place
    everywhere = explain.undo_crop(np.ones((28, 28), np.float32), disc, making, (260, 400))
    seen = np.argwhere(everywhere > 0)
    for ends, sign in ((seen.min(axis=0), -1), (seen.max(axis=0), 1)):
        assert ends == pytest.approx([130 + sign * 14 * 6, 210 + sign * 14 * 6], abs=6)
    assert (everywhere[130 - 13 * 6, 210 - 13 * 6] > 0) == (crop == "whole")  # a corner, outside the ellipse


def test_heat_ends_where_the_disc_ends():
    disc = Disc(100.0, 50.0, 40.0, 20.0, 1.0)
    placed = explain.undo_crop(np.ones((32, 32), np.float32), disc, Making("box", 32, "cdf"), (100, 200))
    assert placed[50, 139] > 0 == placed[50, 142]
    assert placed[69, 100] > 0 == placed[72, 100]


def test_refused_photograph_is_named_and_the_others_are_explained(photographs, net_file, tmp_path, capsys):
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"no photograph")
    with pytest.raises(InputError, match="1 photograph is refused .*broken.jpeg: neither a JPEG"):
        explain.main([str(broken), photographs[0], f"--checkpoint={net_file}", f"--out={tmp_path}/out"])
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert "broken.jpeg: refused: neither" in capsys.readouterr().out


def test_the_photograph_itself_is_never_overwritten(drawn_folder):
    (target,) = explain.choose_targets([drawn_folder / "test" / "1_left_heat.jpeg"], drawn_folder / "test").values()
    assert target.name == "1_left_heat_heat.jpeg"


def test_wrong_arguments_are_one_line(photographs, net_file):
    name, net = photographs[0], f"--checkpoint={net_file}"
    for arguments, message in (
        ([name, f"/elsewhere/{Path(name).name}", net], "the same name"),
        ([name, "--cache=nothing"], r"python -m dr\.train first"),
        ([name, net, "--level=5"], "--level 5: the net's last level is 4"),
    ):
        with pytest.raises(InputError, match=message):
            explain.main(arguments)


def test_lesions_lie_where_they_were_drawn():
    """The mask against the drawing: hemorrhages are darker than what is around them."""
    eye = synthetic.draw_eye(seed=0, patient=3, side="left", level=3, width_px=500)
    disc = Disc(eye.disc[0], eye.disc[1], eye.disc[2], eye.disc[2], 1.0)
    size_px = round(2 * eye.disc[2])
    blots = eye.lesions[eye.lesions["kind"] == "hemorrhage"]
    mask = mask_lesions(blots, disc, size_px, size_px, tolerance=0)
    left, top = round(eye.disc[0] - (size_px - 1) / 2), round(eye.disc[1] - (size_px - 1) / 2)
    rows, columns = np.indices(mask.shape) + np.array([top, left])[:, None, None]
    shown = (rows >= 0) & (rows < len(eye.photograph)) & (columns >= 0) & (columns < eye.photograph.shape[1])
    green = np.full(mask.shape, np.nan)
    green[shown] = eye.photograph[rows[shown], columns[shown], 1]
    ring = mask_lesions(blots, disc, size_px, size_px, tolerance=0.02) & ~mask
    assert np.nanmean(green[mask]) < 0.85 * np.nanmean(green[ring])


def test_perfect_heat_wins_the_pointing_game_and_even_heat_gets_chance():
    lesions, levels = np.zeros((4, 9, 9), bool), np.arange(1, 5)
    for row, level in enumerate(levels):
        lesions[row, level, level : level + 2] = True
    drawn = DrawnEyes(torch.empty(0), levels, levels, lesions, lesions, np.ones((9, 9), bool))
    perfect = describe_layer("perfect", lesions.astype(np.float32), drawn).split()
    assert perfect[1:] == ["1.00", "1.00", "0.00", "40.5", "1.00", "1.00", "1.00", "1.00"]  # 2 of 81 pixels
    even = describe_layer("even", np.ones((4, 9, 9), np.float32), drawn).split()
    assert even[4] == "1.0"
    assert describe_chance(drawn).split()[1:4] == ["0.02", "0.02", "0.02"]
