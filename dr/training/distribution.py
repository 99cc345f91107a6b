"""Is a square out of distribution? Distances between the middles of squares, standardized as for the net.

Compared is how strong details of each size are, in the channels and between them: log energies of a Laplacian pyramid
(Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, 1983). The features of a trained net detect less:
a net is blind to whatever does not vary among its training images (`python -m tests.benchmarks.likeness`).
"""

import numpy as np
import torch
from torch.nn import functional

from dr.squares import crops, store
from dr.squares.store import Squares
from dr.training.checkpoint import Checkpoint
from preprocess.command import progress
from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError
from preprocess.picture.square import Square

N_BANDS = 4  # sizes of details, each twice the one before; crops of 32 px have no more
MARGIN = 8  # this part of a side is left out on each: in the middle of an eye's square is no rim
FLOOR = 0.01  # of an energy, and of how much one varies: three quarters of a grey level, where they deviate by 74
NEAREST = 5  # how many of those learned from are near is what counts: one alone may be odd itself
LEAST_IMAGES = 20  # learned from, and held out: fewer do not show a distribution
MOST_IMAGES = 500  # of each: 30 s of one core at 448 px, once in a training
SHARE_INSIDE = (
    0.99  # of the images held out, which are like those learned from, lie within the limit
)
BATCH_SIZE = 4  # more leave the cache of a processor: 42 instead of 29 ms an image of 448 px


def summarize_training_squares(
    squares: Squares, learned: np.ndarray, held_out: np.ndarray, crop_px: int
) -> dict[str, torch.Tensor]:
    """Return the features of the squares that a net learns from, for its checkpoint; {} if there are too few.

    They are divided by a scale with which SHARE_INSIDE of the squares held out lie within a distance of 1.
    """
    if min(len(learned), len(held_out)) < LEAST_IMAGES:
        return {}
    known = _compute_some_features(squares, learned, crop_px)
    new = _compute_some_features(squares, held_out, crop_px)
    scale = known.std(dim=0, correction=0).clamp_min(FLOOR)
    distances = find_distances(new / scale, known / scale)
    limit = distances.quantile(SHARE_INSIDE, interpolation="higher").clamp_min(1)
    return {"known": known / (scale * limit), "scale": scale * limit}


def _compute_some_features(squares: Squares, rows: np.ndarray, crop_px: int) -> torch.Tensor:
    """Return the features of at most MOST_IMAGES of the squares at `rows`, evenly spaced, on the CPU."""
    n_chosen = min(len(rows), MOST_IMAGES)
    chosen = rows[np.linspace(0, len(rows) - 1, n_chosen).astype(int)]
    cuts = crops.center_crops(len(squares), squares.size_px - crop_px)
    features = []
    with progress.tracking(n_chosen, "textures, for the out-of-distribution check") as bar:
        for start in range(0, n_chosen, BATCH_SIZE):
            batch = chosen[start : start + BATCH_SIZE]
            features.append(compute_features(crops.cut_batch(squares, batch, cuts, crop_px)))
            bar.update(len(batch))
    return torch.cat(features).cpu()


def measure_distance(checkpoint: Checkpoint, square: Square) -> float | None:
    """Return how far a square lies from those that a net learned from: above 1 it is out of distribution.

    Returns None if the checkpoint has no summary of them. Raises InputError if that is of other features.
    """
    if not checkpoint.distribution:
        return None
    squares = store.gather([Subject("")], [square], checkpoint.mean, checkpoint.std)
    features = compute_features(
        crops.cut_centers(squares, checkpoint.settings.crop_px or squares.size_px)
    )
    known = checkpoint.distribution["known"]
    scale = checkpoint.distribution["scale"]
    if features.shape[1] != len(scale) or len(known) < NEAREST:
        raise InputError(
            "the checkpoint: another version of dr.train described the images learned from; train again"
        )
    return float(find_distances(features / scale, known))


def compute_features(images: torch.Tensor) -> torch.Tensor:
    """Return the colours and the log energies of details in the middle of standardized images, (n, n_features).

    Images are (n, 3, h, w), RGB.
    """
    red, green, blue = images.unbind(dim=1)
    finer = torch.stack([red, green, blue, red - green, green - blue, images.mean(dim=1)], dim=1)
    colour_mean, colour_std = _find_moments(_cut_middle(images))
    features = [colour_mean, colour_std]
    for _ in range(N_BANDS):
        coarser = functional.avg_pool2d(finer, 2)
        blurred = functional.interpolate(
            coarser, finer.shape[2:], mode="bilinear", align_corners=False
        )
        details = _cut_middle(finer - blurred)
        _, deviation = _find_moments(details)
        features.append((details.abs() + FLOOR).log().mean(dim=(2, 3)))
        features.append((deviation + FLOOR).log())
        finer = coarser
    return torch.cat(features, dim=1)


def _cut_middle(maps: torch.Tensor) -> torch.Tensor:
    margin = maps.shape[-1] // MARGIN
    return maps[:, :, margin : maps.shape[2] - margin, margin : maps.shape[3] - margin]


def _find_moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of each channel of each map, (n, channels) both."""
    return maps.mean(dim=(2, 3)), maps.std(dim=(2, 3), correction=0)


def find_distances(features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return how far each of (n, n_features) lies from the NEAREST-th nearest of (m, n_features), (n,)."""
    distances = torch.cdist(features, known, compute_mode="donot_use_mm_for_euclid_dist")  # (n, m)
    return distances.kthvalue(NEAREST, dim=1).values
