"""Does a net know what is unlike what it learned from? How many pictures of each kind it doubts, or cannot use at all.

python -m tests.benchmarks.distribution --checkpoint FILE.pt --pictures DIR... [--without DIR] [--most N]

Prints a line per folder of pictures, and of gradients, shaded discs before black, and noise, which it draws: how many
are refused as no photograph of an eye, how many of the others are unlike, and how far they lie in the median, 1 being
the limit. Pictures of new patients that were taken as those learned from should be doubted once in a hundred times.
Epochs do not matter: the distance does not ask the net.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from dr.out_of_distribution import is_outside
from dr.training import checkpoint, distribution
from dr.training.checkpoint import Checkpoint
from preprocess.command import cli
from preprocess.dataset import listing
from preprocess.disk.errors import Unusable
from preprocess.picture import square

N_DRAWN = 80  # of each kind
HEIGHT, WIDTH = 600, 800


def draw_pictures(folder: Path) -> dict[str, list[Path]]:
    """Draw what is no eye: name -> files."""
    rng, rows, columns = np.random.default_rng(0), *np.indices((HEIGHT, WIDTH))
    drawn: dict[str, list[Path]] = {"gradients": [], "discs": [], "noise": []}
    for number in range(N_DRAWN):
        slope = np.cos(angle := rng.uniform(0, 2 * np.pi)) * columns + np.sin(angle) * rows
        first, last, color = (
            rng.uniform(0, 255, (2, 3)),
            rng.uniform(0, 255, 3),
            rng.uniform(60, 255, 3),
        )
        share = (slope - slope.min()) / np.ptp(slope)
        far = np.hypot(rows - HEIGHT / 2, columns - WIDTH / 2 + rng.uniform(-40, 40)) / rng.uniform(
            150, 290
        )
        shade = np.clip(1 - rng.uniform(0, 0.5) * far**2, 0, 1) * (far < 1)
        pictures = {
            "gradients": first[0] + (last - first[0]) * share[..., None],
            "discs": shade[..., None] * color
            + rng.normal(0, rng.uniform(0, 3), (HEIGHT, WIDTH, 1)),
            "noise": rng.uniform(0, 255, (HEIGHT, WIDTH, 3)),
        }
        for name, picture in pictures.items():
            drawn[name].append(folder / f"{name}_{number}.jpeg")
            cv2.imwrite(str(drawn[name][-1]), picture.clip(0, 255).astype(np.uint8))
    return drawn


def describe_pictures(of: Checkpoint, paths: Iterable[Path]) -> str:
    """Return the line of some pictures, without their name."""
    n_refused, far = 0, []
    for path in paths:
        try:
            far.append(distribution.measure_distance(of, square.make_square(path, of.making)))
        except Unusable:
            n_refused += 1
    n_unlike = sum(map(is_outside, far))
    share = (n_refused + n_unlike) / max(n_refused + len(far), 1)
    median = f"{np.median(far):8.2f}" if far else "       -"
    return f"{n_refused + len(far):6} {n_refused:8} {n_unlike:7} {share:9.3f} {median}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="of dr.train")
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=[], help="folders, with all that is below them"
    )
    parser.add_argument(
        "--without", type=Path, help="a folder: what lies there, or is linked to, is left out"
    )
    parser.add_argument("--most", type=cli.whole(1), default=400, help="pictures of a folder")
    options = parser.parse_args()
    of = checkpoint.read(options.checkpoint)
    print(f"{of.n_images} images learned from, {of.making}, crops of {of.settings.crop_px} px")
    print(f"{'':40} {'n':>6} {'refused':>8} {'unlike':>7} {'together':>9} {'distance':>8}")
    left_out = {path.resolve() for path in options.without.rglob("*")} if options.without else set()
    with tempfile.TemporaryDirectory() as folder:
        kinds = {}
        for given in options.pictures:
            found = sorted(
                path for path in given.rglob("*") if path.suffix.lower() in listing.SUFFIXES
            )
            kinds[str(given)] = [path for path in found if path.resolve() not in left_out]
        for name, paths in (kinds | draw_pictures(Path(folder))).items():
            chosen = random.Random(0).sample(paths, min(len(paths), options.most))
            print(f"{name[-40:]:40} {describe_pictures(of, chosen)}", flush=True)


if __name__ == "__main__":
    main()
