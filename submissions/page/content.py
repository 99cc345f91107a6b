"""What the page of `submissions.serve` shows: uploaded photographs -> grades, pictures and heat; no file stays."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd

from dr.explain import NOBODY, UNKNOWN, undo_crop
from dr.nets import heat
from dr.squares import crops, store
from dr.tasks.task import name_columns
from preprocess.dataset import listing
from preprocess.dataset.dataset import TARGETS, Owner, Task
from preprocess.disk.errors import InputError
from preprocess.picture import outline, sheet, square
from preprocess.picture.photograph import Photograph
from submissions import ensemble
from submissions.ensemble import Grade, Panel
from submissions.grade import DECIMALS, UNDECIDED, list_images, list_photographs
from submissions.report.pictures import encode, encode_picture

FIELDS = ("left", "right", "images", "folder")  # of the page's forms
MOST_DRAWN = 4  # photographs shown with heat; of more there is a table
SHOWN_PX = 640  # longer side of a photograph on the page
WEBP_OPTIONS = (cv2.IMWRITE_WEBP_QUALITY, 80)

Uploads = Mapping[str, Sequence[tuple[str, BinaryIO]]]  # field -> name and content of each file dropped there


def answer(of: Panel, is_strict: bool, uploads: Uploads) -> dict[str, Any]:
    """Return what the page tells of photographs, whose files are gone then.

    Raises InputError, in words for the page, if there are none, or it is not clear whose eyes they show.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        refused = keep(uploads, folder)
        try:
            owners, misnamed = ({}, {}) if refused and not any(folder.glob("*/*")) else find_owners(folder, of.task)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
        grades, unusable = ensemble.grade_eyes(of, owners, is_strict)
        cards = [describe(of, graded) for graded in grades] if len(grades) <= MOST_DRAWN else []
    rows = [make_row(graded, of.task) for graded in grades]
    refused += [(listing.show_name(Path(path).name), reason) for path, reason in {**misnamed, **unusable}.items()]
    table = f"data:text/csv;charset=utf-8,{quote(pd.DataFrame(rows).to_csv(index=False))}"
    return {"rows": rows, "csv": table, "cards": cards, "refused": refused}


def keep(uploads: Uploads, folder: Path) -> list[tuple[str, str]]:
    """Write each field's files into a folder of its own, and return those that cannot be kept, with the reason."""
    refused = []
    for field in FIELDS:
        (folder / field).mkdir()
        for path, content in uploads.get(field, ()):
            name = PurePosixPath(path).name  # of a folder's files the browser tells the path
            try:
                with (folder / field / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
            except (OSError, ValueError) as error:
                reason = f"cannot be kept: {getattr(error, 'strerror', None) or error}"
                if isinstance(error, FileExistsError) and name not in ("", ".."):
                    reason = "another file of this name was sent, too; rename one"
                refused.append((listing.show_name(path), reason))
    return refused


def find_owners(folder: Path, task: Task) -> tuple[dict[Path, Owner], dict[str, str]]:
    """Return whose eyes, or which images, were kept, and the misnamed files; see `grade.list_photographs`."""
    kept = {field: sorted((folder / field).iterdir()) for field in FIELDS}
    if task.kind == "levels":
        left, right = (next(iter(kept[side]), None) for side in ("left", "right"))
        return list_photographs([folder / "folder"] * bool(kept["folder"]), left, right, None)
    return list_images([*kept["images"], folder / "folder"]), {}


def make_row(graded: Grade, task: Task) -> dict[str, Any]:
    """Return one photograph's row of the table: whose it is, what is believed, the doubts, all probabilities."""
    row: dict[str, Any] = {"photograph": listing.show_name(graded.eye.path.name)}
    if task.kind == "levels":
        row |= {"patient": graded.eye.owner.group, "side": graded.eye.owner.side, "level": graded.level}
        row["expected_level"] = round(graded.expected, DECIMALS)
    else:
        row[TARGETS[task.kind]] = "; ".join(graded.believed or [])
    row["doubts"] = "; ".join(list_doubts(graded))
    for prefix, scores in (("", graded.scores), ("blended_", graded.blended)):
        if scores is not None:
            names = [f"{prefix}{column}" for column in name_columns(task)]
            row |= dict(zip(names, scores.round(DECIMALS).tolist(), strict=True))
    return row


def list_doubts(graded: Grade) -> list[str]:
    """Return the doubts; one is that nobody knows what the nets learned from looks like."""
    return [*graded.doubts, *[UNKNOWN] * (graded.eye.unlikeness is None)]


def describe(of: Panel, graded: Grade) -> dict[str, Any]:
    """Return one photograph's card: what is believed, in words, the scores, and pictures as data URIs.

    An output for which nothing speaks has no heat, but None.
    """
    verdict = UNDECIDED if graded.believed is None else ", ".join(graded.believed) or "none of the findings"
    rgb, heats = look(of, graded.eye.path)
    return {
        "name": listing.show_name(graded.eye.path.name),
        "grade": graded,
        "doubts": list_doubts(graded),
        "verdict": f"level {graded.level}, {verdict}" if of.task.kind == "levels" else verdict,
        "voices": {"net": graded.scores} | ({} if graded.blended is None else {"blend": graded.blended}),
        "picture": encode_picture(rgb, SHOWN_PX),
        "heats": [draw_heat(places) if places.any() else None for places in heats],
    }


def look(of: Panel, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph with its outline, (h, w, 3) uint8 RGB, and where the last net looks, (k, h, w) float32, 0-1.

    The longer side is SHOWN_PX. What speaks for an output has heat, see `dr.nets.heat`, as `dr.explain` draws it.
    """
    trained, net = of.members[-1].checkpoint, of.nets[-1]
    making, outputs = trained.making, np.arange(len(trained.task.names))
    made, (width, height) = square.make_square(path, making), Photograph(path).size
    row, scale = {"width": width, "height": height, **vars(made.disc)}, SHOWN_PX / max(width, height)
    rgb = sheet.draw_outline(path, row, outline.SHAPES[making.crop], SHOWN_PX)
    squares = store.gather([NOBODY], [made], trained.mean, trained.std)
    centers = crops.cut_centers(squares, net.image_px).to(next(net.parameters()).device)
    seen = heat.map_heat(net, centers.expand(len(outputs), -1, -1, -1), outputs, "fine")
    disc = made.disc.scaled(scale)
    return rgb, np.stack([undo_crop(places, disc, making, rgb.shape[:2]) for places in seen])


def draw_heat(places: np.ndarray) -> str:
    """Return heat, (h, w) float32, 0-1, as the data URI of a picture that is the more opaque the hotter it is."""
    levels = np.rint(255 * places).astype(np.uint8)
    return encode(np.dstack([cv2.applyColorMap(levels, heat.COLORS), levels]), "webp", WEBP_OPTIONS)
