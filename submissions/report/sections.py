"""What the report's sections say: evidence in, texts, rows of tables and figures for the template out."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dr.metrics import agreement, bootstrap, calibration
from dr.metrics.bootstrap import StepGain
from dr.tasks.task import Task, estimate_overall
from dr.training import runs, schedule
from preprocess import crop
from preprocess.cache import manifest, rejected, stage
from preprocess.command import pipeline
from preprocess.disk.errors import InputError
from preprocess.picture import depth, outline
from submissions.evaluation import tables
from submissions.evaluation.figures import trace_curves
from submissions.report import evidence, pictures
from submissions.report.evidence import BLEND, NET, Group, Source
from submissions.report.examples import show_hardest, show_mistaken
from submissions.report.figures import measure_group
from submissions.report.findings import describe_findings

TILES = 8  # typical photographs on the crop sheet, and as many of the least sure
MOST_ROWS = 100  # of rejected photographs, and of what training and test have in common


def collect(source: Source, name: str, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Return everything the template shows. Raises InputError if the cache holds nothing to report on."""
    task = source.task
    groups = evidence.read_groups(source)
    first = groups[0] if groups else None
    histories = evidence.read_histories(source.cache)
    crops = list_crops(source)
    if not (groups or histories or crops):
        raise InputError(f"{source.cache}: holds nothing to report on; run ./run_all.sh first")
    if others and first is None:
        raise InputError(
            f"--compare: {source.cache} has no scores of images whose {task.target} is known"
        )
    content = {
        "name": name,
        "disclaimer": pipeline.NOTICE,
        "task": task,
        "target": task.target,
        "figure": task.headline_name,
        "first": first,
        "groups": groups,
        "beside": [],
        "published": {},
        "hits": [],
        "confusions": {},
        "agreements": {},
        "hardest": {},
        "histories": histories,
        "epochs": list_epochs(histories, f"valid_{task.headline}"),
        "crops": draw_tiles(source.cache, crops),
        "n_crops": len(crops),
    }
    content |= describe_run(source)
    content |= describe_steps(task, groups)
    content |= describe_figures(task, groups)
    content |= describe_scores(first)
    content |= describe_frequencies(source, first)
    content |= describe_faults(source)
    if first and others:
        content["beside"] = compare(task, first, evidence.read_others(first, others, task))
    if task.is_exclusive:
        content["confusions"] = {group.title: make_confusions(task, group) for group in groups}
    if task.has_eyes:
        content["agreements"] = {group.title: make_agreements(task, group) for group in groups}
        if first and first.scores:
            content["hardest"] = show_hardest(source, first)
    elif task.has_thresholds:
        content |= describe_findings(source, first)
    else:
        content["mistaken"] = show_mistaken(source, first) if first else None
    return content


def describe_steps(task: Task, groups: Sequence[Group]) -> dict[str, Any]:
    """Return what each step is worth by the task's headline figure: a row per step, a column per group."""
    gains: dict[str, dict[str, StepGain]] = {}
    for group in groups:
        gains[group.title] = task.measure_steps(
            group.patients, group.targets, group.scores, group.decisions
        )
    steps = dict.fromkeys(step for gains_of_group in gains.values() for step in gains_of_group)
    return {
        "kappas": gains,
        "cards": {
            title: list(gains_of_group.values())[-1].figure
            for title, gains_of_group in gains.items()
        },
        "steps": [
            [step, *(gains_of_group.get(step) for gains_of_group in gains.values())]
            for step in steps
        ],
    }


def compare(task: Task, group: Group, others: Mapping[str, np.ndarray]) -> list[list[Any]]:
    """Return the figures of this run and of others, scores (n, k) each, and by how much they exceed this run's: rows.

    The differences are taken draw by draw of the same patients.
    """
    drawn_here = task.draw_measures(group.patients, group.last, group.targets)
    figures_here = []
    for name, values in drawn_here.items():
        figures_here.append(estimate_overall(name, values, group.patients))
    rows: list[list[Any]] = [["run", *drawn_here], ["this run", *figures_here]]
    for run, scores in others.items():
        row: list[Any] = [run]
        for name, values in task.draw_measures(group.patients, scores, group.targets).items():
            figure = estimate_overall(name, values, group.patients)
            difference = bootstrap.estimate_drawn(values - drawn_here[name])
            row.append(StepGain(figure, difference))
        rows.append(row)
    return rows


