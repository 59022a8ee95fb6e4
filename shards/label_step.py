"""The label step: label propagation, and Correct and Smooth, over the current graph.

Both read the retained training labels at inference, so an erased label is gone with the graph it
was in, and nothing is retrained. Each answer depends on a ball around its row: ``reach_of`` steps.
Sums run in canonical order row by row, so a ball gives the bits that the whole graph gives.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from shards.ball import Ball

Array = npt.NDArray[Any]
LabelStep = Literal["none", "propagate", "correct_and_smooth"]

SPREAD = 0.9  # share that a step of label propagation takes from the neighbours
CORRECT = SMOOTH = 0.8  # the same for the two halves of Correct and Smooth
PSEUDO_COUNT = 0.01  # of the class frequencies, where next to no mass arrives


def reach_of(step: LabelStep, steps: int) -> int:
    """Hops that the answer on a row reads."""
    return {"none": 0, "propagate": steps, "correct_and_smooth": 2 * steps}[step]


def apply_step(step: LabelStep, base: Array, ball: Ball, labels: Array, steps: int) -> Array:
    """``[b, C]`` probabilities after a label step; those of the ball's targets are exact.

    Args:
        step: which one.
        base: ``[b, C]`` probabilities on the rows of the ball.
        ball: rows within :func:`reach_of` of the targets.
        labels: ``[N]`` training label of each row of the whole graph, negative where there is none
            to read; the class frequencies are those of all of them.
        steps: steps of propagation (of each half of Correct and Smooth).
    """
    if step == "none":
        return base
    num_classes, inside = base.shape[1], labels[ball.rows]
    operator, given = symmetric_operator(ball), one_hot(inside, num_classes)
    if step == "correct_and_smooth":
        prior = class_frequencies(one_hot(labels, num_classes))
        start = base.astype(np.float32)
        return correct_and_smooth(operator, start, given, inside >= 0, steps, prior)
    found = spread(operator, given, SPREAD, steps)
    mass = _row_sums(found)
    return np.asarray(np.where(mass > 0, found / np.where(mass > 0, mass, 1), base))


def correct_and_smooth(
    operator: sp.csr_matrix,
    base: Array,
    given: Array,
    known: Array,
    steps: int,
    prior: Array,
    rows: Array | None = None,
) -> Array:
    """Spread the training errors and take them off, then smooth with the labels put in.

    Args:
        operator: ``[b, b]`` message passing.
        base: ``[b, C]`` float32 probabilities.
        given: ``[b, C]`` labels, one-hot.
        known: ``[b]`` bool, rows with a label.
        steps: steps of each half.
        prior: ``[C]`` class frequencies over the whole graph.
        rows: rows wanted; all of them when left out.

    Reference:
        Huang et al., ICLR 2021, eqs. 4 and 6, with the residuals at their own scale instead of the
        paper's autoscale, and ``steps`` steps each instead of 50.
    """
    error = np.where(known[:, None], given - base, np.float32(0))
    corrected = base + spread(operator, error, CORRECT, steps)
    corrected[known] = given[known]
    smooth = np.maximum(spread(operator, corrected, SMOOTH, steps, rows), np.float32(0))
    return with_prior(smooth, prior, PSEUDO_COUNT)


def propagate_labels(
    operator: sp.csr_matrix, given: Array, steps: int, prior: Array, rows: Array | None = None
) -> Array:
    """Label propagation as probabilities; without mass the class frequencies (Zhou et al. 2003)."""
    return with_prior(spread(operator, given, SPREAD, steps, rows), prior, PSEUDO_COUNT)


def spread(
    operator: sp.csr_matrix, start: Array, share: float, steps: int, rows: Array | None = None
) -> Array:
    """``F <- share S F + (1 - share) start``, ``steps`` times; the last on ``rows`` alone."""
    keep = np.float32(1 - share) * start
    found = start
    for step in range(1, steps + 1):
        if step == steps and rows is not None:
            operator, keep = operator[rows], keep[rows]
        found = np.float32(share) * (operator @ found) + keep
    return np.asarray(found)


def with_prior(mass: Array, prior: Array, weight: float) -> Array:
    """Rows of ``mass`` with ``weight`` of the prior added, as probabilities, float32."""
    mixed = mass + np.float32(weight) * prior
    return np.asarray(mixed / _row_sums(mixed))


def class_frequencies(given: Array) -> Array:
    """``[C]`` float32 share of each class among the labels, each counted once more."""
    counts = given.sum(axis=0, dtype=np.float64) + 1  # whole numbers: exact in any order
    return np.asarray(counts / counts.sum(), np.float32)


def one_hot(labels: Array, num_classes: int) -> Array:
    """``[b, C]`` float32; a row of zeros where the label is negative."""
    given = np.zeros((len(labels), num_classes), np.float32)
    known = np.flatnonzero(labels >= 0)
    given[known, labels[known]] = 1
    return given


def symmetric_operator(ball: Ball) -> sp.csr_matrix:
    """D^-1/2 A D^-1/2 on the rows of a ball, degrees in the whole graph, float32.

    A row of degree 0, which a directed edge may leave, is scaled by 1.
    """
    indptr, indices, weight = ball.edges
    degree = ball.degree.astype(np.float64)
    scale = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    target = np.repeat(np.arange(len(ball.rows)), np.diff(indptr))
    data = scale[indices] * scale[target]
    data = data if weight is None else data * weight
    size = len(ball.rows)
    return sp.csr_matrix((data.astype(np.float32), indices, indptr), shape=(size, size))


def _row_sums(values: Array) -> Array:
    return np.add.accumulate(values, axis=1)[:, -1:]
