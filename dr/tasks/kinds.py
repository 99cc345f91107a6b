"""The task of a question: the only place that looks at its kind."""

from pathlib import Path

from dr.tasks.classes import Classes
from dr.tasks.findings import Findings
from dr.tasks.levels import Levels
from dr.tasks.task import Task
from preprocess.dataset.question import Question
from preprocess.disk.errors import InputError

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Levels, Classes, Findings)}


def make_task(question: Question) -> Task:
    """Return the task of a question."""
    return TASKS[question.kind](tuple(question.names))


def check_question(task: Task, question: Question, asked_by: Path) -> None:
    """Raise InputError if a task's scores do not answer the question of a data set.

    Levels must be as many, classes the same in any order; of findings one must be shared, others count as unknown.
    """
    told = f"{asked_by}: asks for {question.kind} {', '.join(question.names)}; the run tells"
    if question.kind != task.kind:
        raise InputError(f"{told} {task.kind}")
    if task.kind == Levels.kind:
        fits = len(question.names) == len(task.names)
    elif task.kind == Classes.kind:
        fits = sorted(question.names) == sorted(task.names)
    else:
        fits = bool(set(question.names) & set(task.names))
    if not fits:
        raise InputError(f"{told} others: {', '.join(task.names)}")
