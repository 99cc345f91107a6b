"""Show which places of a photograph speak for a level (Grad-CAM): photographs and a net -> OUT/NAME_heat.jpeg.

Heat is relative to the rest of the same photograph, and has its size. Takes photographs as they
come from the camera; they need not be in the cache. Not a medical device.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dr import out_of_distribution
from dr.machine import workers
from dr.tasks.task import Task
from dr.training import checkpoint as checkpoints
from dr.training import runs, settings
from dr.training.checkpoint import Checkpoint
from preprocess.command import cli, pipeline, process, progress
from preprocess.disk import files
from preprocess.disk.errors import InputError, Unusable, check_refused
from preprocess.picture import photograph
from preprocess.picture.encode import encode_image
from preprocess.picture.square import make_square

LAYERS = ("fine", "last")  # those of dr.nets.heat, which needs torch
JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 92)
SUFFIX = "_heat.jpeg"


def read_checkpoint(options: argparse.Namespace) -> Checkpoint:
    """Return the checkpoint that is named, or that of the last epoch in the cache. Raises InputError if its net does
    not know the level to explain, or what is to be refused.
    """
    if options.checkpoint:
        checkpoint = checkpoints.read(options.checkpoint)
    else:
        trained = runs.read_trained(runs.folder_of(options.cache, options.run))
        checkpoint = runs.read_checkpoint(trained, max(trained.checkpoints))
    last = len(checkpoint.task.names) - 1
    if options.level is not None and options.level > last:
        raise InputError(
            f"--level {options.level}: the net's last {checkpoint.task.target} is {last}"
        )
    if options.strict and not checkpoint.distribution:
        raise InputError(f"--strict: {out_of_distribution.UNKNOWN}")
    return checkpoint


def choose_targets(paths: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Return where the picture of each photograph goes. Raises InputError if two would go to the same place."""
    targets = {path: out / f"{path.stem}{SUFFIX}" for path in paths}
    if len(set(targets.values())) < len(paths):
        raise InputError(
            "two of the photographs have the same name; explain them in two runs with another --out each"
        )
    if out.resolve() in {path.resolve().parent for path in paths}:
        raise InputError(
            f"{out}: holds the photographs, and heat maps would be taken for some; give another --out"
        )
    return targets


def explain(options: argparse.Namespace) -> None:
    """Write the picture of each photograph, say what the net scores it, and name those refused at the end."""
    targets = choose_targets(options.images, options.out)
    checkpoint = read_checkpoint(options)
    workers.let_waiting_threads_sleep()
    # Imported late: whoever has mistyped something does not wait for torch.
    from dr import look
    from dr.machine.device import choose_device
    from dr.nets import heat
    from dr.training import distribution, views

    net = views.put_net(checkpoint, choose_device(options.device))
    task = checkpoint.task
    reasons: dict[str, str] = {}
    for path, target in targets.items():
        shown = files.show_path(path)
        try:
            square = make_square(path, checkpoint.making)
            distance = distribution.measure_distance(checkpoint, square)
            out_of_distribution.check_inside(distance, options.strict)
        except Unusable as error:
            reasons[shown] = str(error)
            print(f"{shown}: refused: {error}", flush=True)
            continue
        with progress.tracking(1, "scoring", is_shown=False) as bar:
            squares = look.gather_one(checkpoint, square)
            scores = views.score_views(net, checkpoint, squares, 1, 1, bar)[0, 0]
        output = int(task.decide(scores[None])[0]) if options.level is None else options.level
        rgb, _ = photograph.decode(
            path, photograph.MAX_PIXELS, checkpoint.making.bits
        )  # never reduced
        seen = look.see_photograph(
            net, checkpoint, square, look.Asked(options.layer, np.array([output])), shape=rgb.shape
        )
        write_jpeg(target, heat.blend_heat(rgb, seen.placed[0]))
        text = describe_scores(
            task, scores, output, has_heat=bool(seen.maps.any()), distance=distance
        )
        print(f"{shown}: {text} -> {files.show_path(target)}", flush=True)
    if not checkpoint.distribution:
        print(out_of_distribution.UNKNOWN)
    print(pipeline.NOTICE)
    check_refused(reasons, len(targets) - len(reasons))


def write_jpeg(target: Path, rgb: np.ndarray) -> None:
    """Write a picture, (h, w, 3) uint8 RGB."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    files.write_bytes(target, encode_image(bgr, ".jpeg", JPEG_OPTIONS))


def describe_scores(
    task: Task, scores: np.ndarray, output: int, has_heat: bool, distance: float | None
) -> str:
    """Return what a net scores a photograph, (k,), and which output is explained, if anything speaks for it."""
    decided = int(task.decide(scores[None])[0])
    parts = [f"{task.name_output(output)} ({scores[output]:.0%} by this net)"]
    if output != decided:
        parts.append(f"{task.name_decision(decided)} ({scores[decided]:.0%})")
    if not has_heat:
        parts.append("for which nothing speaks")
    if out_of_distribution.is_outside(distance):
        parts.append(out_of_distribution.OUTSIDE)
    return ", ".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    example = "data/test/10_left.jpeg --checkpoint cache/dr/epochs/0060.pt --out heat"
    parser = cli.make_bare_parser("dr.explain", __doc__, example)
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="photographs, JPEG or PNG"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE.pt", help="the model, in place of --cache"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("cache"),
        help="folder of a trained model, whose last epoch is used",
    )
    parser.add_argument(
        "--run",
        type=settings.parse_run,
        help="name of a run in the cache, instead of the one without a name",
    )
    parser.add_argument("--level", type=cli.whole(0), help="level, or number of the class or finding, to "
                        "explain (default: the predicted level; the likeliest class or finding)")  # fmt: skip
    out_of_distribution.add_strict_option(parser)
    parser.add_argument("--layer", choices=LAYERS, default="fine", help="fine: an earlier layer, which resolves "
                        "single lesions; last: the last one, Grad-CAM proper, which is coarse")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("heat"), help="folder for the pictures")
    settings.add_device_option(parser)
    explain(parser.parse_args(argv))


if __name__ == "__main__":
    process.run(main)