# --- what was run -----------------------------------------------------------------------------------------------------


def describe_run(source: Source) -> dict[str, Any]:
    """Return rows on the photographs and labels, on the stages, and on the libraries' versions, all that were used."""
    data = {"folder": source.dataset.folder.resolve().name}
    for part, title in (("train", "training photographs"), ("test", "test photographs")):
        images = list(source.dataset.list_paths(part))
        n_patients = len(set(source.dataset.get_patients(images)))
        data[title] = f"{len(images):,} of {n_patients:,} patients" if images else "none here"
    targets = evidence.read_training_targets(source)
    data["training labels"] = "none here" if targets is None else f"{len(targets):,}"
    data["rejected"] = f"{len(rejected.read_rejected(source.cache)):,}"
    times = {}
    for name, elapsed_s in read_times(source.cache).items():
        times[name] = str(datetime.timedelta(seconds=round(elapsed_s)))
    stages = []
    versions: dict[str, dict[str, None]] = {}
    for name, folder in evidence.REPORTED.items():
        written = manifest.read_manifest(source.cache / folder)
        if not written:
            continue
        parameters = {}
        for key, value in written["parameters"].items():
            if key != "version":
                parameters[key] = describe_value(value)
        stages.append([name, times.get(name), parameters])
        for library, version in written.get("versions", {}).items():
            versions.setdefault(library, {})[version] = None
    return {
        "data": list(data.items()),
        "stages": stages,
        "versions": [[library, " and ".join(used)] for library, used in sorted(versions.items())],
        "preprocess_time": times.get("preprocess"),
    }


def read_times(cache: Path) -> dict[str, float]:
    """Return the seconds that each stage took, over all runs whose scores these are."""
    times = stage.read_times(cache)
    for run in evidence.list_runs(cache):
        if run is None:
            continue
        for name, elapsed_s in stage.read_times(runs.folder_of(cache, run)).items():
            times[name] = times.get(name, 0.0) + elapsed_s
    return times


def describe_value(value: Any) -> str:
    """Return a parameter as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "not set" if value is None else str(value)


def list_epochs(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], headline: str
) -> list[list[Any]]:
    """Return rows on the first, the best and the last epoch of each net: both log losses and the headline figure."""
    rows = []
    for run, figures in histories.items():
        best = figures[schedule.find_best(figures) - 1]
        for label, row in (("first", figures[0]), ("least log loss", best), ("last", figures[-1])):
            title = f"{run} {row['epoch']} ({label})"
            rows.append([title, row["train_log_loss"], row["valid_log_loss"], row[headline]])
    return rows


def list_crops(source: Source) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return (image, path, row of the crop table) of the photographs that were cropped, the least sure first."""
    if not manifest.read_manifest(source.cache / "crop"):
        return []
    return sorted(
        crop.list_cropped(source.dataset, source.cache),
        key=lambda cropped: cropped[2]["confidence"],
    )


