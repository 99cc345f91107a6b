"""Heat over a photograph: in the photograph's own size and place, from a checkpoint alone."""

import cv2
import numpy as np
import pytest
import torch

from dr import checkpoint, explain, prepare
from preprocess import eyes, synthetic
from preprocess.disc import Disc
from preprocess.stage import InputError
from tests.benchmarks.explain import DrawnEyes, describe_chance, describe_layer, mask_lesions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photographs(drawn_folder):
    """The test photographs, as the command line names them."""
    return [str(path) for path in eyes.list_images(drawn_folder, "test")[0].values()]


@pytest.fixture
def net_file(finished_cache):
    return finished_cache / "dr" / "epochs" / "0002.pt"


@pytest.fixture
def eager_file(net_file, tmp_path):
    """A checkpoint of a net to which all that it sees speaks for every level: no weight of its head is negative."""
    content = checkpoint.read(net_file)
    for name in ("head.0.weight", "head.3.weight"):
        content["net"][name] = content["net"][name].abs()
    content["net"]["head.1.running_mean"].zero_()
    checkpoint.write(tmp_path / "eager.pt", content)
    return tmp_path / "eager.pt"


@pytest.mark.parametrize("layer", explain.LAYERS)
def test_overlay_has_the_photographs_size_and_changes_nothing_outside_the_eye(
    photographs, eager_file, tmp_path, capsys, layer
):
    out = tmp_path / "out"
    explain.main([*photographs[:2], f"--checkpoint={eager_file}", f"--out={out}", f"--layer={layer}", "--level=2"])
    printed = capsys.readouterr().out
    assert "not a medical device" in printed
    for name in photographs[:2]:
        assert f"{name}: level 2 (" in printed
        before = cv2.imread(name).astype(int)
        after = cv2.imread(str(out / f"{name.split('/')[-1][:-5]}_heat.jpeg")).astype(int)
        assert after.shape == before.shape
        square = prepare.prepare(name, checkpoint.read(eager_file))
        rows, columns = np.indices(before.shape[:2])
        away = np.hypot(columns - square.disc.center_x, rows - square.disc.center_y) / square.disc.semi_axis_x
        changed = np.abs(after - before).max(axis=2)
        assert changed[away < 1].max() > 60
        assert np.percentile(changed[away > 1.1], 99) < 12  # of JPEG
    assert len(list(out.iterdir())) == 2


def test_cache_and_its_last_checkpoint_explain_alike(photographs, finished_cache, net_file, tmp_path, capsys):
    explain.main([photographs[0], f"--checkpoint={net_file}", f"--out={tmp_path}/one"])
    explain.main([photographs[0], f"--cache={finished_cache}", f"--out={tmp_path}/two"])
    one, two = ((tmp_path / folder).iterdir() for folder in ("one", "two"))
    assert next(one).read_bytes() == next(two).read_bytes()
    level = capsys.readouterr().out.split("level ")[1][0]
    square = prepare.prepare(photographs[0], checkpoint.read(net_file))
    content = checkpoint.read(net_file)
    scores = explain.score_center(checkpoint.make_net(content), square, content)
    assert int(level) == scores.argmax()


def test_crop_is_undone():
    """A spot on the heat of a square's middle against the place in the photograph that resize takes it from."""
    disc = Disc(210.0, 130.0, 96.0, 96.0, 1.0)
    heat = np.zeros((28, 28), np.float32)
    heat[5, 20] = 1
    placed = explain.undo_crop(heat, disc, size_px=32, shape=(260, 400))
    x = 210 + (20 + 2 - 15.5) * 6  # pixel (22, 7) of the square, whose middle is 15.5, at 6 pixels each
    y = 130 + (5 + 2 - 15.5) * 6
    assert np.unravel_index(placed.argmax(), placed.shape) == (y, x)
    assert placed.shape == (260, 400)
    everywhere = explain.undo_crop(np.ones((28, 28), np.float32), disc, 32, (260, 400))
    seen = np.argwhere(everywhere > 0)
    assert seen.min(axis=0) == pytest.approx([130 - 14 * 6, 210 - 14 * 6], abs=6)
    assert seen.max(axis=0) == pytest.approx([130 + 14 * 6, 210 + 14 * 6], abs=6)


