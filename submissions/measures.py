"""What a report measures: image ids, true levels, scores and predicted levels in, numbers out; knows no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dr.scores import FLOOR
from kappa.qwk import square_distances
from preprocess import eyes

N_DRAWS = 1000  # of the bootstrap: the ends of a 95 % interval rest on 25 draws each
SEED = 0
DRAWS_AT_A_TIME = 100  # 26,788 patients in float32 take 11 MB
INTERVAL = (2.5, 97.5)  # percent
N_BINS = 10  # of the reliability diagram
LEAST_IN_BIN = 10  # a share of fewer scores says nothing


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Kappa(NamedTuple):
    """What a step is worth, and how much more than the step before (None for the first)."""

    kappa: Estimate
    gain: Estimate | None


class Agreement(NamedTuple):
    """How the two eyes of patients agree: counts (5, 5), left by right; the shares at most 0, 1, 2 levels apart."""

    counts: np.ndarray
    shares: tuple[float, float, float]


class Reliability(NamedTuple):
    """Scores by size against how often they came true, five arrays of shape (bins,), and their mean distance."""

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    error: float


# --- the bootstrap over patients --------------------------------------------------------------------------------------


def number_patients(images: Sequence[str]) -> np.ndarray:
    """Return each image's patient as a number 0..n_patients-1, (n,) int64."""
    return np.unique(eyes.patients_of(images).astype(str), return_inverse=True)[1]


def draw_patients(n_patients: int, n_draws: int = N_DRAWS, seed: int = SEED) -> np.ndarray:
    """Return how often each draw, with replacement, takes each patient: (n_draws, n_patients) uint8."""
    rng = np.random.default_rng(seed)
    taken = (rng.integers(n_patients, size=n_patients) for _ in range(n_draws))
    return np.stack([np.bincount(patients, minlength=n_patients).astype(np.uint8) for patients in taken])


def sum_draws(draws: np.ndarray, by_patient: np.ndarray) -> np.ndarray:
    """Return the sums over the patients of each draw, (n_draws, k); `by_patient` is (n_patients, k) counts."""
    counts = by_patient.astype(np.float32)  # whole numbers below 2**24 stay exact
    parts = range(0, len(draws), DRAWS_AT_A_TIME)
    sums = [draws[start : start + DRAWS_AT_A_TIME].astype(np.float32) @ counts for start in parts]
    return np.concatenate(sums).astype(np.float64)


def estimate(value: float, drawn: np.ndarray) -> Estimate:
    """Return a figure with the percentile interval of its draws."""
    low, high = np.percentile(drawn, INTERVAL)
    return Estimate(value, float(low), float(high))


# --- levels -----------------------------------------------------------------------------------------------------------


