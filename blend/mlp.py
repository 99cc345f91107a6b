"""The article's blending network, both eyes' scores in, one eye's scores out; and the blend's checkpoint."""

import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from blend.pairs import Pairs, blend_linear, fit_fellow_weight
from dr.training import checkpoint
from preprocess.command.progress import Bar
from preprocess.disk import files
from preprocess.disk.errors import InputError

FORMAT = "blend 1"  # of the checkpoint
N_HIDDEN = 500  # the article's two hidden layers
DROPOUT = 0.5  # the article's "strong dropout"
LOWEST = 1e-4  # scores below it count as it before the logarithm: a net that sure is no surer than one that is not
LOG_CENTER, LOG_SCALE = (
    -4.6,
    2.5,
)  # bring logarithms, from -9.2 to 0, to -1.8 to 1.8, alike for all score tables
N_EPOCHS = 8  # passes over the examples; twice as many overfit 60 patients
MOST_STEPS = 340  # 8 epochs of 10,906 images, the most that could be measured; more images are seen fewer times
BATCH = 256
LEARNING_RATE = 1e-3  # Adam's, falling to 0 along half a cosine
N_SEEDS = 4  # networks whose scores are averaged

Net = dict[str, torch.Tensor]  # weight0, bias0 .. weight2, bias2


class Blend(NamedTuple):
    """A fitted blend."""

    fellow_weight: float  # of the linear blend, 0–1
    nets: list[Net]  # that correct it; none if the linear blend is all


