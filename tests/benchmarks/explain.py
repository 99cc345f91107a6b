"""Does the heat fall on lesions? On drawn eyes, whose lesions are known, the pointing game and the share of the heat.

python -m tests.benchmarks.explain --data data/demo --cache cache/demo [--blocks]

The pointing game (Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016): does the hottest pixel
lie on a lesion, or at most TOLERANCE of the eye's radius off? Chance is the share of what the net sees that counts as a
hit; `others` is how often the hottest pixels of all other eyes would hit, as a mere habit of the net would. `heat` is
the share of the heat on lesions (with the tolerance) over the share of the area. The levels explained are those that
the net predicts, of test eyes that have retinopathy and are not taken for healthy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from dr import explain
from dr.explain import NOBODY
from dr.nets import heat
from dr.nets.net import Net
from dr.nets.nine_conv import CONVOLUTIONS
from dr.squares import crops, store
from dr.training import checkpoint, runs
from dr.training.checkpoint import Checkpoint
from dr.training.learner import load_net
from preprocess.picture import square
from preprocess.picture.disc import Disc
from preprocess.samples import retina

TOLERANCE = 0.05  # radii of the eye: a third of the optic disc's radius
SCORED_AT_ONCE = 32
LEVELS = range(1, len(retina.TASK.names))


class DrawnEyes(NamedTuple):
    """What the net is given, what it predicts and where the lesions are."""

    images: torch.Tensor  # (n, 3, crop_px, crop_px)
    levels: np.ndarray  # (n,), true
    predicted: np.ndarray  # (n,)
    lesions: np.ndarray  # (n, crop_px, crop_px) bool, what counts as a hit without tolerance
    nearby: np.ndarray  # the same with it
    seen: np.ndarray  # (crop_px, crop_px) bool, what the middle of a square shows of the eye


def read_eyes(data: Path, of: Checkpoint, net: Net) -> DrawnEyes:
    """Prepare the photographs of eyes with retinopathy that the net does not take for healthy."""
    labels = retina.read_labels(data / "testLabels.csv")
    labels = labels[labels > 0]
    squares = [square.make_square(data / "test" / f"{image}.jpeg", of.making) for image in labels.index]
    gathered = store.gather([NOBODY] * len(squares), squares, of.mean, of.std)
    images = crops.cut_centers(gathered, net.image_px)
    with torch.inference_mode():
        predicted = np.concatenate([net(part).argmax(dim=1).numpy() for part in images.split(SCORED_AT_ONCE)])
    lesions = pd.read_csv(data / "lesions.csv")
    kept, size_px = np.flatnonzero(predicted > 0), of.making.size_px
    pairs = [(lesions[lesions["image"] == labels.index[row]], squares[row].disc) for row in kept]
    masks = [np.stack([mask_lesions(*pair, size_px, net.image_px, off) for pair in pairs]) for off in (0, TOLERANCE)]
    seen = mask_circles(np.zeros((1, 2)), np.array([size_px / 2]), net.image_px)
    return DrawnEyes(images[kept], labels.to_numpy()[kept], predicted[kept], *masks, seen)


def mask_lesions(lesions: pd.DataFrame, disc: Disc, size_px: int, crop_px: int, tolerance: float) -> np.ndarray:
    """Return where the middle of an eye's square shows lesions, or comes so many radii near, (crop_px, crop_px) bool.

    Parameters
    ----------
    lesions : x, y and radius in pixels of the photograph; a cluster's radius is that of the whole
    disc : where the eye was found, in the same pixels
    """
    scale = size_px / (2 * max(disc.semi_axis_x, disc.semi_axis_y))
    places = scale * (lesions[["x", "y"]].to_numpy() - [disc.center_x, disc.center_y])
    return mask_circles(places, scale * lesions["radius"].to_numpy() + tolerance * size_px / 2, crop_px)


def mask_circles(places: np.ndarray, radii: np.ndarray, crop_px: int) -> np.ndarray:
    """Return the pixels inside circles about places (n, 2), x and y from the middle of the square."""
    offset = np.arange(crop_px) - (crop_px - 1) / 2
    inside = np.zeros((crop_px, crop_px), bool)
    for (x, y), radius in zip(places, radii, strict=True):
        inside |= (offset[None, :] - x) ** 2 + (offset[:, None] - y) ** 2 <= radius**2
    return inside


def describe_layer(name: str, maps: np.ndarray, drawn: DrawnEyes) -> str:
    """Return a line of the table; maps (n, crop_px, crop_px)."""
    number = np.arange(len(maps))
    flat = np.where(drawn.seen, maps, -1).reshape(len(maps), -1).argmax(axis=1)
    rows, columns = np.unravel_index(flat, drawn.seen.shape)  # of the hottest pixel inside the eye
    exact, near = drawn.lesions[number, rows, columns], drawn.nearby[number, rows, columns]
    by_others = drawn.nearby[:, rows, columns]  # (n eyes, n peaks)
    others = (by_others.sum() - near.sum()) / (len(maps) * (len(maps) - 1))
    area = (drawn.nearby & drawn.seen).sum(axis=(1, 2)) / drawn.seen.sum()
    share = (maps * (drawn.nearby & drawn.seen)).sum(axis=(1, 2))
    share /= np.maximum((maps * drawn.seen).sum(axis=(1, 2)), 1e-9)
    return _write_line(name, exact, near, others, (share / area).mean(), drawn)


def describe_chance(drawn: DrawnEyes) -> str:
    """Return the line of a pixel drawn at random."""
    exact, near = ((mask & drawn.seen).sum(axis=(1, 2)) / drawn.seen.sum() for mask in (drawn.lesions, drawn.nearby))
    return _write_line("chance", exact, near, near.mean(), 1, drawn)


def _write_line(name: str, exact: np.ndarray, near: np.ndarray, others: float, share: float, drawn: DrawnEyes) -> str:
    by_level = " ".join(f"{near[drawn.levels == level].mean():5.2f}" for level in LEVELS)
    return f"{name:24} {exact.mean():5.2f} {near.mean():5.2f} {others:7.2f} {share:6.1f}   {by_level}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="folder of preprocess.synthetic")
    parser.add_argument("--cache", type=Path, default=Path("cache/demo"), help="where dr.train left a net")
    parser.add_argument("--checkpoint", type=Path, help="or the net itself")
    parser.add_argument("--blocks", action="store_true", help="every block, each place with its own weight")
    options = parser.parse_args()
    if options.checkpoint:
        of = checkpoint.read(options.checkpoint)
    else:
        trained = runs.read_trained(options.cache, None)
        of = runs.read_checkpoint(trained, trained.newest)
    net = load_net(of).eval()
    drawn = read_eyes(options.data, of, net)
    counts = ", ".join(f"{(drawn.levels == level).sum()} of level {level}" for level in LEVELS)
    print(f"{len(drawn.levels)} eyes ({counts}), {net.image_px} px, epoch {of.epoch}")
    print(f"{'':24} exact  near  others   heat   near, by level 1 to 4")
    print(describe_chance(drawn))
    for layer in (*explain.LAYERS, *range(len(CONVOLUTIONS) * options.blocks)):
        maps = heat.map_heat(net, drawn.images, drawn.predicted, layer)
        print(describe_layer(f"block {layer}" if isinstance(layer, int) else layer, maps, drawn), flush=True)


if __name__ == "__main__":
    main()
