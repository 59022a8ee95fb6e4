"""Requests that follow their windows: masked, batched, cancelled, held, approved, retried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.errors import (
    ApprovalError,
    DuplicateError,
    ErasureError,
    GoneError,
    HoldError,
    HomeError,
    RequestError,
    StalePlanError,
    TransitionError,
)
from coordinator.erasure import Erasure
from coordinator.evidence.acceptance import open_acceptance
from coordinator.evidence.keys import Signer, read_keys
from coordinator.reconcile import Reconciler
from coordinator.requests.states import State
from coordinator.requests.times import to_iso
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import (
    Workbench,
    assert_same,
    kept_partition,
    planted,
    summary,
    training_ids,
)

WINDOWS = {"erasure.cancel_window": "24h", "erasure.batch_window": "6h"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def system(bench: Workbench, clock: Clock) -> System:
    return bench.fit(planted(10), WINDOWS, clock=clock)


def states(*requests: Any) -> list[str]:
    return [str(request.state) for request in requests]


def test_a_submitted_request_is_masked_at_once_and_done_after_its_windows(
    system: System, clock: Clock, bench: Workbench
) -> None:
    node, other = training_ids(system)[:2]
    before = system.generation

    request = system.submit(Erasure(nodes=[node]), regulation="gdpr")

    assert request.state == State.ACCEPTED
    assert not system.graph.has_node(node)
    with pytest.raises(GoneError):
        system.predict([node])
    assert system.predict([other]).generation == before.number
    assert system.run() == []
    assert system.generation == before

    clock.forward(hours=31)
    assert len(system.run()) == 1

    assert request.state == State.COMPLETED
    survivors = planted(10).without(Erasure(nodes=[node]))
    kept = kept_partition(system.partition, survivors)
    assert_same(summary(system), summary(bench.fit(survivors, WINDOWS, partition=kept)))
    assert [event.state for event in request.events()] == [
        "accepted", "scheduled", "running", "verifying", "unlearned", "purging", "completed",
    ]  # fmt: skip


def test_predictions_of_a_masked_graph_do_not_read_what_is_masked(
    system: System, bench: Workbench
) -> None:
    node = training_ids(system)[0]
    others = [i for i in system.graph.ids.tolist() if i != node]
    system.submit(Erasure(features={node: None}, labels=[node]))
    hidden = system.predict(others).proba

    poisoned = bench.fit(planted(10), WINDOWS, partition=system.partition)
    poisoned.submit(Erasure(nodes=[node]))

    assert system.graph.num_nodes == poisoned.graph.num_nodes + 1
    assert hidden.shape == poisoned.predict(others).proba.shape


def test_requests_of_one_window_are_done_in_one_batch(system: System, clock: Clock) -> None:
    nodes = training_ids(system)[:4]
    requests = [system.submit(Erasure(nodes=[node])) for node in nodes]
    number = system.generation.number

    clock.forward(hours=31)
    system.run()

    assert states(*requests) == ["completed"] * 4
    assert system.generation.number == number + 1
    assert len({request.record.batch_id for request in requests}) == 1


def test_a_cancelled_request_is_read_again_and_changes_nothing(
    system: System, clock: Clock
) -> None:
    node = training_ids(system)[0]
    before, answers = summary(system), system.predict(training_ids(system)).proba
    request = system.submit(Erasure(nodes=[node]))

    request.cancel(by="ada")

    assert request.state == State.CANCELLED
    assert system.graph.has_node(node)
    assert (system.predict(training_ids(system)).proba == answers).all()
    clock.forward(days=3)
    assert system.run() == []
    assert_same(summary(system), before)
    assert system.erase(Erasure(nodes=[node])).records["nodes"] == 1


def test_a_request_is_not_cancelled_after_its_window(system: System, clock: Clock) -> None:
    request = system.submit(Erasure(nodes=training_ids(system)[:1]))
    clock.forward(hours=25)

    with pytest.raises(TransitionError, match="cancel"):
        request.cancel()
    clock.forward(hours=7)
    system.run()
    with pytest.raises(TransitionError, match="completed"):
        request.cancel()


def test_a_held_request_stays_masked_and_is_not_done(system: System, clock: Clock) -> None:
    node, other = training_ids(system)[:2]
    held = system.submit(Erasure(nodes=[node]))
    held.hold(by="legal", reason="claim 7")
    also = system.submit(Erasure(labels=[other]))
    clock.forward(days=2)

    system.run()

    assert states(held, also) == ["on_hold", "completed"]
    assert not system.graph.has_node(node)
    assert system.engine.live.graph.has_node(node)
    held.release(by="legal")
    clock.forward(days=2)
    system.run()
    assert states(held) == ["completed"]
    assert not system.engine.live.graph.has_node(node)


def test_another_request_for_held_records_waits_and_an_urgent_one_is_refused(
    system: System, clock: Clock
) -> None:
    node = training_ids(system)[0]
    held = system.submit(Erasure(labels=[node]))
    held.hold(by="legal", reason="claim 7")
    whole = system.submit(Erasure(nodes=[node]))
    clock.forward(days=2)

    system.run()

    assert states(held, whole) == ["on_hold", "accepted"]
    held.release(by="legal")
    clock.forward(days=2)
    system.run()
    assert states(held, whole) == ["completed", "completed"]


def test_an_erasure_of_held_records_is_refused(system: System) -> None:
    node = training_ids(system)[0]
    system.submit(Erasure(labels=[node])).hold(by="legal", reason="claim 7")

    with pytest.raises(HoldError, match="legal"):
        system.erase(Erasure(nodes=[node]))
    assert system.engine.live.graph.has_node(node)


def test_a_large_request_waits_for_another_person(bench: Workbench, clock: Clock) -> None:
    system = bench.fit(planted(10), WINDOWS | {"erasure.approve_above": 2}, clock=clock)
    nodes = training_ids(system)[:3]
    request = system.submit(Erasure(nodes=nodes), requested_by="ada")

    assert request.state == State.NEEDS_APPROVAL
    assert system.graph.has_node(nodes[0])
    with pytest.raises(ApprovalError):
        request.approve(by="ada")
    request.approve(by="grace")

    assert request.state == State.ACCEPTED
    assert not system.graph.has_node(nodes[0])
    clock.forward(days=2)
    system.run()
    assert request.state == State.COMPLETED
    with pytest.raises(ApprovalError, match="approved_by"):
        system.erase(Erasure(nodes=training_ids(system)[:3]))


def test_a_rejected_request_leaves_no_trace_of_its_records(bench: Workbench, clock: Clock) -> None:
    system = bench.fit(planted(10), WINDOWS | {"erasure.approve_above": 2}, clock=clock)
    nodes = training_ids(system)[:3]
    request = system.submit(Erasure(nodes=nodes), requested_by="ada")

    request.reject(by="grace", reason="art. 17(3)")

    assert request.state == State.REJECTED
    assert request.record.reason == "art. 17(3)"
    assert system.graph.has_node(nodes[0])
    assert system.engine.ledger.requests.payloads([request.request_id]) == {}


def test_the_same_external_id_is_the_same_request_and_another_body_is_refused(
    system: System,
) -> None:
    first, second = (Erasure(nodes=[node]) for node in training_ids(system)[:2])
    request = system.submit(first, external_request_id="dsr-1")

    assert system.submit(first, external_request_id="dsr-1").request_id == request.request_id
    with pytest.raises(DuplicateError, match="dsr-1"):
        system.submit(second, external_request_id="dsr-1")
    keyed = system.submit(second, idempotency_key="k1")
    assert system.submit(second, idempotency_key="k1").request_id == keyed.request_id
    with pytest.raises(DuplicateError, match="k1"):
        system.submit(first, idempotency_key="k1")


def test_a_serving_policy_is_part_of_what_is_asked(system: System) -> None:
    erasure = Erasure(nodes=training_ids(system)[:1])
    plain = system.submit(erasure, external_request_id="plain")
    first = system.submit(erasure, external_request_id="a", serving_policy="block")
    again = system.submit(erasure, external_request_id="a", serving_policy="block")

    assert first.request_id == again.request_id and first.record.serving_policy == "block"
    assert plain.record.serving_policy is None
    for other in (None, "mask"):
        with pytest.raises(DuplicateError):
            system.submit(erasure, external_request_id="a", serving_policy=other)
    with pytest.raises(RequestError, match="serving_policy is 'hide'"):
        system.submit(erasure, serving_policy="hide")  # type: ignore[arg-type]
    ledger, plan = system.engine.ledger, system.plan(erasure)
    options = (plan.kind, "", "normal")
    assert plain.record.body_digest == ledger.mark("request", *options, plan.selector).hex()


def test_an_accepted_request_has_a_receipt_that_outlives_extension_rotation_and_restart(
    system: System, clock: Clock
) -> None:
    request = system.submit(Erasure(nodes=training_ids(system)[:1]), requested_by="ada")
    text, due = request.acceptance, request.record.due_at
    assert text is not None

    request.extend(by="bob", reason="many requests")
    Signer.open(system.home / "keys").rotate()
    found = open_acceptance(text, read_keys(system.home / "keys" / "issuer.pub"))

    assert found["due_at"] == to_iso(due) != to_iso(request.record.due_at)
    assert found["request"] == request.request_id and found["records"]["nodes"] == 1
    assert (found["body"], found["epoch"]) == (request.record.body_digest, request.record.epoch)
    expected = request.expected_completion_at
    assert expected is not None and expected > request.record.cancel_until
    clock.forward(hours=40)
    system.run()
    assert request.acceptance == text and request.expected_completion_at is None


def test_a_request_that_meets_a_hold_has_no_expected_end(system: System) -> None:
    node = training_ids(system)[0]
    held = system.submit(Erasure(nodes=[node]), requested_by="ada")
    other = system.submit(Erasure(labels=[node]), requested_by="ada")
    assert other.expected_completion_at is not None

    held.hold(by="bob", reason="a claim")
    assert other.expected_completion_at is None and held.expected_completion_at is None
    held.release(by="bob")
    assert other.expected_completion_at is not None


def test_a_regulators_request_excludes_what_retrains_for_it(system: System) -> None:
    a, b = training_ids(system)[:2]

    cautious = system.submit(Erasure(nodes=[a]), priority="regulator")
    (plain, *_) = system.submit_many([Erasure(nodes=[b])], serving_policy="block")

    assert cautious.record.serving_policy == "exclude"
    assert plain.record.serving_policy == "block"


def test_a_request_for_what_is_forgotten_already_is_a_duplicate(system: System) -> None:
    node = training_ids(system)[0]
    first = system.erase(Erasure(nodes=[node]))

    again = system.submit(Erasure(nodes=[node]))

    assert again.state == State.DUPLICATE
    assert again.record.duplicate_of == first.request_id


def test_a_request_stands_when_an_earlier_one_for_the_same_records_is_cancelled(
    system: System, clock: Clock
) -> None:
    a, b = training_ids(system)[:2]
    first = system.submit(Erasure(nodes=[a]))
    same, more = system.submit(Erasure(nodes=[a])), system.submit(Erasure(nodes=[a, b]))

    first.cancel()

    assert states(first, same, more) == ["cancelled", "accepted", "accepted"]
    assert not system.graph.has_node(a)
    clock.forward(days=2)
    system.run()
    assert states(same, more) == ["completed", "completed"]
    assert not system.engine.live.graph.has_node(a)
    counted = [request.record.records["nodes"] for request in (same, more)]
    assert counted == [1, 1]  # each record is counted once, by the request that came first


def test_an_urgent_erasure_of_what_waits_is_done_at_once(system: System) -> None:
    node = training_ids(system)[0]
    waiting = system.submit(Erasure(nodes=[node]))

    receipt = system.erase(Erasure(nodes=[node]))

    assert receipt.shards_retrained
    assert not system.engine.live.graph.has_node(node)
    assert states(waiting) == ["accepted"]


def test_requests_submitted_together_know_of_each_other(system: System, clock: Clock) -> None:
    a, b = training_ids(system)[:2]
    erasures = [Erasure(nodes=[a]), Erasure(nodes=[a]), Erasure(nodes=[a, b])]
    edges = system.plan(Erasure(nodes=[a, b])).records["edges"]

    requests = system.submit_many(erasures)

    assert states(*requests) == ["accepted"] * 3
    clock.forward(days=2)
    system.run()
    assert states(*requests) == ["completed"] * 3
    counts = [request.record.records for request in requests]
    assert [count["nodes"] for count in counts] == [1, 0, 1]
    assert sum(count["edges"] for count in counts) == edges


def test_a_hold_that_ends_before_anybody_approved_unmasks_and_waits(
    bench: Workbench, clock: Clock
) -> None:
    system = bench.fit(planted(10), WINDOWS | {"erasure.approve_above": 2}, clock=clock)
    nodes = training_ids(system)[:3]
    request = system.submit(Erasure(nodes=nodes), requested_by="ada")
    request.hold(by="legal", reason="claim 7")
    assert not system.graph.has_node(nodes[0])

    request.release(by="legal")

    assert states(request) == ["needs_approval"]
    assert system.graph.has_node(nodes[0])
    assert request.record.epoch is None
    assert system.erase(Erasure(nodes=nodes[:1])).shards_retrained


def test_a_publication_whose_answer_was_lost_is_caught_up_with(
    system: System, bench: Workbench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = training_ids(system)[0]
    request = system.submit(Erasure(nodes=[node]))
    publish = Reconciler.publish

    def lose(reconciler: Reconciler, *arguments: Any) -> None:
        publish(reconciler, *arguments)
        monkeypatch.setattr(Reconciler, "publish", publish)
        raise HomeError("the connection was lost while the commit was answered")

    monkeypatch.setattr(Reconciler, "publish", lose)
    clock.forward(hours=31)
    with pytest.raises(HomeError):
        system.run()
    system.run()

    assert states(request) == ["completed"]
    assert not system.graph.has_node(node)
    assert system.verify().ok
    survivors = planted(10).without(Erasure(nodes=[node]))
    kept = kept_partition(system.partition, survivors)
    assert_same(summary(system), summary(bench.fit(survivors, WINDOWS, partition=kept)))


def test_an_acceptance_whose_answer_was_lost_is_masked_when_it_is_repeated(
    system: System, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = training_ids(system)[0]
    write = system.engine.ledger.write

    @contextmanager
    def lose() -> Iterator[Any]:
        with write() as tx:
            yield tx
        monkeypatch.undo()
        raise HomeError("the connection was lost while the commit was answered")

    monkeypatch.setattr(system.engine.ledger, "write", lose)
    with pytest.raises(HomeError):
        system.submit(Erasure(nodes=[node]), external_request_id="dsr-9")

    request = system.submit(Erasure(nodes=[node]), external_request_id="dsr-9")

    assert states(request) == ["accepted"]
    assert not system.graph.has_node(node)
    clock.forward(days=2)
    system.run()
    assert states(request) == ["completed"]


def test_a_request_that_keeps_failing_keeps_no_other_from_being_done(
    system: System, bench: Workbench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = training_ids(system)[:2]
    build = system.engine.build

    def fail(wanted: Any) -> Any:
        if not wanted.graph.has_node(a):
            raise ErasureError("the worker ended")
        return build(wanted)

    monkeypatch.setattr(system.engine, "build", fail)
    stuck = system.submit(Erasure(nodes=[a]), priority="urgent")
    system.run()

    assert system.erase(Erasure(nodes=[b])).shards_retrained
    assert states(stuck) == ["accepted"]
    system.close()
    clock.forward(hours=1)
    assert states(bench.open(system.home, clock=clock).request(stuck.request_id)) == ["completed"]


def test_a_plan_is_void_after_another_request(system: System) -> None:
    a, b = training_ids(system)[:2]
    plan = system.plan(Erasure(nodes=[a]))
    system.submit(Erasure(nodes=[b]))

    with pytest.raises(StalePlanError):
        system.submit(plan)


def test_a_request_survives_a_restart_masked(
    system: System, bench: Workbench, clock: Clock
) -> None:
    node = training_ids(system)[0]
    request = system.submit(Erasure(nodes=[node]))
    system.close()

    opened = bench.open(system.home, clock=clock)

    again = opened.request(request.request_id)
    assert again.state == State.ACCEPTED
    with pytest.raises(GoneError):
        opened.predict([node])
    clock.forward(days=2)
    opened.run()
    assert again.state == State.COMPLETED
    assert opened.verify().ok


def test_a_failing_batch_is_tried_again_later_and_then_failed_with_its_shards_named(
    system: System, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = training_ids(system)[0]
    shard = system.partition.assignment[node]
    request = system.submit(Erasure(nodes=[node]))
    before = summary(system)
    broken = [True]
    build = system.engine.build

    def fail(wanted: Any) -> Any:
        if broken[0]:
            raise ErasureError("the worker ended")
        return build(wanted)

    monkeypatch.setattr(system.engine, "build", fail)
    clock.forward(hours=31)
    attempts = 0
    while request.state != State.FAILED:
        assert system.run() == []
        attempts += 1
        assert_same(summary(system), before)
        assert not system.graph.has_node(node)
        clock.forward(hours=2)

    assert attempts == system.config.erasure.max_attempts
    assert f"shards [{shard}]" in request.record.reason
    with pytest.raises(RequestError, match="retry"):
        request.wait()
    broken[0] = False
    request.retry(by="ops")
    system.run()
    assert request.state == State.COMPLETED


def test_a_request_that_waits_for_a_window_says_so_when_the_patience_ends(
    system: System,
) -> None:
    request = system.submit(Erasure(nodes=training_ids(system)[:1]))

    with pytest.raises(RequestError, match="expedite"):
        request.wait(timeout=0)
    request.expedite(by="ops")
    receipt = request.wait(timeout=60)

    assert receipt is not None
    assert receipt.request_id == request.request_id


def test_urgent_requests_wait_for_no_window(system: System) -> None:
    request = system.submit(Erasure(nodes=training_ids(system)[:1]), priority="urgent")

    assert request.wait(timeout=60) is not None
    assert request.state == State.COMPLETED


def test_a_request_of_nothing_held_completes_and_says_so(system: System, clock: Clock) -> None:
    request = system.submit(Erasure(nodes=[10**9]), unknown="report")
    number = system.generation.number
    clock.forward(days=2)

    system.run()

    assert request.state == State.COMPLETED
    assert request.record.unknown == 1
    assert system.generation.number == number
