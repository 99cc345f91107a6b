"""The report: a page that needs nothing and trusts nobody, what it says is missing."""

import contextlib
import re
import shutil

import numpy as np
import pytest

from dr.scores import read_scores, write_scores
from preprocess.cache import rejected
from preprocess.dataset import kaggle
from preprocess.disk import tables
from preprocess.disk.errors import InputError
from submissions.report import __main__ as report
from submissions.report import evidence
from tests.tasks import TASK

HOSTILE = "<img src=x onerror=alert(1)>&\"'"  # a patient's name that is a plain file name
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


@contextlib.contextmanager
def open_page(address, n_refused=0):
    """Open an address in a browser of a phone's size, where it makes no error and asks for nothing of another place.

    The browser itself counts a refused photograph as an error; there are `n_refused` of them.
    """
    if BROWSER is None:
        pytest.skip("no browser is at hand")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        shown, wrong, asked = browser.new_page(viewport={"width": 390, "height": 844}), [], []
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(address)
        yield shown
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
    refused = [text for text in wrong if "status of 422" in text]
    assert len(refused) == len(wrong) == n_refused and all(
        url.startswith((address, "data:")) for url in asked
    )


def fill_cache(cache, data):
    """Write score tables and labels as the last stages leave them."""
    rng, patients = np.random.default_rng(0), [*map(str, range(1, 12)), HOSTILE]
    data.mkdir()
    for split, chosen, labels in (
        ("valid", patients[:6], "trainLabels.csv"),
        ("test", patients[6:], "testLabels.csv"),
    ):
        images = [f"{patient}_{side}" for patient in chosen for side in ("left", "right")]
        levels = rng.integers(0, 5, len(images))
        for _, name in evidence.STEPS:
            scores = rng.dirichlet(np.ones(5), len(images)) + np.eye(5)[levels]
            write_scores(cache / name.format(split=split), images, scores / 2, TASK)
        usage = [("Public", "Private")[row // 2 % 2] for row in range(len(images))]
        tables.write_rows(
            data / labels, ("image", "level", "Usage"), zip(images, levels, usage, strict=True)
        )
    assigned = np.clip(levels + rng.integers(-1, 2, len(images)), 0, 4)
    tables.write_rows(
        cache / evidence.ASSIGNED, ("image", "level"), zip(images, assigned, strict=True)
    )


def make(data, cache, page, *more):
    """Run the stage and return the page."""
    report.main([f"--data={data}", f"--cache={cache}", f"--out={page}", "--name=trial", *more])
    return page.read_text()


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A cache of the last two stages only and the report on it, to be read only: (data, cache, page)."""
    places = [tmp_path_factory.mktemp("reported") / name for name in ("data", "cache", "page.html")]
    fill_cache(places[1], places[0])
    make(*places)
    return places


@pytest.fixture
def last_stages(reported, tmp_path):
    """A copy of it that a test may change."""
    data, cache, _ = reported
    return (
        shutil.copytree(data, tmp_path / "data"),
        shutil.copytree(cache, tmp_path / "cache"),
        tmp_path / "page.html",
    )


def test_the_page_is_no_medical_device_names_what_is_missing_and_refers_to_nothing_outside(
    reported,
):
    page = reported[-1].read_text()
    assert page.index("Not a medical device") < page.index("<h1>")
    for what in (
        "no stage has left its manifest",
        "no net was trained",
        "no crop table",
        "no picture of this image",
    ):
        assert f"Missing: {what}" in page
    assert len(page.encode()) < 5_000_000
    assert not re.findall(
        r"""(?:src|href|action|url\()\s*=?\s*["']?\s*(?:https?:)?//""", page, re.IGNORECASE
    )
    assert "<script" not in page
    assert "default-src 'none'" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= set(
        ids
    )
    assert len(ids) == len(set(ids))


def test_hostile_names_and_reasons_stay_text(last_stages):
    data, cache, page = last_stages
    rejected.record_rejected(cache, "crop", "test", {"</td><script>.jpeg": "<b>no eye</b>"})
    shown = make(data, cache, page)
    assert (
        "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;_left" in shown
        and "<img src=x" not in shown
    )
    assert "&lt;/td&gt;&lt;script&gt;.jpeg" in shown and "<b>no eye" not in shown


def test_the_same_inputs_give_the_same_bytes_and_another_score_another_report(
    reported, last_stages, capsys
):
    data, cache, page = last_stages
    for told in ("submissions.report: cached", ""):
        assert make(data, cache, page) == reported[-1].read_text()
        assert told in capsys.readouterr().out
        shutil.rmtree(cache / "report")
    make(data, cache, page)
    shutil.copy(cache / "dr" / "scores_test.csv", cache / "blend" / "scores_test.csv")
    make(data, cache, page)
    assert "blend/scores_test.csv changed" in capsys.readouterr().out


def test_public_and_private_part_are_told_apart_and_ignored_images_do_not_count(
    last_stages, tmp_path
):
    data, cache, _ = last_stages
    groups = {
        group.title: set(group.images)
        for group in evidence.read_groups(
            evidence.Source(kaggle.read_dataset(data), TASK, cache, None)
        )
    }
    assert list(groups) == ["test set", "public part", "private part", "validation fold"]
    assert groups["public part"] | groups["private part"] == groups["test set"]
    assert [len(groups[title]) for title in groups][:3] == [12, 6, 6]
    lines, labels = (data / "testLabels.csv").read_text().splitlines(), tmp_path / "solution.csv"
    labels.write_text(
        "\n".join([lines[0], lines[1].replace("Public", "Ignored"), *lines[2:6]]) + "\n"
    )
    whole, public, *_ = evidence.read_groups(
        evidence.Source(kaggle.read_dataset(data), TASK, cache, labels)
    )
    assert (whole.images, public.images) == (
        ["7_right", "8_left", "8_right", "9_left"],
        ["7_right", "9_left"],
    )
    labels.write_text(
        labels.read_text().replace("Private", "1").replace("Public", "2").replace("Ignored", "3")
    )
    whole, *others = evidence.read_groups(
        evidence.Source(kaggle.read_dataset(data), TASK, cache, labels)
    )
    assert (len(whole.images), [group.title for group in others]) == (5, ["validation fold"])


def test_a_finished_run_is_shown_with_its_crops_heat_and_times(data, finished_cache, tmp_path):
    """Even if a photograph is gone since; a checkpoint that was changed since is an error."""
    cache, gone = (
        shutil.copytree(finished_cache, tmp_path / "cache"),
        sorted((data / "train").iterdir())[0],
    )
    gone.unlink()
    with open(cache / "times.csv", "a") as times:
        times.write("preprocess,3725.0\ndr.train,")
    page = make(data, cache, tmp_path / "page.html")
    shown = {
        'alt="Image ': 4,
        'alt="Heat map of level': 8,
        "what was found of the eye": 11,
    }  # two test patients
    assert {text: page.count(text) for text in shown} == shown
    assert f"<span>{gone.stem}</span>" in page and "not readable any more" in page
    assert "The four preprocess stages together: 1:02:05." in page
    for name in evidence.REPORTED:
        assert (f'<th scope="row">{name}</th>' in page) == (name != "kappa.assign")
    (cache / "dr" / "epochs" / "0002.pt").write_bytes(b"")
    shutil.rmtree(cache / "report")
    with pytest.raises(InputError, match="0002.pt: not what python -m dr.train wrote"):
        make(data, cache, tmp_path / "page.html")


def test_a_browser_opens_it_without_an_error_or_a_request(reported):
    with open_page(reported[-1].as_uri()) as shown:
        assert "Not a medical device" in shown.inner_text("body")


def test_other_runs_stand_beside_with_paired_differences(last_stages, tmp_path):
    data, cache, page = last_stages
    own = read_scores(cache / "blend/scores_test.csv", TASK)
    write_scores(
        tmp_path / "sure.csv",
        own.index,
        (own.to_numpy() + 3 * np.eye(5)[own.to_numpy().argmax(axis=1)]) / 4,
        TASK,
    )
    written = make(data, cache, page, "--compare", f"{tmp_path}/sure.csv", f"{cache}")
    table = re.search(r'id="beside".*?</table>', written, re.DOTALL)[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == [
        "this run",
        f"{tmp_path}/sure.csv",
        str(cache),
    ]
    same = re.findall(r"<small>([+−][^<]*)</small>", table)
    assert same[1] == "+0.0000 (no draw differed)"  # as likely levels, so the same kappa
    assert same[0] != same[1] and same[2:] == [same[1]] * 2


def test_a_run_of_other_images_is_not_compared(last_stages, tmp_path):
    data, cache, page = last_stages
    own = read_scores(cache / "blend/scores_test.csv", TASK)
    write_scores(tmp_path / "few.csv", own.index[1:], own.to_numpy()[1:], TASK)
    with pytest.raises(InputError, match="1 images of test set are not in .*few.csv"):
        make(data, cache, page, "--compare", f"{tmp_path}/few.csv")
    with pytest.raises(InputError, match="--compare .*nowhere: no score table"):
        make(data, cache, page, "--compare", f"{tmp_path}/nowhere")


def test_of_a_test_set_without_scores_the_validation_fold_is_compared(last_stages):
    data, cache, page = last_stages
    for name in [evidence.ASSIGNED, *(name.format(split="test") for _, name in evidence.STEPS)]:
        (cache / name).unlink()
    assert "12 images, validation fold" in make(data, cache, page, "--compare", str(cache))
