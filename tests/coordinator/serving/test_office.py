"""The office: what it answers, and that all of it is plain JSON."""

from __future__ import annotations

import json
import pickle
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from cluster.errors import (
    ApprovalError,
    DuplicateError,
    NotFoundError,
    RequestError,
    SelectorError,
    StalePlanError,
    TransitionError,
    UnknownIdError,
)
from coordinator.pools.inline import InlinePool
from coordinator.selectors.subjects import SubjectMap
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import QUIET, served_home
from tests.coordinator.systems import Workbench


def nodes(*ids: Any) -> dict[str, Any]:
    return {"kind": "nodes", "selector": {"ids": list(ids)}}


def test_a_request_goes_from_plan_to_certificate(office: Office, clock: Clock, ids: Any) -> None:
    plan = office.plan(nodes(ids[0]))
    assert plan["records"]["nodes"] == 1 and plan["shards"] and plan["unknown"] == 0

    made = office.submit(None, plan["plan_id"], {"requested_by": "ann", "regulation": "gdpr"})
    assert made["state"] == "accepted" and made["masked"]
    assert made["impact"]["nodes"] == 1 and made["cost"]["full_retrain_s"] > 0
    assert office.stale_shards() == plan["shards"]
    assert office.gone([ids[0], ids[1], "nobody"]) == [True, False, False]

    clock.forward(hours=40)
    office.system.run()
    done = office.request(made["request_id"])
    assert done["state"] == "completed" and not done["masked"]
    assert office.events(made["request_id"], after=2)[0]["seq"] == 3
    shown = office.certificate(done["certificate_id"])
    assert shown["request_id"] == made["request_id"]
    assert office.verify(shown["envelope"])["ok"]
    assert not office.verify(shown["envelope"].replace("a", "b", 1))["ok"]
    history = office.history(90)
    assert sum(day["erased"] for day in history["per_day"]) >= 1
    assert history["batches"][-1]["seconds"] > 0


def test_every_answer_is_plain_json_and_can_be_pickled(office: Office, ids: Any) -> None:
    answers = [
        office.info(),
        office.status(),
        office.plan(nodes(ids[1], "nobody"), "report"),
        office.find(),
        office.certificates(),
        office.keys(),
        office.audit(),
        office.audit(newest_first=True),
        office.audit_head(),
        office.shards(),
        office.shard(0),
        office.shard_graph(),
        office.artefacts(),
        office.backups(),
        office.history(),
        office.lookup(nodes(ids[1])),
    ]
    assert [pickle.loads(pickle.dumps(item)) for item in json.loads(json.dumps(answers))] == answers


def test_an_unknown_id_is_reported_and_its_request_accepted(office: Office) -> None:
    with pytest.raises(UnknownIdError):
        office.plan(nodes("nobody"))
    plan = office.plan(nodes("nobody"), "report")
    assert (plan["unknown"], plan["unknown_ids"]) == (1, ["nobody"])

    made = office.submit(nodes("nobody"))
    assert made["state"] == "accepted" and made["impact"] == {
        "nodes": 0, "edges": 0, "features": 0, "labels": 0, "unknown": 1,
    }  # fmt: skip


def test_a_plan_serves_until_the_graph_moves_or_its_time_is_over(
    office: Office, clock: Clock, ids: Any
) -> None:
    first, second = office.plan(nodes(ids[2])), office.plan(nodes(ids[3]))
    office.submit(None, first["plan_id"])

    with pytest.raises(StalePlanError):
        office.submit(None, second["plan_id"])
    clock.forward(minutes=31)
    with pytest.raises(NotFoundError):
        office.submit(None, second["plan_id"])


def test_plans_are_kept_for_so_many_records_as_the_memory_is_for(
    office: Office, ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "settings", QUIET.model_copy(update={"max_planned": 20}))
    office.plans.clear()
    names = [office.plan(nodes(*ids[: 3 + n]))["plan_id"] for n in range(3)]
    assert list(office.plans) == names[1:], "6, 8 and 10 records: asked, and to be erased"

    big = office.plan(nodes(*ids[:15]))["plan_id"]

    assert list(office.plans) == [big]
    assert office.kept_plan(big)["records"]["nodes"] == 15
    office.let_go_of_plans(office.clock() + timedelta(hours=1))
    assert not office.plans


