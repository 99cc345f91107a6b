"""Dinkelbach's labels against all k^n labelings."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa.exact import find_minima, optimal_levels
from kappa.qwk import expected_errors, expected_kappa, proxy_of

EYE = np.eye(5)
UNIFORM = np.full(5, 0.2)
ADVERSARIAL = {
    "one image": EYE[[2]] * 0.6 + 0.08,
    "all the same": np.tile([0.1, 0.2, 0.4, 0.2, 0.1], (5, 1)),
    "all uniform": np.tile(UNIFORM, (4, 1)),
    "all certain of one level": EYE[[3, 3, 3]],
    "certain of different levels": EYE[[0, 4, 2, 2]],
    "one certain, others uniform": np.vstack([EYE[4], UNIFORM, UNIFORM]),
    "ties between two levels": (EYE[[0, 1, 2, 3]] + EYE[[1, 2, 3, 4]]) / 2,
    "extremes only": np.array([[0.5, 0, 0, 0, 0.5], [0.9, 0, 0, 0, 0.1], [0.1, 0, 0, 0, 0.9]]),
    "empty levels": np.array([[0.7, 0.3, 0, 0, 0], [0.2, 0.8, 0, 0, 0], [0.5, 0.5, 0, 0, 0]]),
    "nearly certain": EYE[[0, 0, 0, 1]] * (1 - 1e-9) + 2e-10,
}


def search(scores):
    """Return the highest proxy of all labelings."""
    errors = expected_errors(scores)
    return max(
        proxy_of(errors, np.array(levels)) for levels in itertools.product(range(scores.shape[1]), repeat=len(scores))
    )


@pytest.mark.parametrize("scores", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversarial_scores_reach_the_best_of_all_labelings(scores):
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(search(scores), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([0.05, 0.3, 1, 5]))
def test_random_scores_reach_the_best_of_all_labelings(seed, n_images, concentration):
    scores = np.random.default_rng(seed).dirichlet(np.full(5, concentration), n_images)
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(search(scores), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_coarse_scores_with_many_ties_reach_the_best_of_all_labelings(seed):
    scores = np.random.default_rng(seed).multinomial(2, UNIFORM, 5) / 2
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(search(scores), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_three_levels_and_more_images_reach_the_best_of_all_labelings(seed):
    scores = np.random.default_rng(seed).dirichlet(np.full(3, 0.5), 7)
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(search(scores), abs=1e-12)


def test_rounding_would_not_do():
    scores = np.random.default_rng(0).dirichlet(np.full(5, 1.0), 1000)
    rounded = np.round(scores @ np.arange(5)).astype(int)
    assert expected_kappa(scores, optimal_levels(scores)) > expected_kappa(scores, rounded) + 0.05


def test_minima_are_the_first_of_equals():
    costs = np.array([[1.0, 3, 2], [1, 2, 2], [2, 2, 0]])
    assert find_minima(costs).tolist() == costs.argmin(axis=0).tolist() == [0, 1, 2]


def bisect(scores):
    """Return the highest proxy in another way: halve the interval of ratios that some labels may fall below."""
    errors = expected_errors(scores)
    low, high = 0.0, 1.0
    for _ in range(50):
        ratio = (low + high) / 2
        below = (errors.own - ratio * errors.chance).min(axis=1).sum() < 0
        low, high = (low, ratio) if below else (ratio, high)
    return 1 - high


def test_many_random_scores_agree_with_bisection():
    scores = np.random.default_rng(3).dirichlet([1, 0.3, 0.3, 0.1, 0.1], 20_000)
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(bisect(scores), abs=1e-9)


def test_real_scores_agree_with_bisection(real_data):
    import pandas as pd

    table = pd.read_csv(real_data / "eyepacs-test-scores" / "scores.csv.gz")
    scores = table[["p0", "p1", "p2", "p3", "p4"]].to_numpy()
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(bisect(scores), abs=1e-9)
