"""The task of a question: the only place that looks at its kind."""

from dr.tasks.classes import Classes
from dr.tasks.findings import Findings
from dr.tasks.levels import Levels
from dr.tasks.task import Task
from preprocess.dataset.question import Question

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Levels, Classes, Findings)}


def make_task(question: Question) -> Task:
    """Return the task of a question."""
    return TASKS[question.kind](tuple(question.names))
