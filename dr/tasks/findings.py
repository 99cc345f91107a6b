"""Findings: an image may have any number of them, and each may be unknown by itself."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from dr.metrics import bootstrap, calibration, ranking
from dr.metrics.bootstrap import Estimate, StepGain
from dr.tasks import losses
from dr.tasks.classes import refuse_eye_settings
from dr.tasks.task import SUM_TOLERANCE, Fault, Measured, Task, describe_improbable

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings


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
    is_exclusive: ClassVar[bool] = False
    has_thresholds: ClassVar[bool] = True
    overall_names: ClassVar[tuple[str, ...]] = ("mean AUC", "mean average precision", "log loss")
    each_names: ClassVar[tuple[str, ...]] = ("have it", "known", "AUC", "average precision", "off by")
    intervals_note: ClassVar[str] = (
        "intervals: bootstrap over patients; off by: how far probabilities lie from how often they come true"
    )

    def find_fault(self, scores: np.ndarray, tolerance: float = SUM_TOLERANCE) -> Fault | None:
        """Return the first row of scores that are not all probabilities, None if all are."""
        bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)).all(axis=1))
        if not bad.size:
            return None
        row = int(bad[0])
        return Fault(row, describe_improbable(scores[row]) or f"a score is above 1 ({scores[row].max():g})")

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

    def measure_all(self, patients: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
        """Return mean AUC, mean average precision and log loss, and FindingFigures of each; means are over what is
        measurable.
        """
        losses = calibration.measure_finding_losses(scores, targets)

        def measure(rows: np.ndarray) -> list[float]:
            aucs = ranking.measure_each(ranking.measure_auc, scores[rows], targets[rows])
            precisions = ranking.measure_each(ranking.measure_average_precision, scores[rows], targets[rows])
            means = [ranking.mean_measurable(aucs), ranking.mean_measurable(precisions)]
            return [*means, float(np.nanmean(losses[rows])), *aucs, *precisions]

        drawn = bootstrap.draw_figures(patients, measure)
        auc, precision, log_loss, *estimates = [bootstrap.estimate_drawn(column) for column in drawn.T]
        n_findings = scores.shape[1]
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
        return Measured([auc, precision, log_loss], each)

    def name_step(self, step: str) -> str:
        """Return what a step is called: no finding is the likeliest."""
        return step.replace("argmax", "scores")

    def choose_thresholds(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the score of best F1 of each finding, NaN for want of images that have it."""
        return ranking.measure_each(ranking.choose_threshold, scores, targets)