def make_inputs(pairs: Pairs, fellow_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the networks see of (n, k) pairs, (n, 2k), and the logits they correct, (n, k), both float32.

    They see the scaled logarithms of own and fellow scores (with probabilities, or both, the cross-fitted log loss is
    no lower, and small sets overfit) and correct the logarithms of the linear blend.
    """
    both = np.log(np.maximum(np.hstack([pairs.own, pairs.fellow]), LOWEST))
    start = np.log(np.maximum(blend_linear(pairs, fellow_weight), LOWEST))
    features = torch.tensor((both - LOG_CENTER) / LOG_SCALE, dtype=torch.float32)
    return features, torch.tensor(start, dtype=torch.float32)


def list_shapes(n_features: int, n_levels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight and bias of the three layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    widths = (n_features, N_HIDDEN, N_HIDDEN, n_levels)
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        shapes[f"weight{layer}"] = (n_out, n_in)
        shapes[f"bias{layer}"] = (n_out,)
    return shapes


def make_net(n_features: int, n_levels: int, rng: torch.Generator) -> Net:
    """Return random weights and biases, those of the last layer zero: training starts from the linear blend."""
    bounds = {
        "0": n_features**-0.5,
        "1": N_HIDDEN**-0.5,
        "2": 0.0,
    }  # torch's own choice for linear layers
    net = {}
    for name, shape in list_shapes(n_features, n_levels).items():
        layer = name[-1]
        net[name] = (2 * torch.rand(shape, generator=rng) - 1) * bounds[layer]
    return net


def apply_net(
    net: Net,
    features: torch.Tensor,
    start: torch.Tensor,
    dropout_rng: torch.Generator | None = None,
) -> torch.Tensor:
    """Return logits, (n, k); with a generator, drop hidden units for training."""
    hidden = features
    for layer in range(2):
        hidden = torch.relu(
            nn.functional.linear(hidden, net[f"weight{layer}"], net[f"bias{layer}"])
        )
        if dropout_rng:
            kept = torch.empty_like(hidden).bernoulli_(1 - DROPOUT, generator=dropout_rng)
            hidden = hidden * kept / (1 - DROPOUT)
    return start + nn.functional.linear(hidden, net["weight2"], net["bias2"])


def count_steps(n: int) -> int:
    """Return how many steps a network is fitted in to n images."""
    return min(MOST_STEPS, -(-N_EPOCHS * n // min(BATCH, n)))


def fit_net(
    features: torch.Tensor, start: torch.Tensor, targets: torch.Tensor, seed: int, bar: Bar | None
) -> Net:
    """Fit one network on log loss: (n, 2k) features, (n, k) logits to start from, (n,) levels; move a bar on."""
    n = len(targets)
    rng = torch.Generator().manual_seed(seed)
    net = make_net(features.shape[1], start.shape[1], rng)
    optimizer = torch.optim.Adam([part.requires_grad_() for part in net.values()], lr=LEARNING_RATE)
    n_steps = count_steps(n)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    rows = torch.empty(0, dtype=torch.int64)
    for _ in range(n_steps):
        if len(rows) < min(BATCH, n):
            rows = torch.randperm(n, generator=rng)
        batch, rows = rows[:BATCH], rows[BATCH:]
        loss = nn.functional.cross_entropy(
            apply_net(net, features[batch], start[batch], rng), targets[batch]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if bar:
            bar.update(1)
    return {name: part.detach() for name, part in net.items()}


def fit_blend(
    pairs: Pairs, levels: np.ndarray, method: str, seed: int, bar: Bar | None = None
) -> Blend:
    """Fit a blend to (n, k) pairs and (n,) levels, by method `linear` or `mlp`; move a bar on, a step at a time.

    Both eyes of a patient are examples, each as the own eye once: that is both orders of each pair. Each network has
    one thread and its own generator, so that the result does not depend on how many cores there are. The networks learn
    of eyes without a fellow, too: most of what they mend is how sure the scores are of themselves.
    """
    weight = fit_fellow_weight(pairs, levels)
    if method == "linear":
        return Blend(weight, [])
    fit = partial(fit_net, *make_inputs(pairs, weight), torch.tensor(levels), bar=bar)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            return Blend(weight, list(pool.map(fit, range(seed * N_SEEDS, (seed + 1) * N_SEEDS))))
    finally:
        torch.set_num_threads(n_threads)


@torch.no_grad()
def apply_blend(blend: Blend, pairs: Pairs) -> np.ndarray:
    """Return blended scores, (n, k) float64, the mean over the networks; rows sum to 1 if those of `pairs` do."""
    if not blend.nets:
        return blend_linear(pairs, blend.fellow_weight)
    inputs = make_inputs(pairs, blend.fellow_weight)
    return (
        torch.stack([torch.softmax(apply_net(net, *inputs).double(), dim=1) for net in blend.nets])
        .mean(0)
        .numpy()
    )


def fit_predictor(
    pairs: Pairs, levels: np.ndarray, method: str, seed: int, bar: Bar | None = None
) -> Callable[[Pairs], np.ndarray]:
    """Return `apply_blend` of a blend that is fitted, for `blend.pairs.cross_fit`."""
    return partial(apply_blend, fit_blend(pairs, levels, method, seed, bar))


def save_blend(path: Path, blend: Blend) -> None:
    """Write a checkpoint, whole or not at all."""
    content = io.BytesIO()  # into a file, torch would write the file's temporary name, too
    torch.save({"format": FORMAT, **blend._asdict()}, content)
    files.write_bytes(path, content.getvalue())


def load_blend(path: Path) -> Blend:
    """Return the blend of a checkpoint. Raises InputError if the file is missing, torn or no blend's."""
    files.check_regular(path)
    content = checkpoint.load(path, "blend.train")
    if not _is_blend(content):
        raise InputError(
            f"{path}: not a checkpoint of this version of blend.train; run python -m blend.train again"
        )
    return Blend(content["fellow_weight"], content["nets"])


def _is_blend(content: Any) -> bool:
    """Return whether a checkpoint's content is a blend: a weight and some networks."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    weight = content.get("fellow_weight")
    nets = content.get("nets")
    if not isinstance(weight, float) or not 0 <= weight <= 1:
        return False
    return isinstance(nets, list) and all(_is_net(net) for net in nets)


def _is_net(net: object) -> bool:
    """Return whether a part of a checkpoint is a network: all tensors in their shapes, all finite numbers."""
    if not isinstance(net, dict) or not isinstance(net.get("bias2"), torch.Tensor):
        return False
    n_levels = net["bias2"].numel()
    shapes = list_shapes(2 * n_levels, n_levels)
    if net.keys() != shapes.keys():
        return False
    return all(_is_finite(net[name], shape) for name, shape in shapes.items())


def _is_finite(tensor: object, shape: tuple[int, ...]) -> bool:
    """Return whether something is a tensor of finite float32 numbers in a shape."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        return False
    return (
        tensor.dtype == torch.float32
        and tensor.shape == shape
        and bool(torch.isfinite(tensor).all())
    )
