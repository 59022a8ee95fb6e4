"""Certificates of a real home: signed, absent, live, superseded, replayed; and the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator import verify
from coordinator.certificates import Certificate, find_certificate
from coordinator.erasure import Erasure
from coordinator.evidence.chain import check_chain
from coordinator.evidence.check import check_certificate
from coordinator.evidence.keys import read_keys
from coordinator.evidence.lookup import Record
from coordinator.evidence_cli import row_json
from coordinator.system import System
from tests.coordinator.systems import Workbench, overwrite, planted, training_ids, unowned_ids

AT_ONCE = {"erasure.cancel_window": "0", "erasure.batch_window": "0"}
DESIGNS: dict[str, dict[str, Any]] = {
    "gate": {},
    "learned": {"partition.method": "hash", "shards.model": "mlp", "aggregator.kind": "learned"},
    "halo": {"partition.halo": {"hops": 1, "budget": None}},
    "rederived": {"partition.guarantee": "rederived"},
}


def certificate_of(system: System, request_id: str) -> Certificate:
    found = system.request(request_id).certificate
    assert found is not None
    return found


def issuer_key(system: System) -> Path:
    return system.home / "keys" / "issuer.pub"


@pytest.mark.parametrize("design", DESIGNS)
def test_an_erasure_is_certified_and_its_record_shown_to_be_gone(
    design: str, bench: Workbench, tmp_path: Path
) -> None:
    system = bench.fit(planted(10, prefix="zanzibar-"), DESIGNS[design])
    node = training_ids(system)[0]
    shard = system.partition.assignment[node]

    receipt = system.erase(Erasure(nodes=[node]))

    certificate = certificate_of(system, receipt.request_id)
    path = certificate.save(tmp_path / "cert.dsse")
    assert verify(path, issuer_key(system), state=system.home).ok
    facts = certificate.statement["predicate"]
    assert set(receipt.shards_retrained) == set(facts["scope"]["shards"])
    assert "zanzibar" not in json.dumps(facts)
    keys = read_keys(issuer_key(system))
    opened = certificate.disclose(shard)
    report = check_certificate(certificate.text, keys, disclosure=opened, record=Record(node))
    assert report.ok, report.lines()
    own = next(item for item in facts["shards"] if item["shard"] == shard)
    assert [item["state"] for item in own["trees"]["records"]] == ["gone"]


def test_a_certificate_names_what_was_recomputed_refit_and_retained(bench: Workbench) -> None:
    system = bench.fit(planted(10))

    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))

    facts = certificate_of(system, receipt.request_id).statement["predicate"]
    states = {item["name"]: item["state"] for item in facts["artefacts"]}
    shards = list(receipt.shards_retrained)
    assert states[f"submodels of shards {shards}"] == "recomputed"
    assert states["partition"] == "retained"
    assert facts["guarantee"]["partition"] == "frozen"
    kinds = {item["kind"] for item in facts["purged"]}
    assert {"segment", "content", "submodel", "partition", "graph"} <= kinds
    assert set(facts["times"]) >= {"received", "accepted", "started", "unlearned", "purged"}


def test_a_later_certificate_supersedes_and_the_chain_is_followed(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    assignment = system.partition.assignment
    shard = assignment[training_ids(system)[0]]
    nodes = [i for i in training_ids(system) if assignment[i] == shard][:3]
    made = [
        certificate_of(system, system.erase(Erasure(nodes=[node])).request_id) for node in nodes
    ]

    reports = [verify(item, issuer_key(system), state=system.home) for item in made]

    assert all(report.ok for report in reports)
    details = ["; ".join(check.detail for check in report.checks[1:]) for report in reports]
    assert f"superseded by certificate {made[1].certificate_id}" in details[0]
    assert made[2].certificate_id in details[0]
    assert details[2].endswith("live")


def test_a_superseded_shard_must_have_what_the_last_certificate_says(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    assignment = system.partition.assignment
    shard = assignment[training_ids(system)[0]]
    nodes = [i for i in training_ids(system) if assignment[i] == shard][:2]
    old = system.engine.store.get("submodel", system.generation.submodels[shard])
    first, _ = (
        certificate_of(system, system.erase(Erasure(nodes=[node])).request_id) for node in nodes
    )
    overwrite(system, "submodel", system.generation.submodels[shard], old)

    report = verify(first, issuer_key(system), state=system.home)

    assert not report.ok
    assert "last certificate of its chain" in report.checks[-1].detail


def test_one_shard_of_a_certificate_with_several_is_replayed(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    assignment = system.partition.assignment
    nodes = [next(i for i in training_ids(system) if assignment[i] == s) for s in (0, 1)]
    receipt = system.erase(Erasure(nodes=nodes))
    certificate = certificate_of(system, receipt.request_id)

    report = verify(certificate, issuer_key(system), replay=system.home, shards=[1])

    assert report.ok, report.lines()
    assert report.replayed == (1,)


def test_weights_that_are_not_those_certified_are_found(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))
    certificate = certificate_of(system, receipt.request_id)
    shard = receipt.shards_retrained[0]
    key = system.generation.submodels[shard]
    blob = system.engine.store.get("submodel", key)
    tensors = {name: array + 1e-6 for name, array in blob.tensors.items()}
    overwrite(system, "submodel", key, type(blob)(tensors, blob.meta))

    report = verify(certificate, issuer_key(system), state=system.home)

    assert not report.ok
    assert "differs" in report.checks[-1].detail


def test_a_replay_gives_the_certified_weights(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))
    certificate = certificate_of(system, receipt.request_id)

    report = verify(certificate, issuer_key(system), replay=system.home)

    assert report.ok, report.lines()
    assert report.replayed == receipt.shards_retrained


def test_a_key_of_another_issuer_is_refused(bench: Workbench) -> None:
    system, other = bench.fit(planted(10)), bench.fit(planted(11))
    certificate = certificate_of(
        system, system.erase(Erasure(nodes=training_ids(system)[:1])).request_id
    )
    other.erase(Erasure(nodes=training_ids(other)[:1]))

    assert not verify(certificate, issuer_key(other)).ok


def test_every_request_of_a_batch_gets_its_own_certificate(bench: Workbench) -> None:
    system = bench.fit(planted(10), AT_ONCE)
    nodes = training_ids(system)[:4]
    edge = next((u, v) for u, v in sorted(planted(10).edges) if not {u, v} & set(nodes))
    wanted = [Erasure(nodes=[n]) for n in nodes]
    wanted += [Erasure(edges=[edge]), Erasure(nodes=[unowned_ids(system)[0]])]
    requests = system.submit_many(wanted)
    system.run()

    certificates = [certificate_of(system, request.request_id) for request in requests]

    assert len({item.certificate_id for item in certificates}) == len(wanted)
    for item in certificates:
        assert verify(item, issuer_key(system), state=system.home).ok
    spoken = [set(item.statement["predicate"]["scope"]["shards"]) for item in certificates]
    assert set().union(*spoken) >= set(system.generation.retrained)
    assert spoken[-1] == set()  # nobody trained on a node of role val or test


def test_a_request_of_nothing_held_is_certified_as_that(bench: Workbench) -> None:
    system = bench.fit(planted(10), AT_ONCE)
    request = system.submit(Erasure(nodes=[10**9]), unknown="report")
    system.run()

    facts = certificate_of(system, request.request_id).statement["predicate"]

    assert facts["scope"]["unknown"] == 1
    assert facts["scope"]["shards"] == []
    assert facts["generations"]["before"]["number"] == facts["generations"]["after"]["number"]


def test_the_audit_log_is_chained_signed_and_holds_no_id(bench: Workbench) -> None:
    system = bench.fit(planted(10, prefix="zanzibar-"))
    node = training_ids(system)[0]
    system.erase(Erasure(nodes=[node]))
    ledger = system.engine.ledger
    rows = [row_json(row) for row in ledger.audit.rows()]
    heads = list(ledger.audit.signed_heads().values())
    keys = read_keys(issuer_key(system))

    assert check_chain(rows, heads, keys, ledger.setting("home_id")).ok
    assert [row["action"] for row in rows] == [
        "submit", "schedule", "publish", "certify", "complete",
    ]  # fmt: skip
    assert "zanzibar" not in json.dumps(rows)
    for cut in (rows[1:], rows[:-1], rows[::-1]):
        assert not check_chain(cut, heads, keys, ledger.setting("home_id")).ok


def test_old_keys_are_nowhere_in_the_clear_after_completion(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    node = training_ids(system)[0]
    before = system.generation
    receipt = system.erase(Erasure(nodes=[node]))
    certificate = certificate_of(system, receipt.request_id)
    shard = receipt.shards_retrained[0]
    old = before.shards[shard]
    system.close()

    raw = b"".join(p.read_bytes() for p in system.home.rglob("*") if p.is_file())

    for secret in (old.key, old.content_digest, before.graph_key, old.weights_digest):
        assert str(secret).encode() not in raw
        assert str(secret) not in certificate.text


def test_a_certificate_is_found_by_its_request_and_unknown_ones_are_named(
    bench: Workbench,
) -> None:
    system = bench.fit(planted(10))
    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))
    ledger = system.engine.ledger

    found = find_certificate(ledger, receipt.request_id)

    assert found == find_certificate(ledger, found.certificate_id)
    with pytest.raises(Exception, match="no certificate 'cert_x'"):
        find_certificate(ledger, "cert_x")
