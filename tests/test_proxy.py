"""The proxy against sampling, and against the kappa where scores are certain."""

import numpy as np
import pytest

from dr.measures import quadratic_weighted_kappa
from kappa.proxy import expected_kappa
from preprocess.cache.errors import InputError


def test_the_proxy_of_certain_scores_is_the_kappa_and_of_the_same_everywhere_zero():
    levels, predicted = np.random.default_rng(1).integers(0, 5, (2, 200))
    assert expected_kappa(np.eye(5)[levels], predicted) == pytest.approx(quadratic_weighted_kappa(levels, predicted))
    assert expected_kappa(np.eye(5)[[3, 3]], np.array([3, 3])) == 1
    assert expected_kappa(np.full((4, 5), 0.2), np.array([0, 1, 2, 3])) == pytest.approx(0)


def test_the_proxy_is_the_mean_kappa_of_drawn_levels():
    rng = np.random.default_rng(2)
    scores = rng.dirichlet(np.full(5, 0.4), 3000)
    predicted = scores.argmax(axis=1)
    drawn = (rng.random((300, 3000, 1)) > scores.cumsum(axis=1)[:, :4]).sum(axis=2)
    kappas = [quadratic_weighted_kappa(levels, predicted) for levels in drawn]
    assert expected_kappa(scores, predicted) == pytest.approx(np.mean(kappas), abs=4 * np.std(kappas) / 300**0.5 + 5e-4)


@pytest.mark.parametrize(
    ("shape", "score", "n_levels"),
    [((2, 5), np.nan, 2), ((2, 5), 0.3, 2), ((0, 5), 0.2, 0), (5, 0.2, 5), ((3, 5), 0.2, 2)],
)
def test_scores_that_are_no_distributions_and_levels_of_another_length_are_refused(shape, score, n_levels):
    with pytest.raises(InputError):
        expected_kappa(np.full(shape, score), np.zeros(n_levels, int))
