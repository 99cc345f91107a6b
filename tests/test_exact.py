"""The proxy against sampling and the kappa; Dinkelbach's labels against all k^n labelings."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.metrics.agreement import quadratic_weighted_kappa
from dr.scores import read_scores
from kappa.exact import optimal_levels
from kappa.proxy import expected_errors, expected_kappa, proxy_of
from preprocess.disk.errors import InputError
from tests.tasks import TASK

SEEDS = st.integers(0, 2**32 - 1)
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


def check(scores):
    errors, labelings = (
        expected_errors(scores),
        itertools.product(range(scores.shape[1]), repeat=len(scores)),
    )
    best = max(proxy_of(errors, np.array(levels)) for levels in labelings)
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("scores", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversarial_scores_reach_the_best_of_all_labelings(scores):
    check(scores)


@settings(max_examples=40, deadline=None)
@given(
    SEEDS,
    st.sampled_from([(1, 5), (2, 5), (3, 5), (4, 5), (5, 5), (7, 3)]),
    st.sampled_from([0.05, 0.3, 1, 5]),
)
def test_random_and_coarse_scores_reach_the_best_of_all_labelings(seed, shape, concentration):
    rng, (n_images, n_levels) = np.random.default_rng(seed), shape
    check(rng.dirichlet(np.full(n_levels, concentration), n_images))
    check(rng.multinomial(2, np.full(n_levels, 1 / n_levels), n_images) / 2)  # many ties


def test_rounding_would_not_do():
    scores = np.random.default_rng(0).dirichlet(np.full(5, 1.0), 1000)
    rounded = np.round(scores @ np.arange(5)).astype(int)
    assert expected_kappa(scores, optimal_levels(scores)) > expected_kappa(scores, rounded) + 0.05


def check_by_bisection(scores):
    """Find the highest proxy in another way: halve the interval of ratios that some labels may fall below."""
    errors = expected_errors(scores)
    low, high = 0.0, 1.0
    for _ in range(50):
        ratio = (low + high) / 2
        below = (errors.own - ratio * errors.chance).min(axis=1).sum() < 0
        low, high = (low, ratio) if below else (ratio, high)
    assert expected_kappa(scores, optimal_levels(scores)) == pytest.approx(1 - high, abs=1e-9)


def test_many_random_scores_agree_with_bisection():
    check_by_bisection(np.random.default_rng(3).dirichlet([1, 0.3, 0.3, 0.1, 0.1], 20_000))


def test_real_scores_agree_with_bisection(real_data):
    check_by_bisection(
        read_scores(real_data / "eyepacs-test-scores" / "scores.csv.gz", TASK).to_numpy()
    )


def test_the_proxy_of_certain_scores_is_the_kappa_and_of_the_same_everywhere_zero():
    levels, predicted = np.random.default_rng(1).integers(0, 5, (2, 200))
    assert expected_kappa(np.eye(5)[levels], predicted) == pytest.approx(
        quadratic_weighted_kappa(levels, predicted)
    )
    assert expected_kappa(np.eye(5)[[3, 3]], np.array([3, 3])) == 1
    assert expected_kappa(np.full((4, 5), 0.2), np.array([0, 1, 2, 3])) == pytest.approx(0)


def test_the_proxy_is_the_mean_kappa_of_drawn_levels():
    rng = np.random.default_rng(2)
    scores = rng.dirichlet(np.full(5, 0.4), 3000)
    predicted = scores.argmax(axis=1)
    drawn = (rng.random((300, 3000, 1)) > scores.cumsum(axis=1)[:, :4]).sum(axis=2)
    kappas = [quadratic_weighted_kappa(levels, predicted) for levels in drawn]
    assert expected_kappa(scores, predicted) == pytest.approx(
        np.mean(kappas), abs=4 * np.std(kappas) / 300**0.5 + 5e-4
    )


@pytest.mark.parametrize(
    ("shape", "score", "n_levels"),
    [((2, 5), np.nan, 2), ((2, 5), 0.3, 2), ((0, 5), 0.2, 0), (5, 0.2, 5), ((3, 5), 0.2, 2)],
)
def test_scores_that_are_no_distributions_and_levels_of_another_length_are_refused(
    shape, score, n_levels
):
    with pytest.raises(InputError):
        expected_kappa(np.full(shape, score), np.zeros(n_levels, int))
