"""What is due after the epochs that are done: which epoch, on which net, at which rate; which of them are the best.

It follows from settings and history, the figures of the epochs done: a run that was stopped goes on as if never.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dr.training.settings import Settings

History = Sequence[Mapping[str, Any]]

DROP_SHARES = (0.6, 0.8, 0.9)  # of the epochs; the article dropped the rate "a few times"
DROP_FACTOR = 0.2  # what a drop multiplies the rate by; the article gives no number
WARM_UP_SHARE = (
    0.3  # of a one-cycle schedule (Smith and Topin 2019, "Super-convergence"; torch's default)
)
WARM_UP_FROM = 1 / 25  # of the highest rate; torch's default, here of every warm-up


class Epoch(NamedTuple):
    """An epoch that is due."""

    number: int  # counted from 1
    is_frozen: bool  # whether the head alone learns
    goes_on_from: int  # the epoch whose net it begins with; 0: none, it is the first
    place: int  # which epoch of its schedule it is, counted from 1,
    n_places: int  # and of how many
    rate: float  # that the schedule begins with or leads up to; a plateau's own


def find_next(settings: Settings, history: History) -> Epoch | None:
    """Return the epoch after those of a history; None if they are all.

    In the first phase the head learns, in the second the whole net, from the last epoch of the first; with a patience,
    which may end either phase, from the best. With a rate for the whole net (`--thaw-rate`) the second phase has a
    schedule of its own, else there is one for both, whose place jumps ahead where the first phase ended early.
    """
    losses = [row["valid_log_loss"] for row in history]
    n_done = len(losses)
    n_head_planned = min(settings.freeze_epochs, settings.epochs)
    n_whole_planned = settings.epochs - n_head_planned
    stops = find_stops(losses[:n_head_planned], settings.patience, settings.least_gain)
    n_head = (
        stops[0] if stops else n_head_planned
    )  # epochs of the head, fewer than planned if patience ended them
    is_frozen = n_done < n_head
    if not is_frozen:
        is_stalled = find_stops(losses[n_head:], settings.patience, settings.least_gain)
        if is_stalled or n_done - n_head == n_whole_planned:
            return None

    is_unfrozen_now = n_done == n_head > 0
    goes_on_from = find_best(history) if is_unfrozen_now and settings.patience else n_done

    place = n_done + 1
    n_places = settings.epochs
    rate = settings.learning_rate
    if settings.thaw_rate is None:
        if not is_frozen:
            place += (
                n_head_planned - n_head
            )  # one schedule for both phases skips what the head did not need
    elif is_frozen:
        n_places = n_head_planned
    else:
        place = n_done - n_head + 1
        n_places = n_whole_planned
        rate = settings.thaw_rate
        losses = losses[n_head:]
    if settings.schedule == "plateau":
        n_falls = len(find_stops(losses, settings.plateau_epochs, settings.least_gain))
        lowest_rate = min(rate, settings.least_rate)
        rate = max(rate * settings.plateau_factor**n_falls, lowest_rate)
    return Epoch(
        number=n_done + 1,
        is_frozen=is_frozen,
        goes_on_from=goes_on_from,
        place=place,
        n_places=n_places,
        rate=rate,
    )


def count_left(settings: Settings, due: Epoch) -> int:
    """Return how many epochs are planned after the one that is due; patience may end the run earlier."""
    n_left = due.n_places - due.place
    if due.is_frozen and settings.thaw_rate is not None:  # the whole net has a schedule of its own
        n_left += settings.epochs - settings.freeze_epochs
    return n_left


def find_rate(settings: Settings, epoch: Epoch, share: float) -> float:
    """Return the learning rate at a `share` (0-1) of an epoch."""
    n_done = epoch.place - 1 + share
    if settings.schedule == "drops":
        return epoch.rate * DROP_FACTOR ** _count_drops(settings, epoch)
    if settings.schedule == "cosine":
        n_falling = n_done - settings.warm_up_epochs
        if n_falling < 0:
            return epoch.rate * (1 + (1 - WARM_UP_FROM) * n_falling / settings.warm_up_epochs)
        return epoch.rate * _fall(n_falling / (epoch.n_places - settings.warm_up_epochs))
    if settings.schedule == "one-cycle":
        progress = n_done / epoch.n_places
        if progress < WARM_UP_SHARE:
            return epoch.rate * (1 - (1 - WARM_UP_FROM) * _fall(progress / WARM_UP_SHARE))
        return epoch.rate * _fall((progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))
    return epoch.rate  # constant, or a plateau's own


def _fall(progress: float) -> float:
    """Return half a cosine, which falls from 1 to 0 as the progress goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def _count_drops(settings: Settings, epoch: Epoch) -> int:
    """Return how often the rate has dropped before an epoch."""
    drops = settings.drop_epochs
    if drops is None:
        drops = [round(share * epoch.n_places) for share in DROP_SHARES]
    return sum(1 for drop in drops if epoch.place > drop)


def retrace(settings: Settings, history: History) -> list[tuple[Any, ...] | None]:
    """Return on which net and at which rates settings would have had each epoch of a history done; None: not at all."""
    traced: list[tuple[Any, ...] | None] = []
    for n_done in range(len(history)):
        epoch = find_next(settings, history[:n_done])
        if epoch is None:
            traced.append(None)
        else:
            rates = [find_rate(settings, epoch, share) for share in (0, 0.5)]
            traced.append((epoch.number, epoch.is_frozen, epoch.goes_on_from, *rates))
    return traced


def find_stops(losses: Sequence[float], patience: int | None, least_gain: float) -> list[int]:
    """Return after how many epochs the loss had not fallen below its lowest by more than `least_gain` for `patience`.

    The lowest counts as far as it was such a gain itself; after each stop the patience begins anew.
    """
    lowest = math.inf
    n_waited = 0
    stops = []
    for n_done, loss in enumerate(losses, 1):
        if loss < lowest - least_gain:
            lowest = loss
            n_waited = 0
        else:
            n_waited += 1
        if n_waited == patience:
            stops.append(n_done)
            n_waited = 0
    return stops


def find_best(history: History, figure: str = "log_loss") -> int:
    """Return the epoch with the lowest validation log loss, or the highest of another figure that is measurable.

    Among equals the one with the lowest log loss is the best, then the first. Epochs that were not measured on the
    images held out now are out of the question.
    """
    measured = [row for row in history if not math.isnan(row["valid_log_loss"])]
    sign = 1 if figure == "log_loss" else -1

    def rank(row: Mapping[str, Any]) -> tuple[float, float]:
        return np.nan_to_num(sign * row[f"valid_{figure}"]), row["valid_log_loss"]

    return int(min(measured, key=rank)["epoch"])


def follows_validation(settings: Settings) -> bool:
    """Tell whether what is learned depends on the validation figures: on when to stop, or on a plateau's rate."""
    return settings.patience is not None or settings.schedule == "plateau"


def find_kept(history: History, headline: str, n_newest: int) -> set[int]:
    """Return the epochs whose checkpoints are kept: the newest, and the best by log loss and by the headline figure."""
    newest = {row["epoch"] for row in history[-n_newest:]}
    return newest | {find_best(history), find_best(history, headline)}
