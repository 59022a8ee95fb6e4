"""People and predicates, from the question to the models that never knew them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import (
    ApprovalError,
    DuplicateError,
    GoneError,
    GraphError,
    HoldError,
    RequestError,
    SelectorError,
    StalePlanError,
    UnknownIdError,
)
from cluster.graph import Graph
from cluster.readers.columns import Columns
from coordinator import erasing
from coordinator.acting import resolve_again
from coordinator.batch import Batch
from coordinator.erasure import Erasure
from coordinator.people import kept_map
from coordinator.requests.states import State
from coordinator.selectors.rules import load_rules
from coordinator.selectors.selector import Subject, Where
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, planted

WINDOWS = {"erasure.cancel_window": "24h", "erasure.batch_window": "6h"}
TYPES = {"acc": "account", "dev": "device"}
RULES: dict[str, Any] = {
    "node_types": {"account": "owned", "device": "shared", "other": "never"},
    "edge_types": {"uses": "refcount", "plain": "shallow"},
}
ROWS: list[tuple[str, str, Any]] = [
    ("ada", "acc-ada", "owner"),
    ("ada", "dev-2", "owner"),
    ("bob", "acc-bob", "owner"),
    ("bob", "dev-2", "owner"),
    ("eve", "acc-eve", "owner"),
]
NODES = ("acc-ada", "acc-bob", "acc-eve", "dev-1", "dev-2")
USES = [("acc-ada", "dev-1"), ("acc-ada", "dev-2"), ("acc-bob", "dev-2")]


def households() -> Graph:
    """Planted records, and three people's accounts and devices hung onto them."""
    records = planted(10, prefix="n")
    ids = [*map(str, records.features), *NODES]
    row = {name: at for at, name in enumerate(ids)}
    plain = [(str(u), str(v)) for u, v in sorted(records.edges, key=str)]
    plain += [(name, ids[at]) for at, name in enumerate(NODES)]
    pairs = [*plain, *USES]
    x = np.asarray([*records.features.values(), *[(1.0,) * 6] * len(NODES)], np.float32)
    kinds = [TYPES.get(name[:3], "other") for name in ids]
    return Graph.from_arrays(
        np.asarray([(row[u], row[v]) for u, v in pairs], np.int64).T,
        x,
        [records.labels.get(name) for name in ids],
        ids=ids,
        directed=True,
        columns=Columns(
            node={"type": np.asarray(kinds, object)},
            edge={"type": np.asarray(["plain"] * len(plain) + ["uses"] * len(USES), object)},
        ),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def system(bench: Workbench, clock: Clock) -> System:
    system = bench.fit(households(), WINDOWS, clock=clock)
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), load_rules(RULES))
    return system


def there(system: System) -> set[str]:
    """Which of the people's nodes an answer may read."""
    return {name for name in NODES if system.graph.has_node(name)}


def trained_on(system: System) -> set[str]:
    """Which of the people's nodes the published models know."""
    return {name for name in NODES if system.engine.live.graph.has_node(name)}


def later(system: System, clock: Clock) -> None:
    clock.forward(days=2)
    system.run()


# ---- people


def test_a_person_goes_with_what_only_they_own_and_leaves_the_map(
    system: System, clock: Clock, bench: Workbench
) -> None:
    before = kept_map(system.engine.ledger)
    plan = system.plan(Subject("ada"))
    request = system.submit(plan)

    assert (plan.kind, plan.records["nodes"], dict(plan.kept)) == (
        "subject", 2, {"kept: another subject owns it": 1},
    )  # fmt: skip
    assert plan.purges["subjects"] == 1 and plan.purges["graph"] == 1
    assert "'ada'" not in repr(plan) and "ada" not in str(plan.to_json())
    assert there(system) == {"acc-bob", "acc-eve", "dev-2"}
    later(system, clock)

    assert request.state == State.COMPLETED
    assert system.subjects is not None
    assert system.subjects.subjects.tolist() == ["bob", "eve"]
    after = kept_map(system.engine.ledger)
    assert after != before and after <= set(system.engine.store.keys())
    assert not before & set(system.engine.store.keys())
    assert not before & system.engine.ledger.registered()
    system.close()
    opened = bench.open(system.home, clock=clock)
    assert opened.subjects is not None and opened.subject_rules == load_rules(RULES)
    assert [r.state for r in opened.requests(subject="ada")] == [State.COMPLETED]
    assert opened.requests(subject="bob") == []


