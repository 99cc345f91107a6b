"""Several data sets as one: where their photographs lie, whose they are, and a source left out per fold."""

import cv2
import numpy as np
import pytest

from dr import predict, train
from dr.squares import source
from dr.tasks.kinds import make_task
from preprocess import __main__ as preprocess
from preprocess import describe, join
from preprocess.command import run
from preprocess.dataset import readers
from preprocess.disk.errors import InputError
from preprocess.picture import square
from tests import layouts
from tests.tiny import TRAIN_OPTIONS


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three sets, two of which number their pictures and patients alike, and the joined one; to be read only."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("brset", "aptos"):
        layouts.DRAWN[name](folder / name)
    layouts.draw_brset(folder / "brset 2")
    join.main(
        [f"--out={folder / 'all'}", *(str(folder / name) for name in ("brset", "aptos", "brset 2"))]
    )
    return folder


def test_joined_sets_keep_ids_and_patients_apart_and_photographs_where_they_lie(sets):
    dataset = readers.read_dataset(sets / "all")
    assert dataset.samples["source"].value_counts().to_dict() == {
        "aptos": 14,
        "brset": 6,
        "brset-2": 6,
    }
    assert dataset.find_subject("brset/img00001") == ("brset/1", "right")
    assert dataset.find_subject("brset-2/img00001") == ("brset-2/1", "right")
    paths = dataset.list_paths("train") | dataset.list_paths("test")
    assert paths["brset-2/img00001"] == sets / "brset 2" / "img00001.jpg"
    assert len(paths) == 26 and all(path.is_file() for path in paths.values())
    separate = readers.read_dataset(sets / "aptos").get_targets("train")
    joined = dataset.get_targets("train")
    assert all(joined[f"aptos/{image}"] == level for image, level in separate.items())
    assert list(dataset.list_images("test"))[0].startswith("aptos/")


def test_a_fold_leaves_one_source_out(sets, tmp_path):
    places = [f"--data={sets / 'all'}", f"--cache={tmp_path / 'cache'}"]
    preprocess.main([*places, *"--crop whole --size-px 37 --normalize none --jobs 1".split()])
    dataset = readers.read_dataset(sets / "all")
    training_set = source.read_training_set(
        dataset, make_task(dataset.question), tmp_path / "cache"
    )
    held_out = training_set.find_held_out("source", 1)
    images = [
        image
        for image, is_held in zip(training_set.squares.images, held_out, strict=True)
        if is_held
    ]
    assert len(images) == 6 and all(image.startswith("brset/") for image in images)
    with pytest.raises(InputError, match="of 3 sources, aptos, brset, brset-2, the last is 2"):
        training_set.find_held_out("source", 3)
    options = [*TRAIN_OPTIONS, *"--epochs 1 --folds source --fold 1 --run fold-brset".split()]
    train.main([*places, *options])
    predict.main([*places, *"--run fold-brset --views 1 --device cpu".split()])
    scored = (
        (tmp_path / "cache" / "dr" / "runs" / "fold-brset" / "scores_valid.csv")
        .read_text()
        .splitlines()[1:]
    )
    assert [line.partition(",")[0] for line in scored] == images


def test_a_run_has_a_net_per_source(sets):
    plan = run.plan_run(["--data", str(sets / "all"), "--folds", "source"])
    assert (
        plan.runs == ["fold-aptos", "fold-brset", "fold-brset-2"]
        and plan.folds_cache == "cache/folds-source"
    )
    trained = [command.options for command in plan.commands if command.stage == "dr.train"]
    assert [options[-5:] for options in trained][2] == [
        "fold-brset-2",
        "--folds",
        "source",
        "--fold",
        "2",
    ]
    with pytest.raises(InputError, match=r"no .*samples.csv; python -m preprocess.join writes one"):
        run.plan_run(["--data", str(sets / "aptos"), "--folds", "source"])


