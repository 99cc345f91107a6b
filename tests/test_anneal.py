"""Annealing: exact energy changes, the brute-force optimum, the same labels for the same generator."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa.anneal import Ratio, anneal, anneal_levels, geometric_schedule
from kappa.exact import optimal_levels
from kappa.qwk import expected_errors, expected_kappa, proxy_of

SEEDS = st.integers(0, 2**32 - 1)


def make_problem(seed, n_images, block):
    rng = np.random.default_rng(seed)
    errors = expected_errors(rng.dirichlet(np.full(5, 0.4), n_images))
    return Ratio(errors, rng.integers(0, 5, n_images), block), rng


def recompute(problem, levels):
    return 1 - proxy_of(problem.errors, levels)


@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_each_energy_change_is_that_of_the_move_alone(seed, n_images, block):
    problem, rng = make_problem(seed, n_images, block)
    moves = problem.propose(rng)
    for row, level, change in zip(*moves, problem.measure(moves), strict=True):
        moved = problem.levels.copy()
        moved[row] = level
        assert change == pytest.approx(recompute(problem, moved) - problem.energy, abs=1e-12)


@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_the_energy_after_many_moves_is_the_recomputed_one(seed, n_images, block):
    problem, rng = make_problem(seed, n_images, block)
    for _ in range(20):
        moves = problem.propose(rng)
        problem.take(moves, rng.random(len(moves[0])) < 0.5)
    assert problem.energy == pytest.approx(recompute(problem, problem.levels), abs=1e-12)


def test_a_block_never_proposes_the_present_level_nor_an_image_twice():
    problem, rng = make_problem(0, 40, 16)
    for _ in range(10):
        rows, levels = problem.propose(rng)
        assert len(set(rows)) == len(rows)
        assert (levels != problem.levels[rows]).all() and np.isin(levels, range(5)).all()


def test_a_sweep_proposes_every_image_once():
    problem, rng = make_problem(0, 40, 16)
    rows = np.concatenate([problem.propose(rng)[0] for _ in range(3)])
    assert sorted(rows) == list(range(40))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 5), st.sampled_from([0.1, 0.5, 2]))
def test_reaches_the_best_of_all_labelings(seed, n_images, concentration):
    scores = np.random.default_rng(seed).dirichlet(np.full(5, concentration), n_images)
    best = max(expected_kappa(scores, np.array(one)) for one in itertools.product(range(5), repeat=n_images))
    assert anneal_levels(scores, rng=np.random.default_rng(seed)).proxy == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    "scores", [np.eye(5)[[3, 3, 3]], np.full((6, 5), 0.2), np.eye(5)[[0, 4, 2]]], ids=["certain", "uniform", "one-hot"]
)
def test_degenerate_scores_are_annealed_too(scores):
    annealed = anneal_levels(scores, rng=np.random.default_rng(0))
    assert annealed.gap == pytest.approx(0, abs=1e-12)


def test_the_result_tells_what_it_is_worth():
    scores = np.random.default_rng(5).dirichlet(np.full(5, 0.3), 2000)
    annealed = anneal_levels(scores, rng=np.random.default_rng(0))
    assert annealed.proxy == expected_kappa(scores, annealed.levels)
    assert annealed.optimum == pytest.approx(expected_kappa(scores, optimal_levels(scores)), abs=1e-12)
    assert annealed.gap == annealed.optimum - annealed.proxy
    assert annealed.gap == pytest.approx(0, abs=1e-6)
    assert 0.05 < annealed.acceptance < 0.5


def test_the_same_generator_gives_the_same_labels():
    scores = np.random.default_rng(5).dirichlet(np.full(5, 0.3), 300)
    first, again = (anneal_levels(scores, rng=np.random.default_rng(7)) for _ in range(2))
    assert (first.levels == again.levels).all() and first[1:] == again[1:]


def test_without_a_generator_it_is_the_one_of_seed_0():
    scores = np.random.default_rng(5).dirichlet(np.full(5, 0.3), 100)
    assert anneal_levels(scores)[1:] == anneal_levels(scores, rng=np.random.default_rng(0))[1:]


class Walk:
    """A particle among 200 places with many local minima, one step at a time: nothing of images."""

    def __init__(self):
        self.place = 0

    def height(self, place):
        return 0.2 * abs(place - 137) + 0.5 * (place % 3 != 2)

    @property
    def energy(self):
        return self.height(self.place)

    def propose(self, rng):
        return np.array([self.place + rng.choice([-1, 1])]) % 200

    def measure(self, moves):
        return np.array([self.height(place) - self.energy for place in moves])

    def take(self, moves, accepted):
        for place in moves[accepted]:
            self.place = int(place)


def test_anything_with_an_energy_and_moves_is_annealed_out_of_local_minima():
    walk = Walk()
    anneal(walk, geometric_schedule(10, 0.05, 20_000), np.random.default_rng(0))
    assert walk.place == 137


def test_without_heat_it_stays_in_the_first_local_minimum():
    walk = Walk()
    anneal(walk, geometric_schedule(1e-9, 1e-9, 5000), np.random.default_rng(0))
    assert walk.place == 2


def test_moves_are_accepted_as_often_as_metropolis_says():
    class Slope:
        energy = 0.0

        def propose(self, rng):
            return np.full(1000, 2.0)

        def measure(self, moves):
            return moves

        def take(self, moves, accepted):
            pass

    share = anneal(Slope(), [1.0] * 200, np.random.default_rng(0))
    assert share == pytest.approx(np.exp(-2), abs=0.003)


def test_the_schedule_falls_by_the_same_fraction():
    schedule = geometric_schedule(8, 1, 4)
    assert schedule == pytest.approx([8, 4, 2, 1])


def test_real_scores_end_at_the_optimum(real_data):
    import pandas as pd

    table = pd.read_csv(real_data / "eyepacs-test-scores" / "scores.csv.gz")
    annealed = anneal_levels(table[["p0", "p1", "p2", "p3", "p4"]].to_numpy(), rng=np.random.default_rng(0))
    assert len(annealed.levels) == 53_576
    assert annealed.gap <= 1e-6


def test_images_all_alike_get_the_optimum():
    """Where every labelling but one has the same proxy, no path leads to it."""
    annealed = anneal_levels(np.tile([1.0, 0, 0, 0, 0], (50, 1)), rng=np.random.default_rng(0))
    assert annealed.levels.tolist() == [0] * 50
    assert (annealed.proxy, annealed.optimum, annealed.gap) == (1, 1, 0)
