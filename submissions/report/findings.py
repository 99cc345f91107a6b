"""What the page says of findings alone: what occurs together, the surest mistakes, boxes hit."""

from typing import Any

import numpy as np

from preprocess.photographs import read_crops
from preprocess.picture import outline
from preprocess.picture.photograph import Photograph
from preprocess.picture.uncrop import undo_crop
from submissions.report import pictures
from submissions.report.evidence import Group, Source

# Mean AUC on the last fifth of ChestX-ray14's patients, as AWS published it for ResNet-50, one change after the other.
PUBLISHED = {"plain": 0.768, "weighted loss": 0.814, "float16": 0.821, "896 px": 0.830}
SUREST = 12  # false positives shown
MOST_BOXES = 100  # images with a box that are looked at, of each finding


def describe_findings(source: Source, group: Group | None) -> dict[str, Any]:
    """Return all that the page says of findings alone, in rows of tables."""
    if group is None:
        return {"together": [], "mistaken": None}
    names = source.task.names
    is_true = group.targets == 1
    counts = is_true.astype(int).T @ is_true.astype(int)
    return {
        "together": [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)],
        "mistaken": show_surest(source, group),
        "hits": measure_hits(source, group),
        "published": PUBLISHED,
    }


def show_surest(source: Source, group: Group) -> list[dict[str, Any]]:
    """Return the images that are most surely said to have a finding and have it not, each once, with its heat."""
    names = source.task.names
    wrong = np.where(group.targets == 0, group.last, -1.0)
    rows = np.argsort(-wrong.max(axis=1), kind="stable")[:SUREST]
    rows = rows[wrong[rows].max(axis=1) >= 0]
    outputs = wrong[rows].argmax(axis=1)
    images = [group.images[row] for row in rows]
    shown = pictures.show_images(source, group.split, images, [("last", outputs)])
    surest = []
    for image, row, output in zip(images, rows, outputs, strict=True):
        present = [
            name for name, target in zip(names, group.targets[row], strict=True) if target == 1
        ]
        score = f"{names[output]} {100 * wrong[row, output]:.1f} %"
        captions = dict(
            zip(("as the net is given it", names[output]), shown.get(image, []), strict=False)
        )
        surest.append(
            {
                "image": image,
                "title": f"{image}: {score}; has {', '.join(present) or 'none'}",
                "pictures": captions,
                "note": "",
            }
        )
    return surest


def measure_hits(source: Source, group: Group) -> list[list[Any]]:
    """Return how often the hottest pixel lies in a box that a person drew, a row for each finding with some.

    A row has the finding, how many images have a box, in how many of them it is hit, their share, and the boxes'.
    """
    boxes = source.dataset.boxes
    if not boxes:
        return []
    part = pictures.find_part(group.split)
    crops = read_crops(source.cache, part)
    paths = source.dataset.list_paths(part)
    rows: list[list[Any]] = []
    for output, name in enumerate(source.task.names):
        marked = {image: boxes_of[name] for image, boxes_of in boxes.items() if name in boxes_of}
        images = [image for image in marked if image in crops and image in set(group.images)][
            :MOST_BOXES
        ]
        seen = pictures.see(source, group.split, images, [("fine", np.full(len(images), output))])
        if seen is None or not seen.heats:
            continue
        are_hit = []
        shares = []
        for image, heat_map in zip(seen.images, seen.heats[0], strict=True):
            width, height = Photograph(paths[image]).size
            placed = undo_crop(
                heat_map, outline.read_disc(crops[image]), seen.making, (height, width)
            )
            y, x = np.unravel_index(int(placed.argmax()), placed.shape)
            are_hit.append(
                any(
                    left <= x <= left + w and top <= y <= top + h
                    for left, top, w, h in marked[image]
                )
            )
            shares.append(min(1.0, sum(w * h for *_, w, h in marked[image]) / (width * height)))
        rows.append(
            [name, len(are_hit), sum(are_hit), f"{np.mean(are_hit):.2f}", f"{np.mean(shares):.2f}"]
        )
    return rows
