"""What the report's sections say: evidence in, texts, rows of tables and figures for the template out."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dr.metrics import agreement, bootstrap, calibration, measures
from dr.metrics.bootstrap import StepGain
from dr.tasks.task import HEADLINES, draw_measures, find_prior
from preprocess import crop
from preprocess.cache import manifest, rejected, stage
from preprocess.command import pipeline
from preprocess.dataset import find
from preprocess.dataset.dataset import TARGETS, Task
from preprocess.disk.errors import InputError
from preprocess.picture import outline
from submissions.report import evidence, pictures
from submissions.report.evidence import BLEND, NET, Group, Source
from submissions.report.findings import describe_findings

TILES = 8  # typical photographs on the crop sheet, and as many of the least sure
HARDEST = 6  # patients shown with their pictures
MISTAKEN = 12  # images given a wrong class, likewise
MOST_ROWS = 100  # of rejected photographs, and of what training and test have in common


def collect(source: Source, name: str, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Return everything the template shows. Raises InputError if the cache holds nothing to report on."""
    groups, histories, task = evidence.read_groups(source), evidence.read_histories(source.cache), source.layout.task
    first, (headline, figure) = groups[0] if groups else None, HEADLINES[task.kind]
    crops = []
    if manifest.read_manifest(source.cache / "crop"):
        crops = sorted(crop.list_cropped(source.data, source.cache), key=lambda cropped: cropped[2]["confidence"])
    if not (groups or histories or crops):
        raise InputError(f"{source.cache}: holds nothing to report on; run ./run_all.sh first")
    if others and first is None:
        raise InputError(f"--compare: {source.cache} has no scores of images whose {TARGETS[task.kind]} is known")
    kappas = {of.title: measure_steps(task, of) for of in groups}
    steps = dict.fromkeys(step for measured in kappas.values() for step in measured)
    shares, reliability = share_levels(source, first), measure_scores(first) if first else {}
    names = [f"{level} {word}" for level, word in enumerate(task.names)] if task.kind == "levels" else task.names
    unusable, shared = rejected.read_rejected(source.cache), evidence.read_audit(source.cache)
    content = {
        "name": name,
        "disclaimer": pipeline.NOTICE,
        "task": task,
        "target": TARGETS[task.kind],
        "figure": figure,
        "first": first,
        "groups": groups,
        **describe_run(source, len(unusable)),
        "kappas": kappas,
        "cards": {title: list(measured.values())[-1].figure for title, measured in kappas.items()},
        "steps": [[step, *(measured.get(step) for measured in kappas.values())] for step in steps],
        "beside": compare(task, first, evidence.read_others(first, others, task)) if first and others else [],
        "confusions": {of.title: make_confusions(task, of) for of in groups} if task.kind != "findings" else {},
        "histories": histories,
        "epochs": list_epochs(histories, f"valid_{headline}"),
        "agreements": {of.title: make_agreements(task, of) for of in groups} if task.kind == "levels" else {},
        "reliability": reliability,
        "errors": [[which, bins.error] for which, bins in reliability.items()],
        "shares": shares,
        "roc": {},
        "frequencies": [[name, *(f"{100 * share[row]:.1f}" for share in shares.values())]
                        for row, name in enumerate(names)],
        "crops": draw_tiles(source.cache, crops),
        "n_crops": len(crops),
        "audit": shared and shared[:MOST_ROWS],
        "n_audit": Counter((row[0], row[1], row[3]) for row in shared or ()),
        "rejected": unusable[:MOST_ROWS],
        "n_rejected": Counter(row.split for row in unusable),
        "hardest": show_hardest(source, first) if first and first.scores and task.kind == "levels" else {},
    }  # fmt: skip
    if task.kind in evidence.FIGURES:
        content |= describe_each(task, groups)
        content["cards"] = {title: figure for title, figure, *_ in content["overall"]}  # of accuracy, Wilson's interval
    if task.kind == "findings":
        content |= describe_findings(source, first)
    elif task.kind == "classes":
        content["mistaken"] = show_mistaken(source, first) if first else None
    return content


def measure_steps(task: Task, group: Group) -> dict[str, StepGain]:
    """Return what each step is worth by the task's headline figure: kappa, accuracy, or the mean AUC of its scores."""
    if task.kind == "findings":
        found = {step: measures.measure_findings(group.patients, of, group.levels) for step, of in group.scores.items()}
        return {evidence.name_step(step, task): StepGain(auc, None) for step, ((auc, *_), _) in found.items()}
    counted = agreement.kappa_of_counts if task.kind == "levels" else agreement.accuracy_of_counts
    return bootstrap.measure_step_gains(group.patients, group.levels, group.given, counted)


