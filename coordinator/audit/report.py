"""What an audit answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cluster.digest import NodeId


class Verdict(StrEnum):
    """What a check says; only a check that can fail may pass."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_POWER = "no power"


@dataclass(frozen=True)
class Check:
    """One test of one submodel.

    Attributes:
        name: ``gap`` or ``lira``.
        statistic: score of the audited submodel.
        interval: where the score of an honest retrain lies, at the audit's level.
        p: two-sided, against the references.
        adjusted_p: by Holm, over all shards and checks of the audit.
        rank_p: two-sided p by rank, which needs no normal scores; 2 / (R + 1) at least.
        outside_range: whether the score is beyond all references; honest with chance 2 / (R + 1).
        verdict: what follows.
        power: share of the positive controls (trained with the records) that this check rejects.
        false_alarms: p below 0.05 among the honest retrains: references left out one by one, and
            negative controls.
        honest: number of those.
        calibrated: whether a test that holds gives so many false alarms or fewer, with 99 %.
        beyond_honest: whether p is below that of every honest retrain.
        equivalent: whether the score is shown to be within a quarter of the positive controls'
            distance from the references (TOST at 0.05).
        models: submodels trained for it.
        seconds: it took, trainings included.
    """

    name: str
    statistic: float
    interval: tuple[float, float]
    p: float
    adjusted_p: float
    rank_p: float
    outside_range: bool
    verdict: Verdict
    power: float
    false_alarms: int
    honest: int
    calibrated: bool
    beyond_honest: bool
    equivalent: bool
    models: int
    seconds: float


@dataclass(frozen=True)
class NodeLevel:
    """How well single nodes can be told, pooled over nodes and submodels; no verdict rests on it.

    Attributes:
        auc: of the audited submodel's nodes against the references' (0.5 is ideal).
        auc_interval: 95 %, bootstrap over references.
        control_auc: of the positive controls against the references: what there was to see.
        control_auc_interval: 95 %, bootstrap over models.
        control_tpr: share of true positives at 1 % false ones.
        control_tpr_interval: 95 %, bootstrap over models.
        worst: the 1 % of the nodes (one at least) that look most as if they were still held.
        worst_score: log likelihood ratio of the first of them.
    """

    auc: float
    auc_interval: tuple[float, float]
    control_auc: float
    control_auc_interval: tuple[float, float]
    control_tpr: float
    control_tpr_interval: tuple[float, float]
    worst: tuple[NodeId, ...]
    worst_score: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form, without ids."""
        data = asdict(self)
        return data | {"worst": len(self.worst)}


@dataclass(frozen=True)
class ShardAudit:
    """What the checks say of one shard's submodel.

    Attributes:
        shard: its number.
        nodes: erased nodes that were asked about.
        verdict: of the checks together.
        checks: one by one.
        node_level: from LiRA; None without shadows.
        models: submodels trained for the audit.
        seconds: it took.
    """

    shard: int
    nodes: int
    verdict: Verdict
    checks: tuple[Check, ...]
    node_level: NodeLevel | None
    models: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form, without ids."""
        data = asdict(self)
        return data | {"node_level": self.node_level.to_json() if self.node_level else None}


@dataclass(frozen=True)
class AuditReport:
    """Outcome of a statistical audit. A pass is a failure to detect, beside a stated power.

    Attributes:
        verdict: of all shards together.
        shards: one by one.
        settings: sizes, level, seed and query mode.
        seconds: it took.
    """

    verdict: Verdict
    shards: tuple[ShardAudit, ...]
    settings: Mapping[str, Any]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no check failed; not the same as a pass."""
        return self.verdict is not Verdict.FAIL

    @property
    def models(self) -> int:
        """Submodels trained for the audit."""
        return sum(shard.models for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form, without ids."""
        return {
            "verdict": self.verdict,
            "ok": self.ok,
            "models": self.models,
            "seconds": self.seconds,
            "settings": dict(self.settings),
            "shards": [shard.to_json() for shard in self.shards],
        }
