"""The article's blending network, both eyes' scores in, one eye's scores out; and the blend's checkpoint."""

from __future__ import annotations

import io
import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from blend.linear import blend_linear, fit_fellow_weight
from blend.pairs import Pairs
from dr.checkpoint import UNREADABLE
from preprocess import eyes, stage
from preprocess.stage import InputError

FORMAT = "blend 1"  # of the checkpoint
N_HIDDEN = 500  # the article's two hidden layers
DROPOUT = 0.5  # the article's "strong dropout"
LOWEST = 1e-4  # scores below it count as it before the logarithm: a net that sure is no surer than one that is not
LOG_CENTER, LOG_SCALE = -4.6, 2.5  # bring logarithms, from -9.2 to 0, to -1.8 to 1.8, alike for all score tables
N_EPOCHS = 8  # passes over the examples; twice as many overfit 60 patients
MOST_STEPS = 340  # 8 epochs of 10,906 images, the most that could be measured; more images are seen fewer times
BATCH = 256
LEARNING_RATE = 1e-3  # Adam's, falling to 0 along half a cosine
N_SEEDS = 4  # networks whose scores are averaged

Net = dict[str, torch.Tensor]  # weight0, bias0 .. weight2, bias2


def take_logarithms(scores: np.ndarray) -> np.ndarray:
    """Return the logarithms of scores, at least `LOWEST`; same shape."""
    return np.log(np.maximum(scores, LOWEST))


def make_features(pairs: Pairs) -> torch.Tensor:
    """Return what the network sees of (n, 5) pairs: the scaled logarithms of own and fellow scores, (n, 10) float32.

    Logarithms: with probabilities, or both, the cross-fitted log loss is no lower, and small sets overfit.
    """
    both = take_logarithms(np.hstack([pairs.own, pairs.fellow]))
    return torch.tensor((both - LOG_CENTER) / LOG_SCALE, dtype=torch.float32)


def make_start(pairs: Pairs, fellow_weight: float) -> torch.Tensor:
    """Return the logits that the network corrects: the logarithms of the linear blend, (n, 5) float32."""
    return torch.tensor(take_logarithms(blend_linear(pairs, fellow_weight)), dtype=torch.float32)


def make_net(n_features: int, n_levels: int, rng: torch.Generator) -> Net:
    """Return weights and biases of the three layers, the last ones zero: training starts from the linear blend."""
    sizes = (n_features, N_HIDDEN, N_HIDDEN, n_levels)
    net = {}
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        bound = 0.0 if n_out == n_levels else n_in**-0.5  # torch's own choice for linear layers
        net[f"weight{layer}"] = (2 * torch.rand(n_out, n_in, generator=rng) - 1) * bound
        net[f"bias{layer}"] = (2 * torch.rand(n_out, generator=rng) - 1) * bound
    return net


def apply_net(
    net: Net, features: torch.Tensor, start: torch.Tensor, dropout_rng: torch.Generator | None = None
) -> torch.Tensor:
    """Return logits, (n, 5); with a generator, drop hidden units for training."""
    hidden = features
    for layer in range(2):
        hidden = torch.relu(nn.functional.linear(hidden, net[f"weight{layer}"], net[f"bias{layer}"]))
        if dropout_rng:
            kept = torch.empty_like(hidden).bernoulli_(1 - DROPOUT, generator=dropout_rng)
            hidden = hidden * kept / (1 - DROPOUT)
    return start + nn.functional.linear(hidden, net["weight2"], net["bias2"])


def fit_mlp(pairs: Pairs, levels: np.ndarray, fellow_weight: float, seed: int) -> list[Net]:
    """Fit the networks to (n, 5) pairs and (n,) levels.

    Both eyes of a patient are examples, each as the own eye once: that is both orders of each pair. Each network has
    one thread and its own generator, so that the result does not depend on how many cores there are.
    """
    features, start, targets = make_features(pairs), make_start(pairs, fellow_weight), torch.tensor(levels)
    seeds = range(seed * N_SEEDS, (seed + 1) * N_SEEDS)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(lambda number: fit_net(features, start, targets, number), seeds))
    finally:
        torch.set_num_threads(n_threads)


