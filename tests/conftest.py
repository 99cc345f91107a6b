"""Fixtures the tests share: a small drawn data folder, and the real photographs where they are at hand."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from preprocess.synthetic import __main__ as synthetic

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch is imported, and for all that tests start: tiny nets are faster so
)
REAL = Path(__file__).parents[2] / "shared" / "data"
# The files that take the most processor time, the longest first: begun last, one would keep a single processor busy
# while all others have nothing left to do.
LONGEST = (
    "test_road.py",
    "test_train.py",
    "test_readme.py",
    "test_run_all.py",
    "test_transfer.py",
    "test_chest.py",
    "test_runs.py",
    "test_transformers.py",
    "test_serve.py",
    "test_pretrained.py",
    "test_synthetic.py",
    "test_faults.py",
)


def pytest_collection_modifyitems(items):
    """Put the tests of the longest files first, and leave all others in their order."""

    def find_rank(item):
        if item.path.name in LONGEST:
            return LONGEST.index(item.path.name)
        return len(LONGEST)

    items.sort(key=find_rank)


def draw(tmp_path_factory, options):
    """Return a folder that preprocess.synthetic has drawn."""
    data = tmp_path_factory.mktemp("drawn") / "data"
    synthetic.main([*f"{options} --jobs 1".split(), f"--data={data}"])
    return data


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory):
    """A data folder of 4 training and 2 test patients, 400 px wide; to be read only."""
    return draw(
        tmp_path_factory, "--patients-train 4 --patients-test 2 --width-px 400 --levels balanced"
    )


@pytest.fixture(scope="session")
def pair(drawn_folder):
    """The left and the right eye of its first test patient, 18."""
    return [drawn_folder / "test" / f"18_{side}.jpeg" for side in ("left", "right")]


@pytest.fixture(scope="session")
def drawn_scans(tmp_path_factory):
    """A folder of OCT scans by class, 8 training and 3 test patients, 128 px wide; to be read only."""
    return draw(tmp_path_factory, "--kind oct --patients-train 8 --patients-test 3 --width-px 128")


@pytest.fixture(scope="session")
def drawn_chest(tmp_path_factory):
    """A folder of chest x-rays with a table of findings, 10 training and 3 test patients; to be read only."""
    return draw(
        tmp_path_factory, "--kind chest --patients-train 10 --patients-test 3 --width-px 128"
    )


@pytest.fixture(scope="session")
def finished_cache(drawn_folder, tmp_path_factory):
    """A cache in which every stage up to the blend has run on the drawn folder, with tiny squares; to be read only."""
    import blend.predict
    import blend.train
    import dr.predict
    import dr.train
    import preprocess.__main__

    cache = tmp_path_factory.mktemp("finished") / "cache"
    places = [f"--data={drawn_folder}", f"--cache={cache}"]
    preprocess.__main__.main([*places, *"--size-px 48 --jobs 1".split()])
    dr.train.main(
        [*places, *"--epochs 2 --batch-size 2 --folds 2 --crop-px 32 --device cpu".split()]
    )
    dr.predict.main([*places, *"--views 2 --device cpu".split()])
    blend.train.main([*places, "--method=linear"])
    blend.predict.main(places)
    return cache


@pytest.fixture
def data(drawn_folder, tmp_path):
    """A copy of the drawn folder that a test may change."""
    return shutil.copytree(drawn_folder, tmp_path / "data")


@pytest.fixture
def cache(tmp_path):
    """A cache that does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def epochs(cache):
    """Where its net's epochs will lie."""
    return cache / "dr" / "epochs"


@pytest.fixture
def places(tmp_path, cache):
    """The options that name a folder of tiny squares and a cache in which they are preprocessed."""
    from tests.tiny import draw_squares

    return draw_squares(tmp_path / "squares", cache)


@pytest.fixture
def run(places, capsys):
    """Run `dr.train` on the squares and return what it printed."""

    from dr import train
    from tests.tiny import TRAIN_OPTIONS

    def run_train(*options):
        capsys.readouterr()
        train.main([*places, *TRAIN_OPTIONS, *map(str, options)])
        return capsys.readouterr().out

    return run_train


@pytest.fixture
def hear_ctrl_c():
    """Let the processes that a test starts hear Ctrl-C, though the suite may run in the background, which does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real photographs, labels and scores; skips the test where it is absent."""
    if not REAL.is_dir():
        pytest.skip("the real photographs are not at hand")
    return REAL