def test_what_two_people_share_goes_with_the_second_of_them(system: System, clock: Clock) -> None:
    system.submit(Subject("ada"))
    second = system.submit(Subject("bob"))

    assert there(system) == {"acc-eve"}
    assert second.record.records["nodes"] == 2
    later(system, clock)
    assert there(system) == {"acc-eve"}
    report = system.verify()
    assert report.ok and "subjects" in [check.name for check in report.checks]


def test_what_two_people_share_comes_back_when_the_first_cancels(
    system: System, clock: Clock
) -> None:
    first, second = system.submit(Subject("ada")), system.submit(Subject("bob"))

    first.cancel(by="ada")

    assert there(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}
    assert second.record.records["nodes"] == 1
    assert [event.action for event in second.events()] == ["accept", "resolve"]
    later(system, clock)
    assert there(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}
    assert system.subjects is not None and "ada" in system.subjects.subjects
    assert system.erase(Erasure(nodes=["dev-2"])).records["nodes"] == 1


def test_what_two_people_share_stays_with_the_one_who_may_still_cancel(
    system: System, clock: Clock
) -> None:
    first = system.submit(Subject("ada"))
    second = system.submit(Subject("bob"), priority="urgent")
    system.run()

    assert second.state == "completed"
    assert "dev-2" in system.engine.live.graph.ids.tolist()
    first.cancel(by="ada")
    assert {"acc-ada", "dev-1", "dev-2"} <= there(system)
    again = system.submit(Subject("ada"))
    later(system, clock)
    assert again.state == "completed"
    assert there(system) == {"acc-eve"}


def test_what_a_held_person_shares_is_masked_and_not_destroyed(
    system: System, clock: Clock, bench: Workbench
) -> None:
    held = system.submit(Subject("ada"))
    held.hold(by="legal", reason="claim 7")
    system.submit(Subject("bob"))

    assert there(system) == {"acc-eve"}
    later(system, clock)

    assert trained_on(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}
    system.close()
    opened = bench.open(system.home, clock=clock)
    assert there(opened) == {"acc-eve"}
    opened.request(held.request_id).release(by="legal")
    later(opened, clock)
    assert trained_on(opened) == {"acc-eve"}


def test_a_person_approved_late_goes_with_what_is_theirs_by_then(
    bench: Workbench, clock: Clock
) -> None:
    system = bench.fit(households(), WINDOWS | {"erasure.approve_above": 1}, clock=clock)
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), load_rules(RULES))
    waiting = system.submit(Subject("ada"), requested_by="desk")
    system.submit(Subject("bob"))

    waiting.approve(by="boss")

    assert there(system) == {"acc-eve"}
    assert waiting.record.records["nodes"] == 3


def test_a_person_asked_for_again_is_a_duplicate_once_they_are_forgotten(
    system: System, clock: Clock
) -> None:
    first = system.submit(Subject("ada"), external_request_id="dsr-1")
    same = system.submit(Subject("ada"), external_request_id="dsr-1")

    assert same.request_id == first.request_id
    with pytest.raises(DuplicateError):
        system.submit(Subject("bob"), external_request_id="dsr-1")
    later(system, clock)
    again = system.submit(Subject("ada"))
    assert again.state == State.DUPLICATE and again.record.duplicate_of == first.request_id
    assert system.erase(Subject("ada")).request_id == first.request_id


def test_nobody_of_that_name_is_an_error_or_completes_with_nothing_held(
    system: System, clock: Clock
) -> None:
    with pytest.raises(UnknownIdError, match="subject"):
        system.submit(Subject("nobody"))
    request = system.submit(Subject("nobody"), unknown="report")
    number = system.generation.number
    later(system, clock)

    assert request.state == State.COMPLETED
    assert (request.record.unknown, sum(request.record.records.values())) == (1, 0)
    assert system.generation.number == number


def test_a_person_without_nodes_left_still_leaves_the_map(system: System, clock: Clock) -> None:
    system.submit(Erasure(nodes=["acc-eve"]))
    request = system.submit(Subject("eve"))
    later(system, clock)

    assert request.state == State.COMPLETED
    assert system.subjects is not None and "eve" not in system.subjects.subjects


def test_an_urgent_erasure_of_a_person_answers_with_a_receipt(system: System) -> None:
    receipt = system.erase(Subject("bob"), regulation="ccpa", requested_by="desk")

    assert receipt.records["nodes"] == 1
    record = system.request(receipt.request_id).record
    assert (record.kind, record.regulation, record.requested_by) == ("subject", "ccpa", "desk")


