"""Every figure against hand-computed values, slow versions and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from dr import measures
from dr.measures import quadratic_weighted_kappa
from preprocess.cache.errors import InputError
from preprocess.samples.retina import find_owner


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
    counts = measures.count_pairs(levels, predicted, 5)
    assert measures.kappa_of_counts(np.stack([counts, 2 * counts])) == pytest.approx([kappa] * 2)
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
    assert measures.measure_log_loss(scores, np.array([1, 0])) == pytest.approx(1.5 * np.log(2))
    assert measures.measure_log_loss(scores, np.array([2, 2])) == pytest.approx(-np.log(1e-6))
    assert measures.measure_log_loss(np.full((3, 5), 0.2), np.array([0, 2, 4])) == pytest.approx(np.log(5))


def test_levels_halfway_between_two_are_rounded_up():
    scores = np.array([[0.5, 0.5, 0, 0, 0], [0.75, 0.25, 0, 0, 0], [0, 0, 0.25, 0, 0.75]])
    assert measures.expect_levels(scores).tolist() == [0.5, 0.25, 3.5]
    assert measures.round_levels(scores).tolist() == [1, 0, 4]
    assert measures.round_levels(scores[2]) == 4


def test_the_bootstrap_takes_whole_patients_as_a_slow_one_does():
    rng = np.random.default_rng(0)
    patients = [str(patient) for patient in range(12) for _ in "lr"][:-1]  # one has one eye only
    levels, first, second = rng.integers(0, 5, (3, len(patients)))
    fast = measures.measure_worth(patients, levels, {"first": first, "second": second})
    rows_of = [np.flatnonzero(measures.number_groups(patients) == number) for number in range(12)]
    drawn = []
    for draw in measures.draw_groups(12):
        rows = np.concatenate([np.repeat(rows_of[number], draw[number]) for number in range(12)])
        drawn.append([quadratic_weighted_kappa(levels[rows], which[rows]) for which in (first, second)])
    of_first, of_second = np.array(drawn).T
    value = quadratic_weighted_kappa(levels, first)
    assert fast["first"].figure == pytest.approx((value, *np.percentile(of_first, [2.5, 97.5])))
    assert fast["second"].gain[1:] == pytest.approx(tuple(np.percentile(of_second - of_first, [2.5, 97.5])))
    assert fast["first"].gain is None
    assert measures.measure_worth(patients, levels, {"only": levels})["only"].figure == (1.0, 1.0, 1.0)


def test_agreement_counts_patients_with_both_eyes_once():
    images = ["1_left", "1_right", "1_right_b", "2_left", "3_left", "3_right", "4_left", "4_right"]
    owners = [find_owner(image) for image in images]
    agreement = measures.measure_agreement(owners, np.array([0, 0, 4, 3, 1, 2, 0, 3]), 5)
    assert agreement.shares == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert agreement.counts[[0, 1, 0], [0, 2, 3]].tolist() == [1, 1, 1] and agreement.counts.sum() == 3
    assert measures.measure_agreement([owners[0], owners[3]], np.array([0, 1]), 5) is None


def test_reliability_is_the_share_that_came_true():
    scores = np.tile([0.75, 0.25, 0, 0, 0], (40, 1))
    levels = np.repeat([0, 0, 1, 1], 10)  # a half where three quarters were promised
    bins = measures.measure_reliability(list(map(str, range(40))), scores, levels)
    assert bins.predicted == pytest.approx([0, 0.25, 0.75])
    assert bins.observed == pytest.approx([0, 0.5, 0.5])
    assert bins.counts.tolist() == [120, 40, 40]
    assert bins.error == pytest.approx((40 * 0.25 + 40 * 0.25) / 200)
    assert (bins.low <= bins.observed).all() and (bins.observed <= bins.high).all()
    assert bins.low[1] < 0.45 and bins.high[1] > 0.55
    few = measures.measure_reliability(["1", "2"], scores[:2], levels[:2])  # no bin has enough to be shown
    assert (len(few.low), len(few.high), len(few.counts)) == (0, 0, 0)


def test_the_hardest_patient_has_the_largest_squared_error():
    levels, predicted = np.array([0, 0, 4, 0, 1, 1]), np.array([1, 1, 1, 0, 1, 1])
    scores = np.full((6, 5), 0.2)
    scores[4] = [0.1, 0.05, 0.05, 0.4, 0.4]  # right, but not sure at all
    assert measures.rank_groups([*"112234"], levels, predicted, scores) == ["2", "1", "3", "4"]
