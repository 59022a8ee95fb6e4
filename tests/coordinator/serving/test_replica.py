"""A replica: its lease, its masks, its policies, and the change from one generation to the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.digest import NodeId
from cluster.errors import ConfigError, CorruptArtefactError, NoLeaseError, StaleShardError
from cluster.graph import Located
from coordinator.erasure import Erasure, present_part
from coordinator.requests.serving import Held, ServingPolicy
from coordinator.serving.leases import Grant
from coordinator.serving.lessor import Lessor
from coordinator.serving.replica import Coming, Replica
from coordinator.serving.replica_loop import ReplicaLoop
from coordinator.serving.view import View
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.serving.published import hiding
from tests.coordinator.systems import Records, Workbench, planted, training_ids

WINDOWS = {"erasure.cancel_window": "1h", "erasure.batch_window": "1h"}


def grant_of(
    system: System,
    *,
    version: int = 1,
    located: Located | None = None,
    stale: Held | None = None,
    ttl_s: float = 60.0,
    policy: ServingPolicy = "mask",
) -> Grant:
    current = system.engine.ledger.current_generation()
    assert current is not None
    number, body = current
    hidden = hiding() if located is None else located
    return Grant(number, body, version, 10 + version, hidden, stale or {}, ttl_s, policy)


def give(replica: Replica, grant: Grant) -> None:
    replica.renew(grant, time.monotonic())


def locate(system: System, erasure: Erasure) -> Located:
    graph = system.engine.live.graph
    return graph.locate(present_part(graph, erasure)[0])


@pytest.fixture(scope="module")
def records() -> Records:
    return planted(5)


@pytest.fixture(scope="module")
def system(shared_bench: Workbench, records: Records) -> System:
    return shared_bench.fit(records)


@pytest.fixture
def replica(system: System) -> Replica:
    return standing(system)


def standing(system: System) -> Replica:
    """A replica that has the published generation, nothing masked, and a lease."""
    made, grant = Replica(system.home), grant_of(system)
    assert grant.body is not None
    made.take(made.read(grant.generation, grant.body).under(grant))
    give(made, grant)
    return made


def labels_of(answer: dict[str, Any]) -> list[Any]:
    return [result["label"] for result in answer["results"]]


# ---- answers


def test_a_replica_answers_as_the_library_does(system: System, replica: Replica) -> None:
    ids = system.graph.ids.tolist()

    answer = replica.predict(ids)

    predicted = system.predict(ids)
    assert [result["id"] for result in answer["results"]] == ids
    assert labels_of(answer) == list(predicted.labels)
    found = [list(result["proba"].values()) for result in answer["results"]]
    assert np.allclose(found, predicted.proba, atol=1e-5)
    assert list(answer["results"][0]["proba"]) == [str(name) for name in system.graph.classes]
    assert answer["generation"] == system.generation.number == replica.generation
    assert (answer["epoch"], answer["policy"], answer["stale_shards"]) == (11, "mask", [])


def test_the_most_probable_classes_come_first(system: System, replica: Replica) -> None:
    node = system.graph.ids.tolist()[0]

    whole = replica.predict([node])["results"][0]
    leading = replica.predict([node, node], top_k=2)["results"][1]

    ranked = sorted(whole["proba"].items(), key=lambda item: -item[1])[:2]
    assert list(leading["proba"].items()) == ranked
    assert str(leading["label"]) == str(whole["label"]) == ranked[0][0]


def test_masked_ids_are_gone_and_others_unknown(system: System, replica: Replica) -> None:
    erased, left = system.graph.ids.tolist()[:2]
    give(replica, grant_of(system, version=2, located=locate(system, Erasure(nodes=[erased]))))

    answer = replica.predict([left, erased, 10**6, "11", True])

    kinds = [result.get("error", {}).get("code") for result in answer["results"]]
    assert kinds == [None, "gone", "unknown", "unknown", "unknown"]
    assert answer["results"][1] == {"id": erased, "error": {"code": "gone", "status": 410}}
    assert answer["epoch"] == 12 and replica.version == 2
    assert replica.predict([])["results"] == []


def test_what_is_asked_wrongly_is_refused(replica: Replica) -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        replica.predict([11], policy="hide")
    with pytest.raises(ConfigError, match="1 class or more"):
        replica.predict([11], top_k=0)


# ---- policies


def test_exclude_drops_the_vote_of_a_stale_shard_and_block_its_nodes(
    system: System, replica: Replica
) -> None:
    owner = system.partition.assignment
    mine = [node for node in training_ids(system) if owner[node] == 1]
    other = [node for node in training_ids(system) if owner[node] != 1]
    plain = replica.predict(mine)
    give(replica, grant_of(system, version=2, stale={1: "mask"}))

    assert replica.predict(mine)["results"] == plain["results"]
    excluded = replica.predict(mine, policy="exclude")
    assert excluded["results"] != plain["results"]
    assert excluded["stale_shards"] == [1] and excluded["policy"] == "exclude"
    with pytest.raises(StaleShardError, match="one of these nodes"):
        replica.predict([*mine, *other], policy="block")
    assert len(replica.predict(other, policy="block")["results"]) == len(other)


def test_requests_policies_hold_for_calls_that_name_none(system: System, replica: Replica) -> None:
    owner = system.partition.assignment
    mine = [node for node in training_ids(system) if owner[node] == 1]
    other = [node for node in training_ids(system) if owner[node] != 1]
    plain = replica.predict(other)

    give(replica, grant_of(system, version=2, stale={0: "mask", 1: "exclude"}))
    excluded = replica.predict(other)
    assert (excluded["policy"], excluded["stale_shards"]) == ("exclude", [0, 1])
    assert excluded["shard_policies"] == {"0": "mask", "1": "exclude"}
    give(replica, grant_of(system, version=3, stale={1: "mask"}))
    wanted = replica.predict(other, policy="exclude")["results"]
    assert excluded["results"] == wanted != plain["results"]
    assert replica.predict(other)["results"] == plain["results"]

    give(replica, grant_of(system, version=4, stale={1: "block"}))
    with pytest.raises(StaleShardError, match="one of these nodes"):
        replica.predict(mine)
    blocked = replica.predict(other)
    assert blocked["results"] == wanted, "what is blocked has no vote either"
    assert (blocked["policy"], blocked["shard_policies"]) == ("block", {"1": "block"})


def test_a_calls_own_policy_goes_before_that_of_requests(system: System, replica: Replica) -> None:
    ids = training_ids(system)
    plain = replica.predict(ids)
    give(replica, grant_of(system, version=2, stale={1: "block"}))

    own = replica.predict(ids, policy="mask")

    assert own["results"] == plain["results"]
    assert (own["policy"], own["shard_policies"]) == ("mask", {"1": "mask"})


def test_while_nothing_is_stale_the_policy_is_that_of_the_service(
    system: System, replica: Replica
) -> None:
    ids = training_ids(system)
    plain = replica.predict(ids)

    give(replica, grant_of(system, version=2, policy="block"))
    found = replica.predict(ids)

    assert (found["policy"], found["results"]) == ("block", plain["results"])
    assert found["shard_policies"] == {} and found["stale_shards"] == []


# ---- the lease


def test_without_a_lease_there_is_no_answer(system: System) -> None:
    replica, grant = Replica(system.home), grant_of(system, ttl_s=0.05)
    assert grant.body is not None
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    replica.take(replica.read(grant.generation, grant.body).under(grant))
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    give(replica, grant)
    time.sleep(0.06)
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    assert replica.warm(5) == 0


def test_a_lease_counts_from_before_it_was_asked_for(system: System) -> None:
    replica, grant = Replica(system.home), grant_of(system, ttl_s=2.0)
    assert grant.body is not None
    replica.take(replica.read(grant.generation, grant.body).under(grant))

    replica.renew(grant, time.monotonic() - 2.0)

    with pytest.raises(NoLeaseError):
        replica.predict([11])


def test_an_answer_that_outlives_its_lease_is_not_given(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    replica, grant = Replica(system.home, lambda: now[0]), grant_of(system, ttl_s=2.0)
    assert grant.body is not None
    replica.take(replica.read(grant.generation, grant.body).under(grant))
    replica.renew(grant, now[0])
    plain = View.answer

    def slow(view: View, *args: Any) -> Any:
        now[0] += 3
        return plain(view, *args)

    monkeypatch.setattr(View, "answer", slow)

    with pytest.raises(NoLeaseError):
        replica.predict(system.graph.ids.tolist()[:1])


def test_a_mask_that_cannot_be_put_on_prolongs_nothing(system: System) -> None:
    now = [100.0]
    replica, grant = Replica(system.home, lambda: now[0]), grant_of(system, ttl_s=2.0)
    assert grant.body is not None
    replica.take(replica.read(grant.generation, grant.body).under(grant))
    replica.renew(grant, now[0])
    now[0] += 1

    with pytest.raises(IndexError):
        replica.renew(grant_of(system, version=2, located=hiding(nodes=[10**6])), now[0])

    now[0] += 1.5
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    assert replica.version == 1


def test_a_mask_is_confirmed_once_older_answers_have_ended(
    system: System, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased, left = system.graph.ids.tolist()[:2]
    began, may_end = threading.Event(), threading.Event()
    plain = View.answer

    def held_back(view: View, *args: Any) -> Any:
        began.set()
        assert may_end.wait(10)
        return plain(view, *args)

    monkeypatch.setattr(View, "answer", held_back)
    answers: list[dict[str, Any]] = []
    asking = run(lambda: answers.append(replica.predict([left, erased])))
    assert began.wait(10)
    located = locate(system, Erasure(nodes=[erased]))
    masking = run(lambda: give(replica, grant_of(system, version=2, located=located)))
    time.sleep(0.1)
    assert replica.version == 1

    may_end.set()
    asking.join(10)
    masking.join(10)

    assert replica.version == 2
    assert answers[0]["epoch"] == 11 and "label" in answers[0]["results"][1]
    assert replica.predict([left, erased])["results"][1]["error"]["code"] == "gone"


def test_an_answer_on_its_way_leaves_nothing_of_an_erased_row_in_the_tables(
    system: System, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased = system.graph.ids.tolist()[0]
    row = system.graph.rows([erased])
    began, may_end = threading.Event(), threading.Event()
    plain = View.answer

    def held_back(view: View, *args: Any) -> Any:
        began.set()
        assert may_end.wait(10)
        return plain(view, *args)

    monkeypatch.setattr(View, "answer", held_back)
    asking = run(lambda: replica.predict([erased]))
    assert began.wait(10)
    located = locate(system, Erasure(nodes=[erased]))
    masking = run(lambda: give(replica, grant_of(system, version=2, located=located)))
    time.sleep(0.3)  # the next view was made by now, and the answer of the old one was not

    may_end.set()
    asking.join(10)
    masking.join(10)

    current = replica.require_lease()
    for table in (current.view.stored.posteriors, current.view.stored.answers):
        found, counts = table.lookup(row, np.zeros(10**3, np.int64), 10**6)
        assert not counts.any() and not found.any()


def run(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_a_cancelled_request_hands_its_records_back(system: System, replica: Replica) -> None:
    ids = system.graph.ids.tolist()
    before = replica.predict(ids)["results"]
    give(replica, grant_of(system, version=2, located=locate(system, Erasure(nodes=ids[:2]))))
    replica.predict(ids)

    give(replica, grant_of(system, version=3))

    after = replica.predict(ids)
    assert after["results"] == before and after["epoch"] == 13


# ---- the next generation


def test_the_old_generation_answers_masked_until_the_next_takes_over(
    bench: Workbench, records: Records
) -> None:
    clock = Clock()
    system = bench.fit(records, WINDOWS, clock=clock)
    first, second, later = training_ids(system)[:3]
    lessor = Lessor(system.erasing)
    system.engine.mask_moved, system.engine.superseding = lessor.note, lessor.taken_over
    replica = Replica(system.home)
    loop = ReplicaLoop(replica, lessor, "r")
    until(loop, lambda: replica.generation == 1 and codes(replica, [first]) == [None])

    system.submit(Erasure(nodes=[first]))
    until(loop, lambda: codes(replica, [first, second]) == ["gone", None])
    clock.forward(hours=3)
    running = run(system.erasing.run)
    while system.generation.number == 1:
        assert running.is_alive()
    system.submit(Erasure(nodes=[second]))  # while the replica answers with the generation before
    seen = []

    def taken() -> bool:
        seen.append((replica.generation, codes(replica, [first, second, later])))
        return replica.generation == 2

    until(loop, taken)
    until(loop, lambda: not running.is_alive())

    assert {tuple(found) for number, found in seen if number == 1} <= {
        ("gone", None, None),
        ("gone", "gone", None),
    }
    assert codes(replica, [first, second, later]) == ["unknown", "gone", None]
    ids = system.graph.ids.tolist()
    assert labels_of(replica.predict(ids)) == list(system.predict(ids).labels)


def until(loop: ReplicaLoop, is_so: Callable[[], bool]) -> None:
    """Go on asking for leases until something is so."""
    end = time.monotonic() + 30
    while True:
        loop.step()
        try:
            if is_so():
                return
        except NoLeaseError:
            pass
        assert time.monotonic() < end, "it did not come about"


def codes(replica: Replica, ids: list[NodeId]) -> list[str | None]:
    results = replica.predict(ids)["results"]
    return [result.get("error", {}).get("code") for result in results]


def test_a_generation_whose_files_are_gone_cannot_be_read(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records)
    replica, late = standing(system), grant_of(system)
    assert late.body is not None
    system.erase(Erasure(nodes=training_ids(system)[:1]))

    with pytest.raises(CorruptArtefactError):
        replica.read(late.generation, late.body)

    now = grant_of(system)
    assert now.body is not None
    assert replica.read(now.generation, now.body).generation == 2
    assert replica.predict(system.graph.ids.tolist()[:1])["generation"] == 1


def test_calls_that_are_answered_together_fail_one_by_one(system: System, replica: Replica) -> None:
    owner = system.partition.assignment
    mine = next(node for node in training_ids(system) if owner[node] == 1)
    other = next(node for node in training_ids(system) if owner[node] != 1)
    give(replica, grant_of(system, version=2, stale={1: "mask"}))

    found = replica.predict_many(
        [([mine], "block", None), ([other], "block", None), ([mine], None, 1), ([mine], "no", None)]
    )

    assert isinstance(found[0], StaleShardError) and isinstance(found[3], ConfigError)
    assert found[1] == replica.predict([other], "block")
    assert found[2] == replica.predict([mine], top_k=1)


class Office:
    """Grants what it is told to; the next call for a mask may fail."""

    def __init__(self, system: System) -> None:
        self.system, self.fails = system, 0

    def lease(self, replica: str, generation: int | None, version: int) -> Grant:
        return grant_of(self.system)

    def mask_of(self, generation: int) -> Grant:
        if self.fails:
            self.fails -= 1
            raise NoLeaseError("not now")
        return grant_of(self.system)


def test_a_generation_that_was_read_is_taken_though_the_office_failed_meanwhile(
    system: System,
) -> None:
    office, replica = Office(system), Replica(system.home)
    loop = ReplicaLoop(replica, office, "r")
    loop.step()
    while loop._ready is None:
        time.sleep(0.01)
    office.fails = 1

    with pytest.raises(NoLeaseError):
        loop.step()
    loop.step()

    assert replica.generation == 1 and codes(replica, [system.graph.ids.tolist()[0]]) == [None]


def test_a_generation_that_cannot_be_taken_is_read_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(system.home)
    loop = ReplicaLoop(replica, Office(system), "r")
    plain, failures = Replica.take, [MemoryError()]

    def take(self: Replica, coming: Coming) -> None:
        if failures:
            raise failures.pop()
        plain(self, coming)

    monkeypatch.setattr(Replica, "take", take)

    until(loop, lambda: replica.generation == 1)

    assert not failures


def test_a_generation_that_is_read_too_late_is_not_taken(system: System) -> None:
    replica = Replica(system.home)
    loop = ReplicaLoop(replica, Office(system), "r")
    loop._reading = 2  # a later one is being read

    loop._read(grant_of(system))
    loop._take()

    assert replica.generation is None
