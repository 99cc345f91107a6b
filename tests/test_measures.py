"""Every figure against hand-computed values, slow versions and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from dr.metrics import agreement, bootstrap, calibration, ranking
from dr.metrics.agreement import quadratic_weighted_kappa
from dr.tasks.classes import Classes
from dr.tasks.findings import Findings
from preprocess.dataset.kaggle import find_subject
from preprocess.disk.errors import InputError
from submissions.report import examples


def test_hand_computed():
    # observed 0 + 1 + 4 + 4 = 9; chance: Σ (a − b)² over all 16 pairs, / 4 = (4·14 + 4·5 − 2·6·3) / 4 = 10
    assert quadratic_weighted_kappa([0, 1, 2, 3], [0, 2, 0, 1]) == pytest.approx(1 - 9 / 10)
    # (0,0) (0,0) (0,1) (1,1): observed 1; chance: (3·2 + 1·2) / 4 = 2
    assert quadratic_weighted_kappa([0, 0, 0, 1], [0, 0, 1, 1], n_levels=2) == pytest.approx(0.5)
    assert quadratic_weighted_kappa([0, 4], [4, 0]) == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_agrees_with_scikit_learn_in_both_orders_and_of_many_tables_of_counts(pairs):
    levels, predicted = np.array(pairs).T
    kappa = quadratic_weighted_kappa(levels, predicted)
    assert quadratic_weighted_kappa(predicted, levels) == pytest.approx(kappa)
    counts = agreement.count_pairs(levels, predicted, 5)
    assert agreement.kappa_of_counts(np.stack([counts, 2 * counts])) == pytest.approx([kappa] * 2)
    if len(set(levels) | set(predicted)) > 1:
        reference = cohen_kappa_score(levels, predicted, labels=range(5), weights="quadratic")
        assert kappa == pytest.approx(reference, abs=1e-12)


def test_constant_levels_are_one_if_the_same_and_else_zero():
    for level in range(5):
        assert quadratic_weighted_kappa([level] * 3, [level] * 3) == 1
    for levels in ([0, 0, 0], [0, 2, 4]):
        assert quadratic_weighted_kappa(levels, [1, 1, 1]) == pytest.approx(0)
        assert quadratic_weighted_kappa([1, 1, 1], levels) == pytest.approx(0)


@pytest.mark.parametrize(
    ("levels", "predicted"),
    [([], []), ([0, 1], [0]), ([0, 5], [0, 1]), ([0, -1], [0, 1]), ([0.5], [0]), ([[0]], [[0]])],
)
def test_what_are_no_levels_is_refused(levels, predicted):
    with pytest.raises(InputError):
        quadratic_weighted_kappa(levels, predicted)


def test_log_loss_by_hand():
    scores = np.array([[0.5, 0.5, 0, 0, 0], [0.25, 0.75, 0, 0, 0]])
    assert calibration.measure_log_loss(scores, np.array([1, 0])) == pytest.approx(1.5 * np.log(2))
    assert calibration.measure_log_loss(scores, np.array([2, 2])) == pytest.approx(-np.log(1e-6))
    assert calibration.measure_log_loss(np.full((3, 5), 0.2), np.array([0, 2, 4])) == pytest.approx(
        np.log(5)
    )


def test_levels_halfway_between_two_are_rounded_up():
    scores = np.array([[0.5, 0.5, 0, 0, 0], [0.75, 0.25, 0, 0, 0], [0, 0, 0.25, 0, 0.75]])
    assert agreement.expect_levels(scores).tolist() == [0.5, 0.25, 3.5]
    assert agreement.round_levels(scores).tolist() == [1, 0, 4]
    assert agreement.round_levels(scores[2]) == 4


def test_the_bootstrap_takes_whole_patients_and_the_same_ones_for_every_figure():
    rng = np.random.default_rng(0)
    patients = [
        str(patient) for patient in rng.permutation([*range(12), *range(11)])
    ]  # one has one eye only
    numbers = np.unique(patients, return_inverse=True)[1]
    times = bootstrap.draw_figures(patients, lambda rows: np.bincount(rows, minlength=23))
    assert times.shape == (1 + bootstrap.N_DRAWS, 23) and (times[0] == 1).all()
    of_patient = np.stack([times[:, numbers == number].max(axis=1) for number in range(12)], axis=1)
    assert (times == of_patient[:, numbers]).all() and (of_patient.sum(axis=1) == 12).all()
    levels, first, second = rng.integers(0, 5, (3, len(patients)))
    worth = bootstrap.measure_step_gains(patients, levels, {"first": first, "second": second})
    taken = [np.repeat(np.arange(23), of.astype(int)) for of in times]
    of_first, of_second = (
        np.array([quadratic_weighted_kappa(levels[rows], which[rows]) for rows in taken])
        for which in (first, second)
    )
    assert worth["first"].figure[:3] == pytest.approx(
        (of_first[0], *np.percentile(of_first[1:], [2.5, 97.5]))
    )
    gains = of_second - of_first
    assert worth["second"].gain[:3] == pytest.approx(
        (gains[0], *np.percentile(gains[1:], [2.5, 97.5]))
    )
    assert worth["first"].gain is None
    assert bootstrap.measure_step_gains(patients, levels, {"only": levels})["only"].figure[:3] == (
        1.0,
        1.0,
        1.0,
    )


def test_agreement_counts_patients_with_both_eyes_once():
    images = ["1_left", "1_right", "1_right_b", "2_left", "3_left", "3_right", "4_left", "4_right"]
    owners = [find_subject(image) for image in images]
    counts = agreement.count_agreement(owners, np.array([0, 0, 4, 3, 1, 2, 0, 3]), 5)
    assert [agreement.share_near(counts, most) for most in range(3)] == pytest.approx(
        (1 / 3, 2 / 3, 2 / 3)
    )
    assert counts[[0, 1, 0], [0, 2, 3]].tolist() == [1, 1, 1] and counts.sum() == 3
    assert not agreement.count_agreement([owners[0], owners[3]], np.array([0, 1]), 5).any()


def test_reliability_is_the_share_that_came_true():
    scores = np.tile([0.75, 0.25, 0, 0, 0], (40, 1))
    levels = np.repeat([0, 0, 1, 1], 10)  # a half where three quarters were promised
    bins = calibration.measure_reliability(list(map(str, range(40))), scores, levels)
    assert bins.predicted == pytest.approx([0, 0.25, 0.75])
    assert bins.observed == pytest.approx([0, 0.5, 0.5])
    assert bins.counts.tolist() == [120, 40, 40]
    assert bins.error == pytest.approx((40 * 0.25 + 40 * 0.25) / 200)
    assert (bins.low <= bins.observed).all() and (bins.observed <= bins.high).all()
    assert bins.low[1] < 0.45 and bins.high[1] > 0.55
    few = calibration.measure_reliability(
        ["1", "2"], scores[:2], levels[:2]
    )  # no bin has enough to be shown
    assert (len(few.low), len(few.high), len(few.counts)) == (0, 0, 0)


def test_the_hardest_patient_has_the_largest_squared_error():
    levels, predicted = np.array([0, 0, 4, 0, 1, 1]), np.array([1, 1, 1, 0, 1, 1])
    scores = np.full((6, 5), 0.2)
    scores[4] = [0.1, 0.05, 0.05, 0.4, 0.4]  # right, but not sure at all
    assert examples.rank_patients([*"112234"], levels, predicted, scores) == ["2", "1", "3", "4"]


CLASSES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(CLASSES)
def test_rates_of_classes_agree_with_scikit_learn_and_are_not_measurable_of_nobody(pairs):
    true, given_ = np.array(pairs).T
    counts = agreement.count_pairs(true, given_, 4)
    *reference, _ = precision_recall_fscore_support(
        true, given_, labels=range(4), zero_division=np.nan
    )
    both = ~np.isin(range(4), given_) & np.isin(
        range(4), true
    )  # there scikit-learn has no F1, we have 0
    rates = agreement.rates_of_counts(counts)
    np.testing.assert_allclose(rates[:2], reference[:2])
    np.testing.assert_allclose(rates[2], np.where(both, 0, reference[2]))
    assert agreement.macro_f1_of_counts(np.stack([counts, 3 * counts])) == pytest.approx(
        [f1_score(true, given_, average="macro", zero_division=0)] * 2
    )
    assert agreement.accuracy_of_counts(counts) == pytest.approx((true == given_).mean())


RANKED = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


@given(RANKED)
def test_auc_agrees_with_scikit_learn_with_ties_and_needs_both(rows):
    scores, is_true = np.array(rows).T
    is_true = is_true.astype(bool)
    own = ranking.measure_auc(scores / 5, is_true)
    if len(set(is_true)) == 2:
        assert own == pytest.approx(roc_auc_score(is_true, scores))
        false, true = ranking.trace_roc(scores, is_true)
        assert np.trapezoid(true, false) == pytest.approx(own) and (false[0], true[0]) == (0, 0)
    else:
        assert np.isnan(own)


def test_classes_are_measured_by_groups_and_what_is_absent_is_not():
    rng = np.random.default_rng(0)
    targets, groups = rng.integers(0, 3, 200), [str(group) for group in rng.integers(0, 30, 200)]
    scores = rng.dirichlet(np.ones(4), 200) + np.eye(4)[targets] / 3 * [1, 1, 1, 0]
    overall, each = Classes(tuple("ABCD")).measure_all(
        groups, scores / scores.sum(axis=1, keepdims=True), targets
    )
    assert [n_images for n_images, *_ in each] == [*np.bincount(targets), 0]
    _, _, recall, _, auc = each[3]
    assert np.isnan(recall[:3]).all() and np.isnan(auc[:3]).all()
    for of in (*overall, *each[0][1:]):
        assert of.low < of.value < of.high


@given(RANKED)
def test_average_precision_agrees_with_scikit_learn_and_a_threshold_has_the_best_f1(rows):
    scores, is_true = np.array(rows).T
    is_true = is_true.astype(bool)
    own = ranking.measure_average_precision(scores / 5, is_true)
    assert (
        own == pytest.approx(average_precision_score(is_true, scores))
        if is_true.any()
        else np.isnan(own)
    )
    threshold = ranking.choose_threshold(scores / 5, is_true)
    believed = (
        scores / 5 >= np.append(scores / 5, threshold)[:, None]
    )  # from each score on, and at last from that one
    f1 = 2 * (believed & is_true).sum(axis=1) / np.maximum(believed.sum(axis=1) + is_true.sum(), 1)
    assert f1[-1] == pytest.approx(f1.max()) if is_true.any() else np.isnan(threshold)


def test_findings_are_measured_where_known_and_what_is_not_measurable_is_in_no_mean():
    rng = np.random.default_rng(0)
    groups = [str(group) for group in rng.integers(0, 30, 200)]
    targets = (rng.random((200, 3)) < [0.5, 0.2, 0]).astype(float)
    targets[rng.random((200, 3)) < 0.1] = np.nan
    scores = np.clip(rng.random((200, 3)) + 0.3 * np.nan_to_num(targets), 0, 1)
    overall, each = Findings(tuple("ABC")).measure_all(groups, scores, targets)
    known = [~np.isnan(targets[:, k]) for k in range(2)]
    aucs = [roc_auc_score(targets[known[k], k], scores[known[k], k]) for k in range(2)]
    assert [auc.value for _, _, auc, *_ in each[:2]] == pytest.approx(aucs, abs=1e-12)
    assert overall[0].value == pytest.approx(np.mean(aucs)) and np.isnan(each[2][2][:3]).all()
    assert [n_known for _, n_known, *_ in each] == (~np.isnan(targets)).sum(axis=0).tolist()
    p = np.where(targets == 1, scores, 1 - scores)[~np.isnan(targets)]
    assert overall[2].value == pytest.approx(-np.log(np.maximum(p, 1e-6)).mean())
    for of in (*overall, *each[0][2:4]):
        assert of.low < of.value < of.high
    assert 0 < each[2][-1] < 1  # all said of what nobody has


def test_an_interval_says_how_many_draws_it_leaves_out():
    lost = np.full(bootstrap.N_DRAWS, np.nan)
    lost[:900] = 0.5
    told = bootstrap.estimate_drawn(np.array([0.4, *lost]))
    assert (told.draws, told.describe_interval()) == (900, "no draw differed, 900 of 1,000 draws")
    whole = bootstrap.estimate_drawn(np.linspace(0.5, 1.5, 1 + bootstrap.N_DRAWS))
    assert whole.describe_interval("+.1f") == "+0.5 to +1.5"


def test_a_draw_of_one_level_has_no_kappa_and_a_single_patient_no_draw():
    levels = np.array([0, 1, 1])
    worth = bootstrap.measure_step_gains(
        ["1", "2", "3"], levels, {"own": levels}, agreement.kappa_of_draws
    )
    assert worth["own"].figure[:3] == (1.0, 1.0, 1.0)
    assert worth["own"].figure.draws == pytest.approx(1000 * (1 - 1 / 27 - 8 / 27), abs=50)
    alone = bootstrap.draw_figures(["1", "1"], lambda rows: np.array(float(len(rows))))
    assert alone[0] == 2 and np.isnan(alone[1:]).all() and len(alone) == 1 + bootstrap.N_DRAWS
    estimate = bootstrap.estimate_drawn(alone)
    assert (estimate.value, estimate.draws, estimate.describe_interval()) == (2, 0, "no interval")
