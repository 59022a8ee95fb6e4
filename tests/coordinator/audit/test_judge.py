"""From log odds to verdicts, on evidence that is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.errors import ConfigError
from coordinator.audit.judge import Evidence, Subject, judge, overall, together
from coordinator.audit.report import Check, ShardAudit, Verdict
from coordinator.audit.settings import AuditSettings

PASS, FAIL, INCONCLUSIVE, NO_POWER = (
    Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NO_POWER,
)  # fmt: skip
SETTINGS = AuditSettings(resamples=50)
F, C = 10, 5


def made_up(leak: float, seed: int = 0) -> Evidence:
    """Evidence in which a node that was trained on answers higher by ``leak``."""
    rng = np.random.default_rng(seed)
    hardness = rng.standard_normal(F + C)

    def models(count: int, member: Any) -> Any:
        answers = hardness + 0.5 * rng.standard_normal((count, F + C))
        answers[:, :F] += leak * member
        return answers

    sizes = SETTINGS.references, SETTINGS.shadows, SETTINGS.controls
    member = rng.random((sizes[1], F)).argsort(axis=0) < sizes[1] // 2
    weights = np.full(C, 1 / C)
    return Evidence(
        3, np.arange(F), weights, models(sizes[0], 0), models(sizes[1], member), member,
        models(sizes[2], 1), models(sizes[2], 0), 0.0,
    )  # fmt: skip


def verdict_on(evidence: Evidence, answers: Any, settings: AuditSettings = SETTINGS) -> ShardAudit:
    return judge([Subject(evidence, answers)], settings)[0]


def test_kept_records_fail_and_a_retrain_passes_with_the_power_beside_it() -> None:
    evidence, other = made_up(3.0), made_up(3.0, seed=0)
    kept, retrained = other.positive[0], made_up(3.0).negative[0]

    failed, passed = verdict_on(evidence, kept), verdict_on(evidence, retrained)

    assert failed.verdict == FAIL and passed.verdict == PASS
    assert all(check.power == 1 for check in passed.checks)
    assert failed.node_level is not None and passed.node_level is not None
    assert failed.node_level.auc > 0.95
    assert passed.node_level.auc == pytest.approx(0.5, abs=0.15)


def test_forgetting_too_much_fails_as_well() -> None:
    evidence = made_up(3.0)
    answers = evidence.references[0].copy()
    answers[:F] -= 3

    found = verdict_on(evidence, answers)

    assert found.verdict == FAIL
    assert found.checks[0].statistic < found.checks[0].interval[0]


def test_where_the_positive_control_does_not_fail_there_is_no_power_and_no_pass() -> None:
    evidence = made_up(0.0)

    found = verdict_on(evidence, evidence.references.mean(axis=0))

    assert [check.verdict for check in found.checks] == [NO_POWER, NO_POWER]
    assert found.verdict == NO_POWER


def test_a_constant_model_has_no_power() -> None:
    evidence = made_up(0.0)
    flat = {
        name: np.ones_like(getattr(evidence, name))
        for name in ("references", "shadows", "positive", "negative")
    }

    found = verdict_on(replace(evidence, **flat), np.ones(F + C))

    assert found.verdict == NO_POWER


def test_a_rejection_does_not_count_where_honest_retrains_are_rejected() -> None:
    evidence = made_up(3.0)
    off = replace(evidence, negative=evidence.positive)  # honest ones, far from the references

    found = verdict_on(off, evidence.positive[0])

    assert not any(check.calibrated for check in found.checks)
    assert found.verdict == INCONCLUSIVE


def test_without_shadows_the_gap_test_stands_alone() -> None:
    evidence, settings = made_up(3.0), AuditSettings(shadows=0)

    found = verdict_on(evidence, evidence.positive[0], settings)

    assert [check.name for check in found.checks] == ["gap"]
    assert found.node_level is None and found.verdict == FAIL


def test_the_level_is_shared_by_all_shards_and_checks() -> None:
    evidence = made_up(3.0)
    subject = Subject(evidence, evidence.negative[0])

    alone = judge([subject], SETTINGS)[0].checks
    together = judge([subject] * 5, SETTINGS)[0].checks

    for one, of_many in zip(alone, together, strict=True):
        assert one.p == of_many.p and one.adjusted_p <= of_many.adjusted_p
        assert of_many.power <= one.power


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ((FAIL, FAIL), FAIL),
        ((PASS, PASS), PASS),
        ((FAIL, PASS), INCONCLUSIVE),
        ((FAIL, NO_POWER), FAIL),
        ((PASS, NO_POWER), PASS),
        ((NO_POWER, NO_POWER), NO_POWER),
        ((INCONCLUSIVE, FAIL), INCONCLUSIVE),
    ],
)
def test_checks_that_disagree_decide_nothing(said: tuple[Verdict, ...], wanted: Verdict) -> None:
    evidence = made_up(1.0)
    check: Check = verdict_on(evidence, evidence.negative[0]).checks[0]

    assert together([replace(check, verdict=verdict) for verdict in said]) == wanted


def test_the_verdict_of_a_system_is_that_of_its_worst_shard() -> None:
    assert overall([PASS, NO_POWER]) == NO_POWER
    assert overall([NO_POWER, INCONCLUSIVE, PASS]) == INCONCLUSIVE
    assert overall([INCONCLUSIVE, FAIL]) == FAIL
    assert overall([PASS]) == PASS


@pytest.mark.parametrize(
    "wrong",
    [{"references": 9}, {"shadows": 7}, {"shadows": 2}, {"controls": 1}, {"level": 0.0},
     {"query": "2hop"}, {"resamples": 0}],
)  # fmt: skip
def test_sizes_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AuditSettings(**wrong)
