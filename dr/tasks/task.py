"""A task: what a data set asks of each image, with everything that follows from the question."""

from __future__ import annotations

import abc
import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from dr.metrics import bootstrap, operating
from dr.metrics.bootstrap import Estimate, StepGain
from dr.metrics.detection import Thresholds
from dr.metrics.operating import OperatingPoint, Rule
from preprocess.dataset.question import Question

if TYPE_CHECKING:
    import torch

    from dr.training.settings import Settings

ACCURACY = "accuracy"  # the one overall figure that is a share of the images
SUM_TOLERANCE = 1e-5  # float32 softmax is off by 1e-7, tables rounded to six decimals by 3e-6


class Fault(NamedTuple):
    """A row of scores that no image can have."""

    row: int
    reason: str


class Condition(NamedTuple):
    """A yes-or-no question about an image, whose probability is the sum of some outputs' scores."""

    name: str
    outputs: tuple[int, ...]


class Measured(NamedTuple):
    """What scores are worth: figures of all outputs together, and a record of each output, in their order."""

    overall: list[Estimate]
    each: list[Any]


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A question and what follows from it. There is one class for each kind; nothing outside asks for the kind.

    Scores are (n, k), a column for each of k outputs; targets are (n,) int64, of findings (n, k) float64 with NaN where
    a target is unknown.
    """

    names: tuple[str, ...]  # of the outputs, for people

    kind: ClassVar[str]  # as checkpoints and tables of the question call it
    target: ClassVar[str]  # one target, in words: a level, a class, a finding
    headline: ClassVar[str]  # the figure that tells the best epoch, beside the log loss
    headline_name: ClassVar[str]  # the same for people
    headline_title: ClassVar[str]  # and in full
    # Whether images are of the left or the right eye of a patient, and the stages that blend both and choose levels
    # that agree best have a part.
    has_eyes: ClassVar[bool] = False
    # Whether each row of scores is a distribution: exactly one of the outputs is true.
    is_exclusive: ClassVar[bool] = True
    # Whether an output counts as present from a score on that is chosen for it, see `choose_thresholds`.
    has_thresholds: ClassVar[bool] = False
    # Names of the figures of `measure_all`, of all outputs together and of each, and a note on their intervals.
    overall_names: ClassVar[tuple[str, ...]] = ()
    each_names: ClassVar[tuple[str, ...]] = ()
    intervals_note: ClassVar[str] = ""
    # What `decide` gives, in words.
    decision_name: ClassVar[str]
    decision_rule: ClassVar[str] = "the likeliest"

    @property
    def question(self) -> Question:
        """The declaration that the task was made of."""
        return Question(self.kind, self.names)

    @property
    def columns(self) -> list[str]:
        """The columns of a score table."""
        return list(self.names)

    @property
    def titles(self) -> list[str]:
        """The outputs as a table for people lists them."""
        return list(self.names)

    @property
    def ticks(self) -> list[str]:
        """The outputs as short as a chart or a matrix names them."""
        return list(self.names)

    def describe(self) -> dict[str, Any]:
        """Return the question as plain names, as JSON and checkpoints keep it."""
        return self.question._asdict()

    def name_output(self, output: int) -> str:
        """Return an output in words."""
        return self.names[output]

    def name_decision(self, output: int) -> str:
        """Return an output in words, as the one that is decided on."""
        return f"likeliest {self.names[output]}"

    # --- scores ---------------------------------------------------------------------------------------------------

    def find_fault(self, scores: np.ndarray, tolerance: float = SUM_TOLERANCE) -> Fault | None:
        """Return the first row of scores that no image can have, None if all are sound.

        The sums of distributions may be off by the tolerance.
        """
        return find_distribution_fault(scores, tolerance)

    def score_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores that logits (n, k) stand for."""
        return logits.softmax(dim=1)

    @abc.abstractmethod
    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Return one output for each image by itself, (n,) int64."""

    # --- training -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def check_settings(self, options: argparse.Namespace) -> None:
        """Raise InputError for settings of dr.train that have no meaning for this task."""

    @abc.abstractmethod
    def weigh_targets(self, targets: np.ndarray, how: str, most: float | None = None) -> np.ndarray:
        """Return a weight per output, (k,), at most `most`, by `how`: none, balanced or positives."""

    @abc.abstractmethod
    def find_prior(self, targets: np.ndarray) -> np.ndarray:
        """Return what is known of an image that nobody has seen, (k,): the share of each output among the targets."""

    @abc.abstractmethod
    def measure_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Return the mean loss that training lowers, of logits (n, k), with a weight per output, (k,)."""

    @abc.abstractmethod
    def measure_log_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the plain mean log loss of logits (n, k)."""

    def describe_targets(self, targets: np.ndarray, valid: Sequence[str]) -> str:
        """Return all that a net learns from targets as text, to be digested; `valid` are the images set apart."""
        return json.dumps([list(self.names), targets.tolist(), list(valid)])

    # --- figures --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def measure(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the figures that are followed from epoch to epoch, by name."""

    def draw_measures(
        self, patients: Sequence[str], scores: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return each figure of all images, first, and of each draw, (1 + N_DRAWS,), see `bootstrap.draw_figures`."""
        names = list(self.measure(scores, targets))

        def measure(rows: np.ndarray) -> list[float]:
            measured = self.measure(scores[rows], targets[rows])
            if not self.has_contrast(targets[rows]):
                measured[self.headline] = math.nan
            return list(measured.values())

        drawn = bootstrap.draw_figures(patients, measure)
        return dict(zip(names, drawn.T, strict=True))

    def has_contrast(self, targets: np.ndarray) -> bool:
        """Return whether the headline figure of images with these targets says something."""
        return True

    @abc.abstractmethod
    def measure_steps(
        self,
        patients: Sequence[str],
        targets: np.ndarray,
        scores: Mapping[str, np.ndarray],
        decisions: Mapping[str, np.ndarray],
    ) -> dict[str, StepGain]:
        """Return what each step is worth by the headline figure: scores (n, k) by step, and decisions (n,) by step."""

    @abc.abstractmethod
    def draw_overall(
        self, scores: np.ndarray, targets: np.ndarray, decided: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return the figures called `overall_names` of many draws, (d, figures).

        `decided` is one output for each image, (n,); weights (d, n) say how often each image is in each draw.
        """

    @abc.abstractmethod
    def measure_all(
        self,
        patients: Sequence[str],
        scores: np.ndarray,
        targets: np.ndarray,
        decided: np.ndarray | None = None,
    ) -> Measured:
        """Return the figures called `overall_names`, and for each output those called `each_names`.

        `decided` is one output for each image, (n,); without it what `decide` says. Intervals are of a bootstrap over
        patients.
        """

    def measure_overall(
        self, patients: Sequence[str], scores: np.ndarray, targets: np.ndarray, decided: np.ndarray
    ) -> list[Estimate]:
        """Return the figures called `overall_names` alone."""

        def draw(weights: np.ndarray) -> np.ndarray:
            return self.draw_overall(scores, targets, decided, weights)

        drawn = bootstrap.draw_weighted(patients, draw).T
        estimates = []
        for name, column in zip(self.overall_names, drawn, strict=True):
            estimates.append(estimate_overall(name, column, patients))
        return estimates

    @abc.abstractmethod
    def guess(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Return scores (n, k) that need no image, by how: the commonest target for all, and the targets' shares."""

    # --- conditions -----------------------------------------------------------------------------------------------

    @property
    def conditions(self) -> list[Condition]:
        """The yes-or-no questions that the scores answer: does an image have this output?"""
        return [Condition(name, (output,)) for output, name in enumerate(self.names)]

    @property
    def screened(self) -> Condition | None:
        """The condition that decides whether a person is referred; None if the task knows of none."""
        return None

    @property
    def rules(self) -> Mapping[str, Rule]:
        """How operating points of a condition are chosen."""
        return operating.RULES

    def score_condition(self, condition: Condition, scores: np.ndarray) -> np.ndarray:
        """Return the probability of a condition, (n,), by scores (n, k)."""
        return np.minimum(scores[:, list(condition.outputs)].sum(axis=1), 1.0)

    def find_condition(self, condition: Condition, targets: np.ndarray) -> np.ndarray:
        """Return whether images have a condition, (n,): 1, 0, or NaN where it is unknown."""
        return np.isin(targets, condition.outputs).astype(np.float64)

    def choose_points(
        self, scores: np.ndarray, targets: np.ndarray
    ) -> dict[str, list[OperatingPoint]]:
        """Return the operating points of each condition, chosen on images that they must not be reported on."""
        points = {}
        for condition in self.conditions:
            probabilities = self.score_condition(condition, scores)
            truth = self.find_condition(condition, targets)
            points[condition.name] = operating.choose_points(probabilities, truth, self.rules)
        return points

    def cross_fit_points(
        self, patients: Sequence[str], scores: np.ndarray, targets: np.ndarray
    ) -> dict[str, list[Thresholds]]:
        """Return the operating points of each condition, as above, with thresholds to report on the same images by.

        Each image is judged by a threshold that was chosen on other patients.
        """
        thresholds: dict[str, list[Thresholds]] = {}
        for condition in self.conditions:
            probabilities = self.score_condition(condition, scores)
            truth = self.find_condition(condition, targets)
            applied = operating.cross_fit(patients, probabilities, truth, self.rules)
            points = operating.choose_points(probabilities, truth, self.rules)
            thresholds[condition.name] = [
                Thresholds(point, applied[point.name]) for point in points
            ]
        return thresholds

    def choose_thresholds(self, scores: np.ndarray, targets: np.ndarray) -> list[OperatingPoint]:
        """Return the point from which each output counts as present, under the output's name."""
        raise NotImplementedError(f"{self.kind} have no thresholds")

    # --- words ----------------------------------------------------------------------------------------------------

    def name_step(self, step: str) -> str:
        """Return what a step of the pipeline is called for this task."""
        return step

    def explain_absence(self) -> str | None:
        """Return why the stages that blend two eyes and choose levels have no part; None if they have."""
        return f"no part in this recipe: {self.kind} have no pairs and no order"


def estimate_overall(name: str, drawn: np.ndarray, patients: Sequence[str]) -> Estimate:
    """Return a figure of all images with its interval; accuracy is a share of them, see `bootstrap.estimate_share`."""
    if name == ACCURACY:
        return bootstrap.estimate_share(drawn, len(set(patients)))
    return bootstrap.estimate_drawn(drawn)


def find_distribution_fault(scores: np.ndarray, tolerance: float = SUM_TOLERANCE) -> Fault | None:
    """Return the first row of (n, k) scores that is no distribution, None if all are; sums may be off."""
    sums = scores.sum(axis=1)
    is_off = np.abs(sums - 1) > tolerance
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1) | (scores < 0).any(axis=1) | is_off)
    if not bad.size:
        return None
    row = int(bad[0])
    reason = describe_improbable(scores[row]) or f"the scores sum to {sums[row]:.6g}, not 1"
    return Fault(row, reason)


