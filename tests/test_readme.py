"""The manual: every command, link and message exists; what is cheap runs as it is written."""

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
from preprocess.command import pipeline
from tests.tasks import TASK

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("*/README.md")),
    ROOT / "preprocess" / "command" / "README.md",
    ROOT / "tests" / "benchmarks" / "RESULTS.md",
)
RUNNING = ROOT / "preprocess" / "command" / "README.md"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def list_blocks(text, language):
    """Return the blocks of a page that are written in a language: bash, python, toml, text."""
    return [block for named, block in FENCED.findall(text) if named == language]


def find_commands(text):
    """Return the words of each command: lines of bash, indented lines, and code within lines."""
    lines = []
    for block in list_blocks(text, "bash"):
        lines += block.replace("\\\n", " ").splitlines()
    prose = FENCED.sub("", text)
    lines += re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", re.sub(r"^ {4}.*$", "", prose, flags=re.MULTILINE)):
        lines.append(" ".join(code.split()))
    starts = ("python -m ", "torchrun ", "./run_all.sh")
    commands = [line for line in dict.fromkeys(lines) if line.startswith(starts)]
    return [shlex.split(line, comments=True) for line in commands]


def list_all_commands():
    commands = []
    for page in PAGES:
        for words in find_commands(page.read_text()):
            is_pattern = {"STAGE", "tests.benchmarks.NAME", "NAME", "X", "--help"} & {*words}
            if words not in commands and not is_pattern:
                commands.append(words)
    return commands


COMMANDS = list_all_commands()
OF_MODULES = []
for command in COMMANDS:
    if "-m" in command:
        OF_MODULES.append([word for word in command[command.index("-m") + 1 :] if word != "--"])
OF_THE_SCRIPT = [words[1:] for words in COMMANDS if words[0] == "./run_all.sh"]


# Commands with these draw their data, or read a file or run before it.
READ_OR_DRAWN_FIRST = {"oct-demo", "chest-demo", "--weights", "--average", "source"}


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
    [words for words in OF_THE_SCRIPT if "--data" in words and not READ_OR_DRAWN_FIRST & {*words}],
    ids=" ".join,
)
def test_the_run_script_takes_its_options(words, tmp_path):
    (recipe,) = list_blocks(RUNNING.read_text(), "toml")
    (tmp_path / "mine.toml").write_text(recipe)
    command = [ROOT / "run_all.sh", *words]
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    data = words[words.index("--data") + 1]
    # All options were checked before the first stage looked for its data.
    assert done.stderr == f"error: {data}: no such folder\n"


def test_the_manual_is_read_whole():
    assert len(OF_MODULES) > 40
    assert len(OF_THE_SCRIPT) > 15


def make_anchor(heading):
    """Return the anchor that GitHub gives a heading."""
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return words.replace(" ", "-")


def list_headings(page):
    return re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", FENCED.sub("", page.read_text()))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page
        if name:
            target = page.parent / name
        assert target.exists(), link
        if anchor:
            anchors = [make_anchor(heading) for heading in list_headings(target)]
            assert anchor in anchors, link


@pytest.mark.parametrize("page", PAGES[2:], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_rooms_manual_has_a_table_of_its_contents(page):
    text = page.read_text()
    listed = re.findall(r"^ *- \[[^\]]+\]\(#([^)]+)\)", text, re.MULTILINE)
    sections = re.findall(r"^## (.+)$", FENCED.sub("", text), re.MULTILINE)
    assert listed == [make_anchor(section) for section in sections]


def test_the_readme_is_short_and_its_figures_stand_in_the_results():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    results = (ROOT / "tests" / "benchmarks" / "RESULTS.md").read_text()
    section = text[text.index("## Results") : text.index("## Hardware")]
    figures = re.findall(r"\d+\.\d+", section)
    assert len(figures) > 10
    for figure in figures:
        assert figure in results, figure


def test_the_messages_that_are_explained_are_those_of_the_code():
    text = RUNNING.read_text()
    table = text[text.index("## Troubleshooting") : text.index("## Map of the files")]
    messages = []
    for row in table.splitlines():
        if row.startswith("| `"):
            messages += re.findall(r"`([^`]+)`", row.split("|")[1])
    assert len(messages) >= 20
    source = ""
    for room in ("preprocess", "dr", "blend", "kappa", "submissions"):
        for path in (ROOT / room).rglob("*.py"):
            source += re.sub(r'"\s*\n\s*f?"', "", path.read_text())
    for message in messages:
        for part in message.split(" … "):
            assert part in source, message


def test_the_citation_names_this_version():
    assert f"version: {pipeline.VERSION}\n" in (ROOT / "CITATION.cff").read_text()


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
    commands = find_commands((ROOT / "blend" / "README.md").read_text())
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
    pipeline, ignored = given / "pipeline", shutil.ignore_patterns(".*", "*.csv")
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
    (lines,) = [block for block in list_blocks(RUNNING.read_text(), "bash") if "/kaggle/" in block]
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
