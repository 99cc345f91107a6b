"""Write the report of a run: everything in CACHE, DATA and perhaps true test labels -> submissions/NAME.html, one file.

python -m submissions.report --data DIR --cache DIR [--name NAME | --out FILE.html] [--labels FILE]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess import eyes, stage
from submissions import evidence, figures, measures
from submissions.evidence import BLEND, NET, Group
from submissions.write import FOLDER, parse_name

VERSION = 1  # raise it when the same inputs give another report
TEMPLATE = FOLDER / "report.html.jinja"
TILES = 8  # typical photographs on the crop sheet, and as many of the least sure
HARDEST = 6  # patients shown with their pictures
REJECTED_SHOWN = 100
LEVEL_NAMES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")


class Matrix(NamedTuple):
    """A table of counts (5, 5): its heading, what rows and columns are, and a line about it."""

    title: str
    rows: str
    columns: str
    counts: list[list[int]]
    note: str


class HardEye(NamedTuple):
    """One eye of a hard patient: levels, scores, pictures as data URIs (None: not there)."""

    image: str
    level: int
    given: int
    explained: int  # the level that the heat speaks for
    scores: dict[str, list[float]]  # whose -> five
    square: str | None
    heats: list[str]


# --- what the sections say --------------------------------------------------------------------------------------------


def describe_data(data: Path, cache: Path) -> list[tuple[str, str]]:
    """Return what is known of the photographs and labels, as (what, how many)."""
    rows = []
    for split, title in (("train", "training photographs"), ("test", "test photographs")):
        images = list(eyes.list_images(data, split)[0])
        patients = len(set(eyes.patients_of(images)))
        rows.append((title, f"{len(images):,} of {patients:,} patients" if images else "none here"))
    levels = evidence.read_training_levels(data)
    rows.append(("training labels", "none here" if levels is None else f"{len(levels):,}"))
    return [("folder", data.resolve().name), *rows, ("rejected", f"{len(evidence.read_rejected(cache)):,}")]


def describe_value(value: Any) -> str:
    """Return a parameter as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)


def describe_percent(share: float) -> str:
    """Return a share in percent, without the sign."""
    return f"{100 * share:.1f}"


def describe_interval(of: measures.Estimate) -> str:
    """Return the ends of an interval."""
    return f"{of.low:.3f} to {of.high:.3f}"


def describe_gain(of: measures.Estimate) -> str:
    """Return a difference and its interval, all with their signs."""
    return f"{of.value:+.4f} ({of.low:+.3f} to {of.high:+.3f})".replace("-", "−")