def describe_improbable(row: np.ndarray) -> str | None:
    """Return why a row of scores, (k,), cannot be probabilities; None if nothing but their sum may be wrong."""
    if not np.isfinite(row).all():
        return "a score is not a finite number"
    if (row < 0).any():
        return f"a score is negative ({row.min():g})"
    return None


def weigh_exclusive(
    targets: np.ndarray, n_outputs: int, how: str, most: float | None
) -> np.ndarray:
    """Return the weights of outputs of which each image has one.

    "none": 1. "balanced": all outputs that are present count alike, an image 1 on average; one without images 0.
    """
    if how == "none":
        return np.ones(n_outputs)
    counts = np.bincount(targets, minlength=n_outputs)
    weights = len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    weights = np.where(counts > 0, weights, 0.0)
    return np.minimum(weights, np.inf if most is None else most)


def share_exclusive(targets: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return the share of each output among targets (n,), (n_outputs,)."""
    return np.bincount(targets, minlength=n_outputs) / len(targets)


def guess_exclusive(targets: np.ndarray, n_outputs: int, target: str) -> dict[str, np.ndarray]:
    """Return what needs no image, of outputs of which each image has one: see `Task.guess`."""
    shares = share_exclusive(targets, n_outputs)
    majority = np.zeros(n_outputs)
    majority[shares.argmax()] = 1
    n = len(targets)
    return {
        f"majority {target}": np.tile(majority, (n, 1)),
        "guessing by frequency": np.tile(shares, (n, 1)),
    }
