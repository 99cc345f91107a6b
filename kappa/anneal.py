"""Simulated annealing of whatever has an energy and moves, and of labels, whose energy is a ratio of sums."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from kappa.exact import find_optimum
from kappa.proxy import Errors, expected_errors, proxy_of, sum_errors

SWEEPS = 120  # proposals per image; with 60, one of ten seeds ended 2e-6 below the optimum of 53,576 images
BLOCKS_PER_SWEEP = 64  # moves judged at once: few enough that they do not disturb each other, many enough for numpy
HOTTEST = 10.0  # temperatures in units of the mean energy change of a random move: nearly all is accepted
MOST_GAP = 1e-6  # to the optimum; where annealing ends farther off (images all alike), the optimum itself is returned
COLDEST = 1e-5  # no worsening that matters is accepted


class Problem(Protocol):
    """What can be annealed: moves come in blocks, any of which may be taken without the others."""

    def propose(self, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        """Return a block of moves, and the exact energy change of each, were it the only one taken."""

    def take(self, moves: Any, accepted: np.ndarray) -> None:
        """Make the accepted moves of a block."""


class Annealed(NamedTuple):
    """What `anneal_levels` found."""

    levels: np.ndarray  # (n,) int64
    proxy: float  # their expected kappa
    optimum: float  # the highest expected kappa any levels have, proven
    gap: float  # optimum − proxy
    acceptance: float  # the share of proposed moves that were taken, 0–1


def anneal(problem: Problem, temperatures: Iterable[float], rng: np.random.Generator) -> float:
    """Lower a problem's energy in place, one block of moves per temperature; return the share of moves accepted.

    A move is accepted with probability min(1, exp(−change / temperature)) (Metropolis et al. 1953; Kirkpatrick,
    Gelatt and Vecchi, Science 220, 1983). The last state is the result: end cold enough that nothing worse is accepted.
    """
    proposed = taken = 0
    for temperature in temperatures:
        moves, changes = problem.propose(rng)
        accepted = changes <= temperature * rng.standard_exponential(len(changes))  # −log of a uniform number
        problem.take(moves, accepted)
        proposed += len(changes)
        taken += int(accepted.sum())
    return taken / proposed


class Ratio:
    """Labels whose energy is Σ own[i, l_i] / Σ chance[l_i], 0 where that is 0/0; a move gives one image another level.

    A block holds each image at most once. Both sums are kept, so that a move's energy change costs O(1).
    """

    def __init__(self, errors: Errors, levels: np.ndarray, block: int):
        self.errors = errors
        self.levels = levels.copy()
        self.block = block
        self.own, self.chance = sum_errors(errors, levels)
        self.rows = np.arange(0)  # what is left of the sweep through all images, which come in random order

    def propose(self, rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return (images, other levels, and what these add to both sums), and how much each alone changes the ratio."""
        if not len(self.rows):
            self.rows = rng.permutation(len(self.levels))
        rows, self.rows = self.rows[: self.block], self.rows[self.block :]
        before, n_levels = self.levels[rows], len(self.errors.chance)
        levels = (before + rng.integers(1, n_levels, len(rows))) % n_levels
        more_own = self.errors.own[rows, levels] - self.errors.own[rows, before]
        more_chance = self.errors.chance[levels] - self.errors.chance[before]
        own, chance = self.own + more_own, self.chance + more_chance
        ratios = np.divide(own, chance, out=np.zeros_like(own), where=chance > 0)
        energy = self.own / self.chance if self.chance else 0.0
        return (rows, levels, more_own, more_chance), ratios - energy

    def take(self, moves: tuple[np.ndarray, ...], accepted: np.ndarray) -> None:
        """Make the accepted moves."""
        rows, levels, more_own, more_chance = (part[accepted] for part in moves)
        self.levels[rows] = levels
        self.own += float(more_own.sum())
        self.chance += float(more_chance.sum())


def anneal_levels(scores: np.ndarray, rng: np.random.Generator | None = None) -> Annealed:
    """Return levels of the highest proxy that annealing finds, with the proven optimum to compare it with.

    Rows of `scores`, (n, k), are distributions; anything else raises InputError. No rng is np.random.default_rng(0).
    """
    rng = rng or np.random.default_rng(0)
    errors = expected_errors(scores)
    n_images, n_levels = errors.own.shape
    start = rng.integers(0, n_levels, (n_images,))
    problem = Ratio(errors, start, block=max(1, n_images // BLOCKS_PER_SWEEP))
    typical = float(np.abs(problem.propose(rng)[1]).mean()) or 1.0  # 0: all images the same
    n_steps = SWEEPS * -(-n_images // problem.block)
    acceptance = anneal(problem, np.geomspace(HOTTEST * typical, COLDEST * typical, n_steps), rng)
    best, proxy = find_optimum(errors), proxy_of(errors, problem.levels)
    if best.proxy - proxy > MOST_GAP:
        return Annealed(best.levels, best.proxy, best.proxy, 0.0, acceptance)
    return Annealed(problem.levels, proxy, best.proxy, best.proxy - proxy, acceptance)
