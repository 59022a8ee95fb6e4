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
from coordinator.serving.leases import Grant
from coordinator.serving.replica import UNMASKED, Replica
from coordinator.serving.view import View
from coordinator.system import System
from tests.coordinator.serving.published import hiding
from tests.coordinator.systems import Records, Workbench, planted, training_ids


def grant_of(
    system: System,
    *,
    body: bool = False,
    epoch: int = 1,
    located: Located | None = None,
    stale: tuple[int, ...] = (),
    ttl_s: float = 60.0,
) -> Grant:
    current = system.engine.ledger.current_generation()
    assert current is not None
    return Grant(current[0], current[1] if body else None, epoch, located, stale, ttl_s)


def give(replica: Replica, grant: Grant) -> tuple[int, int]:
    """One round of the lease, the answer coming at once; what it was asked with."""
    asked = replica.ask()
    replica.renew(grant, time.monotonic())
    return asked


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
    made = Replica(system.home, system.config)
    assert give(made, grant_of(system, body=True)) == (0, 0)
    assert made.load()
    asked = give(made, grant_of(system, located=hiding()))
    assert asked == (system.generation.number, UNMASKED)
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
    assert list(answer["results"][0]["proba"]) == list(system.graph.classes)
    assert answer["generation"] == system.generation.number == replica.confirm[0]
    assert (answer["epoch"], answer["policy"], answer["stale_shards"]) == (1, "mask", [])


def test_the_most_probable_classes_come_first(system: System, replica: Replica) -> None:
    node = system.graph.ids.tolist()[0]

    whole = replica.predict([node])["results"][0]
    leading = replica.predict([node, node], top_k=2)["results"][1]

    ranked = sorted(whole["proba"].items(), key=lambda item: -item[1])[:2]
    assert [(item["label"], item["p"]) for item in leading["proba"]] == ranked
    assert leading["label"] == whole["label"] == ranked[0][0]


def test_masked_ids_are_gone_and_others_unknown(system: System, replica: Replica) -> None:
    erased, left = system.graph.ids.tolist()[:2]
    give(replica, grant_of(system, epoch=2, located=locate(system, Erasure(nodes=[erased]))))

    answer = replica.predict([left, erased, 10**6, "11", True])

    kinds = [result.get("error", {}).get("code") for result in answer["results"]]
    assert kinds == [None, "gone", "unknown", "unknown", "unknown"]
    assert answer["results"][1] == {"id": erased, "error": {"code": "gone", "status": 410}}
    assert answer["epoch"] == 2 and replica.confirm == (system.generation.number, 2)
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
    give(replica, grant_of(system, stale=(1,)))

    assert replica.predict(mine)["results"] == plain["results"]
    excluded = replica.predict(mine, policy="exclude")
    assert excluded["results"] != plain["results"]
    assert excluded["stale_shards"] == [1] and excluded["policy"] == "exclude"
    with pytest.raises(StaleShardError, match=f"{len(mine)} of the nodes"):
        replica.predict([*mine, *other], policy="block")
    assert len(replica.predict(other, policy="block")["results"]) == len(other)


# ---- the lease


def test_without_a_lease_there_is_no_answer(system: System) -> None:
    replica = Replica(system.home, system.config)
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    give(replica, grant_of(system, body=True))
    assert replica.load() and not replica.load()
    with pytest.raises(NoLeaseError):  # loaded, and not masked yet
        replica.predict([11])
    assert replica.confirm == (0, 0) and replica.warm(5) == 0
    give(replica, grant_of(system, located=hiding(), ttl_s=0.05))
    time.sleep(0.06)
    with pytest.raises(NoLeaseError):
        replica.predict([11])
    assert replica.warm(5) == 0


def test_a_lease_counts_from_before_it_was_asked_for(system: System, replica: Replica) -> None:
    replica.ask()
    replica.renew(grant_of(system, ttl_s=2.0), time.monotonic() - 2.0)

    with pytest.raises(NoLeaseError):
        replica.predict([11])


