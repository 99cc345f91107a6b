"""The README's commands: every module and option exists; what is cheap runs as it is written."""

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dr.scores import write_scores
from tests.tasks import TASK

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
LAST_TWO_STAGES = "… use the last two stages"


def find_commands(text):
    """Return the words of each command: lines of indented blocks, and code within lines."""
    blocks = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))
    lines = [" ".join(line.split()) for line in (*blocks, *inline)]
    starts = ("python -m ", "torchrun ", "./run_all.sh")
    return [
        shlex.split(line, comments=True) for line in dict.fromkeys(lines) if line.startswith(starts)
    ]


COMMANDS = find_commands(TEXT)
OF_MODULES = [words[words.index("-m") + 1 :] for words in COMMANDS if "-m" in words]
OF_THE_SCRIPT = [words[1:] for words in COMMANDS if words[0] == "./run_all.sh"]


# Commands with these draw their data, or read a file or run before it.
READ_OR_DRAWN_FIRST = {"oct-demo", "chest-demo", "--weights", "--average"}


class Parsed(Exception):  # noqa: N818  not an error
    """The command line was understood."""


@pytest.mark.parametrize("words", OF_MODULES, ids=" ".join)
def test_every_module_takes_its_options(words, monkeypatch):
    understand = argparse.ArgumentParser.parse_args

    def stop_after_parsing(parser, *arguments):
        understand(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop_after_parsing)
    module, *options = words
    spec = importlib.util.find_spec(module)
    if not options:  # `python -m X` in the text; benchmarks without options would run
        assert spec
        return
    name = f"{module}.__main__" if spec.submodule_search_locations else module
    monkeypatch.setattr(sys, "argv", [module, *options])
    with pytest.raises(Parsed):
        importlib.import_module(name).main()


@pytest.mark.parametrize(
    "words",
    [
        words
        for words in OF_THE_SCRIPT
        if "--data" in words and not {"oct-demo", "chest-demo", "--weights", "--average"} & {*words}
    ],
    ids=" ".join,
)
def test_the_run_script_takes_its_options(words, tmp_path):
    assert len(OF_MODULES) > 15 and len(OF_THE_SCRIPT) > 4
    command, of = [ROOT / "run_all.sh", *words], os.environ | {"VIRTUAL_ENV": sys.prefix}
    shown = subprocess.run(
        command, env=of, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    data = words[words.index("--data") + 1]
    assert (
        shown.stderr == f"error: {data}: no such folder\n"
    )  # all options were checked before the first stage


def test_the_last_two_stages_run_as_written(tmp_path, monkeypatch, capsys):
    """The recipe for the scores of another net, on a tiny table."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    rng = np.random.default_rng(0)
    for scores, labels in (
        ("valid.csv", "trainLabels.csv"),
        ("test.csv", "data/sampleSubmission.csv"),
    ):
        images = [f"{patient}_{side}" for patient in range(20) for side in ("left", "right")]
        write_scores(Path(scores), images, rng.dirichlet(np.ones(5), len(images)), TASK)
        pd.DataFrame({"image": images, "level": rng.integers(0, 5, len(images))}).to_csv(
            labels, index=False
        )
    commands = find_commands(TEXT[TEXT.index(LAST_TWO_STAGES) :].split("\n\n")[1])
    assert [words[2] for words in commands] == [
        "blend.train",
        "blend.predict",
        "kappa.assign",
        "submissions.write",
    ]
    for _, _, module, *options in commands:
        importlib.import_module(module).main(options)
    assert "submissions.write: 40 images -> submission.csv" in capsys.readouterr().out


def test_the_lines_of_a_kaggle_notebook_run_as_written(drawn_folder, tmp_path):
    """On drawn photographs, with a small net in the recipe's place, two processes without GPUs, and no network."""
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    given, working, programs = (tmp_path / name for name in ("input", "working", "bin"))
    for folder in (given / "weights", working, programs):
        folder.mkdir(parents=True)
    pipeline, ignored = given / "pipeline", shutil.ignore_patterns(".*", "*.csv", "*.html")
    for room in ("preprocess", "dr", "blend", "kappa", "submissions"):
        shutil.copytree(ROOT / room, pipeline / room, ignore=ignored)
    for file in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / file, pipeline)
    shutil.copytree(drawn_folder, given / "diabetic-retinopathy-detection")
    net = timm.create_model("test_resnet", num_classes=1000)
    safetensors.save_file(net.state_dict(), given / "weights" / "resnet50.safetensors")
    values = '[preprocess.resize]\nsize_px = 64\n[dr.train]\nnet = "test_resnet"\nepochs = 1\nfolds = 2\nbatch_size = 4'
    (pipeline / "preprocess" / "recipes" / "retina-resnet50.toml").write_text(values)
    for name, options in (("python", ""), ("torchrun", " -m torch.distributed.run")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable}{options} "$@"\n')
        (programs / name).chmod(0o755)
    (lines,) = re.findall(
        r"((?:^ {4}.*\n)+)", TEXT[TEXT.index("… run it in a Kaggle notebook") :], re.MULTILINE
    )[:1]
    script = lines.replace("/kaggle/input", str(given)).replace("/kaggle/working", str(working))
    of = {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-ec", script], env=of, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout and done.stdout.count("epoch 1: learning rate") == 1
    assert (
        len((working / "pipeline" / "submissions" / "submission.csv").read_text().splitlines())
        == 1 + 4
    )
