"""The article's blending network: both eyes' scores in, a distribution over one eye's levels out; and its checkpoint."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from blend.linear import blend_linear
from blend.pairs import Pairs
from preprocess import stage
from preprocess.stage import InputError

FORMAT = "blend 1"  # of the checkpoint
N_HIDDEN = 500  # the article's two hidden layers
DROPOUT = 0.5  # the article's "strong dropout"
LOWEST = 1e-4  # scores below it count as it before the logarithm: a net that sure is no surer than one that is not
N_STEPS = 400  # enough for 35,126 rows; 120 rows need the share of the linear blend (see blend.train)
BATCH = 512
LEARNING_RATE = 1e-3  # Adam's, falling to 0 along half a cosine
N_SEEDS = 3  # networks whose scores are averaged


def make_features(pairs: Pairs) -> np.ndarray:
    """Return what the network sees of (n, 5) pairs: scores and their logarithms, own and fellow, (n, 20)."""
    both = np.hstack([pairs.own, pairs.fellow])
    return np.hstack([both, np.log(np.maximum(both, LOWEST))])


def build_net(n_features: int, n_levels: int) -> nn.Sequential:
    """Return the network, with logits as its output."""
    return nn.Sequential(
        nn.Linear(n_features, N_HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(N_HIDDEN, N_HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(N_HIDDEN, n_levels),
    )


def fit_mlp(pairs: Pairs, levels: np.ndarray, seed: int) -> dict[str, Any]:
    """Fit the networks to (n, 5) pairs and (n,) levels; return them as tensors: center, scale and a state per seed."""
    features = make_features(pairs)
    center, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1  # a feature that never varies
    inputs = torch.tensor((features - center) / scale, dtype=torch.float32)
    targets = torch.tensor(levels)
    nets = [fit_net(inputs, targets, pairs.own.shape[1], seed * N_SEEDS + number) for number in range(N_SEEDS)]
    return {"center": torch.tensor(center), "scale": torch.tensor(scale), "nets": nets}


def fit_net(inputs: torch.Tensor, targets: torch.Tensor, n_levels: int, seed: int) -> dict[str, torch.Tensor]:
    """Fit one network on log loss and return its state. The caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_net(inputs.shape[1], n_levels)
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_STEPS)
        rows = torch.empty(0, dtype=torch.int64)
        for _ in range(N_STEPS):
            if len(rows) < min(BATCH, len(inputs)):
                rows = torch.randperm(len(inputs))
            batch, rows = rows[:BATCH], rows[BATCH:]
            loss = nn.functional.cross_entropy(net(inputs[batch]), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.state_dict()


@torch.no_grad()
def predict_mlp(fitted: dict[str, Any], pairs: Pairs) -> np.ndarray:
    """Return the mean of the networks' distributions, (n, 5) float64."""
    center, scale = fitted["center"].numpy(), fitted["scale"].numpy()
    inputs = torch.tensor((make_features(pairs) - center) / scale, dtype=torch.float32)
    net = build_net(inputs.shape[1], pairs.own.shape[1]).eval()
    total = torch.zeros(len(inputs), pairs.own.shape[1], dtype=torch.float64)
    for state in fitted["nets"]:
        net.load_state_dict(state)
        total += torch.softmax(net(inputs).double(), dim=1)
    return (total / len(fitted["nets"])).numpy()


class Blend(NamedTuple):
    """A fitted blend: share·mlp + (1 − share)·linear.

    fellow_weight : the linear blend's, 0–1
    share : the network's, 0–1
    mlp : what `fit_mlp` returned
    """

    fellow_weight: float
    share: float
    mlp: dict[str, Any]


def apply_blend(blend: Blend, pairs: Pairs) -> np.ndarray:
    """Return blended scores, (n, 5); rows sum to 1 if those of `pairs` do."""
    linear = blend_linear(pairs, blend.fellow_weight)
    return blend.share * predict_mlp(blend.mlp, pairs) + (1 - blend.share) * linear if blend.share else linear


def save_blend(path: Path, blend: Blend) -> None:
    """Write a checkpoint, whole or not at all."""
    with stage.replacing(path) as partial:
        torch.save({"format": FORMAT, **blend._asdict()}, partial)


def load_blend(path: Path) -> Blend:
    """Return the blend of a checkpoint. Raises InputError if the file is missing, torn or no blend's."""
    try:
        content = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run python -m blend.train first") from None
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise InputError(f"{path}: no checkpoint, or not a whole one; run python -m blend.train again") from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a checkpoint of blend.train")
    return Blend(**content)