def describe_duration(elapsed_s: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, seconds = divmod(round(elapsed_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((position for position, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first:])


def describe_stages(cache: Path) -> list[dict[str, Any]]:
    """Return a row per stage that has run: name, parameters, time; the image stages' time is that of all four."""
    stages = [ran._asdict() for ran in evidence.read_stages(cache)]
    for row in stages:
        shown = {key: value for key, value in row["parameters"].items() if key != "version"}
        row["parameters"] = {key.replace("_", " "): describe_value(value) for key, value in shown.items()}
    return stages


def describe_versions(cache: Path) -> dict[str, str]:
    """Return the libraries' versions; where stages ran with different ones, all of them."""
    found: dict[str, dict[str, None]] = {}
    for ran in evidence.read_stages(cache):
        for library, version in ran.versions.items():
            found.setdefault(library, {})[version] = None
    return {library: " and ".join(versions) for library, versions in sorted(found.items())}


def measure_steps(groups: Sequence[Group]) -> dict[str, dict[str, measures.Kappa]]:
    """Return what each step is worth in each group: group -> step -> Kappa."""
    return {
        group.title: measures.measure_kappas(
            group.images, group.levels, {name: step.levels for name, step in group.steps.items()}
        )
        for group in groups
    }


def make_confusions(group: Group) -> list[Matrix]:
    """Return the confusion matrices before and after the blend, and of the final labels, as far as there are."""
    wanted = [step for step in (NET, BLEND, find_final(group)) if step in group.steps]
    matrices = []
    for step in dict.fromkeys(wanted):
        counts = measures.count_pairs(group.levels, group.steps[step].levels)
        right = f"{np.trace(counts) / counts.sum():.1%} right, {_share_near(counts):.1%} at most one level off"
        matrices.append(Matrix(step, "true", "given", counts.tolist(), right))
    return matrices


def _share_near(counts: np.ndarray) -> float:
    return float(sum(np.trace(counts, offset) for offset in (-1, 0, 1)) / counts.sum())


def find_final(group: Group) -> str:
    """Return the last step a group has been through."""
    return list(group.steps)[-1]


def make_agreements(group: Group) -> list[Matrix]:
    """Return how the two eyes of patients agree, by their true levels and by those that the steps give."""
    levels = {"true levels": group.levels}
    for step in (NET, find_final(group)):
        if step in group.steps:
            levels[step] = group.steps[step].levels
    matrices = []
    for title, which in levels.items():
        agreement = measures.measure_agreement(group.images, which)
        if agreement:
            exact, near, within_two = agreement.shares
            note = f"the same {exact:.1%}, at most 1 apart {near:.1%}, at most 2 apart {within_two:.1%}"
            matrices.append(Matrix(title, "left", "right", agreement.counts.tolist(), note))
    return matrices


def measure_scores(group: Group) -> dict[str, measures.Reliability]:
    """Return how reliable the scores are before and after the blend."""
    return {
        name: measures.measure_reliability(group.images, group.steps[step].scores, group.levels)
        for name, step in (("before the blend", NET), ("after the blend", BLEND))
        if step in group.steps
    }


def share_levels(data: Path, cache: Path, group: Group | None) -> dict[str, np.ndarray]:
    """Return how frequent the levels are: in the training labels, expected and given in the test set, true in a group.

    Without a test set, expected and given in the validation fold.
    """
    split = "test" if evidence.read_steps(cache, "test") else "valid"
    tables, shares = evidence.read_steps(cache, split), {}
    assigned = evidence.read_assigned(cache, split, tables.get(BLEND))
    training = evidence.read_training_levels(data)
    if training is not None:
        shares["training labels"] = measures.share_levels(training)
    if tables:
        shares["expected by the scores"] = tables.get(BLEND, list(tables.values())[-1]).to_numpy().mean(axis=0)
    if assigned:
        shares["given"] = measures.share_levels(assigned[1].to_numpy())
    if group and group.split == split:
        shares["true"] = measures.share_levels(group.levels)
    return shares


def choose_tiles(crops: Sequence[tuple[str, Path, dict]]) -> dict[str, list]:
    """Return the photographs of the crop sheet, the least sure and those around the median; `crops` is sorted."""
    from submissions import pictures

    start = max(min(TILES, len(crops)), (len(crops) - TILES) // 2)
    chosen = {"least sure": crops[:TILES], "typical": crops[start : start + TILES]}
    return {title: [pictures.draw_tile(*tile) for tile in tiles] for title, tiles in chosen.items() if tiles}


def show_hardest(data: Path, cache: Path, group: Group) -> dict[str, list[HardEye]]:
    """Return the patients that are hardest to grade with their eyes: patient -> eyes, left first."""
    scored = [name for name, step in group.steps.items() if step.scores is not None]
    if not scored:
        return {}
    given, scores = group.steps[find_final(group)].levels, group.steps[scored[-1]].scores
    ranked = measures.rank_patients(group.images, group.levels, given, scores)[:HARDEST]
    patients = eyes.patients_of(group.images)
    rows = [row for patient in ranked for row in np.flatnonzero(patients == patient)]
    explained = group.steps[NET if NET in group.steps else scored[-1]].levels
    shown = show_eyes(data, cache, group, [group.images[row] for row in rows], explained[rows])
    hardest: dict[str, list[HardEye]] = {patient: [] for patient in ranked}
    whose = {"net": NET, "blend": BLEND}
    for row in rows:
        image, levels = group.images[row], [int(which[row]) for which in (group.levels, given, explained)]
        bars = {name: group.steps[step].scores[row].tolist() for name, step in whose.items() if step in group.steps}
        hardest[patients[row]].append(HardEye(image, *levels, bars, *shown.get(image, (None, []))))
    return hardest


def show_eyes(
    data: Path, cache: Path, group: Group, images: Sequence[str], levels: np.ndarray
) -> dict[str, tuple[str, list[str]]]:
    """Return pictures of eyes as data URIs: image -> (square, heat maps of the levels), as far as they exist."""
    from submissions import pictures

    net = evidence.find_net(cache)
    paths = pictures.list_squares(data, cache, group.split, images, net)
    if not paths:
        return {}
    squares = pictures.read_squares(paths)
    levels_of = dict(zip(images, levels.tolist(), strict=True))
    chosen = np.array([levels_of[image] for image in paths])
    heats = pictures.find_heat(cache, group.split, net, paths, chosen) if net else np.zeros((0, len(paths)))
    return {
        image: (
            pictures.encode_picture(pictures.shrink(square, pictures.SQUARE_PX)),
            [pictures.encode_heat(square, layer[position]) for layer in heats],
        )
        for position, (image, square) in enumerate(zip(paths, squares, strict=True))
    }


# --- the page ---------------------------------------------------------------------------------------------------------


def collect(data: Path, cache: Path, name: str, labels: Path | None) -> dict[str, Any]:
    """Return everything the template shows.

    Raises InputError if the cache holds nothing to report on.
    """
    groups, histories = evidence.read_groups(data, cache, labels), evidence.read_histories(cache)
    crops, rejected = evidence.list_crops(data, cache), evidence.read_rejected(cache)
    if not (groups or histories or crops):
        raise stage.InputError(f"{cache}: holds nothing to report on; run ./run_all.sh first")
    main_group = groups[0] if groups else None
    kappas, hardest = measure_steps(groups), show_hardest(data, cache, main_group) if main_group else {}
    return {
        "name": name,
        "disclaimer": stage.NOTICE,
        "level_names": LEVEL_NAMES,
        "data": describe_data(data, cache),
        "stages": describe_stages(cache),
        "image_time": evidence.read_times(cache).get("preprocess"),
        "versions": describe_versions(cache),
        "groups": groups,
        "kappas": kappas,
        "steps": list(dict.fromkeys(step for measured in kappas.values() for step in measured)),
        "confusions": {group.title: make_confusions(group) for group in groups},
        "agreements": {group.title: make_agreements(group) for group in groups},
        "reliability": measure_scores(main_group) if main_group else {},
        "histories": histories,
        "shares": share_levels(data, cache, main_group),
        "crops": choose_tiles(crops),
        "n_crops": len(crops),
        "rejected": rejected[:REJECTED_SHOWN],
        "n_rejected": Counter(row["split"] for row in rejected),
        "hardest": hardest,
        "has_heat": any(eye.heats for both in hardest.values() for eye in both),
    }


def draw_charts(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the charts there is something to draw of: name -> SVG."""
    parts = {
        "kappas": (figures.draw_kappas, content["kappas"]),
        "history": (figures.draw_history, content["histories"]),
        "reliability": (figures.draw_reliability, content["reliability"]),
        "levels": (figures.draw_levels, content["shares"]),
    }
    return {name: draw(of) for name, (draw, of) in parts.items() if of}


def render(content: Mapping[str, Any]) -> str:
    """Return the page. Whatever comes from files is escaped; only the charts, drawn here, are let through."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": describe_percent, "duration": describe_duration}
    environment.filters |= {"interval": describe_interval, "gain": describe_gain}
    charts = {name: Markup(svg) for name, svg in draw_charts(content).items()}  # noqa: S704
    return environment.from_string(TEMPLATE.read_text()).render(content, charts=charts)


# --- the stage --------------------------------------------------------------------------------------------------------


def write_report(data: Path, cache: Path, name: str, labels: Path | None, target: Path) -> str:
    """Bring the report in the cache up to date and put a copy in its place; return one line on what was done."""
    folder = cache / "report"
    parameters = {"version": VERSION, "name": name, "data": data.resolve().name}
    inputs = evidence.digest_inputs(data, cache, labels) | {"template": stage.hash_file(TEMPLATE)}
    change = stage.find_change(folder, parameters, inputs)
    if change is not None:
        page = render(collect(data, cache, name, labels)).encode()
        stage.write_bytes(folder / "report.html", page)
        outputs = {"report.html": stage.hash_file(folder / "report.html")}
        stage.write_manifest(folder, "submissions.report", parameters, inputs, outputs)
    content = (folder / "report.html").read_bytes()
    if not target.exists() or target.read_bytes() != content:
        stage.write_bytes(target, content)
    return f"{'cached' if change is None else change} -> {target} ({len(content) / 1e6:.1f} MB)"


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = stage.make_parser(
        "submissions.report",
        "Write submissions/NAME.html, one file that opens without a network: what was run, what each step is worth, "
        "where the net errs and looks. Figures are of the test set if its true levels are known, and of the validation "
        "fold, where the blend is cross-fitted. What the cache does not hold is named as missing.",
        "--data data --cache cache --name first",
    )
    parser.add_argument("--name", type=parse_name, default="submission", help="name of the file in submissions/")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write to this file instead")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="true levels of the test set, a CSV of image,level and perhaps Usage (Public, Private), as in Kaggle's "
        "retinopathy_solution.csv (default: DATA/testLabels.csv, if it exists)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    options = parse_options(argv)
    if not options.cache.is_dir():
        raise stage.InputError(f"{options.cache}: no such folder; run ./run_all.sh first, or give another --cache")
    target = options.out or FOLDER / f"{options.name}.html"
    with stage.locked(options.cache):
        summary = write_report(options.data, options.cache, options.name, options.labels, target)
    print(f"submissions.report: {summary}")
    print(stage.NOTICE)


if __name__ == "__main__":
    stage.run(main)
