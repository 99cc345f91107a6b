"""Classes, which have no order: an image has exactly one of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from dr.metrics import agreement, bootstrap, calibration, ranking
from dr.metrics.bootstrap import Estimate, StepGain, measure_step_gains
from dr.tasks import losses
from dr.tasks.levels import refuse_positives
from dr.tasks.task import Measured, Task, share_exclusive, weigh_exclusive
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings


class ClassFigures(NamedTuple):
    """What is measured of one class; NaN if it is not measurable."""

    images: int  # that have it
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate  # of the class against all others


class Classes(Task):
    """Which of k classes does an image have? Scores are the probabilities of each; the decision is the likeliest."""

    kind: ClassVar[str] = "classes"
    target: ClassVar[str] = "class"
    headline: ClassVar[str] = "accuracy"
    headline_name: ClassVar[str] = "accuracy"
    overall_names: ClassVar[tuple[str, ...]] = ("accuracy", "log loss", "macro F1")
    each_names: ClassVar[tuple[str, ...]] = ("images", "precision", "recall", "F1", "one-vs-rest AUC")
    intervals_note: ClassVar[str] = (
        "accuracy, precision, recall: Wilson's intervals, of images; the others: bootstrap over patients"
    )

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return the likeliest class."""
        return scores.argmax(axis=1)

    def check_settings(self, options: argparse.Namespace) -> None:
        """Raise InputError for settings that are for levels of two eyes."""
        refuse_eye_settings(self, options)

    def weigh_targets(self, targets: np.ndarray, how: str, most: float | None = None) -> np.ndarray:
        """Return a weight per class, see `weigh_exclusive`."""
        refuse_positives(self, how)
        return weigh_exclusive(targets, len(self.names), how, most)

    def find_prior(self, targets: np.ndarray) -> np.ndarray:
        """Return the share of each class."""
        return share_exclusive(targets, len(self.names))

    def measure_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Return the log loss, perhaps smoothed, weighed."""
        return losses.measure_level_loss(logits, targets, weights, settings)

    def measure_log_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean log loss."""
        return losses.measure_exclusive_log_loss(logits, targets)

    def measure(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return log loss, accuracy and macro F1."""
        counts = agreement.count_pairs(targets, scores.argmax(axis=1), scores.shape[1])
        return {
            "log_loss": calibration.measure_log_loss(scores, targets),
            "accuracy": float(agreement.accuracy_of_counts(counts)),
            "macro_f1": float(agreement.macro_f1_of_counts(counts)),
        }

    def measure_steps(
        self,
        patients: Sequence[str],
        targets: np.ndarray,
        scores: Mapping[str, np.ndarray],
        decisions: Mapping[str, np.ndarray],
    ) -> dict[str, StepGain]:
        """Return the accuracy of each step's classes."""
        return measure_step_gains(patients, targets, decisions, agreement.accuracy_of_counts)

    def measure_all(self, patients: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
        """Return accuracy, log loss and macro F1, and ClassFigures of each class, the likeliest class decided.

        Intervals of shares are Wilson's, which take images as independent; the others are of a bootstrap over patients.
        """
        n_classes = scores.shape[1]
        decided = scores.argmax(axis=1)
        losses = calibration.measure_losses(scores, targets)
        is_true = targets[:, None] == np.arange(n_classes)

        def measure(rows: np.ndarray) -> list[float]:
            counts = agreement.count_pairs(targets[rows], decided[rows], n_classes)
            f1 = agreement.rates_of_counts(counts)[2]
            aucs = [ranking.measure_auc(scores[rows, k], is_true[rows, k]) for k in range(n_classes)]
            return [losses[rows].mean(), agreement.macro_f1_of_counts(counts), *f1, *aucs]

        drawn = bootstrap.draw_figures(patients, measure)
        log_loss, macro_f1, *estimates = [bootstrap.estimate_drawn(column) for column in drawn.T]
        counts = agreement.count_pairs(targets, decided, n_classes)
        right = np.diagonal(counts).tolist()
        n_decided = counts.sum(axis=0).tolist()
        n_true = counts.sum(axis=1).tolist()
        each = [
            ClassFigures(
                images=n_true[k],
                precision=bootstrap.estimate_share(right[k], n_decided[k]),
                recall=bootstrap.estimate_share(right[k], n_true[k]),
                f1=estimates[k],
                auc=estimates[n_classes + k],
            )
            for k in range(n_classes)
        ]
        accuracy = bootstrap.estimate_share(sum(right), len(targets))
        return Measured([accuracy, log_loss, macro_f1], each)


def refuse_eye_settings(task: Task, options: argparse.Namespace) -> None:
    """Raise InputError for settings that are for levels of two eyes."""
    if options.squared_error or options.pairs:
        raise InputError(
            f"--squared-error and --pairs are for levels of two eyes: {task.kind} have no order and no pairs"
        )