def compare(task: Task, group: Group, others: Mapping[str, np.ndarray]) -> list[list[Any]]:
    """Return the figures of this run and of others, scores (n, k) each, and by how much they exceed this run's: rows.

    The differences are taken draw by draw of the same patients.
    """
    own = draw_measures(task, group.patients, group.last, group.levels)
    rows: list[list[Any]] = [["run", *own], ["this run", *map(bootstrap.estimate_drawn, own.values())]]
    for run, scores in others.items():
        drawn = draw_measures(task, group.patients, scores, group.levels)
        both = [(of, of - own[name]) for name, of in drawn.items()]
        rows.append([run, *(StepGain(*map(bootstrap.estimate_drawn, of)) for of in both)])
    return rows


# --- what was run -----------------------------------------------------------------------------------------------------


def describe_run(source: Source, n_rejected: int) -> dict[str, Any]:
    """Return rows on the photographs and labels, on the stages, and on the libraries' versions, all that were used."""
    data = {"folder": source.data.resolve().name}
    for split, title in (("train", "training photographs"), ("test", "test photographs")):
        images = list(source.layout.list_images(source.data, split).paths)
        patients = len(set(find.find_groups(source.layout, images)))
        data[title] = f"{len(images):,} of {patients:,} patients" if images else "none here"
    levels = evidence.read_training_levels(source)
    data |= {"training labels": "none here" if levels is None else f"{len(levels):,}", "rejected": f"{n_rejected:,}"}
    times, versions, stages = stage.read_times(source.cache), dict[str, dict[str, None]](), []
    shown = {ran: str(datetime.timedelta(seconds=round(elapsed_s))) for ran, elapsed_s in times.items()}
    for ran, folder in evidence.REPORTED.items():
        if written := manifest.read_manifest(source.cache / folder):
            parameters = {key: describe_value(of) for key, of in written["parameters"].items() if key != "version"}
            stages.append([ran, shown.get(ran), parameters])
            for library, version in written.get("versions", {}).items():
                versions.setdefault(library, {})[version] = None
    used = [[library, " and ".join(found)] for library, found in sorted(versions.items())]
    return {"data": list(data.items()), "stages": stages, "versions": used, "preprocess_time": shown.get("preprocess")}


