"""run_all.sh as people start it: CDPATH, links, other shells, CRLF, odd paths, a clone that is not theirs, locales."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from preprocess.command.pipeline import FOLDERS
from tests.tiny import NOTE, ROOT

STAGES = [stage for stage in FOLDERS if not stage.startswith("preprocess.")]
ROOMS = ("preprocess", "dr", "blend", "kappa", "submissions")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the pipeline in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("clones") / "Zoë's clone $x"
    folder.mkdir()
    for name in ROOMS:
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.csv", "*.html"),
        )
    for name in ("run_all.sh", "requirements.txt", ".gitattributes"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def start(tmp_path):
    """Start the script with an interpreter that notes the stages; return them, with their options."""
    python = tmp_path / "python"
    python.write_text(NOTE)
    python.chmod(0o755)

    def start_script(*command, folder=None, **variables):
        environment = os.environ | {"PIPELINE_PYTHON": str(python)} | variables
        done = subprocess.run(
            command,
            cwd=folder or tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return (tmp_path / "python.told").read_text()

    return start_script


def list_started(told):
    return [line.split()[0] for line in told.splitlines()]


@pytest.mark.parametrize("shell", [(), ("bash",), ("sh",), ("zsh",), ("dash",)])
def test_every_shell_runs_all_stages_with_odd_characters_in_every_path(
    clone, start, tmp_path, shell
):
    if shell and not shutil.which(shell[0]):
        pytest.skip(f"no {shell[0]} here")
    data = tmp_path / "dätä of \"5\" 'eyes'"
    told = start(
        *shell, clone / "run_all.sh", "--data", data, "--cache", "cäché $HOME", "--name", "Zoë"
    )
    assert list_started(told) == ["preprocess", *STAGES]
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {told.splitlines()[0]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(data) in words.splitlines() and "cäché $HOME" in words.splitlines()


def test_a_cdpath_changes_nothing(clone, start):
    told = start(
        "bash",
        f"{clone.name}/run_all.sh",
        "--data=d",
        folder=clone.parent,
        CDPATH=f"{clone.parent}:/",
    )
    assert list_started(told) == ["preprocess", *STAGES]


def test_links_to_the_script_lead_to_its_clone(clone, start, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "first").symlink_to(clone / "run_all.sh")
    (tmp_path / "second").symlink_to("bin/first")  # relative, to another link
    assert list_started(start(tmp_path / "second", "--data=d")) == ["preprocess", *STAGES]


def test_a_checkout_with_crlf_leaves_the_scripts_alone(clone, tmp_path):
    if not shutil.which("git"):
        pytest.skip("no git here")
    git = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "core.autocrlf=true",
        "-C",
        clone,
    ]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    subprocess.run(
        [*git, "worktree", "add", "-q", tmp_path / "checkout"], check=True, capture_output=True
    )
    shutil.rmtree(clone / ".git")
    assert b"\r\n" in (tmp_path / "checkout" / "requirements.txt").read_bytes()
    for name in ("run_all.sh", "preprocess/command/environment.sh"):
        assert b"\r" not in (tmp_path / "checkout" / name).read_bytes()


# What came after bash 3.2, which macOS has, by the release notes of 4.0 to 5.2; one with each as it would be written.
NEWER = {
    r"(declare|local|typeset) -\w*[AgnlucI]": "declare -A names",
    r"\b(mapfile|readarray|coproc)\b": "mapfile -t lines",
    r"\$\{[\w@*]+(\[[@*]\])?(\^|,)": "${name^^}",
    r"\$\{\w+(\[[@*]\])?@": "${name@Q}",
    r"\$\{\w+\[-": "${names[-1]}",
    r"\$\{\w+:[^}]*:\s*-\d": "${name:0:-1}",
    r"&>>|\|&|;;?&": "make &>> log",
    r"\[\[? -[vR] ": "[[ -v name ]]",
    r"\bwait -[nfp]": "wait -n",
    r"\bread (-\w+ )*-[Ni]": "read -N 1 key",
    r"printf -v \w+\[|%\(": "printf '%(%F)T'",
    r"\bshopt -s (globstar|autocd|checkjobs|dirspell|lastpipe|inherit_errexit)": "shopt -s globstar",
    r"\$\{?(BASHPID|BASH_XTRACEFD|EPOCH\w+|SRANDOM|BASH_ARGV0)": "$EPOCHSECONDS",
    r"\{\d+\.\.\d+\.\.": "{1..9..2}",
    r"\$'[^']*\\[uU]": "$'\\u00e9'",
    r"exec \{\w+\}|\{\w+\}[<>]": "exec {log}>file",
}


def test_nothing_is_written_that_bash_3_2_does_not_know():
    for pattern, example in NEWER.items():
        assert re.search(pattern, example), pattern  # it would be found
    for path in (ROOT / "run_all.sh", ROOT / "preprocess" / "command" / "environment.sh"):
        text = path.read_text()
        for pattern in NEWER:
            assert not re.search(pattern, text), (path, pattern)


def test_no_array_is_expanded_that_may_be_empty():
    """With set -u, bash before 4.4 takes an empty array for a variable that is not set."""
    filled = {"commands", "requirements", "runs", "wanted"}  # each has at least one word there
    for path in (ROOT / "run_all.sh", ROOT / "preprocess" / "command" / "environment.sh"):
        expanded = set(re.findall(r"(?<!#)\$\{(\w+)\[[@*]\]\}", path.read_text()))
        assert expanded - filled == set(), path


NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


@pytest.fixture
def shared(clone):
    """A copy of the clone that all may read, and a folder beside it that all may write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        copy = shutil.copytree(clone, folder / "clone")
        (folder / "own").mkdir()
        (folder / "own").chmod(0o777)
        yield copy, folder / "own"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_a_clone_that_is_not_the_users_is_one_line(shared):
    copy, own = shared
    folders = [
        name
        for name in os.environ["PATH"].split(":")
        if ".venv" not in name and "/root" not in name
    ]
    environment = {"PATH": ":".join(folders), "HOME": str(own), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [copy / "run_all.sh", "--data", "d"]
    shown = subprocess.run(
        command, cwd=own, env=environment, capture_output=True, text=True, check=False, **NOBODY
    )
    if "no Python" in shown.stderr:
        pytest.skip("that user has no interpreter here")
    assert shown.returncode == 2
    assert (
        f"error: {copy}: you may not write there, so no packages can be put into its .venv"
        in shown.stderr
    )
    assert shown.stderr.count("\n") == 1


def test_what_has_no_path_is_written_below_the_working_folder_where_the_clone_is_not_the_users(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code = "import os; os.access = lambda *_: False; from submissions.output import target; print(target.FOLDER)"
    code += (
        "; from preprocess.command.run import plan_run; print(*plan_run([]).commands[0].options)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [
        "submissions",
        f"--data {tmp_path}/data/demo --recipe demo",
    ]


def test_an_ascii_locale_reads_names_with_other_letters(drawn_folder, tmp_path):
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    source = sorted((drawn_folder / "train").iterdir())[0]
    shutil.copy(source, data / "train" / "Zoë_left.jpeg")
    (data / "trainLabels.csv").write_text("image,level\nZoë_left,0\n", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "preprocess.crop",
        f"--data={data}",
        f"--cache={tmp_path / 'cache'}",
        "--jobs=1",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Zoë_left," in (tmp_path / "cache" / "crop" / "train.csv").read_text(encoding="utf-8")
