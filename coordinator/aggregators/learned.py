"""The learned aggregator: a gate over the shards inside a log-linear stack of experts.

Experts are the gated mixture and the mean of the submodels, label propagation (three steps, and the
neighbours alone), a ridge head on propagated features, and Correct and Smooth of that head. Gate
and stack have some 26 parameters whatever the number of shards; they are fitted on validation rows,
which are erasable data too: an erased row leaves the fit, and it is done again after every change.
"""

from __future__ import annotations

from cluster.digest import digest
from cluster.graph import VAL
from cluster.store import Blob
from coordinator.aggregators.base import (
    AGGREGATOR,
    PACK,
    Aggregator,
    AggregatorState,
    Array,
    FitContext,
    View,
)
from coordinator.aggregators.fitrows import FitAnswers, fit_answers
from coordinator.aggregators.merge import answer, ridge_job
from coordinator.config import Config
from shards.jobs import LearnJob


class Learned(Aggregator):
    """Gate and stack, refitted whenever something they read moved."""

    kind = "learned"
    needs_fit = True
    reads_labels = True
    reads_walk = True

    def fit(self, context: FitContext) -> AggregatorState:
        """Compute moved answers and statistics, keep the others, refit."""
        answers, blobs = fit_answers(context, VAL)
        key = digest("aggregator", context.identity, answers.pack)
        tensors = context.pool.map("learn", [_learn_job(context, answers)])[0]
        meta = {"pack": answers.pack}
        context.write({**blobs, (AGGREGATOR, str(key)): Blob(tensors, meta)})
        artefacts = ((AGGREGATOR, str(key)), (PACK, answers.pack))
        return AggregatorState(key, tensors, meta, artefacts)

    def validation_answers(self, context: FitContext) -> tuple[Array, Array] | None:
        """Answers on the fit rows, each half by what is fitted on the other half."""
        answers, _ = fit_answers(context, VAL)
        found = context.pool.map("cross_fit", [_learn_job(context, answers)])[0]
        return answers.rows, found

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """The stack, computed by a worker on every row where this process holds no tables."""
        return answer(posteriors, view, state, config)


def _learn_job(context: FitContext, answers: FitAnswers) -> LearnJob:
    return LearnJob(
        ridge_job(context),
        str(context.partition.key),
        tuple(sorted(context.submodels)),
        answers.rows,
        answers.posteriors,
    )