def describe_value(value: Any) -> str:
    """Return a parameter as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)


def list_epochs(histories: Mapping[str, Sequence[Mapping[str, Any]]], headline: str) -> list[list[Any]]:
    """Return rows on the first, the best and the last epoch of each net: both log losses and the headline figure."""
    rows = []
    for run, figures in histories.items():
        best = min(figures, key=lambda row: row["valid_log_loss"])
        for label, row in (("first", figures[0]), ("least log loss", best), ("last", figures[-1])):
            columns = ("train_log_loss", "valid_log_loss", headline)
            rows.append([f"{run} {row['epoch']} ({label})", *(row[column] for column in columns)])
    return rows


def draw_tiles(cache: Path, crops: list[tuple[str, Path, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the photographs of the crop sheet, the least sure and those around the median; `crops` is sorted."""
    if not crops:
        return {}
    shape = outline.SHAPES[manifest.read_parameter(cache / "crop", "method", "preprocess.crop")]
    start = max(min(TILES, len(crops)), (len(crops) - TILES) // 2)
    chosen = {"least sure": crops[:TILES], "typical": crops[start : start + TILES]}
    return {title: [pictures.draw_tile(*tile, shape) for tile in tiles] for title, tiles in chosen.items() if tiles}


# --- what came of it --------------------------------------------------------------------------------------------------


def describe_each(task: Task, groups: Sequence[Group]) -> dict[str, Any]:
    """Return what the last step is worth for classes or findings: a row for each group, and one for each of them."""
    figures, overall, each = evidence.FIGURES[task.kind], [], {}
    for group in groups:
        together, separate = figures.measure(group.patients, group.last, group.levels)
        overall.append([group.title, *together])
        each[group.title] = [[name, *of] for name, of in zip(task.names, separate, strict=True)]
    return {"figures": figures, "overall": overall, "each": each}


def make_confusions(task: Task, group: Group) -> list[dict[str, Any]]:
    """Return the confusion matrices before and after the blend, and of the final labels, as far as there are."""
    matrices = []
    for step in dict.fromkeys([NET, BLEND, group.final]):
        if step in group.given:
            counts = agreement.count_pairs(group.levels, group.given[step], len(task.names))
            right, near = (agreement.share_near(counts, most) for most in (0, 1))
            note = f"{right:.1%} right" + f", {near:.1%} at most one level off" * (task.kind == "levels")
            matrices.append({"title": step, "counts": counts.tolist(), "note": note})
    return matrices


def make_agreements(task: Task, group: Group) -> list[dict[str, Any]]:
    """Return how the two eyes of patients agree, by their true levels and by those that the steps give."""
    levels = {"true levels": group.levels}
    levels |= {step: group.given[step] for step in (NET, group.final) if step in group.given}
    matrices = []
    for title, which in levels.items():
        counts = agreement.count_agreement(group.owners, which, len(task.names))
        if counts.any():
            same, near, farther = (agreement.share_near(counts, most) for most in range(3))
            note = f"the same {same:.1%}, at most 1 apart {near:.1%}, at most 2 apart {farther:.1%}"
            matrices.append({"title": title, "counts": counts.tolist(), "note": note})
    return matrices


def measure_scores(group: Group) -> dict[str, calibration.Reliability]:
    """Return how reliable the scores are before and after the blend."""
    before = "before the blend" if BLEND in group.scores else "the net"
    return {
        name: calibration.measure_reliability(group.patients, group.scores[step], group.levels)
        for name, step in ((before, NET), ("after the blend", BLEND))
        if step in group.scores
    }


def share_levels(source: Source, group: Group | None) -> dict[str, np.ndarray]:
    """Return how frequent the levels are: in the training labels, expected and given in the test set, true in a group.

    Without a test set, expected and given in the validation fold.
    """
    task, shares, training = source.layout.task, {}, evidence.read_training_levels(source)
    split, (scores, given) = "test", evidence.read_steps(source, "test")
    if not scores:
        split, (scores, given) = "valid", evidence.read_steps(source, "valid")
    if training is not None:
        shares["training labels"] = find_prior(task, training.to_numpy())
    if scores:
        shares["expected by the scores"] = scores.get(BLEND, list(scores.values())[-1]).to_numpy().mean(axis=0)
    for assigned in [levels for step, levels in given.items() if step not in scores]:
        shares["given"] = find_prior(task, assigned.to_numpy())
    if group and group.split == split:
        shares["true"] = find_prior(task, group.levels)
    return shares


def show_mistaken(source: Source, group: Group) -> list[dict[str, Any]]:
    """Return the images given a wrong class, those with the least score of the true one first.

    Each with the heat of the class given and of the true one.
    """
    names, given, true = source.layout.task.names, group.given[group.final], group.levels
    rows = np.flatnonzero(given != true)
    rows = rows[np.argsort(group.last[rows, true[rows]], kind="stable")][:MISTAKEN]
    images = [group.images[row] for row in rows]
    shown = pictures.show_images(source, group.split, images, [("last", given[rows]), ("last", true[rows])])
    mistaken = []
    for image, row in zip(images, rows, strict=True):
        titles = "as the net is given it", f"{names[given[row]]}, given", f"{names[true[row]]}, true"
        note = ", ".join(f"{name} {100 * score:.1f} %" for name, score in zip(names, group.last[row], strict=True))
        title = f"{image}: {names[true[row]]}, taken for {names[given[row]]}"
        captions = dict(zip(titles, shown.get(image, []), strict=False))
        mistaken.append({"image": image, "title": title, "pictures": captions, "note": note})
    return mistaken


def show_hardest(source: Source, group: Group) -> dict[str, list[dict[str, Any]]]:
    """Return the patients that are hardest to grade with their eyes: patient -> eyes, left first."""
    given = group.given[group.final]
    explained = group.given[NET if NET in group.given else list(group.scores)[-1]]
    ranked = calibration.rank_groups(group.patients, group.levels, given, group.last)[:HARDEST]
    rows = [row for patient in ranked for row, whose in enumerate(group.patients) if whose == patient]
    asked = [("last", explained[rows]), ("fine", explained[rows])]
    shown = pictures.show_images(source, group.split, [group.images[row] for row in rows], asked)
    hardest: dict[str, list[dict[str, Any]]] = {patient: [] for patient in ranked}
    for row in rows:
        titles = "photograph", *(f"level {explained[row]}, {grain}" for grain in ("coarse", "fine"))
        captions = dict(zip(titles, shown.get(group.images[row], []), strict=False))
        voices = {"net": group.scores.get(NET), "blend": group.scores.get(BLEND)}
        scores = {whose: of[row] for whose, of in voices.items() if of is not None}
        eye = {"image": group.images[row], "level": group.levels[row], "given": given[row]}
        hardest[group.owners[row].group].append(eye | {"scores": scores, "pictures": captions})
    return hardest
