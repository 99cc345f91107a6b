"""Annealing: exact energy changes, the brute-force optimum, the same labels for the same generator."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.scores import read_scores
from kappa.anneal import Ratio, anneal, anneal_levels
from kappa.exact import optimal_levels
from kappa.proxy import expected_errors, expected_kappa, proxy_of, sum_errors
from preprocess.samples.retina import TASK

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_each_energy_change_is_that_of_the_move_alone_and_after_many_the_sums_are_right(seed, n_images, block):
    rng = np.random.default_rng(seed)
    errors = expected_errors(rng.dirichlet(np.full(5, 0.4), n_images))
    problem = Ratio(errors, rng.integers(0, 5, n_images), block)
    for _ in range(20):
        moves, changes = problem.propose(rng)
        for row, level, change in zip(*moves[:2], changes, strict=True):
            moved = problem.levels.copy()
            moved[row] = level
            assert change == pytest.approx(proxy_of(errors, problem.levels) - proxy_of(errors, moved), abs=1e-12)
        problem.take(moves, rng.random(len(changes)) < 0.5)
    assert (problem.own, problem.chance) == pytest.approx(sum_errors(errors, problem.levels), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 5), st.sampled_from([0.1, 0.5, 2]))
def test_reaches_the_best_of_all_labelings(seed, n_images, concentration):
    scores = np.random.default_rng(seed).dirichlet(np.full(5, concentration), n_images)
    best = max(expected_kappa(scores, np.array(one)) for one in itertools.product(range(5), repeat=n_images))
    assert anneal_levels(scores, rng=np.random.default_rng(seed)).proxy == pytest.approx(best, abs=1e-9)


def test_degenerate_scores_are_annealed_too_and_images_all_alike_get_the_optimum():
    for scores in (np.full((6, 5), 0.2), np.eye(5)[[0, 4, 2]]):
        assert anneal_levels(scores).gap == pytest.approx(0, abs=1e-12)
    for level in (0, 3):  # every labelling but one has the same proxy: no path leads to it
        annealed = anneal_levels(np.eye(5)[[level] * 50])
        assert annealed.levels.tolist() == [level] * 50 and annealed[1:4] == (1, 1, 0)


def test_the_result_tells_what_it_is_worth_and_hangs_on_the_generator_alone():
    scores = np.random.default_rng(5).dirichlet(np.full(5, 0.3), 2000)
    annealed = anneal_levels(scores)
    assert annealed.proxy == expected_kappa(scores, annealed.levels)
    assert annealed.optimum == pytest.approx(expected_kappa(scores, optimal_levels(scores)), abs=1e-12)
    assert annealed.gap == annealed.optimum - annealed.proxy == pytest.approx(0, abs=1e-6)
    assert 0.05 < annealed.acceptance < 0.5
    again, seven, seven_again = (anneal_levels(scores, rng=np.random.default_rng(seed)) for seed in (0, 7, 7))
    for one, other in ((annealed, again), (seven, seven_again)):
        assert (one.levels == other.levels).all() and one[1:] == other[1:]


def test_moves_are_accepted_as_often_as_metropolis_says():
    slope = SimpleNamespace(propose=lambda rng: (None, np.full(1000, 2.0)), take=lambda moves, accepted: None)
    assert anneal(slope, [1.0] * 200, np.random.default_rng(0)) == pytest.approx(np.exp(-2), abs=0.003)


def test_real_scores_end_at_the_optimum(real_data):
    scores = read_scores(real_data / "eyepacs-test-scores" / "scores.csv.gz", TASK).to_numpy()
    assert scores.shape == (53_576, 5)
    assert anneal_levels(scores).gap <= 1e-6
