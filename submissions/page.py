"""What the page of `submissions.serve` shows: uploaded photographs -> grades, pictures and heat; no file stays."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd

from dr import look, out_of_distribution
from dr.metrics.operating import UNSURE
from dr.nets import heat
from dr.tasks.task import Task
from preprocess.dataset import listing
from preprocess.disk.errors import InputError
from preprocess.disk.files import show_path
from preprocess.picture import outline, sheet
from preprocess.picture.photograph import Photograph
from preprocess.picture.square import make_square
from submissions import ensemble as ensembles
from submissions import photographs
from submissions.ensemble import Ensemble, Grade
from submissions.grade import DECIMALS, UNDECIDED, Source, describe_all
from submissions.output import model
from submissions.output.model import Known
from submissions.output.pictures import encode, encode_picture
from submissions.photographs import Listed

FIELDS = ("left", "right", "images", "folder")  # of the page's forms
MOST_DRAWN = 4  # photographs shown with heat; of more there is a table
SHOWN_PX = 640  # longer side of the heat
FULL_PX = 1600  # longer side of a photograph, which the page also shows by itself, as large as the window or larger
LEGEND_COLORS = 9  # of the legend, between which a browser blends
WEBP_OPTIONS = (cv2.IMWRITE_WEBP_QUALITY, 80)

Uploads = Mapping[
    str, Sequence[tuple[str, BinaryIO]]
]  # field -> name and content of each file dropped there


Note = Callable[[int, int], object]  # takes how many photographs are done, and of how many


class Graded(NamedTuple):
    """What came of uploads: grades, and the files that were refused, name -> reason, by the names they were sent by."""

    grades: list[Grade]
    refused: list[tuple[str, str]]


def answer(
    ensemble: Ensemble,
    is_strict: bool,
    uploads: Uploads,
    note: Note | None = None,
    known: Known | None = None,
) -> dict[str, Any]:
    """Return what the page shows of photographs, whose files are gone then.

    `note` is called with how many photographs are done, and of how many; `known` is what the run is worth. Raises
    InputError, in words for the page, if there are none, or it is not clear whose eyes they show.
    """
    with tempfile.TemporaryDirectory() as name:
        grades, refused = grade_uploads(ensemble, is_strict, uploads, Path(name), note)
        cards = []
        if len(grades) <= MOST_DRAWN:
            cards = [describe(ensemble, graded, known) for graded in grades]
    rows = [make_row(graded, ensemble.task, known) for graded in grades]
    table = f"data:text/csv;charset=utf-8,{quote(pd.DataFrame(rows).to_csv(index=False))}"
    return {
        "rows": rows,
        "csv": table,
        "cards": cards,
        "refused": refused,
        "heat_colors": list_heat_colors(),
    }


def answer_json(
    ensemble: Ensemble, is_strict: bool, source: Source, uploads: Uploads
) -> dict[str, Any]:
    """Return what a program is told of photographs, whose files are gone then: what `grade --json` prints of them.

    Raises InputError as `answer` does.
    """
    with tempfile.TemporaryDirectory() as name:
        grades, refused = grade_uploads(ensemble, is_strict, uploads, Path(name))
    names = {
        show_path(graded.eye.path): listing.show_name(graded.eye.path.name) for graded in grades
    }
    return describe_all(grades, dict(refused), source, names)


def grade_uploads(
    ensemble: Ensemble, is_strict: bool, uploads: Uploads, folder: Path, note: Note | None = None
) -> Graded:
    """Return the grades of photographs, which are kept in an empty folder. Raises InputError as `answer` does."""
    refused = keep(uploads, folder)
    listed = Listed({}, {})
    if not refused or any(folder.glob("*/*")):
        try:
            listed = list_photographs(folder, ensemble.task)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
    grades, reasons = ensembles.grade_eyes(ensemble, listed.subjects, is_strict, note)
    for path, reason in {**listed.misnamed, **reasons}.items():
        refused.append((listing.show_name(Path(path).name), reason))
    for line in listed.unread:
        name, _, reason = line.partition(": ")
        refused.append((listing.show_name(Path(name).name), reason))
    return Graded(grades, refused)


def keep(uploads: Uploads, folder: Path) -> list[tuple[str, str]]:
    """Write each field's files into a folder of its own, and return those that cannot be kept, with the reason."""
    refused = []
    for field in FIELDS:
        (folder / field).mkdir()
        for path, content in uploads.get(field, ()):
            name = PurePosixPath(path).name  # a browser sends the path of a folder's files
            try:
                with (folder / field / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
            except (OSError, ValueError) as error:
                reason = f"cannot be kept: {getattr(error, 'strerror', None) or error}"
                if isinstance(error, FileExistsError) and name not in ("", ".."):
                    reason = "another file of this name was sent, too; rename one"
                refused.append((listing.show_name(path), reason))
    return refused


def list_photographs(folder: Path, task: Task) -> Listed:
    """Return the photographs that were kept, and the misnamed files, see `submissions.photographs`."""
    kept = {field: sorted((folder / field).iterdir()) for field in FIELDS}
    if not task.has_eyes:
        folders = [folder / "folder"] if kept["folder"] else []
        return photographs.list_images([*kept["images"], *folders], is_uploaded=True)
    for side in ("left", "right"):
        if len(kept[side]) > 1:
            raise InputError(
                f"{len(kept[side])} photographs of the {side} eye; give one, or all of them as a folder"
            )
    left = kept["left"][0] if kept["left"] else None
    right = kept["right"][0] if kept["right"] else None
    folders = [folder / "folder"] if kept["folder"] else []
    return photographs.list_eyes(folders, left, right, None, is_uploaded=True)


def make_row(graded: Grade, task: Task, known: Known | None = None) -> dict[str, Any]:
    """Return one photograph's row of the table: whose it is, the decision, the warnings, all probabilities."""
    row: dict[str, Any] = {"photograph": listing.show_name(graded.eye.path.name)}
    if task.has_eyes:
        subject = graded.eye.subject
        row |= {"patient": subject.patient, "side": subject.side, "level": graded.output}
        row["expected_level"] = round(graded.expected, DECIMALS)
        row["likeliest_level"] = graded.likeliest
        screened = model.screen(task, known, graded.last) if known else None
        if screened is not None:
            row[screened["condition"]] = round(screened["probability"], DECIMALS)
    else:
        row[task.target] = "; ".join(graded.decision or [])
    row["doubts"] = "; ".join(list_warnings(graded))
    for prefix, scores in (("", graded.scores), ("blended_", graded.blended)):
        if scores is not None:
            names = [f"{prefix}{column}" for column in task.columns]
            row |= dict(zip(names, scores.round(DECIMALS).tolist(), strict=True))
    return row


def list_warnings(graded: Grade) -> list[str]:
    """Return the warnings; one is that the out-of-distribution check is unavailable."""
    if graded.eye.distance is None:
        return [*graded.warnings, out_of_distribution.UNKNOWN]
    return graded.warnings


def describe_rule(task: Task, graded: Grade) -> str:
    """Return, where the level is not the likeliest, both and the rule in words; "" where they are the same."""
    if not task.has_eyes or graded.output == graded.likeliest:
        return ""
    likeliest = graded.likeliest
    share = graded.last[likeliest]
    return (
        f"The likeliest level is {likeliest}, {task.names[likeliest]} ({share:.0%}). The level shown is "
        f"{task.decision_rule}, {graded.expected:.2f}: it costs least where a distant level is the worse mistake."
    )


def describe(ensemble: Ensemble, graded: Grade, known: Known | None = None) -> dict[str, Any]:
    """Return one photograph's card: the decision in words, the scores, and pictures as data URIs.

    An output for which nothing speaks has no heat, but None.
    """
    verdict = UNDECIDED
    if graded.decision is not None:
        verdict = ", ".join(graded.decision) or "none of the findings"
        undecided = ensembles.list_undecided(ensemble.thresholds)
        if undecided:
            verdict += f" (not decided: {', '.join(undecided)}; {UNSURE})"
    if ensemble.task.has_eyes:
        verdict = f"level {graded.output}, {verdict}"
    scores = {"net": graded.last}  # of one eye alone, those that it is graded by
    if graded.blended is not None and graded.has_fellow:
        scores = {"net": graded.scores, "blend": graded.blended}
    rgb, heats = draw(ensemble, graded.eye.path)
    return {
        "name": listing.show_name(graded.eye.path.name),
        "grade": graded,
        "warnings": list_warnings(graded),
        "verdict": verdict,
        "rule": describe_rule(ensemble.task, graded),
        "screening": model.screen(ensemble.task, known, graded.last) if known else None,
        "scores": scores,
        "picture": encode_picture(rgb, max(rgb.shape[:2])),
        "heats": [draw_heat(heat_map) if heat_map.any() else None for heat_map in heats],
    }


def draw(ensemble: Ensemble, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph with its outline, (h, w, 3) uint8 RGB, and where the last net looks, (k, h, w) float32, 0-1.

    The longer side is FULL_PX at most, that of the heat SHOWN_PX. There is heat where something speaks for an output,
    as `dr.explain` draws it.
    """
    checkpoint = ensemble.members[-1].checkpoint
    square = make_square(path, checkpoint.making)
    width, height = Photograph(path).size
    row = {"width": width, "height": height, **vars(square.disc)}
    full_px = max(SHOWN_PX, min(FULL_PX, max(width, height)))
    rgb = sheet.draw_outline(
        path, row, outline.SHAPES[checkpoint.making.crop], full_px, checkpoint.making.bits
    )
    asked = look.Asked("fine", np.arange(len(checkpoint.task.names)))
    scale = SHOWN_PX / max(width, height)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)), 3)
    seen = look.see_photograph(ensemble.nets[-1], checkpoint, square, asked, shape, scale)
    return rgb, seen.placed


def draw_heat(heat_map: np.ndarray) -> str:
    """Return heat, (h, w) float32, 0-1, as the data URI of a picture that is the more opaque the hotter it is."""
    levels = np.rint(255 * heat_map).astype(np.uint8)
    return encode(np.dstack([cv2.applyColorMap(levels, heat.COLORS), levels]), "webp", WEBP_OPTIONS)


def list_heat_colors() -> list[str]:
    """Return the colours of heat from none, which is transparent, to most, as a page names them, for its legend."""
    levels = np.linspace(0, 255, LEGEND_COLORS).astype(np.uint8)
    bgr = cv2.applyColorMap(levels[None], heat.COLORS)[0]
    colors = []
    for level, (blue, green, red) in zip(levels.tolist(), bgr.tolist(), strict=True):
        colors.append(f"rgb({red} {green} {blue} / {level / 255:.2f})")
    return colors
