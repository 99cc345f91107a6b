"""What the page says of findings alone: the figures of each, what occurs together, the surest mistakes, boxes hit."""

from typing import Any

import numpy as np

from dr import explain
from dr.metrics import bootstrap, ranking
from dr.scores import THRESHOLDS, read_thresholds
from preprocess.dataset import findings
from preprocess.photographs import read_crops
from preprocess.picture import outline
from preprocess.picture.photograph import Photograph
from submissions.report import pictures
from submissions.report.evidence import Group, Source

# Mean AUC on the last fifth of ChestX-ray14's patients, as AWS published it for ResNet-50, one change after the other.
PUBLISHED = {"plain": 0.768, "weighted loss": 0.814, "float16": 0.821, "896 px": 0.830}
SUREST = 12  # false positives shown
MOST_BOXES = 100  # images with a box that are looked at, of each finding


def describe_findings(source: Source, group: Group | None) -> dict[str, Any]:
    """Return all that the page says of findings alone, in rows of tables, and the ROC curve of each finding."""
    if group is None:
        return {"together": [], "mistaken": None}
    names, scores = source.layout.task.names, group.last
    is_true, known = group.levels == 1, ~np.isnan(group.levels)
    each = {name: (scores[known[:, k], k], is_true[known[:, k], k]) for k, name in enumerate(names)}
    thresholds = read_thresholds(source.cache / "dr" / THRESHOLDS, source.layout.task)
    rates = []
    for (name, (of, true)), threshold in zip(each.items(), [] if thresholds is None else thresholds, strict=False):
        if not np.isnan(threshold):
            found = bootstrap.estimate_share(int((of[true] >= threshold).sum()), int(true.sum()))
            left = bootstrap.estimate_share(int((of[~true] < threshold).sum()), int((~true).sum()))
            rates.append([name, float(threshold), found, left])
    together = (is_true.astype(int).T @ is_true.astype(int)).tolist()
    return {
        "rates": rates,
        "roc": {name: ranking.trace_roc(of, true) for name, (of, true) in each.items() if 0 < true.sum() < len(true)},
        "together": [[name, *counts] for name, counts in zip(names, together, strict=True)],
        "mistaken": show_surest(source, group),
        "hits": measure_hits(source, group),
        "published": PUBLISHED,
    }


def show_surest(source: Source, group: Group) -> list[dict[str, Any]]:
    """Return the images that are most surely said to have a finding and have it not, each once, with its heat."""
    wrong = np.where(group.levels == 0, group.last, -1.0)
    rows = np.argsort(-wrong.max(axis=1), kind="stable")[:SUREST]
    rows, names = rows[wrong[rows].max(axis=1) >= 0], source.layout.task.names
    given = wrong[rows].argmax(axis=1)
    images = [group.images[row] for row in rows]
    shown = pictures.show_images(source, group.split, images, [("last", given)])
    surest = []
    for image, row, output in zip(images, rows, given, strict=True):
        has = [name for name, true in zip(names, group.levels[row], strict=True) if true == 1]
        title = f"{image}: {names[output]} {100 * wrong[row, output]:.1f} %; has {', '.join(has) or 'none'}"
        captions = dict(zip(("as the net is given it", names[output]), shown.get(image, []), strict=False))
        surest.append({"image": image, "title": title, "pictures": captions, "note": ""})
    return surest


def measure_hits(source: Source, group: Group) -> list[list[Any]]:
    """Return how often the hottest pixel lies in a box of DATA/BBox_List_2017.csv, a row for each finding with some.

    A row has the finding, how many images have a box, in how many of them it is hit, their share, and the boxes'.
    """
    boxes, hits, split = findings.read_boxes(source.data), [], "test" if group.split == "test" else "train"
    rows = read_crops(source.cache, split) if boxes else {}
    paths = source.layout.list_images(source.data, split).paths
    for number, name in enumerate(source.layout.task.names):
        within = {*group.images} & rows.keys()
        images = [image for image, of in boxes.items() if name in of and image in within][:MOST_BOXES]
        seen = pictures.look(source, split, images, [("fine", np.full(len(images), number))])
        if seen is None or not seen.heats:
            continue
        found, shares = [], []
        for image, heat in zip(seen.images, seen.heats[0], strict=True):
            width, height = Photograph(paths[image]).size
            placed = explain.undo_crop(heat, outline.read_disc(rows[image]), seen.making, (height, width))
            y, x = np.unravel_index(int(placed.argmax()), placed.shape)
            marked = boxes[image][name]
            found.append(any(left <= x <= left + w and top <= y <= top + h for left, top, w, h in marked))
            shares.append(min(1.0, sum(w * h for *_, w, h in marked) / (width * height)))
        hits.append([name, len(found), sum(found), f"{np.mean(found):.2f}", f"{np.mean(shares):.2f}"])
    return hits
