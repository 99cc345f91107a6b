"""The pipeline as its user meets it: killed, mistyped, installed by pip."""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from preprocess.command import pipeline
from preprocess.command.check import check_options
from preprocess.command.run import DEFAULT_RUN, Command
from preprocess.dataset.listing import SUFFIXES
from preprocess.disk.errors import InputError
from tests.benchmarks import crash
from tests.test_faults import run_script
from tests.test_structure import FILES, STAGES

ROOT = Path(__file__).parents[1]


def test_a_stage_does_not_outlive_its_killed_script(drawn_folder, tmp_path):
    script = run_script(
        drawn_folder, tmp_path, "--epochs=100000", "dr.train", *"--folds 2 --batch-size 4".split()
    )
    while not list(tmp_path.rglob("*.pt")):
        assert script.poll() is None
        time.sleep(0.05)
    script.kill()
    script.wait()
    crash.wait_for_workers(script.pid)
    script.communicate()


def call(*arguments, cwd):
    """Run run_all.sh with the interpreter of the tests, in a folder."""
    return subprocess.run(
        [ROOT / "run_all.sh", *arguments],
        env=os.environ | {"VIRTUAL_ENV": sys.prefix}, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_options_take_their_values_after_a_sign_too(tmp_path):
    shown = call(
        "--data=there", "--cache=kept", "--name=x=y", "--jobs=1", "--size-px=64", cwd=tmp_path
    )
    assert shown.stderr == "error: there: no such folder\n"
    for option in ("--data=", "--cache=", "--size-px="):
        assert f"{option[:-1]} needs a value" in call(option, cwd=tmp_path).stderr
    assert "unknown option or stage --dat" in call("--dat=x", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dr.train --fold 9 --folds 3", "--fold 9: of 3 folds the last is 2"),
        ("preprocess --size-px 90 | dr.train --crop-px 96 | dr.predict", "squares are only 90 px"),
        (
            "preprocess | dr.train --features file --freeze-epochs 60 --flips none | dr.predict",
            "crops of whole",
        ),
        (
            "preprocess | dr.train --epochs 3 | dr.predict --epochs-averaged 2,4",
            "training ends after epoch 3",
        ),
        (
            "preprocess | dr.train --run x | dr.predict",
            "the stages behind use the net without a name",
        ),
        ("submissions.report --labels none.csv", "none.csv: no such file"),
        ("submissions.score --labels none.csv", "none.csv: no such file"),
        ("submissions.write --out .", ".: is a folder; name a file to write"),
    ],
)
def test_what_would_end_a_late_stage_ends_the_run_before_the_first(lines, message):
    commands = []
    for line in lines.split("|"):
        stage, *options = line.split()
        commands.append(Command(stage, DEFAULT_RUN, options))
    with pytest.raises(InputError, match=message):
        check_options(commands)


def test_a_device_reaches_training_and_prediction(tmp_path):
    shown = call("--data=there", "--device", "gpu", cwd=tmp_path)
    assert shown.returncode == 2
    assert "argument --device: 'gpu' is none of auto, cuda" in shown.stderr
    assert shown.stdout == ""


class Parsed(Exception):  # noqa: N818  not an error
    """A stage has its parser."""


@pytest.mark.parametrize("name", [*pipeline.FOLDERS, "preprocess"])
def test_every_value_of_every_stage_is_looked_at_before_the_first(name, monkeypatch, capsys):
    module = importlib.import_module(
        f"{name}.__main__" if find_spec(name).submodule_search_locations else name
    )
    parsers = []

    def remember(parser, argv):
        parsers.append(parser)
        raise Parsed

    with monkeypatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", remember)
        module.main([])
    taking = [
        action for action in parsers[0]._actions if action.nargs != 0 and action.type is not Path
    ]
    free = {action.dest for action in taking if action.type in {None, str} and not action.choices}
    assert free <= {
        "recipe",
        "layout",
        "dask",
        "weights",
        "sheet_image",  # looked at when the photographs are known
    }  # of which the first and the weights are looked at below
    for action in taking:
        with pytest.raises((SystemExit, InputError)) as end:
            module.main([action.option_strings[0], "?/", "--check-options"])
        assert (
            action.dest in {"dask", "layout", "sheet_image"}  # looked at when the data set is read
            or isinstance(end.value, InputError)
            or end.value.code == 2
        )
    assert capsys.readouterr().out == ""


