"""Conditions and operating points: every figure against scikit-learn or a slow loop, and no leak in a threshold."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from dr.metrics import agreement, bootstrap, calibration, detection, operating, ranking
from dr.metrics.detection import Thresholds
from dr.metrics.operating import OperatingPoint
from dr.tasks.classes import Classes
from dr.tasks.findings import Findings
from dr.tasks.levels import Levels
from preprocess.dataset.question import RETINOPATHY

CLINICAL = Levels(RETINOPATHY.names)
# Few different values, so that many images share one; and how often each image is in a draw, 0 included.
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40
)


def take(rows):
    """Return probabilities, what is true, weights (1, n), and both first repeated as often as the weights say."""
    values, is_true, times = (np.array(column) for column in zip(*rows, strict=True))
    assume(times.any())
    repeated = np.repeat(np.arange(len(times)), times)
    weights = times[None].astype(float)
    return values / 6, is_true, weights, (values / 6)[repeated], is_true[repeated]


@given(ROWS)
def test_weighted_figures_agree_with_scikit_learn_on_repeated_images(rows):
    probabilities, is_true, weights, repeated, repeated_true = take(rows)
    (auc,) = ranking.measure_weighted_auc(probabilities, is_true, weights)
    (precision,) = ranking.measure_weighted_average_precision(probabilities, is_true, weights)
    (brier,) = calibration.measure_brier(probabilities, is_true, weights)
    assert brier == pytest.approx(
        brier_score_loss(repeated_true, repeated, labels=[False, True], pos_label=True)
    )
    if len(set(repeated_true)) == 2:
        assert auc == pytest.approx(roc_auc_score(repeated_true, repeated))
    else:
        assert np.isnan(auc)
    if repeated_true.any():
        assert precision == pytest.approx(average_precision_score(repeated_true, repeated))
    else:
        assert np.isnan(precision)
    binned = calibration.bin_scores(repeated, repeated_true.astype(float))
    (error,) = calibration.measure_weighted_error(probabilities, is_true, weights)
    assert error == pytest.approx(calibration.measure_error(*binned))


@given(ROWS, st.integers(0, 7))
def test_rates_agree_with_scikit_learn_and_are_not_measurable_of_nobody(rows, threshold):
    probabilities, is_true, weights, repeated, repeated_true = take(rows)
    rates = operating.measure_rates(probabilities, is_true, threshold / 6, weights)
    reached = repeated >= threshold / 6
    for rate, figure, positive in (
        (rates.sensitivity, recall_score, True),
        (rates.specificity, recall_score, False),
        (rates.positive_predictive_value, precision_score, True),
        (rates.negative_predictive_value, precision_score, False),
    ):
        reference = figure(repeated_true, reached, pos_label=positive, zero_division=np.nan)
        np.testing.assert_allclose(rate, [reference])


def test_the_calibration_slope_is_that_of_scikit_learns_logistic_regression():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 300)
    is_true = rng.random(300) < 1 / (1 + np.exp(-0.5 * logits + 0.4))  # too extreme by half
    probabilities = 1 / (1 + np.exp(-logits))
    weights = rng.integers(0, 3, (5, 300)).astype(float)
    slopes = calibration.fit_slope(probabilities, is_true, weights)
    for slope, times in zip(slopes, weights, strict=True):
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fitted.fit(logits[:, None], is_true, sample_weight=times)
        assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    assert 0.3 < slopes[0] < 0.7


def test_a_slope_needs_both_and_some_overlap():
    weights = np.ones((1, 4))
    probabilities = np.array([0.1, 0.4, 0.6, 0.9])
    for truth in ([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]):
        slope = calibration.fit_slope(probabilities, np.array(truth, bool), weights)
        assert np.isnan(slope).all()
    (slope,) = calibration.fit_slope(probabilities, np.array([0, 1, 0, 1], bool), weights)
    assert slope > 0
    equal = calibration.fit_slope(np.full(4, 0.5), np.array([0, 1, 0, 1], bool), weights)
    assert np.isnan(equal).all()


@given(ROWS)
def test_points_reach_their_share_and_no_other_threshold_does_better(rows):
    probabilities, is_true, *_ = take(rows)
    candidates = np.unique(probabilities)
    ones = np.ones((1, len(is_true)))
    rates = [operating.measure_rates(probabilities, is_true, value, ones) for value in candidates]
    sensitive = operating.choose_sensitive(probabilities, is_true)
    if is_true.any():
        enough = [
            value
            for value, rate in zip(candidates, rates, strict=True)
            if rate.sensitivity[0] >= 0.9
        ]
        assert sensitive == max(enough)  # the higher a threshold, the higher the specificity
    else:
        assert np.isnan(sensitive)
    specific = operating.choose_specific(probabilities, is_true)
    if is_true.any() and not is_true.all():
        enough = [
            value
            for value, rate in zip(candidates, rates, strict=True)
            if rate.specificity[0] >= 0.9
        ]
        assert specific == min(enough) if enough else np.isnan(specific)
    else:
        assert np.isnan(specific)


def test_a_threshold_of_few_positives_is_marked():
    probabilities = np.linspace(0, 1, 40)
    for n_positives, is_sure in ((9, False), (10, True)):
        truth = (np.arange(40) >= 40 - n_positives).astype(float)
        for point in operating.choose_points(probabilities, truth, operating.RULES):
            assert (point.positives, point.is_sure) == (n_positives, is_sure)
    assert OperatingPoint("given", 0.5, None).is_sure
    assert not OperatingPoint("high specificity", float("nan"), 50).is_sure


def test_no_patient_has_a_part_in_the_threshold_that_it_is_judged_by():
    rng = np.random.default_rng(0)
    patients = [str(number // 2) for number in range(80)]
    probabilities = rng.random(80)
    truth = (rng.random(80) < probabilities).astype(float)
    before = operating.cross_fit(patients, probabilities, truth, operating.RULES)
    for name, thresholds in before.items():
        assert np.isfinite(thresholds).all() and len(set(thresholds)) > 1, name
    is_changed = False
    for patient in ("3", "11", "25"):
        rows = np.array([one == patient for one in patients])
        changed = np.where(rows, 1 - truth, truth)
        after = operating.cross_fit(patients, probabilities, changed, operating.RULES)
        for name, thresholds in before.items():
            assert (after[name][rows] == thresholds[rows]).all()
            is_changed |= bool((after[name] != thresholds).any())
    assert is_changed  # others are judged by it


def test_points_of_useless_scores_do_not_keep_their_promise_on_the_patients_they_are_chosen_on():
    """A threshold that was chosen on what it is reported on would always seem to be as sensitive as was asked."""
    n_kept = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patients = [str(number) for number in range(60)]
        scores = rng.dirichlet(np.ones(5), 60)
        targets = rng.integers(0, 5, 60)
        points = CLINICAL.cross_fit_points(patients, scores, targets)
        for condition in CLINICAL.conditions:
            truth = CLINICAL.find_condition(condition, targets)
            probabilities = CLINICAL.score_condition(condition, scores)
            applied = points[condition.name][0].applied
            rates = operating.measure_rates(probabilities, truth == 1, applied, np.ones((1, 60)))
            n_kept += rates.sensitivity[0] >= 0.9
    assert n_kept < 0.75 * 20 * 4


def test_intervals_are_those_of_a_slow_loop_over_patients(monkeypatch):
    monkeypatch.setattr(bootstrap, "N_DRAWS", 40)
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 200)  # several parts
    rng = np.random.default_rng(0)
    patients = [str(number) for number in rng.integers(0, 20, 60)]
    probabilities = rng.random(60).round(1)
    truth = (rng.random(60) < probabilities).astype(float)
    truth[:5] = np.nan
    points = [Thresholds(OperatingPoint("given", 0.4, None), 0.4)]
    figures, (at_point,) = detection.measure_condition(patients, probabilities, truth, points)
    assert (figures.images, figures.positives) == (55, int((truth == 1).sum()))

    names = np.unique(patients)
    rows_of = [np.flatnonzero(np.array(patients) == name) for name in names]
    draws = np.random.default_rng(bootstrap.SEED)
    slow = {"auc": [], "brier": [], "sensitivity": []}
    for _ in range(40):
        drawn = draws.integers(len(names), size=len(names))
        rows = np.concatenate([rows_of[number] for number in drawn])
        rows = rows[~np.isnan(truth[rows])]
        slow["auc"].append(roc_auc_score(truth[rows], probabilities[rows]))
        slow["brier"].append(brier_score_loss(truth[rows], probabilities[rows]))
        slow["sensitivity"].append(recall_score(truth[rows], probabilities[rows] >= 0.4))
    for name, estimate in (
        ("auc", figures.auc),
        ("brier", figures.brier),
        ("sensitivity", at_point.rates.sensitivity),
    ):
        assert estimate[1:3] == pytest.approx(np.percentile(slow[name], [2.5, 97.5]))


def test_overall_figures_have_the_intervals_of_a_slow_loop(monkeypatch):
    monkeypatch.setattr(bootstrap, "N_DRAWS", 40)
    rng = np.random.default_rng(1)
    patients = [str(number) for number in rng.integers(0, 15, 50)]
    targets = rng.integers(0, 5, 50)
    scores = rng.dirichlet(np.ones(5), 50)
    decided = CLINICAL.decide(scores)
    qwk, accuracy, log_loss = CLINICAL.measure_overall(patients, scores, targets, decided)

    def measure(rows):
        kappa = cohen_kappa_score(
            targets[rows], decided[rows], labels=range(5), weights="quadratic"
        )
        loss = -np.log(np.maximum(scores[rows, targets[rows]], 1e-6)).mean()
        return [kappa, (targets[rows] == decided[rows]).mean(), loss]

    drawn = bootstrap.draw_figures(patients, measure)
    for estimate, column in zip((qwk, accuracy, log_loss), drawn.T, strict=True):
        ends = np.percentile(column[1:], [2.5, 97.5])
        assert estimate[:3] == pytest.approx((column[0], *ends))


def test_levels_have_a_cut_less_than_levels_and_clinical_ones_have_names():
    names = [condition.name for condition in CLINICAL.conditions]
    assert names == [
        "any retinopathy (≥ 1)",
        "referable (≥ 2)",
        "vision-threatening (≥ 3)",
        "proliferative (≥ 4)",
    ]
    others = Levels(("none", "some", "much"))
    assert [condition.name for condition in others.conditions] == ["level ≥ 1", "level ≥ 2"]
    assert len(Levels(("no", "yes")).conditions) == 1
    scores = np.array([[0.1, 0.2, 0.3, 0.25, 0.15]])
    referable = CLINICAL.conditions[1]
    assert CLINICAL.score_condition(referable, scores) == pytest.approx([0.7])
    assert CLINICAL.find_condition(referable, np.array([0, 1, 2, 4])).tolist() == [0, 0, 1, 1]


def test_classes_and_findings_have_conditions_of_their_own_and_the_unknown_stays_so():
    classes = Classes(("A", "B"))
    assert [condition.name for condition in classes.conditions] == ["A", "B"]
    findings = Findings(("Mass", "Nodule"))
    targets = np.array([[1, np.nan], [0, 1]])
    truth = findings.find_condition(findings.conditions[1], targets)
    np.testing.assert_array_equal(truth, [np.nan, 1])
    rng = np.random.default_rng(0)
    scores = rng.random((40, 2))
    targets = (rng.random((40, 2)) < scores).astype(float)
    points = findings.choose_points(scores, targets)["Mass"]
    assert [point.name for point in points] == ["high sensitivity", "high specificity", "best F1"]
    (mass, _) = findings.choose_thresholds(scores, targets)
    assert mass == points[2]._replace(name="Mass")


def test_guesses_need_no_image():
    targets = np.array([0, 0, 0, 1, 4])
    majority, frequency = CLINICAL.guess(targets).values()
    assert majority.argmax(axis=1).tolist() == [0] * 5
    assert frequency[0] == pytest.approx([0.6, 0.2, 0, 0, 0.2])
    log_loss = calibration.measure_log_loss(frequency, targets)
    assert log_loss == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.2)))
    assert agreement.quadratic_weighted_kappa(targets, majority.argmax(axis=1)) == 0