def test_an_answer_that_outlives_its_lease_is_not_given(
    system: System, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = View.answer

    def slow(view: View, *args: Any) -> Any:
        time.sleep(0.06)
        return plain(view, *args)

    monkeypatch.setattr(View, "answer", slow)
    give(replica, grant_of(system, ttl_s=0.05))

    with pytest.raises(NoLeaseError):
        replica.predict(system.graph.ids.tolist()[:1])


def test_a_mask_that_cannot_be_put_on_ends_the_lease(system: System, replica: Replica) -> None:
    with pytest.raises(IndexError):
        give(replica, grant_of(system, epoch=2, located=hiding(nodes=[10**6])))

    with pytest.raises(NoLeaseError):
        replica.predict([11])
    assert replica.confirm[1] == 1


def test_a_generation_without_a_mask_never_answers(system: System) -> None:
    replica = Replica(system.home, system.config)
    give(replica, grant_of(system, body=True))
    replica.load()

    with pytest.raises(ValueError, match="must bring its mask"):
        give(replica, grant_of(system, located=None))

    assert replica.confirm == (0, 0)


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
    masking = run(lambda: give(replica, grant_of(system, epoch=2, located=located)))
    time.sleep(0.1)
    assert replica.confirm[1] == 1

    may_end.set()
    asking.join(10)
    masking.join(10)

    assert replica.confirm[1] == 2
    assert answers[0]["epoch"] == 1 and "label" in answers[0]["results"][1]
    assert replica.predict([left, erased])["results"][1]["error"]["code"] == "gone"


def run(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_cancelled_request_hands_its_records_back(system: System, replica: Replica) -> None:
    ids = system.graph.ids.tolist()
    before = replica.predict(ids)["results"]
    give(replica, grant_of(system, epoch=2, located=locate(system, Erasure(nodes=ids[:2]))))
    replica.predict(ids)

    give(replica, grant_of(system, epoch=3, located=hiding()))

    after = replica.predict(ids)
    assert after["results"] == before and after["epoch"] == 3


# ---- the next generation


def test_the_old_generation_answers_masked_until_the_next_takes_over(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records)
    first, second, later = training_ids(system)[:3]
    replica = standing(system)
    give(replica, grant_of(system, epoch=2, located=locate(system, Erasure(nodes=[first]))))
    old_rows = system.engine.live.graph
    system.erase(Erasure(nodes=[first]))

    body = grant_of(system, body=True, epoch=2)
    assert give(replica, body) == (1, 2)
    assert codes(replica, [first, second]) == ["gone", None]
    both = old_rows.locate(present_part(old_rows, Erasure(nodes=[first, second]))[0])
    give(replica, grant_of(system, body=True, epoch=3, located=both))  # accepted meanwhile
    assert codes(replica, [first, second]) == ["gone", "gone"] and replica.confirm == (1, 3)

    assert replica.load() and replica.confirm == (1, 3)
    asked = give(
        replica, grant_of(system, epoch=3, located=locate(system, Erasure(nodes=[second])))
    )

    assert asked == (2, UNMASKED) and replica.confirm == replica.ask() == (2, 3)
    assert codes(replica, [first, second, later]) == ["unknown", "gone", None]
    system.submit(Erasure(nodes=[second]))
    ids = system.graph.ids.tolist()
    answer = replica.predict(ids)
    assert answer["generation"] == 2
    assert labels_of(answer) == list(system.predict(ids).labels)


def codes(replica: Replica, ids: list[NodeId]) -> list[str | None]:
    results = replica.predict(ids)["results"]
    return [result.get("error", {}).get("code") for result in results]


def test_a_generation_whose_files_are_gone_may_be_offered_again(
    bench: Workbench, records: Records
) -> None:
    system = bench.fit(records)
    replica, late = standing(system), grant_of(system, body=True)
    fresh = Replica(system.home, system.config)
    give(fresh, late)
    system.erase(Erasure(nodes=training_ids(system)[:1]))

    with pytest.raises(CorruptArtefactError):
        fresh.load()

    give(fresh, grant_of(system, body=True))
    assert fresh.load()
    give(fresh, grant_of(system, located=hiding()))
    assert fresh.confirm == (2, 1)
    assert replica.predict(system.graph.ids.tolist()[:1])["generation"] == 1
