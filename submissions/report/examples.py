"""Images that the report shows one by one: the mistaken ones, and the patients that are hardest to grade."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dr.metrics.calibration import measure_losses
from submissions.report import pictures
from submissions.report.evidence import BLEND, NET, Group, Source

HARDEST = 6  # patients shown with their pictures
MISTAKEN = 12  # images given a wrong class, likewise


def show_mistaken(source: Source, group: Group) -> list[dict[str, Any]]:
    """Return the images given a wrong class, those with the least score of the true one first.

    Each with the heat of the class given and of the true one.
    """
    names = source.task.names
    decided = group.decisions[group.final]
    true = group.targets
    rows = np.flatnonzero(decided != true)
    rows = rows[np.argsort(group.last[rows, true[rows]], kind="stable")][:MISTAKEN]
    images = [group.images[row] for row in rows]
    shown = pictures.show_images(
        source, group.split, images, [("last", decided[rows]), ("last", true[rows])]
    )
    mistaken = []
    for image, row in zip(images, rows, strict=True):
        decided_name = names[decided[row]]
        true_name = names[true[row]]
        titles = ("as the net is given it", f"{decided_name}, given", f"{true_name}, true")
        scores = [
            f"{name} {100 * score:.1f} %"
            for name, score in zip(names, group.last[row], strict=True)
        ]
        mistaken.append(
            {
                "image": image,
                "title": f"{image}: {true_name}, taken for {decided_name}",
                "pictures": dict(zip(titles, shown.get(image, []), strict=False)),
                "note": ", ".join(scores),
            }
        )
    return mistaken


def show_hardest(source: Source, group: Group) -> dict[str, list[dict[str, Any]]]:
    """Return the patients that are hardest to grade with their eyes: patient -> eyes, left first."""
    decided = group.decisions[group.final]
    explained = group.decisions[NET if NET in group.decisions else list(group.scores)[-1]]
    ranked = rank_patients(group.patients, group.targets, decided, group.last)[:HARDEST]
    rows = []
    for patient in ranked:
        rows += [row for row, other in enumerate(group.patients) if other == patient]
    images = [group.images[row] for row in rows]
    questions = [("last", explained[rows]), ("fine", explained[rows])]
    shown = pictures.show_images(source, group.split, images, questions)
    hardest: dict[str, list[dict[str, Any]]] = {patient: [] for patient in ranked}
    for row in rows:
        image = group.images[row]
        titles = ("photograph", f"level {explained[row]}, coarse", f"level {explained[row]}, fine")
        scores = {}
        for title, step in (("net", NET), ("blend", BLEND)):
            if step in group.scores:
                scores[title] = group.scores[step][row]
        hardest[group.subjects[row].patient].append(
            {
                "image": image,
                "level": group.targets[row],
                "given": decided[row],
                "scores": scores,
                "pictures": dict(zip(titles, shown.get(image, []), strict=False)),
            }
        )
    return hardest


def rank_patients(
    patients: Sequence[str], levels: np.ndarray, decided: np.ndarray, scores: np.ndarray
) -> list[str]:
    """Return the patients, the hardest first: by squared error of the levels over all images, then by log loss.

    Each of n images has its patient, true level, decided one and (n, k) scores; equal patients stay in their order.
    """
    errors = (levels - decided) ** 2
    losses = measure_losses(scores, levels)
    names, numbers = np.unique(np.asarray(patients), return_inverse=True)
    first_rows = np.unique(numbers, return_index=True)[1]
    total_errors = np.bincount(numbers, errors)
    total_losses = np.bincount(numbers, losses)
    return names[np.lexsort((first_rows, -total_losses, -total_errors))].tolist()
