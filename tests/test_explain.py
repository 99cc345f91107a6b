"""Heat over a photograph: in the photograph's own size and place, from a checkpoint alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dr import explain
from dr.training import checkpoint
from preprocess.dataset import kaggle
from preprocess.disk.errors import InputError
from preprocess.picture import square
from preprocess.picture.disc import Disc
from preprocess.picture.square import Making
from preprocess.picture.uncrop import undo_crop


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs, as the command line names them."""
    return [str(path) for path in kaggle.list_folder(drawn_folder / "test").paths.values()]


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
    options = f"--checkpoint={tmp_path}/eager.pt --out={out} --layer={layer} --level=2".split()
    explain.main([*photographs[:2], *options])
    printed = capsys.readouterr().out
    assert "not a medical device" in printed
    for name in photographs[:2]:
        assert f"{name}: level 2 (" in printed
        before, after = (
            cv2.imread(str(path)).astype(int)
            for path in (name, out / f"{Path(name).stem}_heat.jpeg")
        )
        assert after.shape == before.shape
        disc = square.make_square(Path(name), eager.making).disc
        rows, columns = np.indices(before.shape[:2])
        away = np.hypot(columns - disc.center_x, rows - disc.center_y) / disc.semi_axis_x
        changed = np.abs(after - before).max(axis=2)
        assert changed[away < 1].max() > 60
        assert np.percentile(changed[away > 1.1], 99) < 12  # of JPEG
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize("crop", ["adaptive", "whole"])
def test_crop_is_undone(crop):
    """A spot on the heat of a square's middle against the place in the photograph that resize takes it from."""
    disc, making = Disc(210.0, 130.0, 96.0, 96.0, 1.0), Making(crop, 32, "cdf")
    heat = np.zeros((28, 28), np.float32)
    heat[5, 20] = 1
    placed = undo_crop(heat, disc, making, (260, 400))
    place = (
        130 + (5 + 2 - 15.5) * 6,
        210 + (20 + 2 - 15.5) * 6,
    )  # of pixel (7, 22), from the middle 15.5, 6 px each
    assert placed.shape == (260, 400) and np.unravel_index(placed.argmax(), placed.shape) == place
    everywhere = undo_crop(np.ones((28, 28), np.float32), disc, making, (260, 400))
    seen = np.argwhere(everywhere > 0)
    for ends, sign in ((seen.min(axis=0), -1), (seen.max(axis=0), 1)):
        assert ends == pytest.approx([130 + sign * 14 * 6, 210 + sign * 14 * 6], abs=6)
    assert (everywhere[130 - 13 * 6, 210 - 13 * 6] > 0) == (
        crop == "whole"
    )  # a corner, outside the ellipse
    disc, making = Disc(100.0, 50.0, 40.0, 20.0, 1.0), Making("box", 32, "cdf")
    flat = undo_crop(np.ones((32, 32), np.float32), disc, making, (100, 200))
    assert [
        flat[row, column] > 0 for row, column in ((50, 139), (50, 142), (69, 100), (72, 100))
    ] == [True, False] * 2


def test_refused_photograph_is_named_and_the_others_are_explained(
    photographs, net_file, tmp_path, capsys
):
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"no photograph")
    with pytest.raises(InputError, match="1 photograph is refused .*broken.jpeg: neither a JPEG"):
        explain.main(
            [str(broken), photographs[0], f"--checkpoint={net_file}", f"--out={tmp_path}/out"]
        )
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert "broken.jpeg: refused: neither" in capsys.readouterr().out


def test_the_photograph_itself_is_never_overwritten(drawn_folder):
    photograph = drawn_folder / "test" / "1_left_heat.jpeg"
    (target,) = explain.choose_targets([photograph], drawn_folder).values()
    assert target == drawn_folder / "1_left_heat_heat.jpeg"
    with pytest.raises(InputError, match="holds the photographs"):
        explain.choose_targets([photograph], drawn_folder / "test")