def test_heat_ends_where_the_disc_ends():
    placed = explain.undo_crop(np.ones((32, 32), np.float32), Disc(100.0, 50.0, 40.0, 20.0, 1.0), 32, (100, 200))
    assert placed[50, 139] > 0 == placed[50, 142]
    assert placed[69, 100] > 0 == placed[72, 100]


def test_refused_photograph_is_named_and_the_others_are_explained(photographs, net_file, tmp_path, capsys):
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(b"no photograph")
    with pytest.raises(InputError, match="1 photograph is refused .*broken.jpeg: neither a JPEG"):
        explain.main([str(broken), photographs[0], f"--checkpoint={net_file}", f"--out={tmp_path}/out"])
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert "broken.jpeg: refused: neither" in capsys.readouterr().out


def test_two_photographs_of_one_name_are_refused(photographs, net_file, tmp_path):
    with pytest.raises(InputError, match="the same name"):
        explain.main([photographs[0], f"/elsewhere/{photographs[0].split('/')[-1]}", f"--checkpoint={net_file}"])


def test_the_photograph_itself_is_never_overwritten(photographs, drawn_folder, tmp_path):
    (target,) = explain.choose_targets([drawn_folder / "test" / "1_left_heat.jpeg"], drawn_folder / "test").values()
    assert target.name == "1_left_heat_heat.jpeg"


def test_cache_without_a_net_is_refused(photographs, cache):
    with pytest.raises(InputError, match=r"python -m dr\.train first"):
        explain.main([photographs[0], f"--cache={cache}"])


# --- the measurement --------------------------------------------------------------------------------------------------


def test_lesions_lie_where_they_were_drawn():
    """The mask against the drawing: hemorrhages are darker than what is around them."""
    eye = synthetic.draw_eye(seed=0, patient=3, side="left", level=3, width_px=500)
    disc = Disc(eye.disc[0], eye.disc[1], eye.disc[2], eye.disc[2], 1.0)
    size_px = round(2 * eye.disc[2])
    blots = eye.lesions[eye.lesions["kind"] == "hemorrhage"]
    mask = mask_lesions(blots, disc, size_px, size_px, tolerance=0)
    left, top = round(eye.disc[0] - (size_px - 1) / 2), round(eye.disc[1] - (size_px - 1) / 2)
    rows, columns = np.indices(mask.shape)
    shown = (rows + top >= 0) & (rows + top < len(eye.photograph)) & (columns + left >= 0)
    shown &= columns + left < eye.photograph.shape[1]
    green = np.full(mask.shape, np.nan)
    green[shown] = eye.photograph[(rows + top)[shown], (columns + left)[shown], 1]
    ring = mask_lesions(blots, disc, size_px, size_px, tolerance=0.02) & ~mask
    assert np.nanmean(green[mask]) < 0.85 * np.nanmean(green[ring])


def test_perfect_heat_wins_the_pointing_game_and_even_heat_gets_chance():
    lesions = np.zeros((4, 9, 9), bool)
    for row, level in enumerate((1, 2, 3, 4)):
        lesions[row, level, level : level + 2] = True
    levels = np.array([1, 2, 3, 4])
    drawn = DrawnEyes(torch.empty(0), levels, levels, lesions, lesions, np.ones((9, 9), bool))
    perfect = describe_layer("perfect", lesions.astype(np.float32), drawn).split()
    assert perfect[1:] == ["1.00", "1.00", "0.00", "40.5", "1.00", "1.00", "1.00", "1.00"]  # 2 of 81 pixels
    even = describe_layer("even", np.ones((4, 9, 9), np.float32), drawn).split()
    assert even[4] == "1.0"
    assert describe_chance(drawn).split()[1:4] == ["0.02", "0.02", "0.02"]
