"""How well probabilities detect a condition: AUC, Brier score, calibration, and the rates at operating points."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dr.metrics import bootstrap, calibration, operating, ranking
from dr.metrics.bootstrap import Estimate
from dr.metrics.operating import OperatingPoint, Rates


class Detection(NamedTuple):
    """What is measured without a threshold; each is (d,), of draws, or an Estimate."""

    auc: Any
    brier: Any
    slope: Any  # of calibration: 1 is ideal, below it the probabilities are too extreme
    off_by: Any  # how far the probabilities lie from how often they come true, in the mean


class ConditionFigures(NamedTuple):
    """A condition in some images, and how well it is detected there."""

    images: int  # of which it is known
    positives: int
    auc: Estimate
    brier: Estimate
    slope: Estimate
    off_by: Estimate


class PointFigures(NamedTuple):
    """An operating point, and what it is worth in some images."""

    point: OperatingPoint
    rates: Rates  # of Estimates


class Measured(NamedTuple):
    """All that is measured of a condition."""

    figures: ConditionFigures
    points: list[PointFigures]


class Drawn(NamedTuple):
    """The same of draws, (d,) each, for differences draw by draw."""

    detection: Detection
    rates: dict[str, Rates]  # by the name of the operating point


class Thresholds(NamedTuple):
    """An operating point, and the thresholds that images are judged by: its own, or one each that is cross-fitted."""

    point: OperatingPoint
    applied: float | np.ndarray  # one, or (n,)


def draw_condition(
    probabilities: np.ndarray,
    truth: np.ndarray,
    thresholds: Sequence[Thresholds],
    weights: np.ndarray,
) -> Drawn:
    """Return the figures of many draws; weights (d, n): how often each image is in each.

    Probabilities and truth are (n,); truth is 1, 0, or NaN where it is unknown, which is left out.
    """
    is_known = ~np.isnan(truth)
    known = probabilities[is_known]
    is_true = truth[is_known] == 1
    drawn = weights[:, is_known]
    detection = Detection(
        auc=ranking.measure_weighted_auc(known, is_true, drawn),
        brier=calibration.measure_brier(known, is_true, drawn),
        slope=calibration.fit_slope(known, is_true, drawn),
        off_by=calibration.measure_weighted_error(known, is_true, drawn),
    )
    rates = {}
    for point, applied in thresholds:
        applied_known = np.broadcast_to(applied, len(truth))[is_known]
        rates[point.name] = operating.measure_rates(known, is_true, applied_known, drawn)
    return Drawn(detection, rates)


def measure_condition(
    patients: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray,
    thresholds: Sequence[Thresholds],
) -> Measured:
    """Return all figures of a condition with 95 % intervals of a bootstrap over patients, see `draw_condition`."""

    def draw(weights: np.ndarray) -> np.ndarray:
        drawn = draw_condition(probabilities, truth, thresholds, weights)
        columns = list(drawn.detection)
        for rates in drawn.rates.values():
            columns += list(rates)
        return np.stack(columns, axis=1)

    drawn = bootstrap.draw_weighted(patients, draw)
    n_figures = len(Detection._fields)
    figures = ConditionFigures(
        int((~np.isnan(truth)).sum()),
        int((truth == 1).sum()),
        *(bootstrap.estimate_drawn(column) for column in drawn.T[:n_figures]),
    )
    points = []
    for number, (point, applied) in enumerate(thresholds):
        start = n_figures + number * len(Rates._fields)
        columns = Rates._make(drawn.T[start : start + len(Rates._fields)])
        rates = estimate_rates(patients, probabilities, truth, applied, columns)
        points.append(PointFigures(point, rates))
    return Measured(figures, points)


def estimate_rates(
    patients: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray,
    applied: float | np.ndarray,
    drawn: Rates,
) -> Rates:
    """Return the rates with their intervals, of draws (1 + N_DRAWS,) each; the others as in `draw_condition`."""
    is_known = ~np.isnan(truth)
    known_patients = np.asarray(patients)[is_known]
    thresholds = np.broadcast_to(applied, len(truth))[is_known]
    counted = operating.list_counted(probabilities[is_known], truth[is_known] == 1, thresholds)
    estimates = []
    for values, is_counted in zip(drawn, counted, strict=True):
        n_patients = bootstrap.count_groups(known_patients, is_counted)
        estimates.append(bootstrap.estimate_share(values, n_patients))
    return Rates._make(estimates)
