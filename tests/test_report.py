"""The report: its figures against slow ones, a page that needs nothing and trusts nobody, what it says is missing."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr import predict, train
from dr.scores import write_scores
from kappa.qwk import quadratic_weighted_kappa
from preprocess import crop, stage
from submissions import evidence, measures, report
from submissions.evidence import STEPS
from tests import ready_made

HOSTILE = "<img src=x onerror=alert(1)>&\"'"  # a patient's name that is a plain file name
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
BROWSER_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr"
).split()


# --- figures ----------------------------------------------------------------------------------------------------------

pairs_of_levels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@given(pairs_of_levels)
def test_kappa_of_counts_is_the_kappa_of_the_levels(pairs):
    levels, predicted = np.array(pairs).T
    counts = measures.count_pairs(levels, predicted)
    assert measures.kappa_of_counts(counts) == pytest.approx(quadratic_weighted_kappa(levels, predicted))
    assert measures.kappa_of_counts(np.stack([counts, 2 * counts])) == pytest.approx(
        2 * [measures.kappa_of_counts(counts)]
    )


def test_the_bootstrap_takes_whole_patients_as_a_slow_one_does():
    rng = np.random.default_rng(0)
    images = [f"{patient}_{side}" for patient in range(12) for side in ("left", "right")][:-1]  # one has one eye only
    levels, first, second = rng.integers(0, 5, (3, len(images)))
    fast = measures.measure_kappas(images, levels, {"first": first, "second": second})
    drawn = {"first": [], "second": []}
    patients = measures.number_patients(images)
    for draw in measures.draw_patients(12):
        rows = [
            row for patient in range(12) for _ in range(draw[patient]) for row in np.flatnonzero(patients == patient)
        ]
        for name, predicted in (("first", first), ("second", second)):
            drawn[name].append(quadratic_weighted_kappa(levels[rows], predicted[rows]))
    assert fast["first"].kappa == pytest.approx(
        (quadratic_weighted_kappa(levels, first), *slow_interval(drawn["first"]))
    )
    gains = np.subtract(drawn["second"], drawn["first"])
    assert fast["second"].gain[1:] == pytest.approx(slow_interval(gains))
    assert fast["first"].gain is None


def slow_interval(drawn):
    """Return the ends of the middle 95 %."""
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def test_perfect_levels_have_a_kappa_of_one_and_no_interval():
    levels = np.array([0, 1, 4, 2])
    measured = measures.measure_kappas(["1_left", "1_right", "2_left", "3_left"], levels, {"only": levels})
    assert measured["only"].kappa == (1.0, 1.0, 1.0)


def test_agreement_counts_patients_with_both_eyes_once():
    images = ["1_left", "1_right", "1_right_b", "2_left", "3_left", "3_right", "4_left", "4_right"]
    agreement = measures.measure_agreement(images, np.array([0, 0, 4, 3, 1, 2, 0, 3]))
    assert agreement.shares == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert agreement.counts[0, 0] == agreement.counts[1, 2] == agreement.counts[0, 3] == 1
    assert agreement.counts.sum() == 3
    assert measures.measure_agreement(["1_left", "2_right"], np.array([0, 1])) is None


def test_reliability_is_the_share_that_came_true():
    images = [f"{patient}_left" for patient in range(40)]
    scores = np.tile([0.75, 0.25, 0, 0, 0], (40, 1))
    levels = np.repeat([0, 0, 1, 1], 10)  # a half where three quarters were promised
    bins = measures.measure_reliability(images, scores, levels)
    assert bins.predicted == pytest.approx([0, 0.25, 0.75])
    assert bins.observed == pytest.approx([0, 0.5, 0.5])
    assert bins.counts.tolist() == [120, 40, 40]
    assert bins.error == pytest.approx((40 * 0.25 + 40 * 0.25) / 200)
    assert (bins.low <= bins.observed).all() and (bins.observed <= bins.high).all()
    assert bins.low[1] < 0.45 and bins.high[1] > 0.55


def test_the_hardest_patient_has_the_largest_squared_error():
    images = ["1_left", "1_right", "2_left", "2_right", "3_left", "4_left"]
    levels, predicted = np.array([0, 0, 4, 0, 1, 1]), np.array([1, 1, 1, 0, 1, 1])
    scores = np.full((6, 5), 0.2)
    scores[4] = [0.1, 0.05, 0.05, 0.4, 0.4]  # right, but not sure at all
    assert measures.rank_patients(images, levels, predicted, scores) == ["2", "1", "3", "4"]


# --- a cache to report on ---------------------------------------------------------------------------------------------


def fill_cache(cache, data, patients, n_valid):
    """Write score tables and labels as the last stages leave them: the first patients are the validation fold's."""
    rng = np.random.default_rng(0)
    data.mkdir(exist_ok=True)
    for split, chosen, labels in (
        ("valid", patients[:n_valid], "trainLabels.csv"),
        ("test", patients[n_valid:], "testLabels.csv"),
    ):
        images = [f"{patient}_{side}" for patient in chosen for side in ("left", "right")]
        levels = rng.integers(0, 5, len(images))
        for _, name in STEPS:
            scores = rng.dirichlet(np.ones(5), len(images)) + np.eye(5)[levels]
            write_scores(cache / name.format(split=split), images, scores / 2)
        usage = ["Public", "Public", "Private", "Private"] * len(images)
        rows = [{"level": level, "Usage": part} for level, part in zip(levels, usage, strict=False)]
        stage.write_table(data / labels, ("image", "level", "Usage"), dict(zip(images, rows, strict=True)))
        if split == "test":
            given = np.clip(levels + rng.integers(-1, 2, len(images)), 0, 4)
            rows = [{"level": level} for level in given]
            stage.write_table(
                cache / "kappa" / "levels_test.csv", ("image", "level"), dict(zip(images, rows, strict=True))
            )


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A cache of the last two stages only and the report on it, to be read only: (data, cache, page)."""
    folder = tmp_path_factory.mktemp("reported")
    data, cache, page = folder / "data", folder / "cache", folder / "page.html"
    fill_cache(cache, data, [*map(str, range(1, 12)), HOSTILE], n_valid=6)
    make(data, cache, page)
    return data, cache, page


@pytest.fixture
def last_stages(reported, tmp_path):
    """A copy of it that a test may change."""
    data, cache, _ = reported
    return shutil.copytree(data, tmp_path / "data"), shutil.copytree(cache, tmp_path / "cache"), tmp_path / "page.html"


def make(data, cache, page, *more):
    """Run the stage and return the page."""
    report.main([f"--data={data}", f"--cache={cache}", f"--out={page}", "--name=trial", *more])
    return page.read_text()


def without_pictures(page):
    """Return a page without its data URIs."""
    return re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*", "", page)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside(reported):
    page = reported[-1].read_text()
    assert len(page.encode()) < 5_000_000
    assert not re.findall(r"""(?:src|href|action|url\()\s*=?\s*["']?\s*(?:https?:)?//""", page, re.IGNORECASE)
    assert "<script" not in page
    assert "default-src 'none'" in page
    targets = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert targets <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_page_says_first_that_it_is_no_medical_device(reported):
    page = reported[-1].read_text()
    assert page.index("Not a medical device") < page.index("<h1>")


def test_a_hostile_image_id_stays_text(reported):
    page = reported[-1].read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;_left" in page
    assert "<img src=x" not in page


def test_hostile_reasons_and_names_of_rejected_files_stay_text(last_stages):
    data, cache, page = last_stages
    stage.record_rejected(cache, "crop", "test", {"</td><script>.jpeg": "<b>no eye</b>"})
    shown = make(data, cache, page)
    assert "&lt;/td&gt;&lt;script&gt;.jpeg" in shown
    assert "<b>no eye" not in shown


def test_the_same_inputs_give_the_same_bytes_and_are_cached(reported, last_stages, capsys):
    data, cache, page = last_stages
    first = reported[-1].read_text()
    assert make(data, cache, page) == first
    assert "submissions.report: cached" in capsys.readouterr().out
    shutil.rmtree(cache / "report")
    assert make(data, cache, page) == first
    assert "submissions.report: not made yet" in capsys.readouterr().out


def test_another_score_makes_another_report(last_stages, capsys):
    data, cache, page = last_stages
    shutil.copy(cache / "dr" / "scores_test.csv", cache / "blend" / "scores_test.csv")
    make(data, cache, page)
    assert "blend/scores_test.csv changed" in capsys.readouterr().out


def test_what_is_missing_is_named_and_nothing_fails(reported):
    page = reported[-1].read_text()
    for what in ("no stage has left its manifest", "no net was trained", "no crop table", "no picture of this eye"):
        assert what in page


def test_without_a_test_set_the_validation_fold_is_reported(last_stages):
    data, cache, page = last_stages
    for path in [*cache.glob("*/*_test.csv"), data / "testLabels.csv"]:
        path.unlink()
    shown = make(data, cache, page)
    assert "QWK, validation fold" in shown
    assert "QWK, test set" not in shown
    assert "expected by the scores" in shown


def test_without_levels_and_photographs_there_is_nothing_to_report(last_stages):
    data, cache, page = last_stages
    shutil.rmtree(data)
    with pytest.raises(stage.InputError, match="nothing to report on"):
        make(data, cache, page)
    with pytest.raises(stage.InputError, match="no such folder"):
        make(data, cache / "other", page)


def test_the_public_and_the_private_part_are_told_apart(last_stages):
    data, cache, _ = last_stages
    groups = {group.title: group for group in evidence.read_groups(data, cache, None)}
    assert list(groups) == ["test set", "public part", "private part", "validation fold"]
    public, private, whole = (set(groups[title].images) for title in ("public part", "private part", "test set"))
    assert public | private == whole and not public & private
    assert len(public) == len(private) == 6


def test_ignored_images_and_those_without_a_level_do_not_count(last_stages, tmp_path):
    data, cache, _ = last_stages
    lines = (data / "testLabels.csv").read_text().splitlines()
    labels = tmp_path / "solution.csv"
    labels.write_text("\n".join([lines[0], lines[1].replace("Public", "Ignored"), *lines[2:6]]) + "\n")
    whole, public, *_ = evidence.read_groups(data, cache, labels)
    assert whole.images == ["7_right", "8_left", "8_right", "9_left"]
    assert public.images == ["7_right", "9_left"]


def test_labels_of_other_images_are_an_error(last_stages, tmp_path):
    data, cache, page = last_stages
    (tmp_path / "other.csv").write_text("image,level\n999_left,0\n")
    with pytest.raises(stage.InputError, match="none of the 12 images .* has a true level"):
        make(data, cache, page, f"--labels={tmp_path / 'other.csv'}")


def test_score_tables_of_different_images_are_an_error(last_stages):
    data, cache, page = last_stages
    path = cache / "dr" / "single_test.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(stage.InputError, match="1 images of .*scores_test.csv are not in .*single_test.csv"):
        make(data, cache, page)


def test_times_are_those_of_the_last_row_and_a_torn_one_is_left_out(last_stages):
    _, cache, _ = last_stages
    (cache / "times.csv").write_text("stage,seconds\ndr.train,9\ndr.train,75\nnobody,3\nblend.train,")
    assert evidence.read_times(cache) == {"dr.train": 75}
    assert report.describe_duration(75) == "1 min 15 s"
    assert report.describe_duration(3600) == "1 h 0 min 0 s"
    assert report.describe_duration(0) == "0 s"


def test_crops_are_shown_even_if_a_photograph_is_gone(data, cache, tmp_path):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1"])
    gone = sorted((data / "train").iterdir())[0]
    content = gone.read_bytes()
    whole = make(data, cache, tmp_path / "page.html")
    assert len(re.findall("<ellipse ", whole)) == 12
    gone.unlink()
    shutil.rmtree(cache / "report")
    shown = make(data, cache, tmp_path / "page.html")
    assert len(re.findall("<ellipse ", shown)) == 11
    assert f"<span>{gone.stem}</span>" in shown
    assert "not readable any more" in shown
    gone.write_bytes(content)


def test_ready_made_squares_are_shown_with_the_heat_of_their_net(tmp_path, one_thread):
    data, cache = tmp_path / "data", tmp_path / "cache"
    ready_made.draw_squares(data)
    train.main([f"--data={data}", f"--cache={cache}", "--epochs=1", *ready_made.TRAIN_OPTIONS])
    predict.main([f"--data={data}", f"--cache={cache}", "--views=1", "--device=cpu"])
    page = make(data, cache, tmp_path / "page.html")
    assert len(re.findall('alt="Retina of ', page)) == 6  # three patients of the validation fold
    assert len(re.findall('alt="Heat map of level', page)) == 12
    assert "no crop table: ready-made squares" in page
    (cache / "dr" / "epochs" / "0001.pt").write_bytes(b"")
    shutil.rmtree(cache / "report")
    with pytest.raises(stage.InputError, match="0001.pt: not what python -m dr.train wrote"):
        make(data, cache, tmp_path / "page.html")


# --- in a browser -----------------------------------------------------------------------------------------------------


def open_page(page, folder):
    """Open a page in a headless browser; return its console's lines and the addresses that the page asked for."""
    log = folder / "net.json"
    options = [*BROWSER_OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--dump-dom"]
    shown = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    assert "Not a medical device" in shown.stdout
    params = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {
        each["url"] for each in params if {"url", "initiator"} <= each.keys() and "origin" not in each["initiator"]
    }
    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    return console, {address for address in asked if not address.startswith(("file:", "data:"))}


@pytest.mark.skipif(BROWSER is None, reason="no browser is at hand")
def test_a_browser_opens_it_without_an_error_or_a_request(reported, tmp_path):
    assert open_page(reported[-1], tmp_path) == ([], set())


@pytest.mark.skipif(BROWSER is None, reason="no browser is at hand")
def test_a_page_that_leaks_is_stopped_and_would_be_found_out(reported, tmp_path):
    leak = '<img src="http://localhost:9/x.png" alt="">'
    page, leaking = reported[-1].read_text(), tmp_path / "leaking.html"
    leaking.write_text(page.replace("<main>", f"<main>{leak}"))
    console, asked = open_page(leaking, tmp_path)
    assert any("Content Security Policy" in line for line in console)
    assert asked == set()
    leaking.write_text(
        re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace("<main>", f"<main>{leak}")
    )
    assert open_page(leaking, tmp_path)[1] == {"http://localhost:9/x.png"}
