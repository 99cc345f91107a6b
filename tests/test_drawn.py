"""Few photographs: a net that begins on drawn eyes, all of it in one command, and what is said before it starts."""

import importlib

import pytest

from dr import train
from dr.training import runs
from preprocess import __main__ as preprocess
from preprocess.command import recipe, run
from preprocess.command.run import plan_run
from preprocess.disk import files
from preprocess.disk.errors import InputError

TINY = """\
based_on = "few-photographs"
[preprocess.resize]
size_px = 40
[dr.train]
epochs = 1
batch_size = 4
folds = 2
[dr.predict]
views = 1
"""
TINY_DRAWN = """\
based_on = "tiny.toml"
[preprocess.synthetic]
patients_train = 4
patients_test = 1
width_px = 200
[dr.train]
weights = "none"
pairs = false
"""


@pytest.fixture
def tiny(tmp_path):
    """A recipe of one tiny epoch on drawn eyes, and one on a patient's two eyes."""
    (tmp_path / "tiny-drawn.toml").write_text(TINY_DRAWN)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def list_drawn(*arguments):
    plan = plan_run(["--data=d", "--cache=c", *arguments])
    return [command for command in plan.commands if command.run == "drawn"]


def test_a_recipe_that_begins_on_drawn_eyes_draws_them_and_trains_on_them_first():
    lines = [command.quote() for command in list_drawn("--recipe=few-photographs", "--device=cpu")]
    common = "--data c/drawn/data --cache c/drawn --recipe few-photographs-drawn"
    assert lines == [
        "preprocess.synthetic drawn --data c/drawn/data --recipe few-photographs-drawn",
        f"preprocess drawn {common}",
        f"dr.train drawn {common} --device cpu",
    ]


def test_other_recipes_and_other_weights_draw_nothing():
    assert list_drawn("--recipe=article") == []
    assert list_drawn("--recipe=few-photographs-lite0") == []
    assert list_drawn("--recipe=few-photographs", "dr.train", "--weights", "none") == []


def test_the_net_of_drawn_eyes_has_the_shape_of_the_one_that_goes_on_from_it():
    words = ["--size-px=64", "--epochs=3", "preprocess", "--normalize", "cdf"]
    words += ["dr.train", "--hidden", "8", "--seed", "1", "--crop-px=48"]
    commands = {
        command.stage: command.options for command in list_drawn("--recipe=few-photographs", *words)
    }
    assert commands["preprocess"][-4:] == ["--size-px", "64", "--normalize", "cdf"]
    assert commands["dr.train"][-3:] == ["--hidden", "8", "--crop-px=48"]


def test_one_command_learns_on_drawn_eyes_and_goes_on_with_the_photographs_and_is_cached(
    drawn_folder, cache, tiny, capsys
):
    options = [f"--data={drawn_folder}", f"--cache={cache}", f"--recipe={tiny}", "--jobs=1"]
    plan = plan_run([*options, "--device=cpu"])

    def run_to_training():
        capsys.readouterr()
        for command in plan.commands:  # as run_all.sh does, but for the order of the data
            if command.stage in run.DRAWN_STAGES:
                is_package = command.stage.startswith("preprocess")
                name = f"{command.stage}.__main__" if is_package else command.stage
                importlib.import_module(name).main(command.options)
        return capsys.readouterr().out

    run_to_training()
    drawn = cache / "drawn" / "dr" / "epochs" / "0001.pt"
    trained = runs.read_trained(cache / "dr").parameters
    assert trained["weights"] == files.hash_file(drawn)
    assert trained["pairs"]
    assert run_to_training().count("dr.train: cached") == 2


def test_without_a_net_of_drawn_eyes_it_is_said_how_to_get_one(drawn_folder, cache, tiny):
    with pytest.raises(
        InputError,
        match=r"--weights drawn: .*epochs holds no net .*--recipe few-photographs trains it",
    ):
        train.main([f"--data={drawn_folder}", f"--cache={cache}", f"--recipe={tiny}"])


def test_a_recipe_without_its_drawn_one_beside_it_is_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[dr.train]\nweights = "drawn"\n')
    with pytest.raises(InputError, match=r"weights = 'drawn' needs own-drawn\.toml beside it"):
        recipe.find_drawn(str(path))


def test_the_first_stage_says_that_there_are_fewer_photographs_than_the_recipe_was_made_for(
    drawn_folder, cache, capsys
):
    preprocess.main(
        [f"--data={drawn_folder}", f"--cache={cache}", *"--size-px 32 --jobs 1".split()]
    )
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "8 photographs to learn from, and recipe article was made for 35,126" in first
    assert "--recipe few-photographs, which reached QWK 0.659" in second
    assert "from 3,942" in second


def test_enough_photographs_and_recipes_that_say_nothing_are_not_commented_on():
    assert recipe.describe_few("article", 20_000) == []
    assert recipe.describe_few("demo", 10) == []
    assert len(recipe.describe_few("few-photographs", 500)) == 1


@pytest.mark.parametrize("line", ["photographs = '3'", "reached = 1", "more = 1"])
def test_what_a_recipe_was_made_for_is_checked(tmp_path, line):
    path = tmp_path / "own.toml"
    path.write_text(f"[made_for]\n{line}\n")
    with pytest.raises(InputError, match=r"own\.toml: \[made_for\]"):
        recipe.read_chain(str(path))
