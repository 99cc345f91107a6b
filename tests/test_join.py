"""Several data sets as one: where their photographs lie, whose they are, and a source left out per fold."""

import pytest

from dr import predict, train
from dr.squares import source
from dr.tasks.kinds import make_task
from preprocess import __main__ as preprocess
from preprocess import join
from preprocess.command import run
from preprocess.dataset import readers
from preprocess.disk.errors import InputError
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


def test_what_cannot_be_joined_is_named(sets, tmp_path):
    layouts.draw_rfmid(tmp_path / "rfmid")
    with pytest.raises(InputError, match="aptos asks levels, rfmid findings"):
        join.main([f"--out={tmp_path / 'all'}", str(sets / "aptos"), str(tmp_path / "rfmid")])
    with pytest.raises(InputError, match="both sources would be called aptos"):
        join.main([f"--out={tmp_path / 'all'}", str(sets / "aptos"), str(sets / "aptos")])
    assert not (tmp_path / "all").exists()
