"""Does the heat fall on lesions? On drawn eyes, whose lesions are known, the pointing game and the share of the heat.

python -m tests.benchmarks.explain --data data/demo --cache cache/demo [--blocks]

The pointing game (Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016): does the hottest pixel
lie on a lesion (`near`: or at most TOLERANCE off)? Chance is a random pixel; `others` how often the hottest pixels of
all other eyes would hit; `heat` the share of the heat near lesions over the share of the area. Explained are the levels
predicted of test eyes that have retinopathy and are not taken for healthy.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from dr import explain
from dr.nets import heat
from dr.nets.nine_conv import CONVOLUTIONS
from dr.squares import crops, store
from dr.training.learner import load_net
from preprocess.cache import stage
from preprocess.picture import square
from preprocess.samples import retina

TOLERANCE = 0.05  # radii of the eye: a third of the optic disc's radius
LEVELS = range(1, len(retina.TASK.names))


class DrawnEyes(NamedTuple):
    """What the net is given, what it predicts and where the lesions are."""

    images: torch.Tensor  # (n, 3, crop_px, crop_px)
    levels: np.ndarray  # (n,), true
    predicted: np.ndarray  # (n,)
    lesions: np.ndarray  # (n, crop_px, crop_px) bool, what counts as a hit without tolerance
    nearby: np.ndarray  # the same with it
    seen: np.ndarray  # (crop_px, crop_px) bool, what the middle of a square shows of the eye


def read_eyes(data, of, net):
    """Prepare the photographs of eyes with retinopathy that the net, of a checkpoint, does not take for healthy."""
    labels = retina.read_labels(data / "testLabels.csv")
    labels = labels[labels > 0]
    squares = [square.make_square(data / "test" / f"{image}.jpeg", of.making) for image in labels.index]
    images = crops.cut_centers(store.gather([explain.NOBODY] * len(squares), squares, of.mean, of.std), net.image_px)
    with torch.inference_mode():
        predicted = np.concatenate([net(part).argmax(dim=1).numpy() for part in images.split(32)])
    lesions, kept, size_px = pd.read_csv(data / "lesions.csv"), np.flatnonzero(predicted > 0), of.making.size_px
    pairs = [(lesions[lesions["image"] == labels.index[row]], squares[row].disc) for row in kept]
    masks = [np.stack([mask_lesions(*pair, size_px, net.image_px, off) for pair in pairs]) for off in (0, TOLERANCE)]
    seen = mask_circles(np.zeros((1, 2)), np.array([size_px / 2]), net.image_px)
    return DrawnEyes(images[kept], labels.to_numpy()[kept], predicted[kept], *masks, seen)


def mask_lesions(lesions, disc, size_px, crop_px, tolerance):
    """Return where the middle of an eye's square shows lesions, or comes so many radii near, (crop_px, crop_px)."""
    scale = size_px / (2 * max(disc.semi_axis_x, disc.semi_axis_y))
    places = scale * (lesions[["x", "y"]].to_numpy() - [disc.center_x, disc.center_y])
    return mask_circles(places, scale * lesions["radius"].to_numpy() + tolerance * size_px / 2, crop_px)


def mask_circles(places, radii, crop_px):
    """Return the pixels inside circles about places (n, 2), x and y from the middle of the square."""
    offset, inside = np.arange(crop_px) - (crop_px - 1) / 2, np.zeros((crop_px, crop_px), bool)
    for (x, y), radius in zip(places, radii, strict=True):
        inside |= (offset[None, :] - x) ** 2 + (offset[:, None] - y) ** 2 <= radius**2
    return inside


def describe_layer(name, maps, drawn):
    """Return a line of the table; maps (n, crop_px, crop_px)."""
    number, nearby = np.arange(len(maps)), drawn.nearby & drawn.seen
    flat = np.where(drawn.seen, maps, -1).reshape(len(maps), -1).argmax(axis=1)
    rows, columns = np.unravel_index(flat, drawn.seen.shape)  # of the hottest pixel inside the eye
    exact, near = drawn.lesions[number, rows, columns], drawn.nearby[number, rows, columns]
    others = (drawn.nearby[:, rows, columns].sum() - near.sum()) / (len(maps) * (len(maps) - 1))
    share = (maps * nearby).sum(axis=(1, 2)) / np.maximum((maps * drawn.seen).sum(axis=(1, 2)), 1e-9)
    return _write_line(name, exact, near, others, (share * drawn.seen.sum() / nearby.sum(axis=(1, 2))).mean(), drawn)


def describe_chance(drawn):
    exact, near = ((mask & drawn.seen).sum(axis=(1, 2)) / drawn.seen.sum() for mask in (drawn.lesions, drawn.nearby))
    return _write_line("chance", exact, near, near.mean(), 1, drawn)


def _write_line(name, exact, near, others, share, drawn):
    by_level = " ".join(f"{near[drawn.levels == level].mean():5.2f}" for level in LEVELS)
    return f"{name:24} {exact.mean():5.2f} {near.mean():5.2f} {others:7.2f} {share:6.1f}   {by_level}"


def main():
    parser = stage.make_bare_parser("tests.benchmarks.explain", __doc__.splitlines()[0], "--cache cache/demo")
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="folder of preprocess.synthetic")
    parser.add_argument("--cache", type=Path, default=Path("cache/demo"), help="where dr.train left a net")
    parser.add_argument("--blocks", action="store_true", help="every block, each place with its own weight")
    parser.set_defaults(checkpoint=None, run=None, level=None)
    options = parser.parse_args()
    of = explain.read_checkpoint(options)
    net = load_net(of).eval()
    drawn = read_eyes(options.data, of, net)
    print(f"{np.bincount(drawn.levels)[1:]} eyes of level 1 to 4, {net.image_px} px, epoch {of.epoch}")
    print(f"{'':24} exact  near  others   heat   near, by level 1 to 4\n{describe_chance(drawn)}")
    for layer in (*explain.LAYERS, *range(len(CONVOLUTIONS) * options.blocks)):
        maps = heat.map_heat(net, drawn.images, drawn.predicted, layer)
        print(describe_layer(f"block {layer}" if isinstance(layer, int) else layer, maps, drawn), flush=True)


if __name__ == "__main__":
    stage.run(main)