def test_a_new_map_makes_plans_void_and_does_not_bring_back_who_was_forgotten(
    system: System, clock: Clock
) -> None:
    rows = SubjectMap.from_rows(ROWS, system.graph)
    plan = system.plan(Subject("bob"))
    system.erase(Subject("ada"))

    left_out = system.set_subjects(rows, load_rules(RULES))

    assert left_out == 2
    assert system.subjects is not None and "ada" not in system.subjects.subjects
    with pytest.raises(StalePlanError):
        system.submit(plan)


def test_a_map_with_who_was_forgotten_is_refused_where_that_is_asked(bench: Workbench) -> None:
    system = bench.fit(households(), {"erasure.rearrival": "block"})
    rows = SubjectMap.from_rows(ROWS, system.graph)
    system.set_subjects(rows, load_rules(RULES))
    system.erase(Subject("eve"))

    with pytest.raises(GoneError, match="eve"):
        system.set_subjects(rows, load_rules(RULES))


def test_people_need_a_map_that_fits(bench: Workbench) -> None:
    system = bench.fit(households())

    with pytest.raises(SelectorError, match="set_subjects"):
        system.plan(Subject("ada"))
    numbers = SubjectMap.from_rows([("ada", 11, "owner")], planted(10).graph())
    with pytest.raises(SelectorError, match="int"):
        system.set_subjects(numbers, None)


