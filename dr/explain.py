"""Show which places of a photograph speak for a level (Grad-CAM): photographs and a net -> OUT/NAME_heat.jpeg.

The hotter the colour, the more, against the rest of the same photograph, in whose size it is. Takes photographs as they
come from the camera; the cache need not know them. Not a medical device.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from dr.machine import workers
from dr.tasks.task import decide_alone
from dr.training import checkpoint, runs, settings
from dr.training.checkpoint import Checkpoint
from preprocess.command import cli, pipeline, process, progress
from preprocess.dataset.dataset import TARGETS, Owner, Task
from preprocess.disk import files
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import outline, photograph, square
from preprocess.picture.disc import Disc

LAYERS = ("fine", "last")  # those of dr.nets.heat, which needs torch
JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 92)
SUFFIX = "_heat.jpeg"
UNLIKE = "unlike what the net was trained on"
UNKNOWN = "what the net was trained on looks like is not known: too few images"
NOBODY = Owner("")  # whose eye a photograph shows does not matter where its fellow is not asked


def show(path: Path) -> str:
    """Return a path that can be printed, whatever bytes the file system holds."""
    return os.fsencode(path).decode(errors="backslashreplace")


def check_refused(reasons: Mapping[str, str], n_done: int) -> None:
    """Raise InputError if photographs were refused, name -> reason; all others, so many, have been dealt with."""
    if reasons:
        name, reason = next(iter(reasons.items()))
        counted = f"{len(reasons)} photograph{'s are' if len(reasons) > 1 else ' is'} refused"
        rest = f"; {n_done} done" if n_done else ""
        raise InputError(f"{counted} ({name}: {reason}){rest}")


def add_strict_option(parser: argparse.ArgumentParser) -> None:
    """Add `--strict`."""
    parser.add_argument("--strict", action="store_true", help=f"refuse photographs that are {UNLIKE}; else it is said")


def is_unlike(unlikeness: float | None) -> bool:
    """Tell whether a photograph lies farther from what a net learned from than a new one may; not if it is unknown."""
    return unlikeness is not None and not unlikeness <= 1


def check_like(unlikeness: float | None, is_strict: bool) -> None:
    """Raise Unusable if `--strict` refuses a photograph."""
    if is_strict and is_unlike(unlikeness):
        raise Unusable(f"{UNLIKE}: {unlikeness:.1f} times as far from it as new ones of its kind may lie")


def read_checkpoint(options: argparse.Namespace) -> Checkpoint:
    """Return the checkpoint that is named, or that of the last epoch in the cache. Raises InputError if its net does
    not know the level to explain, or what is to be refused.
    """
    if options.checkpoint:
        of = checkpoint.read(options.checkpoint)
    else:
        trained = runs.read_trained(runs.folder_of(options.cache, options.run))
        of = runs.read_checkpoint(trained, max(trained.checkpoints))
    last = len(of.task.names) - 1
    if options.level is not None and options.level > last:
        raise InputError(f"--level {options.level}: the net's last {TARGETS[of.task.kind]} is {last}")
    if options.strict and not of.distribution:
        raise InputError(f"--strict: {UNKNOWN}")
    return of


def choose_targets(paths: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Return where the picture of each photograph goes. Raises InputError if two would go to the same place."""
    targets = {path: out / f"{path.stem}{SUFFIX}" for path in paths}
    if len(set(targets.values())) < len(paths):
        raise InputError("two of the photographs have the same name; explain them in two runs with another --out each")
    if out.resolve() in {path.resolve().parent for path in paths}:
        raise InputError(f"{out}: holds the photographs, and heat maps would be taken for some; give another --out")
    return targets