def test_each_set_is_joined_by_the_layout_behind_its_name(tmp_path):
    layouts.draw_aptos(tmp_path / "both")
    layouts.draw_ddr(tmp_path / "both")  # fits two
    layouts.draw_brset(tmp_path / "odd = name")
    keys = (
        'kind = "levels"\nimage = "image_id"\ntarget = "DR_ICDR"\n[train]\ntable = "labels.csv"\n'
    )
    layouts.write(tmp_path / "mine.toml", keys)
    both, odd, mine = (tmp_path / name for name in ("both", "odd = name", "mine.toml"))
    with pytest.raises(InputError, match="say which by --layout aptos or ddr"):
        join.main([f"--out={tmp_path / 'all'}", str(both), str(odd)])
    join.main([f"--out={tmp_path / 'all'}", f"{both}=ddr", str(odd)])
    assert len(readers.read_dataset(tmp_path / "all").samples) == 19
    join.main([f"--out={tmp_path / 'all'}", f"{both}=aptos", f"{odd}={mine}"])
    joined = readers.read_dataset(tmp_path / "all")
    assert len(joined.samples) == 20
    assert joined.find_subject("odd-name/img00002").patient == "odd-name/img00002"  # as mine.toml
    with pytest.raises(InputError, match="a set is FOLDER, or FOLDER=NAME"):
        join.main([f"--out={tmp_path / 'all'}", f"{both}="])
    with pytest.raises(InputError, match="nowhere: no such folder"):
        join.main([f"--out={tmp_path / 'all'}", f"{tmp_path / 'nowhere'}=aptos"])


def draw_deep(folder, most):
    """Draw three photographs of 16-bit files, or of 8 bits, whose highest value is given."""
    lines = ["image,level"]
    values = np.linspace(0, most, 40 * 40).reshape(40, 40)
    for number in range(3):
        path = folder / "squares" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), values.astype(np.uint8 if most < 256 else np.uint16))
        lines.append(f"{number},{number}")
    layouts.write(folder / "samples.csv", "\n".join(lines) + "\n")
    return str(folder)


def test_joined_sets_of_8_12_and_16_bits_keep_a_range_each(tmp_path, capsys):
    highest = {"eight": 255, "twelve": 4095, "sixteen": 65535}
    folders = [draw_deep(tmp_path / name, most) for name, most in highest.items()]
    join.main([f"--out={tmp_path / 'all'}", *folders])
    describe.main([f"--data={tmp_path / 'all'}"])
    shown = capsys.readouterr().out
    assert "twelve: values of 16 bits are scaled by the range of 12 bits" in shown
    assert "sixteen: values of 16 bits are scaled by the range of 16 bits" in shown
    assert "eight: values" not in shown
    cache = tmp_path / "cache"
    options = "--crop whole --size-px 40 --normalize none --jobs 1".split()
    preprocess.main([f"--data={tmp_path / 'all'}", f"--cache={cache}", *options])
    making = square.read_making(cache)
    assert making.bits == (12, 16) and hash(making)
    for name in highest:  # none is dark, none is cut off
        kept = square.read_pixels(cache / "resize" / "train" / name / "0.png", 40)
        assert kept[0].max() < 10 and kept[-1].min() > 245
        made = square.make_square(tmp_path / name / "squares" / "0.png", making)
        assert np.array_equal(made.pixels, kept)


def test_what_cannot_be_joined_is_named(sets, tmp_path):
    layouts.draw_rfmid(tmp_path / "rfmid")
    with pytest.raises(InputError, match="aptos asks levels, rfmid findings"):
        join.main([f"--out={tmp_path / 'all'}", str(sets / "aptos"), str(tmp_path / "rfmid")])
    with pytest.raises(InputError, match="both sources would be called aptos"):
        join.main([f"--out={tmp_path / 'all'}", str(sets / "aptos"), str(sets / "aptos")])
    assert not (tmp_path / "all").exists()
