"""Simulated annealing of labels towards the highest proxy, that is, towards the least ratio of two sums."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kappa.exact import find_optimum
from kappa.proxy import Errors, expected_errors, proxy_of, sum_errors

SWEEPS = 120  # proposals per image; with 60, one of ten seeds ended 2e-6 below the optimum of 53,576 images
BLOCKS_PER_SWEEP = 64  # moves judged at once: few enough that they do not disturb each other, many enough for numpy
HOTTEST = (
    10.0  # temperatures in units of the mean energy change of a random move: nearly all is accepted
)
COLDEST = 1e-5  # no worsening that matters is accepted
MOST_GAP = 1e-6  # to the optimum; where annealing ends farther off (images all alike), the optimum itself is returned


class Moves(NamedTuple):
    """Another level for each of some images, and what it changes if it is the only one taken; all (n,)."""

    levels: np.ndarray
    more_own: np.ndarray  # what it adds to the first of the two sums, see `kappa.proxy.sum_errors`
    more_chance: np.ndarray  # what it adds to the second
    changes: np.ndarray  # of the ratio of both, which is 0 where it would be 0/0


def anneal_levels(scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return levels, (n,) int64, of the highest proxy that annealing finds, and the share of moves accepted, 0–1.

    Rows of `scores`, (n, k), are distributions; anything else raises InputError. A move, another level for one image,
    is accepted with probability min(1, exp(−change / temperature)) (Metropolis et al. 1953; Kirkpatrick, Gelatt and
    Vecchi, Science 220, 1983). The last levels are the result: it ends so cold that nothing worse is accepted.
    """
    errors = expected_errors(scores)
    n_images, n_levels = errors.own.shape
    levels = rng.integers(0, n_levels, (n_images,))
    own, chance = sum_errors(errors, levels)  # kept, so that the change of a move costs O(1)
    size = max(1, n_images // BLOCKS_PER_SWEEP)
    blocks = draw_blocks(n_images, size, rng)
    n_blocks = SWEEPS * math.ceil(n_images / size)
    n_accepted = 0
    first_moves = propose_moves(errors, levels, (own, chance), next(blocks), rng)
    typical = float(np.abs(first_moves.changes).mean()) or 1.0  # 0: all images the same
    for temperature in np.geomspace(HOTTEST * typical, COLDEST * typical, n_blocks):
        rows = next(blocks)
        moves = propose_moves(errors, levels, (own, chance), rows, rng)
        is_accepted = moves.changes <= temperature * rng.standard_exponential(
            len(rows)
        )  # −log of a uniform number
        levels[rows[is_accepted]] = moves.levels[is_accepted]
        own += float(moves.more_own[is_accepted].sum())
        chance += float(moves.more_chance[is_accepted].sum())
        n_accepted += int(is_accepted.sum())
    acceptance = n_accepted / (SWEEPS * n_images)
    best = find_optimum(errors)
    if proxy_of(errors, best) - proxy_of(errors, levels) > MOST_GAP:
        return best, acceptance
    return levels, acceptance


def draw_blocks(n_images: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of images in blocks: all images in a random order, then in another one, without end."""
    while True:
        rows = rng.permutation(n_images)
        yield from (rows[start : start + size] for start in range(0, n_images, size))


def propose_moves(
    errors: Errors,
    levels: np.ndarray,
    sums: tuple[float, float],
    rows: np.ndarray,
    rng: np.random.Generator,
) -> Moves:
    """Return another level for each of the images at `rows`; `sums` are those of `kappa.proxy.sum_errors`."""
    n_levels = len(errors.chance)
    before = levels[rows]
    others = (before + rng.integers(1, n_levels, len(rows))) % n_levels
    more_own = errors.own[rows, others] - errors.own[rows, before]
    more_chance = errors.chance[others] - errors.chance[before]
    own = sums[0] + more_own
    chance = sums[1] + more_chance
    ratios = np.divide(own, chance, out=np.zeros_like(own), where=chance > 0)
    ratio_now = sums[0] / sums[1] if sums[1] else 0.0
    return Moves(others, more_own, more_chance, ratios - ratio_now)
