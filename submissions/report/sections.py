"""What the report's sections say: evidence in, texts, tables and figures for the template out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dr import measures
from dr.measures import Worth
from dr.task import HEADLINES, draw_measures, find_prior
from preprocess import crop
from preprocess.cache import manifest, rejected, stage
from preprocess.cache.errors import InputError
from preprocess.picture import outline
from preprocess.samples import readers
from preprocess.samples.layout import TARGETS, Task
from submissions.report import evidence, pictures
from submissions.report.evidence import BLEND, NET, Group, Source
from submissions.report.findings import describe_findings

TILES = 8  # typical photographs on the crop sheet, and as many of the least sure
HARDEST = 6  # patients shown with their pictures
MISTAKEN = 12  # images given a wrong class, likewise
REJECTED_SHOWN = AUDITED_SHOWN = 100


def collect(source: Source, name: str, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Return everything the template shows. Raises InputError if the cache holds nothing to report on."""
    groups, histories = evidence.read_groups(source), evidence.read_histories(source.cache)
    crops = []
    if manifest.read_manifest(source.cache / "crop"):
        crops = sorted(crop.list_cropped(source.data, source.cache), key=lambda cropped: cropped[2]["confidence"])
    if not (groups or histories or crops):
        raise InputError(f"{source.cache}: holds nothing to report on; run ./run_all.sh first")
    if others and not groups:
        raise InputError(
            f"--compare: {source.cache} has no scores of images whose {TARGETS[source.layout.task.kind]} is known"
        )
    kept = {name: manifest.read_manifest(source.cache / folder) for name, folder in evidence.REPORTED.items()}
    stages = {name: written for name, written in kept.items() if written}
    unusable = rejected.read_rejected(source.cache)
    task, shared = source.layout.task, evidence.read_audit(source.cache)
    described = describe_classes(source, groups) | describe_findings(source, groups)
    kappas = {of.title: measure_steps(task, of) for of in groups}
    hardest = show_hardest(source, groups[0]) if groups and task.kind == "levels" else {}
    headline, figure = HEADLINES[task.kind]
    return described | {
        "task": task,
        "kind": task.kind,
        "target": TARGETS[task.kind],
        "targets": task.kind,
        "headline": headline,
        "figure": figure,
        "name": name,
        "disclaimer": stage.NOTICE,
        "level_names": task.names,
        "data": describe_data(source, len(unusable)),
        "stages": stages,
        "times": stage.read_times(source.cache),
        "versions": list_versions(stages),
        "groups": groups,
        "beside": compare(task, groups[0], evidence.read_others(groups[0], others, task)) if others and groups else {},
        "kappas": kappas,
        "cards": {of.title: find_card(task, of, kappas[of.title]) for of in groups},
        "steps": list(dict.fromkeys(step for measured in kappas.values() for step in measured)),
        "confusions": {of.title: make_confusions(task, of) for of in groups if "confusion" not in described["lacking"]},
        "agreements": {of.title: make_agreements(of) for of in groups if "agreement" not in described["lacking"]},
        "reliability": measure_scores(groups[0]) if groups else {},
        "histories": histories,
        "shares": share_levels(source, groups),
        "audit": shared and shared[:AUDITED_SHOWN],
        "n_audit": Counter((row["what"], row["part"], row["other_part"]) for row in shared or ()),
        "crops": draw_tiles(source.cache, crops),
        "n_crops": len(crops),
        "rejected": unusable[:REJECTED_SHOWN],
        "n_rejected": Counter(row.split for row in unusable),
        "hardest": hardest,
        "has_heat": any(eye["heats"] for both in hardest.values() for eye in both),
    }


def measure_steps(task: Task, group: Group) -> dict[str, Worth]:
    """Return what each step is worth by the task's headline figure: kappa, accuracy, or the mean AUC of its scores."""
    if task.kind == "findings":
        each = {step: measures.measure_findings(group.patients, of, group.levels) for step, of in group.scores.items()}
        return {evidence.name_step(step, task): Worth(of.auc, None) for step, of in each.items()}
    counted = measures.kappa_of_counts if task.kind == "levels" else measures.accuracy_of_counts
    return measures.measure_worth(group.patients, group.levels, group.given, counted)