def test_help_names_the_formats_that_are_read(tmp_path):
    for shown in (
        call("--help", cwd=tmp_path),
        call_installed(sys.executable, "-m", "preprocess", "--help", cwd=ROOT),
    ):
        assert all(suffix in shown.stdout for suffix in SUFFIXES)


# --- installed by pip -------------------------------------------------------------------------------------------------


def call_installed(*command, cwd):
    """Run a command without any of the tests' own environment, and return what it showed."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The installed command of an environment that sees the tests' packages, but not this folder."""
    folder = tmp_path_factory.mktemp("installed")
    for path in ROOT.iterdir():
        if path.name in {
            "pyproject.toml",
            "requirements.txt",
            "README.md",
            "LICENSE",
            "run_all.sh",
        }:
            shutil.copy(path, folder / path.name)
        elif (path / "__init__.py").exists():
            shutil.copytree(path, folder / path.name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "own"], check=True)
    (packages,) = folder.glob("own/lib/*/site-packages")
    (packages / "tests.pth").write_text(os.path.dirname(os.path.dirname(pytest.__file__)))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "own" / "bin" / "python",
        "install",
        "--quiet",
    ]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", folder], check=True)
    return folder / "own" / "bin" / "dr-pipeline"


def test_what_pip_installs_is_all_rooms_and_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert {*project["tool"]["setuptools"]["packages"]} == {*rooms, "diabetic_retinopathy_pipeline"}
    assert "version" in project["project"]["dynamic"]
    assert [path.stem for path in FILES if f'"{pipeline.VERSION}"' in path.read_text()] == [
        "pipeline"
    ]


def test_the_command_knows_every_stage():
    assert {*pipeline.FOLDERS, *pipeline.BESIDE} == {*STAGES}


def test_the_installed_command_draws_preprocesses_and_keeps_below_the_working_directory(
    installed, tmp_path
):
    assert call_installed(installed, "--version", cwd=tmp_path).stdout == f"{pipeline.VERSION}\n"
    assert "dr.train" in call_installed(installed, cwd=tmp_path).stdout
    assert (
        "usage: dr-pipeline run" in call_installed(installed, "run", "--help", cwd=tmp_path).stdout
    )
    assert (
        "example: python -m dr.train"
        in call_installed(installed, "dr.train", "--help", cwd=tmp_path).stdout
    )
    wrong = call_installed(installed, "dr.tarin", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: dr.tarin: no such stage; see dr-pipeline --help\n",
    )
    few = "run --jobs=1 preprocess.synthetic --patients-train 1 --patients-test 1 --width-px 200 dr.train --folds 2"
    shown = call_installed(installed, *few.split(), cwd=tmp_path)
    assert "2 folds" in shown.stderr  # of one patient: after all that needs no torch
    assert (
        len(list(tmp_path.glob("data/demo/*/*.jpeg")))
        == len(list(tmp_path.glob("cache/demo/resize/*/*.png")))
        == 4
    )


def test_the_installed_stages_find_recipes_template_and_folder(installed, tmp_path):
    code = (
        "from preprocess.command import recipe; from submissions import serve; from submissions.output import target\n"
        "import submissions.report.__main__ as report\n"
        "print(*recipe.list_names(), serve.TEMPLATE.exists() and serve.REQUIREMENTS.exists())\n"
        "print(target.FOLDER, report.TEMPLATE.exists(), report.TEMPLATE)"
    )
    shown = call_installed(installed.parent / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert "article" in shown
    assert shown[-4:-1] == ["True", "submissions", "True"]
    assert shown[-1].startswith(str(installed.parents[1]))