def test_a_predicate_needs_its_plan(office: Office) -> None:
    asked = {"kind": "predicate", "selector": {"where": "label = 0"}}
    with pytest.raises(RequestError):
        office.submit(asked)
    with pytest.raises(RequestError):
        office.submit(None)


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "everything", "selector": {}},
        {"kind": "nodes", "selector": {"pairs": []}},
        {"kind": "subject", "selector": {"subject_id": "ada"}},  # nobody is mapped
        {"kind": "nodes"},
    ],
)
def test_what_names_nothing_is_refused(office: Office, asked: dict[str, Any]) -> None:
    with pytest.raises(SelectorError):
        office.plan(asked)


def test_the_same_key_asks_once(office: Office, ids: Any) -> None:
    options = {"idempotency_key": "k1"}
    first = office.submit(nodes(ids[4]), options=options)

    assert office.submit(nodes(ids[4]), options=options)["request_id"] == first["request_id"]
    with pytest.raises(DuplicateError):
        office.submit(nodes(ids[5]), options=options)


def test_people_act_on_requests(office: Office, ids: Any) -> None:
    many = office.submit(nodes(*ids[6:30]), options={"requested_by": "ann"})
    key = many["request_id"]
    assert many["state"] == "needs_approval" and "approve" in many["actions"]

    with pytest.raises(ApprovalError):
        office.act(key, "approve", "ann")
    assert office.act(key, "approve", "bob")["state"] == "accepted"
    assert office.act(key, "hold", "bob", "a claim")["reason"] == "a claim"
    assert office.act(key, "release", "bob")["state"] == "accepted"
    assert office.act(key, "cancel", "ann")["state"] == "cancelled"
    with pytest.raises(TransitionError):
        office.act(key, "cancel", "ann")
    with pytest.raises(NotFoundError):
        office.act(key, "publish", "ann")
    with pytest.raises(NotFoundError):
        office.act("req_none", "cancel", "ann")


