"""Annealing: exact energy changes, the brute-force optimum, the same labels for the same generator."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.scores import read_scores
from kappa.anneal import anneal_levels, draw_blocks, propose_moves
from kappa.exact import optimal_levels
from kappa.proxy import expected_errors, expected_kappa, proxy_of, sum_errors
from tests.tasks import TASK

SEEDS = st.integers(0, 2**32 - 1)


def anneal(scores, seed=0):
    """Return levels and the share of moves accepted."""
    return anneal_levels(scores, np.random.default_rng(seed))


@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_each_energy_change_is_that_of_the_move_alone_and_a_sweep_meets_each_image_once(
    seed, n_images, size
):
    rng = np.random.default_rng(seed)
    errors, levels = (
        expected_errors(rng.dirichlet(np.full(5, 0.4), n_images)),
        rng.integers(0, 5, n_images),
    )
    own, chance = sum_errors(errors, levels)
    met = []
    for rows in itertools.islice(draw_blocks(n_images, size, rng), -(-n_images // size)):
        met += rows.tolist()
        for row, level, *more, change in zip(
            rows, *propose_moves(errors, levels, (own, chance), rows, rng), strict=True
        ):
            moved = levels.copy()
            moved[row] = level
            assert change == pytest.approx(
                proxy_of(errors, levels) - proxy_of(errors, moved), abs=1e-12
            )
            assert sum_errors(errors, moved) == pytest.approx(
                (own + more[0], chance + more[1]), abs=1e-12
            )
    assert sorted(met) == list(range(n_images))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 5), st.sampled_from([0.1, 0.5, 2]))
def test_reaches_the_best_of_all_labelings(seed, n_images, concentration):
    scores = np.random.default_rng(seed).dirichlet(np.full(5, concentration), n_images)
    best = max(
        expected_kappa(scores, np.array(one))
        for one in itertools.product(range(5), repeat=n_images)
    )
    assert expected_kappa(scores, anneal(scores, seed)[0]) == pytest.approx(best, abs=1e-9)


def find_gap(scores):
    """Return how far annealing ends from the optimum."""
    return expected_kappa(scores, optimal_levels(scores)) - expected_kappa(
        scores, anneal(scores)[0]
    )


def test_degenerate_scores_are_annealed_too_and_images_all_alike_get_the_optimum():
    for scores in (np.full((6, 5), 0.2), np.eye(5)[[0, 4, 2]]):
        assert find_gap(scores) == pytest.approx(0, abs=1e-12)
    for level in (0, 3):  # every labelling but one has the same proxy: no path leads to it
        assert anneal(np.eye(5)[[level] * 50])[0].tolist() == [level] * 50


def test_it_ends_at_the_optimum_and_hangs_on_the_generator_alone():
    scores = np.random.default_rng(5).dirichlet(np.full(5, 0.3), 2000)
    assert find_gap(scores) == pytest.approx(0, abs=1e-6)
    (levels, acceptance), (again, as_often), (_, other) = (
        anneal(scores, seed) for seed in (0, 0, 7)
    )
    assert 0.05 < acceptance < 0.5 and (levels == again).all() and as_often == acceptance != other


def test_real_scores_end_at_the_optimum(real_data):
    scores = read_scores(real_data / "eyepacs-test-scores" / "scores.csv.gz", TASK).to_numpy()
    assert scores.shape == (53_576, 5)
    assert find_gap(scores) <= 1e-6