def count_pairs(levels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how often level a meets level b, (5, 5) int64: rows `levels`, columns `others`, both (n,)."""
    n = eyes.N_LEVELS
    return np.bincount(n * levels + others, minlength=n * n).reshape(n, n)


def kappa_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the quadratic weighted kappa of each confusion matrix, (...,) float64; `counts` is (..., k, k).

    The same as `kappa.qwk.quadratic_weighted_kappa` gives for the levels that were counted.
    """
    weights = square_distances(counts.shape[-1])
    observed = (weights * counts).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    chance = np.einsum("...i,ij,...j", rows, weights, columns)
    return 1 - np.divide(observed, chance, out=np.zeros_like(chance, np.float64), where=observed > 0)


def measure_kappas(images: Sequence[str], levels: np.ndarray, predicted: Mapping[str, np.ndarray]) -> dict[str, Kappa]:
    """Return what each step is worth, with 95 % intervals of a bootstrap over patients: the same draws for all steps.

    Parameters
    ----------
    images, levels : n image ids and their true levels
    predicted : step -> (n,) levels, in the order of the steps
    """
    patients = number_patients(images)
    draws, kappas, before = draw_patients(patients.max() + 1), {}, None
    for step, guessed in predicted.items():
        drawn = draw_kappas(draws, patients, levels, guessed)
        value = float(kappa_of_counts(count_pairs(levels, guessed)))
        gain = None if before is None else estimate(value - before[0], drawn - before[1])
        kappas[step] = Kappa(estimate(value, drawn), gain)
        before = value, drawn
    return kappas


def draw_kappas(draws: np.ndarray, patients: np.ndarray, levels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return each draw's kappa, (n_draws,).

    Parameters
    ----------
    draws : (n_draws, n_patients), how often each patient is taken
    patients, levels, predicted : (n,) of the images
    """
    counts = _count_by_patient(patients, levels, predicted)
    return kappa_of_counts(sum_draws(draws, counts).reshape(-1, eyes.N_LEVELS, eyes.N_LEVELS))


def _count_by_patient(patients: np.ndarray, levels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return each patient's confusion matrix, (n_patients, 25)."""
    n_cells = eyes.N_LEVELS**2
    cells = n_cells * patients + eyes.N_LEVELS * levels + predicted
    return np.bincount(cells, minlength=n_cells * (patients.max() + 1)).reshape(-1, n_cells)


def measure_agreement(images: Sequence[str], levels: np.ndarray) -> Agreement | None:
    """Return how left and right eyes agree, a patient's first picture of each; None without a patient with both."""
    sides: dict[str, dict[str, int]] = {}
    for image, level in zip(images, levels.tolist(), strict=True):
        eye = eyes.parse_image_id(image)
        sides.setdefault(eye.patient, {}).setdefault(eye.side, level)
    pairs = np.array([(both["left"], both["right"]) for both in sides.values() if len(both) == 2])
    if not pairs.size:
        return None
    apart = np.abs(pairs[:, 0] - pairs[:, 1])
    shares = tuple(float((apart <= distance).mean()) for distance in range(3))
    return Agreement(count_pairs(*pairs.T), shares)


def share_levels(levels: np.ndarray) -> np.ndarray:
    """Return the share of each level, (5,)."""
    return np.bincount(levels, minlength=eyes.N_LEVELS) / len(levels)


# --- scores -----------------------------------------------------------------------------------------------------------


def measure_reliability(images: Sequence[str], scores: np.ndarray, levels: np.ndarray) -> Reliability:
    """Return how often scores of each size came true, all five levels together, with intervals over patients.

    Parameters
    ----------
    images, scores, levels : n ids, (n, 5), (n,) true

    Bins with fewer than `LEAST_IN_BIN` scores are left out of the arrays, not of the error.
    """
    patients, n_levels = np.repeat(number_patients(images), eyes.N_LEVELS), np.arange(eyes.N_LEVELS)
    sizes, hits = scores.ravel(), (levels[:, None] == n_levels).ravel()
    bins = np.minimum((sizes * N_BINS).astype(int), N_BINS - 1)
    cells, n_cells = N_BINS * patients + bins, N_BINS * (patients.max() + 1)
    come, true = (np.bincount(cells, weight, n_cells).reshape(-1, N_BINS) for weight in (None, hits))
    counts, predicted = np.bincount(bins, minlength=N_BINS), np.bincount(bins, sizes, N_BINS)
    shown = counts >= LEAST_IN_BIN
    draws = draw_patients(patients.max() + 1)
    shares = _divide(sum_draws(draws, true[:, shown]), sum_draws(draws, come[:, shown]))
    low, high = np.nanpercentile(shares, INTERVAL, axis=0)
    observed = true.sum(axis=0)
    error = float(np.abs(predicted - observed).sum() / counts.sum())
    return Reliability(
        predicted[shown] / counts[shown], observed[shown] / counts[shown], low, high, counts[shown], error
    )


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def rank_patients(images: Sequence[str], levels: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> list[str]:
    """Return the patients, the hardest first: by squared error of the levels over both eyes, then by log loss.

    Parameters
    ----------
    images : n ids, in the order of patients
    levels, predicted : (n,) true and given
    scores : (n, 5)
    """
    squared_errors = (levels - predicted) ** 2
    losses = -np.log(np.maximum(scores[np.arange(len(levels)), levels], FLOOR))
    worth: dict[str, tuple[float, float]] = {}
    for patient, error, loss in zip(eyes.patients_of(images), squared_errors.tolist(), losses.tolist(), strict=True):
        errors, lost = worth.get(patient, (0, 0.0))
        worth[patient] = (errors + error, lost + loss)
    return sorted(worth, key=lambda patient: (-worth[patient][0], -worth[patient][1]))
