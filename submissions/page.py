"""What the page of `submissions.serve` shows: uploaded photographs -> grades, pictures and heat; no file stays."""

import base64
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd

from dr.explain import NOBODY, undo_crop
from dr.nets import heat
from dr.squares import crops, store
from dr.task import name_columns
from preprocess.cache.errors import InputError
from preprocess.picture import outline, sheet, square
from preprocess.picture.photograph import Photograph
from preprocess.samples import listing
from preprocess.samples.layout import TARGETS, Owner, Task
from submissions import panel
from submissions.grade import DECIMALS, UNDECIDED, list_believed, list_doubts, list_photographs
from submissions.panel import Grade, Panel
from submissions.report.pictures import encode_picture

FIELDS = ("left", "right", "images", "folder")  # of the page's forms
MOST_DRAWN = 4  # photographs shown with heat; of more there is a table
SHOWN_PX = 640  # longer side of a photograph on the page
WEBP_OPTIONS = (cv2.IMWRITE_WEBP_QUALITY, 80)

Uploads = Mapping[str, Sequence[tuple[str, BinaryIO]]]  # field -> name and content of each file dropped there


def answer(of: Panel, thresholds: np.ndarray | None, is_strict: bool, uploads: Uploads) -> dict[str, Any]:
    """Return what the page tells of photographs, whose files are gone then.

    Raises InputError, in words for the page, if there are none, or it is not clear whose eyes they show.
    """
    task = of.voters[0].checkpoint.task
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        refused = keep(uploads, folder)
        try:
            owners, misnamed = ({}, {}) if refused and not any(folder.glob("*/*")) else find_owners(folder, task)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
        grades, unusable = panel.grade_eyes(of, owners, is_strict)
        drawn = [draw(of, graded.eye.path) for graded in grades] if len(grades) <= MOST_DRAWN else []
    rows = [make_row(graded, task, thresholds) for graded in grades]
    refused |= {listing.show_name(Path(path).name): reason for path, reason in {**misnamed, **unusable}.items()}
    return {
        "rows": rows,
        "csv": f"data:text/csv;charset=utf-8,{quote(pd.DataFrame(rows).to_csv(index=False))}",
        "cards": [
            describe(graded, task, thresholds) | pictures for graded, pictures in zip(grades, drawn, strict=False)
        ],
        "refused": refused,
    }


def keep(uploads: Uploads, folder: Path) -> dict[str, str]:
    """Write each field's files into a folder of its own, and return those that cannot be kept, with the reason."""
    refused = {}
    for field in FIELDS:
        (folder / field).mkdir()
        for path, content in uploads.get(field, ()):
            name = PurePosixPath(path).name  # of a folder's files the browser tells the path
            try:
                with (folder / field / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
            except (OSError, ValueError) as error:
                refused[listing.show_name(name)] = f"cannot be kept: {getattr(error, 'strerror', None) or error}"
    return refused


def find_owners(folder: Path, task: Task) -> tuple[dict[Path, Owner], dict[str, str]]:
    """Return whose eyes, or which images, were kept, and the misnamed files; see `grade.list_photographs`."""
    kept = {field: sorted((folder / field).iterdir()) for field in FIELDS}
    if task.kind == "levels":
        left, right = (next(iter(kept[side]), None) for side in ("left", "right"))
        return list_photographs([folder / "folder"] * bool(kept["folder"]), left, right, None)
    images = kept["images"] + [path for path in kept["folder"] if path.suffix.lower() in listing.SUFFIXES]
    if not images:
        raise InputError("no photographs: give one, or a folder that holds some")
    return {path: Owner(str(path)) for path in images}, {}


def make_row(graded: Grade, task: Task, thresholds: np.ndarray | None) -> dict[str, Any]:
    """Return one photograph's row of the table: whose it is, what is believed, the doubts, all probabilities."""
    row: dict[str, Any] = {"photograph": listing.show_name(graded.eye.path.name)}
    if task.kind == "levels":
        row |= {"patient": graded.eye.owner.group, "side": graded.eye.owner.side, "level": graded.level}
        row["expected_level"] = round(graded.expected, DECIMALS)
    else:
        row[TARGETS[task.kind]] = "; ".join(list_believed(graded, task, thresholds))
    row["doubts"] = "; ".join(list_doubts(graded, task))
    columns = name_columns(task)
    row |= dict(zip(columns, graded.scores.round(DECIMALS).tolist(), strict=True))
    if graded.blended is not None:
        names = [f"blended_{column}" for column in columns]
        row |= dict(zip(names, graded.blended.round(DECIMALS).tolist(), strict=True))
    return row


def describe(graded: Grade, task: Task, thresholds: np.ndarray | None) -> dict[str, Any]:
    """Return what stands beside one photograph's picture, in words and probabilities."""
    disc, believed = graded.eye.disc, list_believed(graded, task, thresholds)
    verdict = ", ".join(believed) or (UNDECIDED if thresholds is None else "none of the findings")
    if task.kind == "levels":
        believed = [task.names[graded.level]]
        verdict = f"level {graded.level}, {believed[0]}"
    return {
        "name": listing.show_name(graded.eye.path.name),
        "side": graded.eye.owner.side,
        "verdict": verdict,
        "believed": believed,
        "expected": graded.expected if task.kind == "levels" else None,
        "sure": disc and disc.confidence,
        "doubts": list_doubts(graded, task),
        "scores": graded.scores.tolist(),
        "blended": None if graded.blended is None else graded.blended.tolist(),
        "explained": graded.level,
    }


def draw(of: Panel, path: Path) -> dict[str, Any]:
    """Return a photograph with the outline found, and the heat of each output to lie over it, as data URIs.

    An output for which nothing speaks has no heat, but None.
    """
    rgb, heats = look(of, path)
    return {
        "picture": encode_picture(rgb, SHOWN_PX),
        "heats": [encode_heat(places) if places.any() else None for places in heats],
    }


def look(of: Panel, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph with its outline, (h, w, 3) uint8 RGB, and where the last net looks, (k, h, w) float32, 0-1.

    The longer side is SHOWN_PX. What speaks for an output has heat, see `dr.nets.heat`, as `dr.explain` draws it.
    """
    trained, net = of.voters[-1].checkpoint, of.nets[-1]
    making, outputs = trained.making, np.arange(len(trained.task.names))
    made, (width, height) = square.make_square(path, making), Photograph(path).size
    row, scale = {"width": width, "height": height, **vars(made.disc)}, SHOWN_PX / max(width, height)
    rgb = sheet.draw_outline(path, row, outline.SHAPES[making.crop], SHOWN_PX)
    squares = store.gather([NOBODY], [made], trained.mean, trained.std)
    centers = crops.cut_centers(squares, net.image_px).to(next(net.parameters()).device)
    seen = heat.map_heat(net, centers.expand(len(outputs), -1, -1, -1), outputs, "fine")
    disc = made.disc.scaled(scale, scale)
    return rgb, np.stack([undo_crop(places, disc, making, rgb.shape[:2]) for places in seen])


def encode_heat(places: np.ndarray) -> str:
    """Return heat, (h, w) float32, 0-1, as the data URI of a picture that is the more opaque the hotter it is."""
    levels = np.rint(255 * places).astype(np.uint8)
    done, webp = cv2.imencode(".webp", np.dstack([cv2.applyColorMap(levels, heat.COLORS), levels]), WEBP_OPTIONS)
    if not done:
        raise RuntimeError("OpenCV cannot encode a picture")
    return f"data:image/webp;base64,{base64.b64encode(webp.tobytes()).decode()}"