def compare(task: Task, group: Group, others: Mapping[str, np.ndarray]) -> dict[str, dict[str, Worth]]:
    """Return the figures of this run and of others, scores (n, k) each, and by how much they exceed this run's.

    The differences are taken draw by draw of the same patients.
    """
    scores = {"this run": list(group.scores.values())[-1], **others}
    drawn = {run: draw_measures(task, group.patients, of, group.levels) for run, of in scores.items()}
    own = drawn["this run"]

    def weigh(values: np.ndarray, less: np.ndarray) -> Worth:
        return Worth(measures.estimate_drawn(values), measures.estimate_drawn(values - less))

    return {run: {name: weigh(values, own[name]) for name, values in of.items()} for run, of in drawn.items()}


def describe_value(value: Any) -> str:
    """Return a parameter as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)


def describe_duration(elapsed_s: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, seconds = divmod(round(elapsed_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((position for position, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first:])


# --- what was run -----------------------------------------------------------------------------------------------------


def describe_data(source: Source, n_rejected: int) -> dict[str, str]:
    """Return what is known of the photographs and labels: what -> how many."""
    data = {"folder": source.data.resolve().name}
    for split, title in (("train", "training photographs"), ("test", "test photographs")):
        images = list(source.layout.list_images(source.data, split).paths)
        patients = len(set(readers.find_groups(source.layout, images)))
        data[title] = f"{len(images):,} of {patients:,} patients" if images else "none here"
    levels = evidence.read_training_levels(source)
    return data | {
        "training labels": "none here" if levels is None else f"{len(levels):,}",
        "rejected": f"{n_rejected:,}",
    }


def list_versions(stages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the libraries' versions; where stages ran with different ones, all of them."""
    found: dict[str, dict[str, None]] = {}
    for written in stages.values():
        for library, version in written.get("versions", {}).items():
            found.setdefault(library, {})[version] = None
    return {library: " and ".join(versions) for library, versions in sorted(found.items())}


