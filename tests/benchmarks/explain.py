"""Does the heat fall on lesions? On drawn eyes, whose lesions are known, the pointing game and the share of the heat.

python -m tests.benchmarks.explain --data data/demo --cache cache/demo [--blocks]
python -m tests.benchmarks.explain --lesions DIR --cache CACHE [--pictures OUT]

The pointing game (Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016): does the hottest pixel
lie on a lesion (`near`: or at most TOLERANCE off)? Chance is a random pixel; `others` how often the hottest pixels of
all other eyes would hit; `heat` the share of the heat near lesions over the share of the area. Explained are the levels
predicted of test eyes that have retinopathy and are not taken for healthy.

With --lesions, on real photographs, DIR/images, whose lesions are white in DIR/{MA,HE,EX,SE}/IMAGE_KIND.png, as in
IDRiD (Porwal et al., Indian Diabetic Retinopathy Image Dataset, Data 3(3), 25, 2018): explained is the likeliest level
above 0, `near` means at most LESION_TOLERANCE off, `rank` is the AUC of the heat as a score of the
pixels that are lesions.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt

from dr import explain, look
from dr.metrics import ranking
from dr.nets import heat
from dr.nets.nine_conv import CONVOLUTIONS
from dr.squares import crops, store
from dr.training.learner import load_net
from preprocess.command import cli, process
from preprocess.dataset import kaggle
from preprocess.picture import square
from preprocess.picture.disc import Disc
from preprocess.picture.uncrop import undo_crop
from tests.tasks import TASK

TOLERANCE = 0.05  # radii of the eye: a third of the optic disc's radius
LEVELS = range(1, len(TASK.names))
LESION_TOLERANCE = 0.02  # radii of the eye
KINDS = {"MA": "microaneurysms", "HE": "hemorrhages", "EX": "hard exudates", "SE": "soft exudates"}
SHOWN_PX = 480  # width of a picture of --pictures


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
    labels = kaggle.read_labels(data / "testLabels.csv")
    labels = labels[labels > 0]
    squares = [
        square.make_square(data / "test" / f"{image}.jpeg", of.making) for image in labels.index
    ]
    images = crops.cut_centers(
        store.gather([look.ANYBODY] * len(squares), squares, of.mean, of.std), net.image_px
    )
    with torch.inference_mode():
        predicted = np.concatenate([net(part).argmax(dim=1).numpy() for part in images.split(32)])
    lesions, kept, size_px = (
        pd.read_csv(data / "lesions.csv"),
        np.flatnonzero(predicted > 0),
        of.making.size_px,
    )
    pairs = [(lesions[lesions["image"] == labels.index[row]], squares[row].disc) for row in kept]
    masks = [
        np.stack([mask_lesions(*pair, size_px, net.image_px, off) for pair in pairs])
        for off in (0, TOLERANCE)
    ]
    seen = mask_circles(np.zeros((1, 2)), np.array([size_px / 2]), net.image_px)
    return DrawnEyes(images[kept], labels.to_numpy()[kept], predicted[kept], *masks, seen)


def mask_lesions(lesions, disc, size_px, crop_px, tolerance):
    """Return where the middle of an eye's square shows lesions, or comes so many radii near, (crop_px, crop_px)."""
    scale = size_px / (2 * max(disc.semi_axis_x, disc.semi_axis_y))
    places = scale * (lesions[["x", "y"]].to_numpy() - [disc.center_x, disc.center_y])
    return mask_circles(
        places, scale * lesions["radius"].to_numpy() + tolerance * size_px / 2, crop_px
    )


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
    share = (maps * nearby).sum(axis=(1, 2)) / np.maximum(
        (maps * drawn.seen).sum(axis=(1, 2)), 1e-9
    )
    return _write_line(
        name,
        exact,
        near,
        others,
        (share * drawn.seen.sum() / nearby.sum(axis=(1, 2))).mean(),
        drawn,
    )


def describe_chance(drawn):
    exact, near = (
        (mask & drawn.seen).sum(axis=(1, 2)) / drawn.seen.sum()
        for mask in (drawn.lesions, drawn.nearby)
    )
    return _write_line("chance", exact, near, near.mean(), 1, drawn)


def _write_line(name, exact, near, others, share, drawn):
    by_level = " ".join(f"{near[drawn.levels == level].mean():5.2f}" for level in LEVELS)
    return (
        f"{name:24} {exact.mean():5.2f} {near.mean():5.2f} {others:7.2f} {share:6.1f}   {by_level}"
    )


class Marked(NamedTuple):
    """A real photograph whose lesions are marked.

    heats : layer -> (crop_px, crop_px)
    kinds : (h, w) uint8, bit i: a lesion of the i-th kind
    """

    path: Path
    disc: Disc
    heats: dict[str, np.ndarray]
    kinds: np.ndarray


def read_marked(folder, of, net, making):
    """Yield the photographs that the net, of a checkpoint, can be given, with the heat of each layer."""
    for path in sorted((folder / "images").iterdir()):
        made = square.make_square(path, making)
        images = crops.cut_centers(
            store.gather([look.ANYBODY], [made], of.mean, of.std), net.image_px
        )
        with torch.inference_mode():
            level = 1 + net(images)[:, 1:].argmax(dim=1).numpy()
        heats = {layer: heat.map_heat(net, images, level, layer)[0] for layer in explain.LAYERS}
        masks = [folder / kind / f"{path.stem}_{kind}.png" for kind in KINDS]
        found = [
            cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) if mask.exists() else None for mask in masks
        ]
        kinds = sum(
            (mask > 0).astype(np.uint8) << bit for bit, mask in enumerate(found) if mask is not None
        )
        yield Marked(path, made.disc, heats, kinds)