def test_a_killed_batch_of_a_person_ends_in_the_same_map(
    system: System, clock: Clock, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = system.submit(Subject("ada"))
    clock.forward(days=2)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(system.engine, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        system.run()
    assert system.subjects is not None and "ada" in system.subjects.subjects
    system.close()
    opened = bench.open(system.home, clock=clock)

    assert opened.request(request.request_id).state == State.COMPLETED
    assert opened.subjects is not None and "ada" not in opened.subjects.subjects
    assert {key for kind, key in set(opened.engine.store.keys()) if kind == "subjects"} == {
        key for _, key in kept_map(opened.engine.ledger)
    }


# ---- what several requests name


def test_a_person_asked_for_twice_is_forgotten_though_one_of_the_two_is_cancelled(
    system: System, clock: Clock
) -> None:
    first, second = system.submit(Subject("ada")), system.submit(Subject("ada"))

    assert second.record.records == first.record.records
    first.cancel(by="ada")

    assert there(system) == {"acc-bob", "acc-eve", "dev-2"}
    later(system, clock)
    assert second.state == State.COMPLETED
    assert trained_on(system) == {"acc-bob", "acc-eve", "dev-2"}


def test_both_requests_of_one_person_complete_in_one_batch(system: System, clock: Clock) -> None:
    first, second = system.submit(Subject("ada")), system.submit(Subject("ada"))
    later(system, clock)

    assert [first.state, second.state] == [State.COMPLETED] * 2
    assert [item.record.records["nodes"] for item in (first, second)] == [2, 0]


def test_a_person_takes_what_a_waiting_request_names_as_well(system: System, clock: Clock) -> None:
    plain = system.submit(Erasure(nodes=["acc-bob"]))
    person = system.submit(Subject("bob"), priority="urgent")
    system.run()

    assert person.state == State.COMPLETED
    assert trained_on(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}
    plain.cancel(by="desk")
    later(system, clock)
    assert trained_on(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}


def test_what_only_a_person_used_goes_with_them_though_their_account_went_before(
    system: System, clock: Clock
) -> None:
    rows = SubjectMap.from_rows(ROWS, system.graph)
    request = system.submit(Subject("ada"))
    system.erase(Erasure(nodes=["acc-ada"]))  # nothing leads from ada to dev-1 any more

    assert there(system) == {"acc-bob", "acc-eve", "dev-2"}
    system.set_subjects(rows, load_rules(RULES))
    assert there(system) == {"acc-bob", "acc-eve", "dev-2"}
    later(system, clock)
    assert request.state == State.COMPLETED
    assert trained_on(system) == {"acc-bob", "acc-eve", "dev-2"}


def test_what_two_people_used_goes_with_the_second_though_others_ask_for_their_accounts(
    system: System, clock: Clock
) -> None:
    accounts = [row for row in ROWS if row[1].startswith("acc")]
    system.set_subjects(SubjectMap.from_rows(accounts, system.graph), load_rules(RULES))
    system.submit(Subject("ada"))
    system.submit(Erasure(nodes=["acc-ada", "acc-bob"]))
    system.submit(Subject("bob"))

    assert there(system) == {"acc-eve"}
    later(system, clock)
    assert trained_on(system) == {"acc-eve"}


def test_what_a_waiting_person_is_left_alone_with_is_masked_as_soon_as_the_others_are_forgotten(
    system: System, clock: Clock
) -> None:
    accounts = [row for row in ROWS if row[1].startswith("acc")]
    system.set_subjects(SubjectMap.from_rows(accounts, system.graph), load_rules(RULES))
    request = system.submit(Subject("ada"))
    assert there(system) == {"acc-bob", "acc-eve", "dev-2"}

    system.erase(Erasure(nodes=["acc-bob"]))

    assert there(system) == {"acc-eve"}
    assert trained_on(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}
    assert request.record.records["nodes"] == 3
    assert [event.action for event in request.events()] == ["accept", "resolve"]
    later(system, clock)
    assert trained_on(system) == {"acc-eve"}


@pytest.mark.parametrize("lost", ["the look at who waits", "all after publication"])
def test_a_home_opened_after_a_publication_looks_at_who_waits(
    system: System, clock: Clock, bench: Workbench, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [row for row in ROWS if row[1].startswith("acc")]
    system.set_subjects(SubjectMap.from_rows(accounts, system.graph), load_rules(RULES))
    system.submit(Subject("ada"))
    place = (erasing, "resolve_again") if lost == "the look at who waits" else (Batch, "_purge")
    with monkeypatch.context() as patch:
        patch.setattr(*place, _dies)
        with pytest.raises(OSError, match="gone"):
            system.erase(Erasure(nodes=["acc-bob"]))
    system.close()

    opened = bench.open(system.home, clock=clock)

    assert there(opened) == {"acc-eve"}
    later(opened, clock)
    assert trained_on(opened) == {"acc-eve"}


def _dies(*_: object, **__: object) -> None:
    raise OSError("gone")


def test_what_a_corrected_map_gives_to_nobody_comes_back(system: System) -> None:
    wrong = [*ROWS, ("eve", "dev-1", "owner")]
    corrected = SubjectMap.from_rows(ROWS, system.graph)
    rules = load_rules(RULES | {"node_types": {**RULES["node_types"], "device": "owned"}})
    system.set_subjects(SubjectMap.from_rows(wrong, system.graph), rules)
    system.submit(Subject("eve"))
    system.erase(Erasure(nodes=["acc-ada"]))
    assert there(system) == {"acc-bob", "dev-2"}

    system.set_subjects(corrected, rules)

    assert there(system) == {"acc-bob", "dev-1", "dev-2"}


def test_a_predicate_selects_what_another_request_waits_to_forget(
    system: System, clock: Clock
) -> None:
    plain = system.submit(Erasure(nodes=["acc-bob"]))
    accounts = system.submit(system.plan(Where("type = 'account'")))

    assert accounts.record.records["nodes"] == 3
    plain.cancel(by="desk")
    later(system, clock)
    assert accounts.state == State.COMPLETED
    assert trained_on(system) == {"dev-1", "dev-2"}


def test_a_co_owner_past_the_window_may_still_be_rejected_with_all_that_is_theirs(
    system: System, clock: Clock
) -> None:
    first = system.submit(Subject("ada"), requested_by="desk")
    clock.forward(hours=25)
    system.submit(Subject("bob"), priority="urgent")
    system.run()

    assert first.state == State.ACCEPTED
    first.hold(by="legal", reason="claim 7")
    first.reject(by="legal", reason="must be kept")
    assert there(system) == trained_on(system) == {"acc-ada", "acc-eve", "dev-1", "dev-2"}


def test_what_belongs_to_a_person_on_hold_is_kept_from_whoever_names_it(
    bench: Workbench, clock: Clock
) -> None:
    system = bench.fit(households(), WINDOWS, clock=clock)
    rows = [*ROWS, ("bob", "acc-ada", "owner")]  # an account of two, which goes with either
    system.set_subjects(SubjectMap.from_rows(rows, system.graph), load_rules(RULES))
    held = system.submit(Subject("ada"))
    held.hold(by="legal", reason="claim 7")
    second = system.submit(Subject("bob"))
    same = system.submit(Subject("ada"))
    later(system, clock)

    assert (second.state, same.state) == (State.ACCEPTED, State.ACCEPTED)
    with pytest.raises(HoldError, match=held.request_id):
        system.erase(Subject("ada"))
    assert there(system) == {"acc-eve"} and trained_on(system) == set(NODES)
    held.release(by="legal")
    system.run()
    assert [item.state for item in (held, second, same)] == [State.COMPLETED] * 3
    assert trained_on(system) == {"acc-eve"}


def test_a_map_and_what_it_changes_in_waiting_requests_are_one_step(
    system: System, clock: Clock, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = system.submit(Subject("eve"))
    rows = SubjectMap.from_rows([*ROWS, ("eve", "dev-1", "owner")], system.engine.live.graph)
    rules = load_rules(RULES | {"node_types": {**RULES["node_types"], "device": "owned"}})
    committed: list[str] = []

    def die(*args: Any, **kwargs: Any) -> None:
        resolve_again(*args, **kwargs)
        committed.append(system.engine.ledger.setting("subjects"))
        raise KeyboardInterrupt

    monkeypatch.setattr(erasing, "resolve_again", die)
    before = system.engine.ledger.setting("subjects")
    with pytest.raises(KeyboardInterrupt):
        system.set_subjects(rows, rules)
    assert committed == [before] and there(system) == set(NODES) - {"acc-eve"}
    monkeypatch.undo()
    system.close()
    opened = bench.open(system.home, clock=clock)

    assert opened.subjects is not None and opened.subjects.nodes_of("eve", "owner") == ["acc-eve"]
    opened.set_subjects(rows, rules)
    assert there(opened) == set(NODES) - {"acc-eve", "dev-1"}
    assert opened.request(request.request_id).record.records["nodes"] == 2


def test_what_is_left_to_the_last_person_keeps_nobody_from_being_forgotten(
    bench: Workbench, clock: Clock
) -> None:
    system = bench.fit(households(), WINDOWS, clock=clock)
    rules = load_rules(RULES | {"max_nodes": 2})
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), rules)
    first = system.submit(Subject("ada"))
    second = system.submit(Subject("bob"), priority="urgent")
    system.run()  # leaves three nodes to ada, one more than the rules allow

    assert second.state == State.COMPLETED
    later(system, clock)
    assert first.record.records["nodes"] == 3


def test_a_map_that_gives_a_waiting_person_too_much_is_refused(system: System) -> None:
    system.submit(Subject("eve"))
    before = system.subjects
    more = [*ROWS, ("eve", "acc-ada", "owner"), ("eve", "acc-bob", "owner")]

    with pytest.raises(SelectorError, match="more than 2 nodes"):
        rows = SubjectMap.from_rows(more, system.engine.live.graph)
        system.set_subjects(rows, load_rules(RULES | {"max_nodes": 2}))

    assert system.subjects == before and system.subject_rules == load_rules(RULES)
    assert there(system) == set(NODES) - {"acc-eve"}


# ---- predicates


def test_a_predicate_is_taken_only_with_its_plan(system: System, clock: Clock) -> None:
    where = Where("type = 'account'")
    with pytest.raises(RequestError, match="plan"):
        system.submit(where)
    with pytest.raises(RequestError, match="plan"):
        system.erase(where)

    request = system.submit(system.plan(where), external_request_id="w-1")

    assert request.record.kind == "predicate"
    assert request.record.records["nodes"] == 3
    assert there(system) == {"dev-1", "dev-2"}
    later(system, clock)
    assert request.state == State.COMPLETED
    again = system.submit(system.plan(where), external_request_id="w-1")
    assert again.request_id == request.request_id


def test_a_predicate_that_selects_nothing_completes(system: System, clock: Clock) -> None:
    request = system.submit(system.plan(Where("type = 'ghost'")))
    later(system, clock)

    assert request.state == State.COMPLETED
    assert sum(request.record.records.values()) == 0


# ---- bad input


def test_what_is_wrong_is_refused_and_changes_nothing(system: System, tmp_path: Path) -> None:
    epoch = system.engine.ledger.epoch()
    for wrong, error in [
        (lambda: system.plan(Where("nope = 1")), SelectorError),
        (lambda: system.plan("ada"), GraphError),
        (lambda: system.submit(Subject("ada"), regulation="hipaa"), RequestError),
        (lambda: system.submit(Subject("ada"), priority="soon"), RequestError),
        (lambda: system.request("req_nope"), RequestError),
    ]:
        with pytest.raises(error):
            wrong()  # type: ignore[no-untyped-call]
    assert system.engine.ledger.epoch() == epoch
    assert system.requests() == []


def test_a_large_erasure_needs_a_second_person_who_is_another(
    bench: Workbench,
) -> None:
    system = bench.fit(households(), {"erasure.approve_above": 1})
    many = Erasure(nodes=["acc-ada", "acc-bob"])

    with pytest.raises(ApprovalError, match="four eyes"):
        system.erase(many, requested_by="Ada", approved_by="ada ")
    with pytest.raises(ApprovalError):
        system.erase(many, approved_by="boss")
    receipt = system.erase(many, requested_by="ada", approved_by="boss")

    assert system.request(receipt.request_id).record.approved_by == "boss"
