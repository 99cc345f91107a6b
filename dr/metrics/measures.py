"""Figures of classes and of findings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dr.metrics.agreement import count_pairs, macro_f1_of_counts, rates_of_counts
from dr.metrics.bootstrap import Estimate, draw_figures, estimate_drawn, estimate_share
from dr.metrics.calibration import bin_scores, measure_error, measure_finding_losses, measure_losses
from dr.metrics.ranking import mean_measurable, measure_auc, measure_average_precision, measure_each

Measured = tuple[list[Estimate], list[tuple[Any, ...]]]  # of all outputs together, and of each, in their order


def measure_classes(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
    """Return accuracy, log loss and macro F1 of (n, k) scores as classes, the likeliest given; of each class how many
    images have it, precision, recall, F1 and AUC, NaN if not measurable.

    Intervals of shares are Wilson's, which take images as independent; the others are of a bootstrap over groups.
    """
    n_classes, given, losses = scores.shape[1], scores.argmax(axis=1), measure_losses(scores, targets)
    is_true = targets[:, None] == np.arange(n_classes)

    def measure(rows: np.ndarray) -> list[float]:
        counts = count_pairs(targets[rows], given[rows], n_classes)
        aucs = [measure_auc(scores[rows, number], is_true[rows, number]) for number in range(n_classes)]
        return [losses[rows].mean(), macro_f1_of_counts(counts), *rates_of_counts(counts)[2], *aucs]

    log_loss, macro_f1, *own = map(estimate_drawn, draw_figures(groups, measure).T)
    counts = count_pairs(targets, given, n_classes)
    right, n_given, n_true = (of.tolist() for of in (np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)))
    precisions, recalls = (list(map(estimate_share, right, of)) for of in (n_given, n_true))
    each = zip(n_true, precisions, recalls, own[:n_classes], own[n_classes:], strict=True)
    return [estimate_share(sum(right), len(targets)), log_loss, macro_f1], list(each)


def measure_findings(groups: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> Measured:
    """Return mean AUC, mean average precision and log loss of (n, k) scores as findings; of each finding how many
    images have it, of how many it is known, AUC, average precision, NaN if not measurable, and `measure_error`.

    Targets are 1, 0, or NaN where it is not known. A mean is over what is measurable.
    """
    losses = measure_finding_losses(scores, targets)

    def measure(rows: np.ndarray) -> list[float]:
        both = [measure_each(of, scores[rows], targets[rows]) for of in (measure_auc, measure_average_precision)]
        return [*map(mean_measurable, both), float(np.nanmean(losses[rows])), *np.concatenate(both)]

    auc, precision, log_loss, *own = map(estimate_drawn, draw_figures(groups, measure).T)
    n_true, n_known = ((targets == 1).sum(axis=0).tolist(), (~np.isnan(targets)).sum(axis=0).tolist())
    errors = [measure_error(*bin_scores(scores[:, k], targets[:, k])) for k in range(len(n_true))]
    each = zip(n_true, n_known, own[: len(n_true)], own[len(n_true) :], errors, strict=True)
    return [auc, precision, log_loss], list(each)
