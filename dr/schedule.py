"""The learning rate as a function of the settings and of how far training is."""

from __future__ import annotations

import math

from dr.settings import Settings

WARM_UP_SHARE = 0.3  # of a one-cycle schedule (Smith and Topin 2019, "Super-convergence"; torch's default)
WARM_UP_FROM = 1 / 25  # of the highest rate; torch's default


def find_rate(settings: Settings, epoch: int, share: float) -> float:
    """Return the learning rate at a `share` (0-1) of an epoch, counted from 1."""
    if settings.schedule == "drops":
        return settings.learning_rate * settings.drop_factor ** sum(epoch > drop for drop in settings.drops)
    progress = (epoch - 1 + share) / settings.epochs
    if settings.schedule == "cosine":
        return settings.learning_rate * _fall(progress)
    if progress < WARM_UP_SHARE:
        return settings.learning_rate * (1 - (1 - WARM_UP_FROM) * _fall(progress / WARM_UP_SHARE))
    return settings.learning_rate * _fall((progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def _fall(progress: float) -> float:
    """Return half a cosine: 1 at progress 0, 0 at 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def have_same_start(one: Settings, other: Settings, n_epochs: int) -> bool:
    """Tell whether two settings agree on the learning rate during the first `n_epochs`."""
    return all(
        find_rate(one, epoch, share) == find_rate(other, epoch, share)
        for epoch in range(1, n_epochs + 1)
        for share in (0, 0.5)
    )
