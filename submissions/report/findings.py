"""What the page says of findings alone: the figures of each, what occurs together, the surest mistakes, boxes hit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dr import explain, measures
from dr.scores import THRESHOLDS, read_thresholds
from preprocess.images import read_crops
from preprocess.picture import outline
from preprocess.picture.photograph import Photograph
from preprocess.samples import findings
from submissions.report import evidence, pictures
from submissions.report.evidence import Group, Source

# Mean AUC on the last fifth of ChestX-ray14's patients, as AWS published it for ResNet-50, one change after the other.
PUBLISHED = {"plain": 0.768, "weighted loss": 0.814, "float16": 0.821, "896 px": 0.830}
SUREST = 12  # false positives shown
MOST_BOXES = 100  # images with a box that are looked at, of each finding


class Hits(NamedTuple):
    """In how many of the images with a box of a finding the hottest pixel lies in one, and the boxes' mean share."""

    n_hit: int
    n_images: int
    by_chance: float


def describe_findings(source: Source, groups: Sequence[Group]) -> dict[str, Any]:
    """Return all that the page says of findings alone, of each group or of the first."""
    if source.layout.task.kind != "findings":
        return {}
    lacking = {"confusion", "agreement", "hardest", "mistaken", "classes"}
    last = {group.title: list(group.scores.values())[-1] for group in groups}
    figures = {of.title: measures.measure_findings(of.patients, last[of.title], of.levels) for of in groups}
    described = {"lacking": lacking, "findings": figures, "published": PUBLISHED}
    if not groups:
        return described | {"rates": {}, "roc": {}, "together": [], "surest": [], "hits": {}}
    group, names = groups[0], source.layout.task.names
    scores, is_true = last[group.title], group.levels == 1
    known = ~np.isnan(group.levels)
    each = [(name, scores[known[:, k], k], is_true[known[:, k], k]) for k, name in enumerate(names)]
    thresholds = read_thresholds(source.cache / "dr" / THRESHOLDS, source.layout.task)
    return described | {
        "rates": {} if thresholds is None else {
            name: (threshold, measures.estimate_share(int((of[true] >= threshold).sum()), int(true.sum())),
                   measures.estimate_share(int((of[~true] < threshold).sum()), int((~true).sum())))
            for (name, of, true), threshold in zip(each, thresholds, strict=True) if not np.isnan(threshold)
        },
        "roc": {name: measures.trace_roc(of, true) for name, of, true in each if 0 < true.sum() < len(true)},
        "together": (is_true.astype(int).T @ is_true.astype(int)).tolist(),
        "surest": show_surest(source, group, scores),
        "hits": measure_hits(source, group),
    }  # fmt: skip


def show_surest(source: Source, group: Group, scores: np.ndarray) -> list[dict[str, Any]]:
    """Return the images that are most surely said to have a finding and have it not, each once, with its heat."""
    wrong = np.where(group.levels == 0, scores, -1.0)
    rows = np.argsort(-wrong.max(axis=1), kind="stable")[:SUREST]
    rows, names = rows[wrong[rows].max(axis=1) >= 0], source.layout.task.names
    given = wrong[rows].argmax(axis=1)
    shown = pictures.show_eyes(source, group.split, [group.images[row] for row in rows], given)
    surest = []
    for row, finding in zip(rows, given, strict=True):
        square, heats = shown.get(group.images[row], (None, {}))
        has = [name for name, true in zip(names, group.levels[row], strict=True) if true == 1]
        told = {"image": group.images[row], "finding": names[finding], "score": wrong[row, finding], "has": has}
        surest.append(told | {"square": square, "heat": heats.get("coarse")})
    return surest


def measure_hits(source: Source, group: Group) -> dict[str, Hits]:
    """Return how often the hottest pixel lies in a box of DATA/BBox_List_2017.csv, of each finding that has some."""
    boxes, hits = findings.read_boxes(source.data), {}
    net, in_group = evidence.find_net(source.cache), set(group.images)
    rows = read_crops(source.cache, "test" if group.split == "test" else "train") if boxes and net else {}
    for number, name in enumerate(source.layout.task.names):
        images = [image for image, of in boxes.items() if name in of and image in in_group & rows.keys()][:MOST_BOXES]
        heats = pictures.map_heats(source, group.split, images, number) if images else {}
        found: list[bool] = []
        shares: list[float] = []
        paths = source.layout.list_images(source.data, "test" if group.split == "test" else "train").paths
        for image, heat in heats.items():
            width, height = Photograph(paths[image]).size
            assert net is not None
            placed = explain.undo_crop(heat, outline.read_disc(rows[image]), net.making, (height, width))
            y, x = np.unravel_index(int(placed.argmax()), placed.shape)
            marked = boxes[image][name]
            found.append(any(left <= x <= left + w and top <= y <= top + h for left, top, w, h in marked))
            shares.append(min(1.0, sum(w * h for *_, w, h in marked) / (width * height)))
        if found:
            hits[name] = Hits(sum(found), len(found), float(np.mean(shares)))
    return hits