def find_eye(disc, shape):
    """Return which pixels of a photograph show the eye, (h, w) bool."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((x - disc.center_x) / disc.semi_axis_x) ** 2 + (
        (y - disc.center_y) / disc.semi_axis_y
    ) ** 2 <= 1


def point(one, seen, near, making):
    """Return which pixel of a photograph is the hottest by a heat map, whether one of `near` is, and all its heat."""
    placed = undo_crop(seen, one.disc, making, one.kinds.shape)
    place = np.unravel_index(
        np.where(find_eye(one.disc, placed.shape), placed, -1).argmax(), placed.shape
    )
    return place, near[place], placed


def describe_lesions(marked, making):
    """Yield the lines of the table, and of what is hit and missed."""
    eyes = [find_eye(one.disc, one.kinds.shape) for one in marked]
    radii = [LESION_TOLERANCE * max(one.disc.semi_axis_x, one.disc.semi_axis_y) for one in marked]
    distances = [distance_transform_edt(one.kinds == 0) for one in marked]
    nearby = [of <= radius for of, radius in zip(distances, radii, strict=True)]
    chance = np.mean([near[eye].mean() for near, eye in zip(nearby, eyes, strict=True)])
    exact = np.mean([(one.kinds > 0)[eye].mean() for one, eye in zip(marked, eyes, strict=True)])
    yield f"{'':10} exact  near  others  rank\n{'chance':10} {exact:5.2f} {chance:5.2f} {chance:7.2f}  0.50"
    for layer in explain.LAYERS:
        own, others, hits, ranks = [], [], np.zeros(len(KINDS), int), []
        for one, near, eye, radius in zip(marked, nearby, eyes, radii, strict=True):
            place, is_near, placed = point(one, one.heats[layer], near, making)
            own.append((one.kinds[place] > 0, is_near))
            others += [
                point(one, other.heats[layer], near, making)[1]
                for other in marked
                if other is not one
            ]
            ranks.append(ranking.measure_auc(placed[eye], one.kinds[eye] > 0))
            around = one.kinds[distance_from(place, one.kinds.shape) <= radius]
            hits += [bool((around >> bit & 1).any()) for bit in range(len(KINDS))]
        on, near = np.mean(own, axis=0)
        yield f"{layer:10} {on:5.2f} {near:5.2f} {np.mean(others):7.2f} {np.mean(ranks):5.2f}"
        has = [
            sum(bool((one.kinds >> bit & 1).any()) for one in marked) for bit in range(len(KINDS))
        ]
        told = zip(KINDS.values(), hits, has, strict=True)
        yield f"{'':10} hottest pixel near " + ", ".join(
            f"{name} in {n} of {of}" for name, n, of in told
        )


def distance_from(place, shape):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - place[0], x - place[1])


def draw_marked(marked, making, layer, out):
    """Write each photograph with its lesions outlined and its hottest pixel, beside it under its heat."""
    out.mkdir(parents=True, exist_ok=True)
    for one in marked:
        rgb = cv2.cvtColor(cv2.imread(str(one.path)), cv2.COLOR_BGR2RGB)
        (row, column), _, placed = point(one, one.heats[layer], one.kinds > 0, making)
        outlined = rgb.copy()
        outlines, _ = cv2.findContours(
            (one.kinds > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(outlined, outlines, -1, (0, 255, 0), 2)
        cv2.circle(outlined, (int(column), int(row)), 14, (0, 0, 255), 4)
        both = np.concatenate([outlined, heat.blend_heat(rgb, placed)], axis=1)
        scale = 2 * SHOWN_PX / both.shape[1]
        explain.write_jpeg(
            out / f"{one.path.stem}.jpeg",
            cv2.resize(both, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
        )


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.explain", __doc__.splitlines()[0], "--cache cache/demo"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/demo"), help="folder of preprocess.synthetic"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("cache/demo"), help="where dr.train left a net"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pt", help="a net, without a cache")
    parser.add_argument(
        "--blocks", action="store_true", help="every block, each place with its own weight"
    )
    parser.add_argument(
        "--lesions", type=Path, metavar="DIR", help="real photographs with masks instead"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="OUT", help="with --lesions: a picture of each, fine layer"
    )
    parser.set_defaults(run=None, level=None, strict=False)
    options = parser.parse_args()
    of = explain.read_checkpoint(options)
    net = load_net(of).eval()
    if options.lesions:
        making = of.making._replace(
            crop="adaptive"
        )  # however the net's own were cropped, these have a rim
        marked = list(read_marked(options.lesions, of, net, making))
        print(f"{len(marked)} photographs, {net.image_px} px, epoch {of.epoch}")
        print(*describe_lesions(marked, making), sep="\n", flush=True)
        if options.pictures:
            draw_marked(marked, making, "fine", options.pictures)
        return
    drawn = read_eyes(options.data, of, net)
    print(
        f"{np.bincount(drawn.levels)[1:]} eyes of level 1 to 4, {net.image_px} px, epoch {of.epoch}"
    )
    print(f"{'':24} exact  near  others   heat   near, by level 1 to 4\n{describe_chance(drawn)}")
    for layer in (*explain.LAYERS, *range(len(CONVOLUTIONS) * options.blocks)):
        maps = heat.map_heat(net, drawn.images, drawn.predicted, layer)
        print(
            describe_layer(f"block {layer}" if isinstance(layer, int) else layer, maps, drawn),
            flush=True,
        )


if __name__ == "__main__":
    process.run(main)
