"""The quadratic weighted kappa against hand-computed values and scikit-learn; its proxy against sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from kappa.qwk import expected_kappa, quadratic_weighted_kappa
from preprocess.stage import InputError

LEVELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def test_hand_computed():
    # observed 0 + 1 + 4 + 4 = 9; chance: Σ (a − b)² over all 16 pairs, / 4 = (4·14 + 4·5 − 2·6·3) / 4 = 10
    assert quadratic_weighted_kappa([0, 1, 2, 3], [0, 2, 0, 1]) == pytest.approx(1 - 9 / 10)


def test_hand_computed_two_levels():
    # (0,0) (0,0) (0,1) (1,1): observed 1; chance: (3·2 + 1·2) / 4 = 2
    assert quadratic_weighted_kappa([0, 0, 0, 1], [0, 0, 1, 1], n_levels=2) == pytest.approx(0.5)


def test_opposite_levels_are_minus_one():
    assert quadratic_weighted_kappa([0, 4], [4, 0]) == pytest.approx(-1)


@given(LEVELS)
def test_agrees_with_scikit_learn(pairs):
    levels, predicted = np.array(pairs).T
    if len(set(levels) | set(predicted)) > 1:
        reference = cohen_kappa_score(levels, predicted, labels=range(5), weights="quadratic")
        assert quadratic_weighted_kappa(levels, predicted) == pytest.approx(reference, abs=1e-12)


@given(LEVELS)
def test_exchanging_the_two_changes_nothing(pairs):
    levels, predicted = np.array(pairs).T
    assert quadratic_weighted_kappa(levels, predicted) == pytest.approx(quadratic_weighted_kappa(predicted, levels))


@pytest.mark.parametrize("level", range(5))
def test_the_same_is_one_even_if_constant(level):
    assert quadratic_weighted_kappa([level] * 3, [level] * 3) == 1


@pytest.mark.parametrize("levels", [[0, 0, 0], [0, 2, 4]])
def test_constant_and_not_the_same_is_zero(levels):
    assert quadratic_weighted_kappa(levels, [1, 1, 1]) == pytest.approx(0)
    assert quadratic_weighted_kappa([1, 1, 1], levels) == pytest.approx(0)


@pytest.mark.parametrize(
    ("levels", "predicted"),
    [([], []), ([0, 1], [0]), ([0, 5], [0, 1]), ([0, -1], [0, 1]), ([0.5], [0]), ([[0]], [[0]])],
)
def test_what_are_no_levels_is_refused(levels, predicted):
    with pytest.raises(InputError):
        quadratic_weighted_kappa(levels, predicted)


def test_the_proxy_of_certain_scores_is_the_kappa():
    rng = np.random.default_rng(1)
    levels, predicted = rng.integers(0, 5, (2, 200))
    assert expected_kappa(np.eye(5)[levels], predicted) == pytest.approx(quadratic_weighted_kappa(levels, predicted))


def test_the_proxy_is_the_mean_kappa_of_drawn_levels():
    rng = np.random.default_rng(2)
    scores = rng.dirichlet(np.full(5, 0.4), 3000)
    predicted = scores.argmax(axis=1)
    drawn = (rng.random((300, 3000, 1)) > scores.cumsum(axis=1)[:, :4]).sum(axis=2)
    kappas = [quadratic_weighted_kappa(levels, predicted) for levels in drawn]
    assert expected_kappa(scores, predicted) == pytest.approx(np.mean(kappas), abs=4 * np.std(kappas) / 300**0.5 + 5e-4)


def test_the_proxy_of_the_same_scores_everywhere_is_zero():
    assert expected_kappa(np.full((4, 5), 0.2), np.array([0, 1, 2, 3])) == pytest.approx(0)


def test_the_proxy_of_certain_images_of_one_level_is_one():
    assert expected_kappa(np.eye(5)[[3, 3]], np.array([3, 3])) == 1


@pytest.mark.parametrize("scores", [np.full((2, 5), np.nan), np.full((2, 5), 0.3), np.empty((0, 5)), np.full(5, 0.2)])
def test_scores_that_are_no_distributions_are_refused(scores):
    with pytest.raises(InputError):
        expected_kappa(scores, np.zeros(len(scores), int))


def test_levels_of_another_length_are_refused():
    with pytest.raises(InputError):
        expected_kappa(np.full((3, 5), 0.2), np.array([0, 1]))


def test_real_labels_agree_with_scikit_learn(real_data):
    import pandas as pd

    table = pd.read_csv(real_data / "eyepacs-test-scores" / "scores.csv.gz").dropna()
    scores, levels = table[["p0", "p1", "p2", "p3", "p4"]].to_numpy(), table["level"].to_numpy()
    rounded = np.round(scores @ np.arange(5)).astype(int)
    reference = cohen_kappa_score(levels, rounded, weights="quadratic")
    assert quadratic_weighted_kappa(levels, rounded) == pytest.approx(reference, abs=1e-12)
