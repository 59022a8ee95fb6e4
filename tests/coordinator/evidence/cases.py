"""A real certificate of a small graph, as the coordinator would write it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cluster.graph import Change, Graph
from coordinator.evidence import dsse, statement
from coordinator.evidence.facts import (
    CertificateInput,
    GenerationFacts,
    MethodFacts,
    Purged,
    RequestFacts,
    Residual,
    ShardEvidence,
    Submodel,
)
from coordinator.evidence.keys import Signer
from coordinator.evidence.leaves import leaves_of
from coordinator.evidence.records import name_digest
from coordinator.evidence.salts import LEAF, derive
from shards.content import ShardContent, build_content

SECRET = bytes(range(32))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def content_of(graph: Graph) -> ShardContent:
    """The whole graph as the content of one shard."""
    return build_content(graph, np.zeros(graph.num_nodes, np.int64), 0)


@dataclass(frozen=True)
class Case:
    """A graph before and after an erasure, and the certificate of it."""

    before: ShardContent
    after: ShardContent
    facts: CertificateInput
    signer: Signer
    statement: dict[str, Any]
    text: str


def shard_evidence(
    before: ShardContent, after: ShardContent, ids: list[Any], certificate: str, **values: Any
) -> ShardEvidence:
    """What happened to the shard, ``ids`` being the nodes that the request named."""
    old = leaves_of(before)
    names = [name_digest(node_id) for node_id in ids]
    key = derive(SECRET, certificate, LEAF, 3)
    trees = statement.prove_erasure(key, old.rows, leaves_of(after, old).rows, names)
    options: dict[str, Any] = {
        "old": Submodel("old-key", "old-weights"),
        "new": Submodel("new-key", "new-weights"),
        "seconds": 0.25,
        "epochs": 50,
    }
    return ShardEvidence(3, "3", 2**62 + 1, trees=trees, **options | values)


def make_facts(evidence: list[ShardEvidence], certificate: str, number: int) -> CertificateInput:
    """A certificate's facts around what happened to the shards."""
    return CertificateInput(
        certificate_id=certificate,
        secret=SECRET,
        issuer="Example",
        request=RequestFacts("req_1", "nodes", "ab" * 32, "gdpr", "normal"),
        times={"received": NOON, "issued": NOON + timedelta(seconds=9)},
        records={"nodes": 1, "edges": 2},
        unknown=0,
        before=GenerationFacts(number - 1, "g1", "graph1", "p", "a1"),
        after=GenerationFacts(number, "g2", "graph2", "p", "a2"),
        shards=evidence,
        guarantee=("exact", "oblivious", "The submodels are those of training without them."),
        method=MethodFacts("unweave 0.1.0", "c" * 64, {"config": {"lr": 0.1, "layers": 2}}, 7),
        artefacts=[("submodel 3", "recomputed", "read the records")],
        purged=[Purged("content", "old-content", "home", NOON)],
        residuals=[Residual("backup", "backups/monday", "retention", NOON + timedelta(days=7))],
        verification=[("contents and keys", True, "")],
        log=(12, "d" * 64),
    )


def make_case(folder: Path, graph: Graph, change: Change, ids: list[Any]) -> Case:
    """Erase from a graph and certify it."""
    signer = Signer.create(folder)
    before, after = content_of(graph), content_of(graph.apply(change))
    facts = make_facts([shard_evidence(before, after, ids, "cert_1")], "cert_1", 2)
    made = statement.build(facts, signer)
    return Case(before, after, facts, signer, made, dsse.sign(made, signer))


def next_statement(case: Case, certificate: str, number: int, **values: Any) -> dict[str, Any]:
    """A later certificate's statement about the same shard."""
    item = shard_evidence(case.after, case.after, [], certificate, **values)
    return statement.build(
        replace(make_facts([item], certificate, number), certificate_id=certificate), case.signer
    )
