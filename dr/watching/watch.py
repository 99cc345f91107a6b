"""Show a training while it runs: the line of each epoch, and progress.html in the folder of the run."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from dr.tasks.task import Task
from dr.training import schedule
from dr.training.schedule import Epoch
from dr.training.settings import Settings
from dr.watching import outcome, pace, page
from dr.watching.pace import EpochTime
from preprocess.dataset import folds
from preprocess.disk import files

PAGE = "progress.html"


class Watch:
    """What is known of a training that runs, for people; nothing that is computed depends on it."""

    def __init__(self, folder: Path, task: Task, settings: Settings):
        """Watch the run whose files lie in a folder."""
        self.folder = folder
        self.task = task
        self.settings = settings
        self.n_images = 0
        self.guessed: dict[str, float] = {}
        self.times: list[EpochTime] = []

    def describe_run(self, n_learned: int, held_out_targets: np.ndarray) -> str:
        """Begin with a run, and return which fold is held out, in parentheses; empty where it has no number."""
        self.n_images = n_learned
        self.guessed = outcome.measure_guesses(self.task, held_out_targets)
        print(f"dr.train: {self.folder / PAGE} follows the training, from its first epoch on")
        part = describe_fold(self.settings)
        return f" ({part})" if part else ""

    def describe_epoch(
        self, history: list[dict[str, Any]], training_s: float, whole_s: float, due: Epoch
    ) -> str:
        """Return the line of the epoch that has ended, the last of a history, and bring the page up to date."""
        figures = history[-1]
        took = EpochTime(training_s, whole_s)
        self.times.append(took)
        n_left = schedule.count_left(self.settings, due)
        left_s = pace.estimate_left(self.times, n_left)
        key = self.task.headline
        name = self.task.headline_name
        message = f"epoch {figures['epoch']}: learning rate {figures['learning_rate']:.4g}"
        message += f", log loss train {figures['train_log_loss']:.4f}"
        message += (
            f" valid {figures['valid_log_loss']:.4f}, {name} valid {figures[f'valid_{key}']:.4f}"
        )
        if "skipped_steps" in figures:
            message += f", {figures['skipped_steps']} steps skipped: beyond float16's range"
        best = schedule.find_best(history, key)
        message += f"; {took.whole_s:.1f} s, {self._measure_speed():.1f} images/s"
        message += f"; best epoch {best}, {name} {history[best - 1][f'valid_{key}']:.4f}"
        if n_left:
            message += f"; {self._show_left(left_s)} left"
        self._write_page(history, n_left, left_s)
        return message

    def end(self, history: list[dict[str, Any]]) -> None:
        """Print, if so, that the net is no better than guessing, and why; the page is not loaded again."""
        verdicts = outcome.judge(self.task, history[-1], self.guessed)
        reason = ""
        if verdicts:
            reason = outcome.explain(self.settings, self.n_images, history)
            print(
                f"warning: dr.train: no better than guessing on the images held out: {'; '.join(verdicts)}; {reason}",
                flush=True,
            )
        self._write_page(history, n_left=0, left_s=0.0, has_ended=True, warning=reason)

    def _measure_speed(self) -> float:
        """Return the images per second that the last epoch learned from."""
        return self.n_images / max(self.times[-1].training_s, 1e-9)

    def _show_left(self, left_s: float) -> str:
        bound = "about"
        if self.settings.patience:
            bound = "at most"
        return f"{bound} {pace.show_duration(left_s)}"

    def _write_page(
        self,
        history: list[dict[str, Any]],
        n_left: int,
        left_s: float,
        has_ended: bool = False,
        warning: str = "",
    ) -> None:
        n_done = len(history)
        best = schedule.find_best(history, self.task.headline)
        facts = {"epoch": f"{n_done} of {n_done + n_left}"}
        if has_ended:
            facts["epoch"] = f"{n_done}, the last"
        else:
            facts["time left"] = self._show_left(left_s)
            facts["done at about"] = time.strftime("%H:%M", time.localtime(time.time() + left_s))
        best_value = history[best - 1][f"valid_{self.task.headline}"]
        facts["best so far"] = f"epoch {best}, {self.task.headline_name} {best_value:.4f}"
        if not has_ended:  # the page of a training that has ended is the same for every run of it
            facts["an epoch"] = pace.show_duration(self.times[-1].whole_s)
            facts["images a second"] = f"{self._measure_speed():.1f}"
        facts["learned from"] = f"{self.n_images:,} images"
        content = page.Content(
            title=self._name_run(),
            facts=facts,
            history=history,
            headline=self.task.headline,
            headline_name=self.task.headline_name,
            guessed=self.guessed,
            has_ended=has_ended,
            warning=warning,
        )
        files.write_bytes(self.folder / PAGE, page.render(content).encode())

    def _name_run(self) -> str:
        name = self.folder.name if self.folder.parent.name == "runs" else ""
        part = describe_fold(self.settings)
        return " · ".join(text for text in (self.settings.net, name, part) if text)


def describe_fold(settings: Settings) -> str:
    """Return which fold of how many is held out; empty where the folds are sources, whose number is not known here."""
    if settings.folds == folds.BY_SOURCE:
        return ""
    return f"fold {settings.fold + 1} of {settings.folds}"
