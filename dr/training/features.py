"""The feature maps of a body that never learns: computed once, kept in CACHE/dr/features/train.npy.

On 1,534 OCT scans, EfficientNet-Lite0 at 224 px, one core: 3.1 s an epoch instead of 135, after 115 s for the maps.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dr.machine import device
from dr.squares import batches, crops, store
from dr.squares.store import Maps, Squares
from dr.training.learner import Learner
from preprocess.command import progress

DECIDING = (
    "net",
    "weights",
    "seed",
    "crop_px",
    "precision",
    "pool",
)  # settings, beside the head's, that the maps depend on


def load(
    learner: Learner, squares: Squares, cache: Path, digests: Mapping[str, str], mean: Sequence[float],
    std: Sequence[float],
) -> Maps:  # fmt: skip
    """Return the maps of squares, computed or of before; from now on the learner's nets are to be given these.

    The digests, name -> digest, are of what the squares are made of, which mean and std, (3,), standardize.
    """
    file = cache / "dr" / "features" / "train.npy"
    settings = [getattr(learner.settings, name) for name in DECIDING]
    is_averaged = learner.net.head.is_averaged
    made_from = json.dumps([settings, list(mean), list(std), is_averaged, sorted(digests.items())])
    values = store.keep_map(file, made_from, lambda partial: _write_maps(learner, squares, partial))
    learner.net.is_given_maps = True
    if learner.averaged:
        learner.averaged.is_given_maps = True
    return Maps(eyes=squares.eyes, values=values, size_px=learner.net.image_px)


@device.naming_memory()
def _write_maps(learner: Learner, squares: Squares, file: Path) -> None:
    """Write the maps of all squares, (n, h, w, channels) in the type that the body makes; or what the head averages."""
    net = learner.net.eval()
    n = len(squares)
    batch_size = learner.settings.batch_size
    batch_positions = np.split(np.arange(n), range(batch_size, n, batch_size))
    cuts = crops.center_crops(n, 0)
    values: np.memmap | None = None
    with progress.tracking(n, "feature maps") as bar, torch.inference_mode():
        for batch, images in batches.iterate_batches(
            squares, batch_positions, cuts, net.image_px, learner.device
        ):
            with device.autocast(learner.device, learner.settings.precision):
                maps = net.body(images)
            if maps.dtype == torch.bfloat16:
                maps = maps.float()  # numpy has no bfloat16
            if net.head.is_averaged:
                maps = maps.float().mean(dim=(2, 3), keepdim=True)  # as the head would
            batch_values = maps.permute(0, 2, 3, 1).cpu().numpy()
            if values is None:
                values = store.make_map(file, batch_values.dtype, (n, *batch_values.shape[1:]))
            values[batch] = batch_values
            bar.update(len(batch))
    if values is not None:
        values.flush()
    print(f"dr.train: the body has seen {n} images once; its maps lie in {file.parent}", flush=True)