def draw_tiles(cache: Path, crops: list[tuple[str, Path, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the photographs of the crop sheet, the least sure and those around the median; `crops` is sorted."""
    if not crops:
        return {}
    shape = outline.SHAPES[manifest.read_parameter(cache / "crop", "method", "preprocess.crop")]
    start = max(min(TILES, len(crops)), (len(crops) - TILES) // 2)
    chosen = {"least sure": crops[:TILES], "typical": crops[start : start + TILES]}
    return {title: [pictures.draw_tile(*tile, shape) for tile in tiles] for title, tiles in chosen.items() if tiles}


# --- what came of it --------------------------------------------------------------------------------------------------


def find_card(task: Task, group: Group, steps: dict[str, measures.Worth]) -> measures.Estimate:
    """Return what a group's last step is worth, for the top of the page: of classes, Wilson's interval."""
    if task.kind != "classes":
        return list(steps.values())[-1].figure
    return measures.estimate_share(int((group.given[group.final] == group.levels).sum()), len(group.levels))


def make_confusions(task: Task, group: Group) -> list[dict[str, Any]]:
    """Return the confusion matrices before and after the blend, and of the final labels, as far as there are."""
    matrices = []
    for step in dict.fromkeys([NET, BLEND, group.final]):
        if step in group.given:
            counts = measures.count_pairs(group.levels, group.given[step], group.n_levels)
            near = float(sum(np.trace(counts, offset) for offset in (-1, 0, 1)) / counts.sum())
            note = f"{np.trace(counts) / counts.sum():.1%} right"
            note += f", {near:.1%} at most one level off" * (task.kind == "levels")
            names = task.names if task.kind == "classes" else range(len(counts))
            table = {"title": step, "sides": ("true", "given"), "names": list(names)}
            matrices.append(table | {"counts": counts.tolist(), "note": note})
    return matrices


def make_agreements(group: Group) -> list[dict[str, Any]]:
    """Return how the two eyes of patients agree, by their true levels and by those that the steps give."""
    levels = {"true levels": group.levels}
    levels |= {step: group.given[step] for step in (NET, group.final) if step in group.given}
    matrices = []
    for title, which in levels.items():
        agreement = measures.measure_agreement(group.owners, which, group.n_levels)
        if agreement:
            note = "the same {:.1%}, at most 1 apart {:.1%}, at most 2 apart {:.1%}".format(*agreement.shares)
            table = {"title": title, "sides": ("left", "right"), "names": list(range(group.n_levels))}
            matrices.append(table | {"counts": agreement.counts.tolist(), "note": note})
    return matrices


def measure_scores(group: Group) -> dict[str, measures.Reliability]:
    """Return how reliable the scores are before and after the blend."""
    return {
        name: measures.measure_reliability(group.patients, group.scores[step], group.levels)
        for name, step in (
            ("before the blend" if BLEND in group.scores else "the net", NET),
            ("after the blend", BLEND),
        )
        if step in group.scores
    }


def share_levels(source: Source, groups: list[Group]) -> dict[str, np.ndarray]:
    """Return how frequent the levels are: in the training labels, expected and given in the test set, true in a group.

    Without a test set, expected and given in the validation fold.
    """
    task, split = source.layout.task, "test"
    scores, given = evidence.read_steps(source, split)
    if not scores:
        split = "valid"
        scores, given = evidence.read_steps(source, split)
    shares, training = {}, evidence.read_training_levels(source)
    if training is not None:
        shares["training labels"] = find_prior(task, training.to_numpy())
    if scores:
        shares["expected by the scores"] = scores.get(BLEND, list(scores.values())[-1]).to_numpy().mean(axis=0)
    for assigned in [levels for step, levels in given.items() if step not in scores]:
        shares["given"] = find_prior(task, assigned.to_numpy())
    if groups and groups[0].split == split:
        shares["true"] = find_prior(task, groups[0].levels)
    return shares


def describe_classes(source: Source, groups: list[Group]) -> dict[str, Any]:
    """Return what the page says of classes alone: their figures, and the images mistaken for another class."""
    if source.layout.task.kind != "classes":
        return {"lacking": {"classes", "mistaken"}}
    last = {group.title: list(group.scores.values())[-1] for group in groups}
    figures = {of.title: measures.measure_classes(of.patients, last[of.title], of.levels) for of in groups}
    mistaken, n_mistaken = show_mistaken(source, groups[0]) if groups else (None, 0)
    lacking = {"agreement", "hardest"}
    return {"lacking": lacking, "classes": figures, "mistaken": mistaken, "n_mistaken": n_mistaken}


def show_mistaken(source: Source, group: Group) -> tuple[list[dict[str, Any]], int]:
    """Return the images given a wrong class, those with the least score of the true one first, and how many there are.

    Each with the heat of the class given and of the true one.
    """
    names, scores = source.layout.task.names, list(group.scores.values())[-1]
    given, true = group.given[group.final], group.levels
    wrong = np.flatnonzero(given != true)
    shown = wrong[np.argsort(scores[wrong, true[wrong]], kind="stable")][:MISTAKEN]
    images = [group.images[row] for row in shown]
    of = [pictures.show_eyes(source, group.split, images, targets[shown]) for targets in (given, true)]
    mistaken: list[dict[str, Any]] = []
    for row, image in zip(shown, images, strict=True):
        entry = {"image": image, "true": names[true[row]], "given": names[given[row]]}
        heats = [both[image][1].get("coarse") if image in both else None for both in of]
        entry["square"] = of[0][image][0] if image in of[0] else None
        entry["heats"] = {name: heat for name, heat in zip((entry["given"], entry["true"]), heats, strict=True) if heat}
        mistaken.append(entry | {"scores": dict(zip(names, scores[row], strict=True))})
    return mistaken, len(wrong)


def show_hardest(source: Source, group: Group) -> dict[str, list[dict[str, Any]]]:
    """Return the patients that are hardest to grade with their eyes: patient -> eyes, left first."""
    if not group.scores:
        return {}
    last = list(group.scores)[-1]
    given, explained = group.given[group.final], group.given[NET if NET in group.given else last]
    ranked = measures.rank_groups(group.patients, group.levels, given, group.scores[last])[:HARDEST]
    rows = [row for patient in ranked for row, whose in enumerate(group.patients) if whose == patient]
    shown = pictures.show_eyes(source, group.split, [group.images[row] for row in rows], explained[rows])
    hardest: dict[str, list[dict[str, Any]]] = {patient: [] for patient in ranked}
    for row in rows:
        scores = {whose: group.scores.get(step) for whose, step in (("net", NET), ("blend", BLEND))}
        square, heats = shown.get(group.images[row], (None, {}))
        eye = {"image": group.images[row], "square": square, "heats": heats}
        eye |= {"level": group.levels[row], "given": given[row], "explained": explained[row]}
        eye["scores"] = {whose: of[row] for whose, of in scores.items() if of is not None}
        hardest[group.owners[row].group].append(eye)
    return hardest
