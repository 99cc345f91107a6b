"""Is a net better than guessing, and if it is not, why most likely?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dr.tasks.task import Task
from dr.training.settings import Settings

# From 3,942 photographs random weights learned little: log loss 0.838, where guessing has 0.88 (README, "What it
# scores").
FEW_IMAGES = 4000
FEW_STEPS = 500  # the recipes take thousands
BY_HEART = (
    0.5  # of the log loss of images held out: with less on its own, a net knows its images by heart
)

Figures = Mapping[str, Any]  # of an epoch: train_log_loss, valid_log_loss and so on


def measure_guesses(task: Task, targets: np.ndarray) -> dict[str, float]:
    """Return the best log loss and headline figure that guesses without any image reach on targets (n,) or (n, k)."""
    measured = [task.measure(scores, targets) for scores in task.guess(targets).values()]
    return {
        "log_loss": float(np.nanmin([figures["log_loss"] for figures in measured])),
        task.headline: float(np.nan_to_num([row[task.headline] for row in measured]).max()),
    }


def judge(task: Task, figures: Figures, guessed: Mapping[str, float]) -> list[str]:
    """Return in which figures on the images held out an epoch is no better than guessing; none if it is better."""
    verdicts = []
    headline = figures[f"valid_{task.headline}"]
    if headline <= guessed[task.headline]:
        verdicts.append(
            f"{task.headline_name} {headline:.4f}, where guessing has {guessed[task.headline]:.4f}"
        )
    log_loss = figures["valid_log_loss"]
    if log_loss >= guessed["log_loss"]:
        verdicts.append(f"log loss {log_loss:.4f}, where guessing has {guessed['log_loss']:.4f}")
    return verdicts


def explain(settings: Settings, n_images: int, history: Sequence[Figures]) -> str:
    """Return in words why a net that learned from `n_images` is most likely no better than guessing."""
    reasons = []
    if n_images < FEW_IMAGES and settings.weights == "none":
        reasons.append(
            f"it began with random weights and learned from {n_images:,} images only; for eyes --recipe "
            "few-photographs begins with a net that has learned on drawn ones, and --weights FILE with any other"
        )
    n_steps = len(history) * max(1, n_images // settings.batch_size)
    if n_steps < FEW_STEPS:
        reasons.append(f"it took {n_steps} steps only; more --epochs or a smaller --batch-size")
    if history and history[-1]["train_log_loss"] < BY_HEART * history[-1]["valid_log_loss"]:
        reasons.append(
            "it knows the images it learned from by heart; more of them, fewer --epochs, or more augmentation"
        )
    if not reasons:
        reasons.append(
            "the targets are not those of the photographs, or the --learning-rate is too high"
        )
    return "most likely " + "; and ".join(reasons)