def explain(options: argparse.Namespace) -> None:
    """Write the picture of each photograph, say what the net thinks of it, and name at last those that are refused."""
    targets = choose_targets(options.images, options.out)
    of = read_checkpoint(options)
    workers.let_waiting_threads_sleep()
    # Torch takes a second and a half: whoever has mistyped something does not wait for it.
    from dr.machine.device import choose_device
    from dr.nets import heat
    from dr.squares import crops, store
    from dr.training import distribution, views

    on = choose_device(options.device)
    net, reasons = views.put_net(of, on), {}
    for path, target in targets.items():
        try:
            made = square.make_square(path, of.making)
            unlikeness = distribution.measure_distance(of, made)
            check_like(unlikeness, options.strict)
        except Unusable as error:
            reasons[show(path)] = str(error)
            print(f"{show(path)}: refused: {error}", flush=True)
            continue
        squares = store.gather([NOBODY], [made], of.mean, of.std)
        with progress.tracking(1, "scoring", is_shown=False) as bar:
            scores = views.score_views(net, of, squares, 1, 1, bar)[0, 0]
        explained = int(decide_alone(of.task, scores[None])[0]) if options.level is None else options.level
        centers = crops.cut_centers(squares, net.image_px).to(on)
        (seen,) = heat.map_heat(net, centers, np.array([explained]), options.layer)
        rgb, _ = photograph.decode(path, photograph.MAX_PIXELS)  # never reduced
        placed = undo_crop(seen, made.disc, of.making, rgb.shape[:2])
        write_jpeg(target, heat.blend_heat(rgb, placed))
        said = describe_thought(of.task, scores, explained, seen.any(), unlikeness)
        print(f"{show(path)}: {said} -> {show(target)}", flush=True)
    if not of.distribution:
        print(UNKNOWN)
    print(pipeline.NOTICE)
    check_refused(reasons, len(targets) - len(reasons))


def write_jpeg(target: Path, rgb: np.ndarray) -> None:
    """Write a picture, (h, w, 3) uint8 RGB."""
    done, jpeg = cv2.imencode(".jpeg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), JPEG_OPTIONS)
    if not done:
        raise RuntimeError(f"{target}: OpenCV cannot encode it")
    files.write_bytes(target, jpeg.tobytes())


def describe_thought(task: Task, scores: np.ndarray, target: int, is_backed: bool, unlikeness: float | None) -> str:
    """Return what the net thinks of a photograph: its scores (k,), and the target explained, for which places speak."""
    believed = int(decide_alone(task, scores[None])[0])
    if task.kind == "levels":
        explained, other = f"level {target}", f"nearest to the mean {believed}"
    else:
        explained, other = task.names[target], f"likeliest {task.names[believed]}"
    parts = [f"{explained} ({scores[target]:.0%} by this net)"]
    if target != believed:
        parts.append(f"{other} ({scores[believed]:.0%})")
    if not is_backed:
        parts.append("for which nothing speaks")
    if is_unlike(unlikeness):
        parts.append(UNLIKE)
    return ", ".join(parts)


def undo_crop(heat: np.ndarray, disc: Disc, making: square.Making, shape: tuple[int, int]) -> np.ndarray:
    """Return the heat, (crop_px, crop_px), of the middle of a square, which the disc fills, where it lies in the
    photograph, whose `shape` is (h, w) and whose pixels the disc is in; 0 where no net looked.
    """
    shown = outline.find_diameters(disc, outline.SHAPES[making.crop])
    step_x, step_y = (diameter / making.size_px for diameter in shown)  # pixels of the photograph per square's pixel
    corner = (making.size_px - len(heat)) // 2 - (making.size_px - 1) / 2  # of the heat, from the square's middle
    matrix = np.array([[step_x, 0, disc.center_x + step_x * corner], [0, step_y, disc.center_y + step_y * corner]])
    placed = cv2.warpAffine(heat, matrix, shape[::-1], flags=cv2.INTER_LINEAR)
    if outline.SHAPES[making.crop] != "ellipse":
        return placed
    columns = (np.arange(shape[1], dtype=np.float32) - disc.center_x) / disc.semi_axis_x
    rows = (np.arange(shape[0], dtype=np.float32) - disc.center_y) / disc.semi_axis_y
    return np.where(columns**2 + rows[:, None] ** 2 <= 1, placed, 0)


def main(argv: Sequence[str] | None = None) -> None:
    example = "data/test/10_left.jpeg --checkpoint cache/dr/epochs/0060.pt --out heat"
    parser = cli.make_bare_parser("dr.explain", __doc__, example)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photographs, JPEG or PNG")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pt", help="the net, without a cache")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="where dr.train left the net: its last epoch")
    parser.add_argument("--run", type=settings.parse_run, help="name of one of several nets in the cache")
    parser.add_argument("--level", type=cli.whole(0), help="level to explain (the one nearest to the mean), "
                        "or the number of a class or finding in their order (the likeliest)")  # fmt: skip
    add_strict_option(parser)
    parser.add_argument("--layer", choices=LAYERS, default="fine", help="fine: an earlier convolution, which shows "
                        "single spots; last: the last one, coarse, Grad-CAM proper")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("heat"), help="folder for the pictures")
    settings.add_device_option(parser)
    explain(parser.parse_args(argv))


if __name__ == "__main__":
    process.run(main)
