"""Findings: an image may have any number of them, and each may be unknown by itself."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from dr.metrics import bootstrap, calibration, operating, ranking
from dr.metrics.bootstrap import Estimate, StepGain
from dr.metrics.operating import OperatingPoint, Rule
from dr.tasks import losses
from dr.tasks.classes import refuse_eye_settings
from dr.tasks.task import SUM_TOLERANCE, Condition, Fault, Measured, Task, describe_improbable

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings


DECIDING = "best F1"  # the operating point from which a finding counts as present


class FindingFigures(NamedTuple):
    """What is measured of one finding; NaN if it is not measurable."""

    have_it: int
    known: int
    auc: Estimate
    average_precision: Estimate
    off_by: float  # how far its scores lie from how often they come true


class Findings(Task):
    """Which of k findings does an image have? Each score is a probability by itself."""

    kind: ClassVar[str] = "findings"
    target: ClassVar[str] = "finding"
    headline: ClassVar[str] = "auc"
    headline_name: ClassVar[str] = "mean AUC"
    headline_title: ClassVar[str] = "mean AUC"
    is_exclusive: ClassVar[bool] = False
    has_thresholds: ClassVar[bool] = True
    overall_names: ClassVar[tuple[str, ...]] = ("mean AUC", "mean average precision", "log loss")
    each_names: ClassVar[tuple[str, ...]] = (
        "have it",
        "known",
        "AUC",
        "average precision",
        "off by",
    )
    intervals_note: ClassVar[str] = (
        "intervals: bootstrap over patients; off by: how far probabilities lie from how often they come true"
    )

    decision_name: ClassVar[str] = "scores"

    def find_fault(self, scores: np.ndarray, tolerance: float = SUM_TOLERANCE) -> Fault | None:
        """Return the first row of scores that are not all probabilities, None if all are."""
        bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)).all(axis=1))
        if not bad.size:
            return None
        row = int(bad[0])
        return Fault(
            row, describe_improbable(scores[row]) or f"a score is above 1 ({scores[row].max():g})"
        )

    def score_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of each finding by itself."""
        return logits.sigmoid()

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return the likeliest finding, though it may be likely that there is none."""
        return scores.argmax(axis=1)

    def check_settings(self, options: argparse.Namespace) -> None:
        """Raise InputError for settings that are for levels of two eyes."""
        refuse_eye_settings(self, options)

    def weigh_targets(self, targets: np.ndarray, how: str, most: float | None = None) -> np.ndarray:
        """Return what an image that has a finding counts, (k,).

        "balanced": the images that have a finding count as much as those that have not. "positives": N / N_l, the
        images by those that have it. Without any image that has it the weight is 1.
        """
        if how == "none":
            return np.ones(len(self.names))
        n_known = (~np.isnan(targets)).sum(axis=0)
        counts = (targets == 1).sum(axis=0)
        n_compared = n_known - counts if how == "balanced" else n_known
        weights = np.where(counts > 0, n_compared / np.maximum(counts, 1), 1.0)
        return np.minimum(weights, np.inf if most is None else most)

    def find_prior(self, targets: np.ndarray) -> np.ndarray:
        """Return the share that has each finding, of the images of which it is known."""
        return np.nansum(targets, axis=0) / np.maximum((~np.isnan(targets)).sum(axis=0), 1)

    def measure_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Return the log loss of images and findings, perhaps smoothed; an unknown target counts as nothing lost."""
        return settings.log_loss * losses.measure_binary_log_loss(
            logits, targets, smoothing=settings.label_smoothing, positive=weights
        )

    def measure_log_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean log loss of images and findings."""
        return losses.measure_binary_log_loss(logits, targets)

    def measure(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return log loss and the mean AUC of the findings that it can be measured of."""
        aucs = ranking.measure_each(ranking.measure_auc, scores, targets)
        return {
            "log_loss": float(np.nanmean(calibration.measure_finding_losses(scores, targets))),
            "auc": ranking.mean_measurable(aucs),
        }

    def measure_steps(
        self,
        patients: Sequence[str],
        targets: np.ndarray,
        scores: Mapping[str, np.ndarray],
        decisions: Mapping[str, np.ndarray],
    ) -> dict[str, StepGain]:
        """Return the mean AUC of each step's scores."""
        gains = {}
        for step, table in scores.items():
            mean_auc = self.measure_all(patients, table, targets).overall[0]
            gains[self.name_step(step)] = StepGain(mean_auc, None)
        return gains

    def draw_overall(
        self, scores: np.ndarray, targets: np.ndarray, decided: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return mean AUC, mean average precision and log loss, (d, 3); means are over what is measurable."""
        drawn = self._draw_each(scores, targets, weights)
        aucs, precisions = np.split(drawn, 2, axis=1)
        losses = calibration.measure_finding_losses(scores, targets)
        is_known = ~np.isnan(losses)
        total = weights @ is_known.sum(axis=1)
        summed = weights @ np.nansum(losses, axis=1)
        log_loss = np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)
        return np.stack([_mean_measurable(aucs), _mean_measurable(precisions), log_loss], axis=1)

    def _draw_each(
        self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return the AUC of each finding, then the average precision of each, (d, 2k)."""
        aucs = []
        precisions = []
        for k in range(len(self.names)):
            is_known = ~np.isnan(targets[:, k])
            known = scores[is_known, k]
            is_true = targets[is_known, k] == 1
            drawn = weights[:, is_known]
            aucs.append(ranking.measure_weighted_auc(known, is_true, drawn))
            precisions.append(ranking.measure_weighted_average_precision(known, is_true, drawn))
        return np.stack([*aucs, *precisions], axis=1)

    def measure_all(
        self,
        patients: Sequence[str],
        scores: np.ndarray,
        targets: np.ndarray,
        decided: np.ndarray | None = None,
    ) -> Measured:
        """Return mean AUC, mean average precision and log loss, and FindingFigures of each finding."""
        likeliest = self.decide(scores) if decided is None else decided
        n_findings = scores.shape[1]
        drawn = bootstrap.draw_weighted(
            patients, lambda weights: self._draw_each(scores, targets, weights)
        )
        estimates = [bootstrap.estimate_drawn(column) for column in drawn.T]
        n_true = (targets == 1).sum(axis=0).tolist()
        n_known = (~np.isnan(targets)).sum(axis=0).tolist()
        each = []
        for k in range(n_findings):
            counts, predicted, observed = calibration.bin_scores(scores[:, k], targets[:, k])
            each.append(
                FindingFigures(
                    have_it=n_true[k],
                    known=n_known[k],
                    auc=estimates[k],
                    average_precision=estimates[n_findings + k],
                    off_by=calibration.measure_error(counts, predicted, observed),
                )
            )
        return Measured(self.measure_overall(patients, scores, targets, likeliest), each)

    def guess(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of the commoner answer to each finding, and of the findings' shares, for all images."""
        shares = self.find_prior(targets)
        majority = (shares > 0.5).astype(np.float64)
        n = len(targets)
        return {
            "commoner answer": np.tile(majority, (n, 1)),
            "guessing by frequency": np.tile(shares, (n, 1)),
        }

    @property
    def rules(self) -> Mapping[str, Rule]:
        """How operating points are chosen: for each finding also the one by which it counts as present."""
        return {**operating.RULES, DECIDING: ranking.choose_threshold}

    def find_condition(self, condition: Condition, targets: np.ndarray) -> np.ndarray:
        """Return whether images have a finding, (n,): 1, 0, or NaN where it is unknown."""
        (output,) = condition.outputs
        return targets[:, output]

    def name_step(self, step: str) -> str:
        """Return what a step is called: no finding is the likeliest."""
        return step.replace("argmax", "scores")

    def choose_thresholds(self, scores: np.ndarray, targets: np.ndarray) -> list[OperatingPoint]:
        """Return the point of best F1 of each finding, under its name; NaN for want of images that have it."""
        points = []
        for name, chosen in self.choose_points(scores, targets).items():
            (best,) = [point for point in chosen if point.name == DECIDING]
            points.append(best._replace(name=name))
        return points


def _mean_measurable(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row's (d, k) measurable values, (d,); NaN where none is."""
    is_measurable = ~np.isnan(values)
    n_measurable = is_measurable.sum(axis=1)
    total = np.where(is_measurable, values, 0).sum(axis=1)
    return np.divide(total, n_measurable, out=np.full(len(values), np.nan), where=n_measurable > 0)
