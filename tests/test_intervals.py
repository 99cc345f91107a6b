"""Intervals: a bootstrap over patients everywhere, exact ones of shares of none and of all."""

import csv

import numpy as np
import pytest
from scipy.stats import binomtest

from dr.metrics import bootstrap, calibration, detection
from dr.metrics.bootstrap import Estimate
from dr.metrics.detection import Thresholds
from dr.metrics.operating import OperatingPoint
from dr.tasks.classes import Classes
from dr.tasks.levels import Levels
from preprocess.dataset.question import RETINOPATHY
from submissions.evaluation import figures, subgroups, tables
from submissions.evaluation.figures import Sample

TASK = Levels(RETINOPATHY.names)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "N_DRAWS", 40)


@pytest.mark.parametrize("n", [1, 2, 9, 100, 3000])
def test_a_share_of_none_or_all_has_the_exact_interval_of_scipy(n):
    for value, n_successes in ((0.0, 0), (1.0, n)):
        estimate = bootstrap.estimate_share(np.full(41, value), n)
        exact = binomtest(n_successes, n).proportion_ci(method="exact")
        assert estimate[:3] == pytest.approx((value, exact.low, exact.high))
        assert estimate.kind == "exact"


def test_other_figures_keep_the_bootstrap_and_say_where_no_draw_differed():
    drawn = np.array([0.5, 0.4, 0.6, 0.5])
    assert bootstrap.estimate_share(drawn, 3) == bootstrap.estimate_drawn(drawn)
    assert bootstrap.estimate_share(drawn, 3).kind == "bootstrap"
    constant = bootstrap.estimate_drawn(np.ones(41))
    assert constant.kind == "none"
    assert constant.describe_interval().startswith("no draw differed")
    nothing = bootstrap.estimate_share(np.full(41, np.nan), 0)
    assert np.isnan(nothing.value) and nothing.kind == ""
    assert Estimate(0.5, 0.4, 0.6).describe_interval() == "0.400 to 0.600"


def count_slowly(patients, rows):
    return len({patient for patient, is_counted in zip(patients, rows, strict=True) if is_counted})


def test_every_rate_counts_the_patients_it_is_a_share_of():
    rng = np.random.default_rng(0)
    patients = [str(number) for number in rng.integers(0, 12, 40)]
    truth = rng.integers(0, 2, 40).astype(float)
    probabilities = np.where(truth == 1, 0.9, 0.1)  # nothing is mistaken
    truth[:4] = np.nan
    points = [Thresholds(OperatingPoint("given", 0.5, None), 0.5)]
    rates = detection.measure_condition(patients, probabilities, truth, points).points[0].rates
    for rate, is_counted in (
        (rates.sensitivity, truth == 1),
        (rates.specificity, truth == 0),
        (rates.positive_predictive_value, truth == 1),
        (rates.negative_predictive_value, truth == 0),
    ):
        n = count_slowly(patients, is_counted)
        assert rate[:3] == pytest.approx((1, binomtest(n, n).proportion_ci(method="exact").low, 1))


@pytest.mark.parametrize("task", [TASK, Classes(("A", "B", "C", "D", "E"))])
def test_accuracy_recall_and_precision_of_what_is_never_mistaken_are_exact(task):
    patients = [str(number // 2) for number in range(30)]
    targets = np.arange(30) % 5
    scores = np.eye(5)[targets]
    scores[:3] = np.eye(5)[4]  # levels 0, 1 and 2 of the first three
    measured = task.measure_all(patients, scores, targets)
    accuracy = measured.overall[task.overall_names.index("accuracy")]
    assert accuracy.kind == "bootstrap"
    for output, record in enumerate(measured.each):
        n = count_slowly(patients, targets == output)
        exact = binomtest(n, n).proportion_ci(method="exact")
        if output >= 3:
            assert record.recall[:3] == pytest.approx((1, exact.low, 1))
        if output < 3:
            n_given = count_slowly(patients, (targets == output) & (np.arange(30) >= 3))
            bound = binomtest(n_given, n_given).proportion_ci(method="exact").low
            assert record.precision[:3] == pytest.approx((1, bound, 1))
    perfect = task.measure_all(patients, np.eye(5)[targets], targets)
    exact = binomtest(15, 15).proportion_ci(method="exact")
    accuracy = perfect.overall[task.overall_names.index("accuracy")]
    assert accuracy[:3] == pytest.approx((1, exact.low, 1))


def test_a_bin_that_always_comes_true_has_the_interval_of_its_patients():
    patients = [str(number // 2) for number in range(24)]
    scores = np.full((24, 1), 0.95)
    bins = calibration.measure_reliability(patients, scores, np.ones((24, 1)))
    exact = binomtest(12, 12).proportion_ci(method="exact")
    assert (bins.low[0], bins.high[0]) == pytest.approx((exact.low, 1))


def test_table_csv_and_page_have_the_same_interval_and_name_it(tmp_path):
    patients = [str(number // 2) for number in range(30)]
    targets = np.arange(30) % 5
    sample = Sample(
        "sample", [f"i{row}" for row in range(30)], patients, np.eye(5)[targets], targets
    )
    points = figures.give_points(TASK, 0.5)
    measured = figures.measure(TASK, sample, points)
    text = "\n".join(map(tables.describe_table, tables.list_tables(TASK, measured)))
    low = binomtest(15, 15).proportion_ci(method="exact").low
    assert f"1.0000 ({low:.3f} to 1.000, exact)" in text
    rows = [
        dict(zip(tables.CSV_COLUMNS, row, strict=True))
        for row in tables.list_csv_rows(TASK, measured)
    ]
    (accuracy,) = [row for row in rows if row["figure"] == "accuracy, rounded"]
    assert (accuracy["low"], accuracy["interval"]) == (pytest.approx(low), "exact")
    groups = {"all": np.ones(30, bool), "half": np.arange(30) < 15}
    of_groups = subgroups.measure_subgroups(TASK, sample, points, {"column": groups})
    whole, half = of_groups.groups
    key = subgroups.Key("referable (≥ 2)", "given", "sensitivity")
    assert whole.figures[key] == measured.conditions["referable (≥ 2)"].points[0].rates.sensitivity
    n = count_slowly(patients, (targets >= 2) & groups["half"])
    assert half.figures[key].low == pytest.approx(binomtest(n, n).proportion_ci(method="exact").low)
    assert half.figures[subgroups.Key("", "", "accuracy")].is_exact
    file = tmp_path / "figures.csv"
    with open(file, "w", newline="") as table:
        csv.writer(table).writerows(tables.list_subgroup_rows("sample", of_groups))
    assert file.read_text().count(",exact") >= 4
