"""From log odds to verdicts: two checks with their controls, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.audit.lira import Normals, auc, bootstrap, fit_normals, log_ratio, tpr_at
from coordinator.audit.report import Check, NodeLevel, ShardAudit, Verdict
from coordinator.audit.settings import AuditSettings
from coordinator.audit.statistics import (
    CALIBRATION_LEVEL,
    calibration_bound,
    holm,
    is_equivalent,
    is_outside,
    leave_one_out,
    p_values,
    predict_next,
    rank_p,
)

Array = npt.NDArray[Any]
Score = Callable[[Array], Array]  # [m, f + c] log odds to one number a model

MIN_POWER = 0.8  # share of the positive controls that a check has to reject to be believed
EQUIVALENCE = 0.25  # of the positive controls' distance from the references
WORST = 0.01


@dataclass(frozen=True)
class Evidence:
    """Log odds under every submodel that was trained for one shard.

    Columns are the erased nodes, in the order of ``ids``, and after them the controls.

    Attributes:
        shard: its number.
        ids: ``[f]`` erased nodes.
        weights: ``[c]`` of the controls.
        references: ``[R, f + c]``, trained without the records.
        shadows: ``[N, f + c]``, trained with half of them each.
        member: ``[N, f]`` bool, which half.
        positive: ``[P, f + c]``, trained with the records: did not unlearn.
        negative: ``[P, f + c]``, trained without them, and no reference.
        seconds: the trainings took.
    """

    shard: int
    ids: Array
    weights: Array
    references: Array
    shadows: Array
    member: Array
    positive: Array
    negative: Array
    seconds: float

    @cached_property
    def normals(self) -> Normals:
        """LiRA's normals, from the shadows."""
        return fit_normals(self.shadows[:, : len(self.ids)], self.member)

    def gap(self, answers: Array) -> Array:
        """``[m]`` mean over the erased nodes less the weighted mean over the controls."""
        size = len(self.ids)
        of_controls: Array = answers[:, size:] @ self.weights
        return np.asarray(answers[:, :size].mean(axis=1) - of_controls)

    def ratios(self, answers: Array) -> Array:
        """``[m, f]`` log likelihood ratios of the erased nodes."""
        return log_ratio(self.normals, answers[:, : len(self.ids)])

    def lira(self, answers: Array) -> Array:
        """``[m]`` mean log likelihood ratio of the erased nodes."""
        return np.asarray(self.ratios(answers).mean(axis=1))

    @property
    def models(self) -> int:
        """Submodels trained."""
        groups = (self.references, self.shadows, self.positive, self.negative)
        return sum(len(group) for group in groups)


@dataclass(frozen=True)
class Subject:
    """A shard's evidence and the submodel that is judged by it (``[f + c]`` log odds)."""

    evidence: Evidence
    answers: Array


def judge(subjects: Sequence[Subject], settings: AuditSettings) -> list[ShardAudit]:
    """Judge submodels, one a shard, holding the level over all shards and checks."""
    strictest = settings.level / (settings.checks * len(subjects))
    found = [_checks(subject, settings, strictest) for subject in subjects]
    adjusted = iter(holm([check.p for checks in found for check in checks]))
    audits = []
    for subject, checks in zip(subjects, found, strict=True):
        final = [_decide(replace(c, adjusted_p=next(adjusted)), settings.level) for c in checks]
        evidence = subject.evidence
        audits.append(
            ShardAudit(
                evidence.shard,
                len(evidence.ids),
                together(final),
                tuple(final),
                _node_level(subject, settings) if settings.shadows else None,
                evidence.models,
                round(evidence.seconds, 3),
            )
        )
    return audits


def _checks(subject: Subject, settings: AuditSettings, strictest: float) -> list[Check]:
    """Both checks before the verdict; power is taken at the strictest level that Holm may ask."""
    evidence = subject.evidence
    scores: dict[str, Score] = {"gap": evidence.gap}
    if settings.shadows:
        scores["lira"] = evidence.lira
    return [
        _check(name, score, subject, settings.level, strictest) for name, score in scores.items()
    ]


def _check(name: str, score: Score, subject: Subject, level: float, strictest: float) -> Check:
    """One check before Holm and the verdict."""
    evidence = subject.evidence
    references, positive = score(evidence.references), score(evidence.positive)
    value = float(score(subject.answers[None])[0])
    prediction = predict_next(value, references, level)
    of_negatives = p_values(score(evidence.negative), references)
    honest = np.concatenate([leave_one_out(references), of_negatives])
    alarms = int((honest < CALIBRATION_LEVEL).sum())
    margin = EQUIVALENCE * (float(positive.mean()) - prediction.mean)
    return Check(
        name,
        statistic=value,
        interval=(prediction.low, prediction.high),
        p=prediction.p,
        adjusted_p=prediction.p,
        rank_p=rank_p(value, references),
        outside_range=is_outside(value, references),
        verdict=Verdict.INCONCLUSIVE,
        power=float((p_values(positive, references) < strictest).mean()),
        false_alarms=alarms,
        honest=len(honest),
        calibrated=alarms <= calibration_bound(len(honest)),
        beyond_honest=prediction.p < float(honest.min()),
        equivalent=is_equivalent(value, references, margin),
        models=evidence.models - (len(evidence.shadows) if name == "gap" else 0),
        seconds=round(evidence.seconds, 3),
    )


def _decide(check: Check, level: float) -> Check:
    """A pass counts if the positive controls are rejected, a rejection if honest retrains are not.

    Where too many of those are, a rejection counts only beyond all of them.
    """
    if check.adjusted_p <= level:
        counts = check.calibrated or check.beyond_honest
        verdict = Verdict.FAIL if counts else Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS if check.power >= MIN_POWER else Verdict.NO_POWER
    return replace(check, verdict=verdict)


def together(checks: Sequence[Check]) -> Verdict:
    """One verdict of several checks of one submodel: checks that disagree decide nothing."""
    said = {check.verdict for check in checks} - {Verdict.NO_POWER}
    if not said:
        return Verdict.NO_POWER
    return said.pop() if len(said) == 1 else Verdict.INCONCLUSIVE


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several shards: the worst of them."""
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NO_POWER, Verdict.PASS)
    return next(verdict for verdict in order if verdict in verdicts)


def _node_level(subject: Subject, settings: AuditSettings) -> NodeLevel:
    evidence = subject.evidence
    audited = evidence.ratios(subject.answers[None])
    references = evidence.ratios(evidence.references)
    positive = evidence.ratios(evidence.positive)
    draws = settings.resamples, settings.seed
    count = max(1, round(WORST * len(evidence.ids)))
    first = np.argsort(-audited[0], kind="stable")[:count]
    return NodeLevel(
        auc(audited, references),
        bootstrap(auc, (audited, references), *draws),
        auc(positive, references),
        bootstrap(auc, (positive, references), *draws),
        tpr_at(positive, references),
        bootstrap(tpr_at, (positive, references), *draws),
        tuple(evidence.ids[first].tolist()),
        float(audited[0, first[0]]),
    )
