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
from dr.tasks.task import Measured, Task, guess_exclusive, share_exclusive, weigh_exclusive
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
    headline_title: ClassVar[str] = "accuracy"
    overall_names: ClassVar[tuple[str, ...]] = ("accuracy", "log loss", "macro F1")
    each_names: ClassVar[tuple[str, ...]] = (
        "images",
        "precision",
        "recall",
        "F1",
        "one-vs-rest AUC",
    )
    intervals_note: ClassVar[str] = "intervals: bootstrap over patients"
    decision_name: ClassVar[str] = "likeliest class"

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
        return measure_step_gains(
            patients, targets, decisions, agreement.accuracy_of_counts, is_share=True
        )

    def draw_overall(
        self, scores: np.ndarray, targets: np.ndarray, decided: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return accuracy and macro F1 of the classes decided on, and between them the log loss, (d, 3)."""
        counts = agreement.count_weighted_pairs(targets, decided, len(self.names), weights)
        log_loss = weights @ calibration.measure_losses(scores, targets) / weights.sum(axis=1)
        return np.stack(
            [agreement.accuracy_of_counts(counts), log_loss, agreement.macro_f1_of_counts(counts)],
            axis=1,
        )

    def measure_all(
        self,
        patients: Sequence[str],
        scores: np.ndarray,
        targets: np.ndarray,
        decided: np.ndarray | None = None,
    ) -> Measured:
        """Return accuracy, log loss and macro F1, and ClassFigures of each class."""
        n_classes = scores.shape[1]
        classes = self.decide(scores) if decided is None else decided

        def draw(weights: np.ndarray) -> np.ndarray:
            counts = agreement.count_weighted_pairs(targets, classes, n_classes, weights)
            rates = agreement.rates_of_counts(counts).reshape(len(weights), 3 * n_classes)
            aucs = []
            for k in range(n_classes):
                aucs.append(ranking.measure_weighted_auc(scores[:, k], targets == k, weights))
            return np.concatenate([rates, np.stack(aucs, axis=1)], axis=1)

        drawn = bootstrap.draw_weighted(patients, draw)
        precision, recall, f1, auc = np.split(drawn, 4, axis=1)  # (1 + N_DRAWS, k) each
        each = []
        for k in range(n_classes):
            has_it = targets == k
            n_having = bootstrap.count_groups(patients, has_it)
            n_given = bootstrap.count_groups(patients, classes == k)
            each.append(
                ClassFigures(
                    images=int(has_it.sum()),
                    precision=bootstrap.estimate_share(precision[:, k], n_given),
                    recall=bootstrap.estimate_share(recall[:, k], n_having),
                    f1=bootstrap.estimate_drawn(f1[:, k]),
                    auc=bootstrap.estimate_drawn(auc[:, k]),
                )
            )
        return Measured(self.measure_overall(patients, scores, targets, classes), each)

    def guess(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of the commonest class, and of the classes' shares, for all images."""
        return guess_exclusive(targets, len(self.names), self.target)


def refuse_eye_settings(task: Task, options: argparse.Namespace) -> None:
    """Raise InputError for settings that are for levels of two eyes."""
    if options.squared_error or options.pairs:
        raise InputError(
            f"--squared-error and --pairs are for levels of two eyes: {task.kind} have no order and no pairs"
        )
