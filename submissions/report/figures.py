"""The figures of a run's own groups of images, at operating points that were not chosen on them."""

from collections.abc import Sequence

from dr.tasks.task import Task
from dr.validation import Validation
from submissions.evaluation import figures
from submissions.evaluation.figures import Figures, Points, Sample
from submissions.report.evidence import Group

WITHOUT_POINTS = "no operating points: there are no scores of validation patients to choose them on"


def measure_group(task: Task, group: Group, groups: Sequence[Group]) -> Figures:
    """Return all figures of one of a run's groups.

    Operating points are chosen on its validation fold; of the fold itself each image is judged by a threshold that
    was chosen on other patients. Without the fold there are none.
    """
    validation = find_validation(groups)
    sample = Sample(group.title, group.images, group.patients, group.last, group.targets)
    points: Points = {}
    if validation is not None and group.split == "valid":
        points = task.cross_fit_points(group.patients, group.last, group.targets)
    elif validation is not None:
        points = figures.choose_points(task, validation)
    return figures.measure(task, sample, points, figures.list_decisions(task, group.last))


def find_validation(groups: Sequence[Group]) -> Validation | None:
    """Return the validation fold among a run's groups, if its scores are known."""
    for group in groups:
        if group.split == "valid":
            return Validation(group.images, group.patients, group.last, group.targets)
    return None