def test_pages_list_every_request_once(office: Office) -> None:
    everything = office.find(limit=500)["items"]
    seen: list[str] = []
    page = office.find(limit=2)
    while True:
        seen += [item["request_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        page = office.find(limit=2, cursor=page["next_cursor"])

    assert seen == [item["request_id"] for item in everything]
    assert {r["state"] for r in office.find(state="open")["items"]} <= {"accepted"}
    with pytest.raises(RequestError):
        office.find(state="forgotten")


def test_the_shard_graph_counts_every_boundary_edge_once(office: Office) -> None:
    graph, owner = office.system.engine.live.graph, office.system.partition.assignment
    ids = graph.ids.tolist()
    ends = [(ids[u], ids[v]) for u, v in zip(graph.src, graph.dst, strict=True)]
    wanted = sum(u in owner and v in owner and owner[u] != owner[v] for u, v in ends)

    found = office.shard_graph()

    assert sum(arc["weight"] for arc in found["arcs"]) == wanted
    assert all(arc["from"] < arc["to"] for arc in found["arcs"])
    with pytest.raises(NotFoundError):
        office.shard(99)


def test_requests_have_the_policy_of_the_service_where_they_name_none(
    bench: Workbench, pool: InlinePool, tmp_path: Any
) -> None:
    clock, settings = Clock(), ServeSettings(run_batches=False, serving_policy="exclude")
    home = served_home(bench, clock, tmp_path / "home")
    with Office(home, pool, clock, settings) as office:
        (node, *_) = office.system.graph.ids.tolist()

        made = office.submit(nodes(node))

        grant = office.mask_of(office.system.generation.number)
        assert (made["serving_policy"], grant.policy) == (None, "exclude")
        assert grant.stale == dict.fromkeys(made["shards"], "exclude")


def test_the_runner_carries_out_what_is_due_and_ends_with_the_office(
    bench: Workbench, pool: InlinePool, tmp_path: Any
) -> None:
    clock = Clock()
    home = served_home(bench, clock, tmp_path / "home")
    with Office(home, pool, clock, ServeSettings(poll_s=0.05)) as office:
        node = office.system.graph.ids.tolist()[0]
        made = office.submit(nodes(node), options={"priority": "urgent"})
        seen, after = [], 0
        while "complete" not in seen:
            events = office.events(made["request_id"], after, wait_s=30)
            seen += [event["action"] for event in events]
            after += len(events)
    assert seen[0] == "accept" and "publish" in seen

    with Office(home, pool, clock, QUIET) as again:
        assert again.request(made["request_id"])["state"] == "completed"


def test_an_office_that_is_started_again_grants_leases_while_it_trains_what_was_begun(
    bench: Workbench, pool: InlinePool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, may_train = Clock(), threading.Event()
    home = served_home(bench, clock, tmp_path / "home")
    with Office(home, pool, clock, QUIET) as office:
        node = office.system.graph.ids.tolist()[0]
        made = office.submit(nodes(node), options={"priority": "urgent"})
    plain = pool.map

    def held_back(*args: Any) -> Any:
        assert may_train.wait(60)
        return plain(*args)

    monkeypatch.setattr(pool, "map", held_back)
    late = threading.Timer(20, may_train.set)
    late.start()

    with Office(home, pool, clock, ServeSettings(poll_s=0.05)) as office:
        grant = office.lease("r", 1, 0)
        assert grant.ttl_s > 0 and grant.located is not None and len(grant.located.removed) == 1
        assert not may_train.is_set(), "it was opened only after it had trained"
        may_train.set()
        monkeypatch.undo()
        while not office.request(made["request_id"])["is_closed"]:
            time.sleep(0.05)
        assert office.request(made["request_id"])["state"] == "completed"
    late.cancel()


def test_a_person_counts_as_one_and_is_erased_by_their_id(
    bench: Workbench, pool: InlinePool, tmp_path: Any
) -> None:
    clock = Clock()
    home = served_home(bench, clock, tmp_path / "home")
    ada = {"kind": "subject", "selector": {"subject_id": "ada"}}
    bob = {"kind": "subject", "selector": {"subject_id": "bob"}}
    with Office(home, pool, clock, QUIET) as office:
        graph = office.system.graph
        rows = [("ada", node, "owner") for node in graph.ids.tolist()[:2]]
        office.system.set_subjects(SubjectMap.from_rows(rows, graph), None)

        assert office.lookup(ada) == {
            "found": 1, "unknown": 0, "gone": 0, "kind": "subject",
            "records": office.plan(ada)["records"],
        }  # fmt: skip
        assert office.lookup(bob)["unknown"] == 1
        made = office.submit(ada, options={"priority": "urgent"})
        assert made["kind"] == "subject" and made["impact"]["nodes"] == 2
        office.system.run()
        assert office.request(made["request_id"])["state"] == "completed"
        found = office.lookup(ada)
        assert (found["found"], found["unknown"], found["gone"]) == (0, 0, 1)
        log = office.audit(newest_first=True, limit=3)["items"]
        assert log[0]["action"] == "lookup" and "ada" not in json.dumps(log)


def test_an_office_that_lost_its_home_is_not_ready(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert office.info()["ready"]
    monkeypatch.setattr(office.ledger.lease, "is_lost", True)
    assert not office.info()["ready"]


def test_probes_keys_and_predictions_wait_for_nobody_who_works_on_the_state(office: Office) -> None:
    key = office.create_key("predictor", "test")["key"]
    made = office.submit(nodes("nobody-here"))["request_id"]
    asked = (
        office.info,
        office.metrics,
        lambda: office.gone(["nobody"]),
        lambda: office.authenticate(key),
        lambda: office.request(made),
        lambda: office.events(made),
    )
    with ThreadPoolExecutor(len(asked)) as threads, office.system.engine.locks.state:
        answers = [threads.submit(ask) for ask in asked]
        late = [number for number, answer in enumerate(answers) if _is_late(answer)]
    assert not late


def _is_late(answer: Future[Any]) -> bool:
    try:
        answer.result(timeout=5)
    except TimeoutError:
        return True
    return False
