"""Is a square like those that a net learned from? Distances between the middles of squares, as the net is given them.

Compared is how strong details of each size are, in the channels and between them: log energies of a Laplacian pyramid
(Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, 1983). What a trained net sees tells less:
a net is blind to what no image differs in that it learned from (`python -m tests.benchmarks.likeness`).
"""

import numpy as np
import torch
from torch.nn import functional

from dr.squares import crops, store
from dr.squares.store import Squares
from dr.training.checkpoint import Checkpoint
from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError
from preprocess.picture.square import Square

N_BANDS = 4  # sizes of details, each twice the one before; crops of 32 px have no more
MARGIN = 8  # this part of a side is left out on each: in the middle of an eye's square is no rim
FLOOR = 0.01  # of an energy, and of how much one varies: three quarters of a grey level, where they deviate by 74
NEAREST = 5  # how many of those learned from are near is what counts: one alone may be odd itself
LEAST_IMAGES = 20  # learned from, and held out: fewer tell nothing of a distribution
MOST_IMAGES = 500  # of each: 30 s of one core at 448 px, once in a training
SHARE_INSIDE = 0.99  # of the images held out, which are like those learned from, lie within the limit
BATCH_SIZE = 4  # more leave the cache of a processor: 42 instead of 29 ms an image of 448 px


def learn(squares: Squares, learned: np.ndarray, held_out: np.ndarray, crop_px: int) -> dict[str, torch.Tensor]:
    """Return what the squares that a net learns from look like, for its checkpoint; {} if they are too few to tell. The
    rows held out tell how far new ones may lie.
    """
    if min(len(learned), len(held_out)) < LEAST_IMAGES:
        return {}
    described = []
    for rows in (learned, held_out):
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).astype(int)]
        cuts = crops.center_crops(len(squares), squares.size_px - crop_px)
        parts = np.split(chosen, range(BATCH_SIZE, len(chosen), BATCH_SIZE))
        described.append(torch.cat([describe(crops.cut_batch(squares, part, cuts, crop_px)) for part in parts]).cpu())
    known, new = described
    scale = known.std(dim=0, correction=0).clamp_min(FLOOR)
    limit = find_distances(new / scale, known / scale).quantile(SHARE_INSIDE, interpolation="higher").clamp_min(1)
    return {"known": known / (scale * limit), "scale": scale * limit}


def measure(of: Checkpoint, made: Square) -> float | None:
    """Return how far a square lies from those that a net learned from, 1 as far as a new one may; None if the
    checkpoint does not know. Raises InputError if it tells of something else.
    """
    if not of.likeness:
        return None
    squares = store.gather([Subject("")], [made], of.mean, of.std)
    described = describe(crops.cut_centers(squares, of.settings.crop_px or squares.size_px))
    known, scale = of.likeness["known"], of.likeness["scale"]
    if described.shape[1] != len(scale) or len(known) < NEAREST:
        raise InputError("the checkpoint: another version of dr.train described the images learned from; train again")
    return float(find_distances(described / scale, known))


def describe(images: torch.Tensor) -> torch.Tensor:
    """Return the colours and the log energies of details in the middle of standardized images, (n, n_features)."""
    red, green, blue = images.unbind(dim=1)
    finer = torch.stack([red, green, blue, red - green, green - blue, images.mean(dim=1)], dim=1)
    features = [*_find_moments(_cut_middle(images))]
    for _ in range(N_BANDS):
        coarser = functional.avg_pool2d(finer, 2)
        blurred = functional.interpolate(coarser, finer.shape[2:], mode="bilinear", align_corners=False)
        details = _cut_middle(finer - blurred)
        features += [(details.abs() + FLOOR).log().mean(dim=(2, 3)), (_find_moments(details)[1] + FLOOR).log()]
        finer = coarser
    return torch.cat(features, dim=1)


def _cut_middle(maps: torch.Tensor) -> torch.Tensor:
    margin = maps.shape[-1] // MARGIN
    return maps[:, :, margin : maps.shape[2] - margin, margin : maps.shape[3] - margin]


def _find_moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return maps.mean(dim=(2, 3)), maps.std(dim=(2, 3), correction=0)


def find_distances(described: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return how far each of (n, n_features) lies from the NEAREST-th nearest of (m, n_features), (n,)."""
    return torch.cdist(described, known, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(NEAREST, dim=1).values
