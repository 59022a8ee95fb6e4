"""The reference-gap test and what surrounds it: numbers in, numbers out.

One score a model; nodes inside a model depend on each other, models with fresh seeds do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, t

Array = npt.NDArray[Any]

CALIBRATION_LEVEL = 0.05  # at which false alarms among honest retrains are counted
CALIBRATION_QUANTILE = 0.99  # of the number of them that an honest test has


@dataclass(frozen=True)
class Prediction:
    """Where one more model of the references' kind would lie, and where the audited one does.

    Attributes:
        t: distance of the audited score from the references' mean, in standard errors of a new one.
        p: two-sided, Student with R - 1 degrees of freedom.
        low: lower end of the prediction interval.
        high: upper end.
        mean: of the references' scores.
        sd: of the references' scores.
    """

    t: float
    p: float
    low: float
    high: float
    mean: float
    sd: float


def predict_next(score: float, references: Array, level: float = 0.05) -> Prediction:
    """Two-sided test of one model against R references, by the interval for one new model.

    Args:
        score: of the audited model.
        references: ``[R]`` scores of models that never saw the records.
        level: of the interval.

    Reference:
        Student's prediction interval for one further draw: mean ± t s sqrt(1 + 1/R).
    """
    count = len(references)
    mean, sd = float(np.mean(references)), float(np.std(references, ddof=1))
    error = sd * math.sqrt(1 + 1 / count)
    distance = score - mean
    value = distance / error if error > 0 else _far(distance)
    reach = float(t.ppf(1 - level / 2, count - 1) * error)
    p = float(2 * t.sf(abs(value), count - 1))
    return Prediction(value, p, mean - reach, mean + reach, mean, sd)


def _far(distance: float) -> float:
    """Distance in units of nothing: infinite, or none."""
    return math.copysign(math.inf, distance) if distance else 0.0


def p_values(scores: Array, references: Array) -> Array:
    """``[m]`` p of each score against the same references."""
    return np.asarray([predict_next(score, references).p for score in scores.tolist()])


def leave_one_out(references: Array) -> Array:
    """``[R]`` p of every reference against the others: a test that should hold, R times."""
    rest = [np.delete(references, i) for i in range(len(references))]
    scores = zip(references.tolist(), rest, strict=True)
    return np.asarray([predict_next(score, others).p for score, others in scores])


def calibration_bound(count: int) -> int:
    """Most p below 0.05 among ``count`` honest retrains that a test which holds has, with 99 %."""
    return int(binom.ppf(CALIBRATION_QUANTILE, count, CALIBRATION_LEVEL))


def is_outside(score: float, references: Array) -> bool:
    """Range rule: whether the score is beyond all references; level 2 / (R + 1) if exchangeable."""
    return bool(score < references.min() or score > references.max())


def rank_p(score: float, references: Array) -> float:
    """Two-sided p by rank, at least 2 / (R + 1); needs exchangeability alone."""
    above = 1 + int((references >= score).sum())
    below = 1 + int((references <= score).sum())
    return min(1.0, 2 * min(above, below) / (len(references) + 1))


def is_equivalent(score: float, references: Array, margin: float, level: float = 0.05) -> bool:
    """Two one-sided tests: whether the score is within ``margin`` of the references, shown.

    Reference:
        Schuirmann 1987: the 1 - 2 level interval of the difference lies inside the margin.
    """
    inner = predict_next(score, references, 2 * level)
    reach, distance = inner.high - inner.mean, score - inner.mean
    return bool(abs(distance) + reach < abs(margin))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values that hold together.

    Reference:
        Holm, Scandinavian Journal of Statistics 1979.
    """
    adjusted, running = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = running
    return adjusted