def draw_tiles(
    cache: Path, crops: list[tuple[str, Path, dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Return the photographs of the crop sheet, the least sure and those around the median; `crops` is sorted."""
    if not crops:
        return {}
    shape = outline.SHAPES[manifest.read_parameter(cache / "crop", "method", "preprocess.crop")]
    bits = depth.read_bits(cache / "crop")
    start = max(min(TILES, len(crops)), (len(crops) - TILES) // 2)
    chosen = {"least sure": crops[:TILES], "typical": crops[start : start + TILES]}
    tiles = {}
    for title, chosen_crops in chosen.items():
        if chosen_crops:
            tiles[title] = [
                pictures.draw_tile(image, path, row, shape, bits)
                for image, path, row in chosen_crops
            ]
    return tiles


def describe_faults(source: Source) -> dict[str, Any]:
    """Return the rejected photographs, and what training and test have in common."""
    unusable = rejected.read_rejected(source.cache)
    shared = evidence.read_audit(source.cache)
    return {
        "audit": None if shared is None else shared[:MOST_ROWS],
        "n_audit": Counter((row[0], row[1], row[3]) for row in shared or ()),
        "rejected": unusable[:MOST_ROWS],
        "n_rejected": Counter(row.split for row in unusable),
    }


# --- what came of it --------------------------------------------------------------------------------------------------


def describe_figures(task: Task, groups: Sequence[Group]) -> dict[str, Any]:
    """Return the tables of all figures of each group, the ROC curves of the first, and whether it only guesses."""
    by_group = {}
    for group in groups:
        by_group[group.title] = measure_group(task, group, groups)
    curves = {}
    verdicts: list[str] = []
    for title, measured in list(by_group.items())[:1]:
        verdicts = measured.verdicts
        traced = trace_curves(task, measured)
        if traced:
            curves = {title: traced}
    unsure = [note for measured in by_group.values() for note in tables.note_unsure(measured)]
    return {
        "figures": {
            title: tables.list_tables(task, measured) for title, measured in by_group.items()
        },
        "figures_note": tables.NOTE,
        "roc": curves,
        "unsure": unsure[:1],
        "verdicts": verdicts,
    }


def make_confusions(task: Task, group: Group) -> list[dict[str, Any]]:
    """Return the confusion matrices before and after the blend, and of the final labels, as far as there are."""
    matrices = []
    for step in dict.fromkeys([NET, BLEND, group.final]):
        if step not in group.decisions:
            continue
        counts = agreement.count_pairs(group.targets, group.decisions[step], len(task.names))
        note = f"{agreement.share_near(counts, 0):.1%} right"
        if task.has_eyes:
            note += f", {agreement.share_near(counts, 1):.1%} at most one level off"
        matrices.append({"title": step, "counts": counts.tolist(), "note": note})
    return matrices


def make_agreements(task: Task, group: Group) -> list[dict[str, Any]]:
    """Return how the two eyes of patients agree, by their true levels and by those that the steps decide on."""
    levels = {"true levels": group.targets}
    for step in (NET, group.final):
        if step in group.decisions:
            levels[step] = group.decisions[step]
    matrices = []
    for title, levels_of_step in levels.items():
        counts = agreement.count_agreement(group.subjects, levels_of_step, len(task.names))
        if counts.any():
            same, near, farther = (agreement.share_near(counts, most) for most in range(3))
            note = f"the same {same:.1%}, at most 1 apart {near:.1%}, at most 2 apart {farther:.1%}"
            matrices.append({"title": title, "counts": counts.tolist(), "note": note})
    return matrices


def describe_scores(group: Group | None) -> dict[str, Any]:
    """Return how reliable the scores are before and after the blend."""
    reliability: dict[str, calibration.Reliability] = {}
    if group:
        before = "before the blend" if BLEND in group.scores else "the net"
        for title, step in ((before, NET), ("after the blend", BLEND)):
            if step in group.scores:
                scores = group.scores[step]
                reliability[title] = calibration.measure_reliability(
                    group.patients, scores, group.targets
                )
    return {
        "reliability": reliability,
        "errors": [[title, bins.error] for title, bins in reliability.items()],
    }


def describe_frequencies(source: Source, group: Group | None) -> dict[str, Any]:
    """Return how frequent the targets are: in the training labels, expected and decided in the test set, true in a
    group. Without a test set they are expected and decided in the validation fold.
    """
    task = source.task
    shares: dict[str, np.ndarray] = {}
    training = evidence.read_training_targets(source)
    if training is not None:
        shares["training labels"] = task.find_prior(training.to_numpy())
    split = "test"
    steps = evidence.read_steps(source, "test")
    if not steps.scores:
        split = "valid"
        steps = evidence.read_steps(source, "valid")
    if steps.scores:
        last = list(steps.scores.values())[-1]
        shares["expected by the scores"] = steps.scores.get(BLEND, last).to_numpy().mean(axis=0)
    for step, decisions in steps.decisions.items():
        if step not in steps.scores:
            shares["given"] = task.find_prior(decisions.to_numpy())
    if group and group.split == split:
        shares["true"] = task.find_prior(group.targets)
    rows = []
    for output, title in enumerate(task.titles):
        rows.append([title, *(f"{100 * share[output]:.1f}" for share in shares.values())])
    return {"shares": shares, "frequencies": rows}
