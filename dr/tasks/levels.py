"""Levels: grades of one disease in their order, of the two eyes of a patient."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from dr.metrics import agreement, bootstrap, calibration
from dr.metrics.bootstrap import Estimate, StepGain, measure_step_gains
from dr.tasks import losses
from dr.tasks.task import (
    Condition,
    Measured,
    Task,
    guess_exclusive,
    share_exclusive,
    weigh_exclusive,
)
from preprocess.dataset.question import RETINOPATHY
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings


# The conditions of the clinical scale, by their lowest level. Referable: Gulshan et al., JAMA 316(22), 2016;
# vision-threatening: the levels that are treated at once, severe and proliferative.
CLINICAL_CUTS = ("any retinopathy", "referable", "vision-threatening", "proliferative")


class LevelFigures(NamedTuple):
    """What is measured of one level; NaN if it is not measurable."""

    images: int  # that have it
    recall: Estimate
    precision: Estimate


class Levels(Task):
    """Which of k ordered levels does an eye have? Scores are the probabilities of each; the decision is the level
    nearest to the mean one.
    """

    kind: ClassVar[str] = "levels"
    target: ClassVar[str] = "level"
    headline: ClassVar[str] = "qwk"
    headline_name: ClassVar[str] = "QWK"
    headline_title: ClassVar[str] = "quadratic weighted kappa"
    has_eyes: ClassVar[bool] = True
    overall_names: ClassVar[tuple[str, ...]] = ("QWK", "accuracy", "log loss")
    each_names: ClassVar[tuple[str, ...]] = ("images", "recall", "precision")
    intervals_note: ClassVar[str] = (
        "intervals: bootstrap over patients; recall and precision: of the rounded level"
    )
    decision_name: ClassVar[str] = "rounded"
    decision_rule: ClassVar[str] = "the one nearest to the expected level"

    @property
    def columns(self) -> list[str]:
        """The columns of a score table: p0, p1, ..."""
        return [f"p{level}" for level in range(len(self.names))]

    @property
    def titles(self) -> list[str]:
        """The levels with their numbers: 0 no retinopathy, ..."""
        return [f"{level} {name}" for level, name in enumerate(self.names)]

    @property
    def ticks(self) -> list[str]:
        """The levels' numbers."""
        return [str(level) for level in range(len(self.names))]

    def name_output(self, output: int) -> str:
        """Return a level in words."""
        return f"level {output}"

    def name_decision(self, output: int) -> str:
        """Return a level in words, as the one that is decided on."""
        return f"nearest to the mean {output}"

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return the level nearest to the mean one."""
        return agreement.round_levels(scores)

    def check_settings(self, options: argparse.Namespace) -> None:
        """Accept all settings."""

    def weigh_targets(self, targets: np.ndarray, how: str, most: float | None = None) -> np.ndarray:
        """Return a weight per level, see `weigh_exclusive`."""
        refuse_positives(self, how)
        return weigh_exclusive(targets, len(self.names), how, most)

    def find_prior(self, targets: np.ndarray) -> np.ndarray:
        """Return the share of each level."""
        return share_exclusive(targets, len(self.names))

    def measure_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Return the log loss, perhaps smoothed, and the squared error of the expected level, weighed."""
        return losses.measure_level_loss(logits, targets, weights, settings)

    def measure_log_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean log loss."""
        return losses.measure_exclusive_log_loss(logits, targets)

    def describe_targets(self, targets: np.ndarray, valid: Sequence[str]) -> str:
        """Return the levels as text; the names of levels, and who is held out, no table of Kaggle's tells."""
        if not valid:
            return json.dumps(targets.tolist())
        return super().describe_targets(targets, valid)

    def measure(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return log loss and quadratic weighted kappa of the likeliest levels."""
        likeliest = scores.argmax(axis=1)
        return {
            "log_loss": calibration.measure_log_loss(scores, targets),
            "qwk": agreement.quadratic_weighted_kappa(targets, likeliest, len(self.names)),
        }

    def has_contrast(self, targets: np.ndarray) -> bool:
        """Return whether there are two levels: kappa says nothing of one."""
        return len(np.unique(targets)) > 1

    def measure_steps(
        self,
        patients: Sequence[str],
        targets: np.ndarray,
        scores: Mapping[str, np.ndarray],
        decisions: Mapping[str, np.ndarray],
    ) -> dict[str, StepGain]:
        """Return the quadratic weighted kappa of each step's levels."""
        return measure_step_gains(patients, targets, decisions, agreement.kappa_of_draws)

    def draw_overall(
        self, scores: np.ndarray, targets: np.ndarray, decided: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return QWK and accuracy of the levels decided on, and the log loss of the scores, (d, 3)."""
        counts = agreement.count_weighted_pairs(targets, decided, len(self.names), weights)
        log_loss = weights @ calibration.measure_losses(scores, targets) / weights.sum(axis=1)
        return np.stack(
            [agreement.kappa_of_draws(counts), agreement.accuracy_of_counts(counts), log_loss],
            axis=1,
        )

    def measure_all(
        self,
        patients: Sequence[str],
        scores: np.ndarray,
        targets: np.ndarray,
        decided: np.ndarray | None = None,
    ) -> Measured:
        """Return QWK, accuracy and log loss, and LevelFigures of each level."""
        n_levels = len(self.names)
        levels = self.decide(scores) if decided is None else decided

        def draw(weights: np.ndarray) -> np.ndarray:
            counts = agreement.count_weighted_pairs(targets, levels, n_levels, weights)
            rates = agreement.rates_of_counts(counts)
            return np.concatenate([rates[:, 1], rates[:, 0]], axis=1)

        drawn = bootstrap.draw_weighted(patients, draw)
        recall, precision = np.split(drawn, 2, axis=1)  # (1 + N_DRAWS, k) each
        each = []
        for level in range(n_levels):
            has_it = targets == level
            is_given = levels == level
            n_having = bootstrap.count_groups(patients, has_it)
            n_given = bootstrap.count_groups(patients, is_given)
            each.append(
                LevelFigures(
                    images=int(has_it.sum()),
                    recall=bootstrap.estimate_share(recall[:, level], n_having),
                    precision=bootstrap.estimate_share(precision[:, level], n_given),
                )
            )
        return Measured(self.measure_overall(patients, scores, targets, levels), each)

    def guess(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of the commonest level, and of the levels' shares, for all images."""
        return guess_exclusive(targets, len(self.names), self.target)

    @property
    def conditions(self) -> list[Condition]:
        """The k - 1 cuts of k levels, each all levels from one on; named where the scale is the clinical one."""
        conditions = []
        for lowest in range(1, len(self.names)):
            name = f"level ≥ {lowest}"
            if self.names == RETINOPATHY.names:
                name = f"{CLINICAL_CUTS[lowest - 1]} (≥ {lowest})"
            conditions.append(Condition(name, tuple(range(lowest, len(self.names)))))
        return conditions

    @property
    def screened(self) -> Condition | None:
        """Referable disease, where the scale is the clinical one."""
        if self.names != RETINOPATHY.names:
            return None
        return self.conditions[CLINICAL_CUTS.index("referable")]

    def explain_absence(self) -> None:
        """Return None: all stages have a part."""


def refuse_positives(task: Task, how: str) -> None:
    """Raise InputError for weights that are for findings alone."""
    if how == "positives":
        raise InputError(
            f"--class-weights positives: an image has one of the {task.kind}; balanced weighs them"
        )
