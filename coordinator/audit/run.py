"""Run an audit: train what it compares with, ask, judge. The home and its ledger see nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId, derive_seed
from cluster.errors import ConfigError
from cluster.graph import Graph
from coordinator.audit.case import Case, check_case
from coordinator.audit.judge import Evidence, Subject, judge, overall
from coordinator.audit.placement import place
from coordinator.audit.report import AuditReport, ShardAudit
from coordinator.audit.settings import AuditSettings
from coordinator.audit.source import Twins, make_twins, nodes_of
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from coordinator.pools.inline import FreshPool
from shards.checkpoint import load_weights
from shards.content import ShardContent
from shards.jobs import AuditJob

if TYPE_CHECKING:
    from coordinator.system import System

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]


def audit_system(
    system: System,
    source: Graph,
    erased: Erasure | None = None,
    *,
    shards: Sequence[int] | None = None,
    settings: AuditSettings | None = None,
    placement: Mapping[NodeId, int] | None = None,
    pool: Pool | None = None,
) -> AuditReport:
    """Audit whether the served submodels still hold erased records.

    Args:
        system: the audited system.
        source: the auditor's copy: the graph that was fitted, the records in it.
        erased: the records; None for all that the home no longer holds of ``source``.
        shards: shards to audit; by default those that owned the records.
        settings: sizes, level, seed.
        placement: id -> shard that held it, where the partition cannot tell any more; with a single
            entry in ``shards``, that shard.
        pool: where to train; by default a process that ends with the audit, since the records
            leave with it.

    Raises:
        ConfigError: a shard is unknown or silent, or never trained on the records.
        HomeError: ``source`` is not the graph that this home learned.
        UnknownIdError: ``source`` does not hold a record.
    """
    started, chosen = time.perf_counter(), settings or AuditSettings()
    twins = make_twins(system.graph, source, erased)
    cases = make_cases(system, twins, shards, placement)
    own = FreshPool(system.recipe.profile) if pool is None else None
    try:
        report = system.engine.stage("auditing")
        where: Pool = pool or own  # type: ignore[assignment]
        subjects = [
            gather_subject(
                case, served(system, case.shard), chosen, where, _shifted(report, i, cases)
            )
            for i, case in enumerate(cases)
        ]
    finally:
        if own is not None:
            own.close()
    audits = judge(subjects, chosen)
    verdict = overall([audit.verdict for audit in audits])
    seconds = round(time.perf_counter() - started, 3)
    return AuditReport(verdict, tuple(audits), asdict(chosen), seconds)


def audit_shard(case: Case, weights: Weights, settings: AuditSettings, pool: Pool) -> ShardAudit:
    """Audit one submodel, given by its weights.

    Args:
        case: the shard and the records, see :func:`make_cases`.
        weights: state dict of the submodel.
        settings: sizes, level, seed.
        pool: where to train.
    """
    return judge([gather_subject(case, weights, settings, pool)], settings)[0]


def make_cases(
    system: System,
    twins: Twins,
    shards: Sequence[int] | None = None,
    placement: Mapping[NodeId, int] | None = None,
) -> list[Case]:
    """One case for each shard to be audited; see :func:`audit_system`."""
    known = dict(placement or {})
    if shards is not None and len(shards) == 1:
        known = dict.fromkeys(sorted(nodes_of(twins.erased), key=str), int(shards[0])) | known
    partition = place(system, twins.within, known)
    owner = partition.owners(twins.within)
    named = [i for i in nodes_of(twins.erased) if twins.within.has_node(i)]
    owners = {int(s) for s in owner[twins.within.rows(named)].tolist() if s >= 0}
    wanted = sorted(owners) if shards is None else list(dict.fromkeys(shards))
    if not wanted:
        raise ConfigError(
            "no shard ever trained on these records: they are held-out nodes, whose labels and "
            "edges only aggregators read; `unweave verify --replay all` covers those"
        )
    unknown = [s for s in wanted if s not in system.generation.shards]
    if unknown:
        known_shards = sorted(system.generation.shards)
        raise ConfigError(f"no shards {unknown}; this system has 0 to {known_shards[-1]}")
    recipe, roles = system.recipe, system.config.roles
    cases = [Case(shard, twins, partition, recipe, roles) for shard in wanted]
    for case in cases:
        check_case(case)
    return cases


def served(system: System, shard: int) -> Weights:
    """Weights of the submodel that is published for a shard.

    Raises:
        ConfigError: the shard is silent.
    """
    key = system.generation.submodels.get(shard)
    if key is None:
        raise ConfigError(f"shard {shard} is silent: it serves no submodel that could be audited")
    return load_weights(system.engine.store, key)


def gather_subject(
    case: Case,
    weights: Weights,
    settings: AuditSettings,
    pool: Pool,
    progress: Progress | None = None,
) -> Subject:
    """Train everything that one submodel is compared with, and ask it and them."""
    return Subject(gather(case, settings, pool, progress), ask(case, weights, settings, pool))


def ask(case: Case, weights: Weights, settings: AuditSettings, pool: Pool) -> Array:
    """``[f + c]`` log odds of one submodel."""
    job = AuditJob(case.recipe, case.questions(settings), weights=weights)
    answers: Array = pool.map("audit", [job])[0]
    return answers


def gather(
    case: Case, settings: AuditSettings, pool: Pool, progress: Progress | None = None
) -> Evidence:
    """Train references, shadows and controls by the recipe of the shard, with fresh seeds."""
    started, member = time.perf_counter(), case.members(settings)
    contents: dict[str, list[ShardContent]] = {
        "reference": [case.without] * settings.references,
        "shadow": [case.shadow(chosen) for chosen in member],
        "positive": [case.within] * settings.controls,
        "negative": [case.without] * settings.controls,
    }
    questions, name = case.questions(settings), case.partition.names[case.shard]
    jobs = [
        AuditJob(
            case.recipe, questions, content, derive_seed(settings.seed, "audit", name, kind, i)
        )
        for kind, group in contents.items()
        for i, content in enumerate(group)
    ]
    answers = np.stack(pool.map("audit", jobs, progress))
    ends = np.cumsum([len(group) for group in contents.values()])[:-1]
    references, shadows, positive, negative = np.split(answers, ends)
    return Evidence(
        case.shard,
        case.asked,
        case.weights,
        references,
        shadows,
        member,
        positive,
        negative,
        time.perf_counter() - started,
    )


def _shifted(report: Callable[[int, int], None], at: int, cases: Sequence[Case]) -> Progress:
    """Progress of one shard as progress of all."""
    return lambda done, total, _: report(at * total + done, len(cases) * total)
