"""The rules the layout promises: imports run against the data, help answers without the heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
YARDSTICK = "kappa.qwk"  # the competition's metric: every stage may measure itself with it
FLOW = ("preprocess", "dr", "blend", "kappa", "submissions")  # a package may import those before it
APPLICATIONS = {"dr.grade"}  # what is run when all stages are done: it may import any of them, and none imports it
MODULES = sorted(path for package in FLOW for path in (ROOT / package).rglob("*.py"))
STAGES = [path for path in MODULES if "def main(" in path.read_text()]


def find_imports(path):
    """Return the dotted names of everything a module imports, at the top or later."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name_of(path):
    """Return a module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_against_the_data(path):
    later = () if name_of(path) in APPLICATIONS else FLOW[FLOW.index(path.relative_to(ROOT).parts[0]) + 1 :]
    upstream = [name for name in find_imports(path) if name.split(".")[0] in (*later, "tests")]
    assert not [name for name in upstream if not name.startswith(YARDSTICK)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_an_application(path):
    assert not [name for name in find_imports(path) if any(f"{name}.".startswith(f"{app}.") for app in APPLICATIONS)]


def test_the_yardstick_knows_only_tables():
    own = {name for name in find_imports(ROOT / "kappa" / "qwk.py") if name.split(".")[0] in FLOW}
    assert own <= {"dr.scores.find_fault", "preprocess.stage.InputError"}


@pytest.mark.parametrize("package", ["dr", "blend"])
def test_train_and_predict_do_not_import_each_other(package):
    for one, other in (("train", "predict"), ("predict", "train")):
        names = find_imports(ROOT / package / f"{one}.py")
        assert not [name for name in names if name.startswith(f"{package}.{other}")]


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_help_needs_none_of_the_heavy_libraries(path):
    module = name_of(path).removesuffix(".__main__")
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{module}', '--help']\n"
        f"try: runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*[name for name in ('torch', 'pandas', 'scipy', 'matplotlib', 'joblib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"usage: python -m {module} " in shown
    assert f"example: python -m {module} " in shown
    assert shown.splitlines()[-1] == ""
