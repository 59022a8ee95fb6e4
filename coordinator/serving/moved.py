"""Which kept answers a change moves: those that read, near or far, what was touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.aggregators import find_aggregator
from coordinator.config import Config
from coordinator.disturbance import Disturbance
from shards.ball import reach
from shards.label_step import reach_of
from shards.learned import LABEL_STEPS
from shards.submodels.table import receptive_field

Array = npt.NDArray[Any]

WALK_HOPS = 2  # steps of the walks of the affinity and of the ridge's features


@dataclass(frozen=True, eq=False)
class Moved:
    """Rows (``[N]`` bool) whose answers may differ after a change.

    Attributes:
        posteriors: answers of the submodels.
        base: answers of the aggregator before the label step.
        answers: what is given out.
    """

    posteriors: Array
    base: Array
    answers: Array


def moved_rows(change: Disturbance, config: Config, *, label_lost: bool) -> Moved:
    """Rows whose answers may differ.

    Args:
        change: what was touched; row numbers stay what they are.
        config: what answers.
        label_lost: whether a training label went. Class frequencies, and the labels that each
            shard holds, are read by the answers on all rows.
    """
    aggregator, settings = find_aggregator(config.aggregator.kind), config.aggregator
    posteriors = change.moved(receptive_field(config.shards))
    base = posteriors if aggregator.reads_submodels else np.zeros_like(posteriors)
    if aggregator.reads_walk:
        base = base.copy()
        base[change.as_move(WALK_HOPS).moved] = True
    if aggregator.reads_labels:  # Correct and Smooth of the ridge scores
        hops, reads_frequencies = reach_of("correct_and_smooth", LABEL_STEPS), True
    else:
        hops = reach_of(settings.label_step, settings.label_steps)
        reads_frequencies = settings.label_step == "correct_and_smooth"
    if label_lost and reads_frequencies:
        return Moved(posteriors, base, np.ones_like(base))
    if not hops:
        return Moved(posteriors, base, base)
    start = np.concatenate([np.flatnonzero(base), change.rewired, change.renewed])
    return Moved(posteriors, base, reach(change.before, start, hops, forward=True))
