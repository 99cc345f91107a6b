"""The rules the layout promises, without exceptions: who imports whom, how large a room is, how fast help answers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess.command import pipeline
from preprocess.command.run import STAGES as STAGES_OF_A_RUN

ROOT = Path(__file__).parents[1]
FLOW = ("preprocess", "dr", "blend", "kappa", "submissions")  # a package may import those before it
HEAVY = ("torch", "pandas", "scipy", "matplotlib", "joblib", "skimage")
MOST_MODULES = 12  # in a room
# Where work begins that needs torch, or pandas to draw: one function of each imports it late. Torch takes a second
# and a half, and whoever asks for help or is cached does not wait for it.
LATE = {
    "dr.nets.catalog",
    "dr.foresight",
    "preprocess.synthetic",
    "dr.train",
    "dr.predict",
    "dr.explain",
    "dr.export",
    "blend.train",
    "blend.predict",
    "submissions.evaluate",
    "submissions.grade",
    "submissions.serve",
    "submissions.report.pictures",
}
FILES = sorted(path for package in FLOW for path in (ROOT / package).rglob("*.py"))


def name_of(path):
    """Return a module's dotted name; a package is called as it is run and imported."""
    return (
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        .removesuffix(".__init__")
        .removesuffix(".__main__")
    )


MODULES = {
    name_of(path): path for path in FILES if path.name != "__init__.py" or path.stat().st_size
}
STAGES = [name for name, path in MODULES.items() if "def main(" in path.read_text()]


def is_typing(node):
    """Tell whether a statement is `if TYPE_CHECKING:`, which does not run."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def find_imports(node):
    """Return the project's own modules that the code below a node imports when it runs."""
    found = set()
    if isinstance(node, ast.Import):
        found = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        whole = {f"{node.module}.{alias.name}" for alias in node.names}
        found = {name if name in MODULES else node.module for name in whole}
    elif not is_typing(node):
        found = set().union(*map(find_imports, ast.iter_child_nodes(node)))
    return {name for name in found if name.split(".")[0] in (*FLOW, "tests")}


TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
IMPORTS = {name: find_imports(tree) for name, tree in TREES.items()}


def reach(name):
    """Return all modules that a module imports, at once or through others."""
    found, due = set(), [name]
    while due:
        new = IMPORTS.get(due.pop(), set()) - found
        found |= new
        due += new
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_against_the_data_in_no_circle_and_own_modules_at_the_top(name):
    allowed = FLOW[: FLOW.index(name.split(".")[0]) + 1]
    assert not [other for other in IMPORTS[name] if other.split(".")[0] not in allowed]
    assert name not in reach(name)
    functions = [
        node
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef) and find_imports(node)
    ]
    assert len(functions) <= (name in LATE)
    assert "N_LEVELS" not in MODULES[name].read_text()  # the task alone counts levels


def test_folders_import_each_other_in_no_circle():
    folder_of = {name: path.parent for name, path in MODULES.items()}
    edges = {folder: set() for folder in folder_of.values()}
    for name, others in IMPORTS.items():
        edges[folder_of[name]] |= {folder_of[other] for other in others if other in folder_of} - {
            folder_of[name]
        }
    assert len(edges) > 15
    assert not [folder for folder in edges if folder in walk(edges, folder)]


def walk(edges, start):
    """Return all nodes that a node leads to."""
    found, due = set(), [start]
    while due:
        new = edges[due.pop()] - found
        found |= new
        due += new
    return found


def test_the_rules_see_the_imports_and_train_and_predict_do_not_know_each_other():
    assert "preprocess.disk.files" in IMPORTS["preprocess.cache.stage"]
    assert len(MODULES) > 60 and len(STAGES) > 13
    for package in ("dr", "blend"):
        assert f"{package}.predict" not in reach(f"{package}.train")
        assert f"{package}.train" not in reach(f"{package}.predict")


def test_a_room_can_be_overlooked():
    for room in {path.parent for path in FILES}:
        assert (
            len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= MOST_MODULES
        ), room


def test_the_run_script_and_the_stages_agree():
    script = (ROOT / "run_all.sh").read_text()
    run = list(
        dict.fromkeys(re.findall(r"^ *stage ([a-z_.]+) ", script, re.MULTILINE))
    )  # dr.predict also averages
    assert run == list(STAGES_OF_A_RUN)
    at = run.index("preprocess")
    four = [f"preprocess.{name}" for name in ("crop", "resize", "normalize", "standardize")]
    assert [*run[:at], *four, *run[at + 1 :]] == list(pipeline.FOLDERS)
    assert set(run) < {*STAGES}


@pytest.mark.parametrize("name", STAGES)
def test_help_needs_none_of_the_heavy_libraries(name):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{name}', '--help']\n"
        f"try: runpy.run_module('{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"usage: python -m {name} " in shown
    assert f"example: python -m {name} " in shown
    assert shown.splitlines()[-1] == ""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_every_name_that_tests_and_benchmarks_import_exists(path):
    """Benchmarks and drawings run by hand: nothing else would notice that a name has moved."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.split(".")[0] not in ("preprocess", "dr", "blend", "kappa", "submissions"):
            continue
        file = ROOT / node.module.replace(".", "/")
        source = file.with_suffix(".py")
        if file.is_dir():
            source = file / "__init__.py"
        defined = find_names(source)
        for alias in node.names:
            is_module = (file / f"{alias.name}.py").exists() or (file / alias.name).is_dir()
            assert is_module or alias.name in defined, f"{node.module}.{alias.name}"


def find_names(path):
    """Return the names that a module defines or imports at its top level."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