def fit_net(features: torch.Tensor, start: torch.Tensor, targets: torch.Tensor, seed: int) -> Net:
    """Fit one network on log loss: (n, 10) features, (n, 5) logits to start from, (n,) levels."""
    n = len(targets)
    rng = torch.Generator().manual_seed(seed)
    net = make_net(features.shape[1], start.shape[1], rng)
    optimizer = torch.optim.Adam([part.requires_grad_() for part in net.values()], lr=LEARNING_RATE)
    n_steps = min(MOST_STEPS, -(-N_EPOCHS * n // min(BATCH, n)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    rows = torch.empty(0, dtype=torch.int64)
    for _ in range(n_steps):
        if len(rows) < min(BATCH, n):
            rows = torch.randperm(n, generator=rng)
        batch, rows = rows[:BATCH], rows[BATCH:]
        loss = nn.functional.cross_entropy(apply_net(net, features[batch], start[batch], rng), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {name: part.detach() for name, part in net.items()}


@torch.no_grad()
def predict_mlp(nets: list[Net], pairs: Pairs, fellow_weight: float) -> np.ndarray:
    """Return the mean of the networks' distributions, (n, 5) float64."""
    features, start = make_features(pairs), make_start(pairs, fellow_weight)
    return torch.stack([torch.softmax(apply_net(net, features, start).double(), dim=1) for net in nets]).mean(0).numpy()


class Blend(NamedTuple):
    """A fitted blend.

    fellow_weight : the linear blend's, 0–1
    nets : the networks that correct it; none if the linear blend is all
    """

    fellow_weight: float
    nets: list[Net]


def fit_blend(pairs: Pairs, levels: np.ndarray, method: str, fellow_weight: float | None, seed: int) -> Blend:
    """Fit a blend to (n, 5) pairs and (n,) levels, by method `linear` or `mlp`; a fellow weight of None is fitted."""
    weight = fit_fellow_weight(pairs, levels) if fellow_weight is None else fellow_weight
    return Blend(weight, fit_mlp(pairs, levels, weight, seed) if method == "mlp" else [])


def apply_blend(blend: Blend, pairs: Pairs) -> np.ndarray:
    """Return blended scores, (n, 5); rows sum to 1 if those of `pairs` do."""
    if not blend.nets:
        return blend_linear(pairs, blend.fellow_weight)
    return predict_mlp(blend.nets, pairs, blend.fellow_weight)


def save_blend(path: Path, blend: Blend) -> None:
    """Write a checkpoint, whole or not at all."""
    content = io.BytesIO()  # into a file, torch would write the file's temporary name, too
    torch.save({"format": FORMAT, **blend._asdict()}, content)
    stage.write_bytes(path, content.getvalue())


def load_blend(path: Path) -> Blend:
    """Return the blend of a checkpoint. Raises InputError if the file is missing, torn or no blend's."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run python -m blend.train first") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles: they are refused below
            content = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    except UNREADABLE:
        raise InputError(f"{path}: no checkpoint, or not a whole one; run python -m blend.train again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not _is_blend(content):
        raise InputError(f"{path}: not a checkpoint of this version of blend.train; run python -m blend.train again")
    return Blend(content["fellow_weight"], content["nets"])


def _is_blend(content: dict) -> bool:
    """Tell whether a checkpoint's content is a weight and networks of the right shapes, all finite numbers."""
    weight, nets = content.get("fellow_weight"), content.get("nets")
    shapes = {name: part.shape for name, part in make_net(2 * eyes.N_LEVELS, eyes.N_LEVELS, torch.Generator()).items()}
    return (
        isinstance(weight, float)
        and 0 <= weight <= 1
        and isinstance(nets, list)
        and all(isinstance(net, dict) and net.keys() == shapes.keys() for net in nets)
        and all(_is_part(net[name], shape) for net in nets for name, shape in shapes.items())
    )


def _is_part(part: object, shape: torch.Size) -> bool:
    return (
        isinstance(part, torch.Tensor)
        and (part.dtype, part.layout, part.shape) == (torch.float32, torch.strided, shape)
        and bool(torch.isfinite(part).all())
    )
