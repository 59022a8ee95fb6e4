"""Files of ids: one parent, a part for each id, all or nothing before, and nothing twice after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import coordinator.files as files
from cluster.errors import (
    ApprovalError,
    DuplicateError,
    HoldError,
    SelectorError,
    TransitionError,
)
from coordinator.erasure import Erasure
from coordinator.parents import parent_state
from coordinator.requests.states import CLOSED, State
from coordinator.selectors.idfile import IdFile
from coordinator.selectors.rules import load_rules
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, planted, training_ids
from tests.coordinator.test_asking import ROWS, RULES, households

WINDOWS = {"erasure.cancel_window": "24h", "erasure.batch_window": "6h"}
S = State


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def system(bench: Workbench, clock: Clock) -> System:
    return bench.fit(planted(10), WINDOWS, clock=clock)


def write(path: Path, ids: list[Any], header: str = "id") -> Path:
    path.write_text("\n".join([header, *map(str, ids)]) + "\n")
    return path


def counts(system: System, parent_id: str) -> dict[State, int]:
    return system.engine.ledger.requests.child_counts(parent_id)


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ({}, S.COMPLETED),
        ({S.ACCEPTED: 3}, S.ACCEPTED),
        ({S.ACCEPTED: 1, S.RUNNING: 2}, S.ACCEPTED),
        ({S.RUNNING: 1, S.COMPLETED: 2, S.DUPLICATE: 1}, S.RUNNING),
        ({S.PURGING: 1, S.COMPLETED: 2}, S.PURGING),
        ({S.FAILED: 1, S.ON_HOLD: 1, S.RUNNING: 1}, S.FAILED),
        ({S.ON_HOLD: 1, S.NEEDS_APPROVAL: 1}, S.ON_HOLD),
        ({S.NEEDS_APPROVAL: 1, S.ACCEPTED: 1}, S.NEEDS_APPROVAL),
        ({S.COMPLETED: 1, S.CANCELLED: 9}, S.COMPLETED),
        ({S.CANCELLED: 2, S.DUPLICATE: 1}, S.CANCELLED),
        ({S.REJECTED: 2}, S.REJECTED),
        ({S.DUPLICATE: 2}, S.DUPLICATE),
        ({S.RUNNING: 0, S.COMPLETED: 1}, S.COMPLETED),
    ],
)
def test_the_state_of_a_parent_follows_from_its_parts(
    parts: Mapping[State, int], state: State
) -> None:
    assert parent_state(parts) == state


@given(st.dictionaries(st.sampled_from(list(State)), st.integers(1, 3), min_size=1))
def test_a_parent_is_closed_exactly_when_all_its_parts_are(parts: dict[State, int]) -> None:
    assert (parent_state(parts) in CLOSED) == (parts.keys() <= CLOSED)
    assert parent_state(parts) in parts


def test_every_id_is_a_request_of_its_own_and_all_are_done_in_one_batch(
    system: System, clock: Clock, tmp_path: Path
) -> None:
    nodes = training_ids(system)[:5]
    stages: list[tuple[str, int, int]] = []
    file = IdFile(write(tmp_path / "ids.csv", [*nodes, nodes[0]]), "nodes")

    parent = system.submit_file(
        file, regulation="ccpa", requested_by="desk", progress=lambda *a: stages.append(a)
    )

    record, parts = parent.record, system.requests(parent_id=parent.request_id)
    assert (record.kind, record.state, record.regulation) == ("file", S.ACCEPTED, "ccpa")
    assert record.records["nodes"] == 5 and len(parts) == 5
    assert {part.record.regulation for part in parts} == {"ccpa"}
    assert all(not system.graph.has_node(node) for node in nodes)
    assert stages[-1] == ("accepting", 5, 5)
    clock.forward(hours=31)
    assert len(system.run()) == 1
    assert {part.state for part in parts} == {S.COMPLETED}
    assert parent.state == S.COMPLETED and parent.record.completed_at == clock.now
    assert [event.state for event in parent.events()] == [S.RECEIVED, S.ACCEPTED, S.COMPLETED]
    assert all(part.receipt is not None for part in parts)


def test_edges_features_labels_and_people_come_in_files_too(
    bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    system = bench.fit(households(), WINDOWS, clock=clock)
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), load_rules(RULES))
    lines = {
        "edges": ("src,dst", ["acc-ada,dev-1"]),
        "features": ("id,column", ["dev-1,f1", "acc-eve,"]),
        "labels": ("id", ["acc-eve"]),
        "subjects": ("subject_id", ["ada", "bob"]),
    }
    parents = {
        kind: system.submit_file(IdFile(write(tmp_path / kind, rows, header), kind))  # type: ignore[arg-type]
        for kind, (header, rows) in lines.items()
    }

    assert not any(system.graph.has_node(name) for name in ("acc-ada", "acc-bob", "dev-2"))
    of_people = system.requests(parent_id=parents["subjects"].request_id)
    assert {request.record.kind for request in of_people} == {"subject"}
    clock.forward(days=2)
    system.run()
    assert {parent.state for parent in parents.values()} == {S.COMPLETED}
    assert system.subjects is not None and system.subjects.subjects.tolist() == ["eve"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("node\n11\n", "no column 'id'"),
        ("id\n11\nada\n", "line 3"),
        ("id\n11\n\n", "line 3"),
        ("id\n", "nothing to erase"),
        ("id\n11\n12\n", "unknown='report'"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_is_accepted(
    system: System, tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "ids.csv"
    path.write_text(text)

    with pytest.raises(SelectorError, match=match):
        system.submit_file(IdFile(path, "nodes"))
    assert system.requests() == []
    assert system.graph is system.engine.live.graph


def test_unknown_ids_are_skipped_and_counted_where_that_is_asked(
    system: System, tmp_path: Path
) -> None:
    node = training_ids(system)[0]
    path = write(tmp_path / "ids.csv", [node, 12, 13])

    parent = system.submit_file(IdFile(path, "nodes"), unknown="report")
    nothing = system.submit_file(
        IdFile(write(tmp_path / "none.csv", [12, 13]), "nodes"), unknown="report"
    )

    assert (parent.record.unknown, parent.record.records["nodes"]) == (2, 1)
    assert (nothing.state, nothing.record.unknown) == (S.COMPLETED, 2)


def test_an_interrupted_intake_goes_on_with_the_same_file_and_asks_nothing_twice(
    system: System, clock: Clock, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = training_ids(system)[:7]
    file = IdFile(write(tmp_path / "ids.csv", nodes), "nodes")
    monkeypatch.setattr(files, "COMMIT", 2)
    submit, calls = system.erasing.submit, [0]

    def die_later(asks: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return submit(asks)

    monkeypatch.setattr(system.erasing, "submit", die_later)
    with pytest.raises(KeyboardInterrupt):
        system.submit_file(file, external_request_id="drop-7")
    (half,) = system.requests(kind="file")
    assert half.state == S.RECEIVED and sum(counts(system, half.request_id).values()) == 4
    system.close()
    opened = bench.open(system.home, clock=clock)

    parent = opened.submit_file(file, external_request_id="drop-7")
    again = opened.submit_file(file, external_request_id="drop-7")

    assert parent.request_id == half.request_id == again.request_id
    assert counts(opened, parent.request_id) == {S.ACCEPTED: 7}
    assert parent.record.records["nodes"] == 7
    clock.forward(days=2)
    opened.run()
    assert parent.state == S.COMPLETED
    write(tmp_path / "ids.csv", nodes[:1])
    with pytest.raises(DuplicateError, match="drop-7"):
        opened.submit_file(file, external_request_id="drop-7")


def test_an_unfinished_file_is_found_again_without_an_id_of_its_own_or_cancelled(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = IdFile(write(tmp_path / "ids.csv", training_ids(system)[:3]), "nodes")

    def die(asks: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(system.erasing, "submit", die)
        with pytest.raises(KeyboardInterrupt):
            system.submit_file(file)
    (half,) = system.requests(kind="file")
    with pytest.raises(TransitionError, match="submit the same file"):
        half.expedite()
    half.cancel()
    assert half.state == S.CANCELLED
    second = system.submit_file(file)
    assert second.request_id != half.request_id and second.state == S.ACCEPTED


def test_the_whole_file_decides_on_approval_and_one_approval_is_for_all(
    bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    system = bench.fit(planted(10), WINDOWS | {"erasure.approve_above": 2}, clock=clock)
    nodes = training_ids(system)[:3]
    file = IdFile(write(tmp_path / "ids.csv", nodes), "nodes")
    with pytest.raises(ApprovalError, match="requested_by"):
        system.submit_file(file)
    with pytest.raises(ApprovalError, match="four eyes"):
        system.submit_file(file, requested_by="ada", approved_by="ADA")
    assert system.requests() == []

    parent = system.submit_file(file, requested_by="ada")

    assert parent.state == S.NEEDS_APPROVAL
    assert counts(system, parent.request_id) == {S.NEEDS_APPROVAL: 3}
    assert system.graph.has_node(nodes[0])
    with pytest.raises(ApprovalError):
        parent.approve(by="ada")
    assert parent.approve(by="boss").state == S.ACCEPTED
    assert counts(system, parent.request_id) == {S.ACCEPTED: 3}
    assert not any(system.graph.has_node(node) for node in nodes)


def test_an_approved_file_needs_nobody_more(bench: Workbench, clock: Clock, tmp_path: Path) -> None:
    system = bench.fit(planted(10), WINDOWS | {"erasure.approve_above": 2}, clock=clock)
    file = IdFile(write(tmp_path / "ids.csv", training_ids(system)[:3]), "nodes")

    parent = system.submit_file(file, requested_by="ada", approved_by="boss")

    assert parent.state == S.ACCEPTED and parent.record.approved_by == "boss"


def test_a_cancelled_file_is_read_again_in_all_its_parts(
    system: System, clock: Clock, tmp_path: Path
) -> None:
    nodes = training_ids(system)[:3]
    parent = system.submit_file(IdFile(write(tmp_path / "ids.csv", nodes), "nodes"))

    parent.cancel(by="desk")

    assert parent.state == S.CANCELLED
    assert counts(system, parent.request_id) == {S.CANCELLED: 3}
    assert system.graph is system.engine.live.graph
    clock.forward(days=3)
    assert system.run() == []


def test_a_file_is_cancelled_as_a_whole_or_not_at_all(
    system: System, clock: Clock, tmp_path: Path
) -> None:
    nodes = training_ids(system)[:3]
    parent = system.submit_file(IdFile(write(tmp_path / "ids.csv", nodes), "nodes"))
    part = system.requests(parent_id=parent.request_id)[0]
    clock.forward(hours=25)
    with pytest.raises(TransitionError, match="cancelled until"):
        parent.cancel()
    part.hold(by="legal", reason="claim 7")
    assert parent.state == S.ON_HOLD
    clock.forward(hours=8)
    system.run()

    assert counts(system, parent.request_id) == {S.ON_HOLD: 1, S.COMPLETED: 2}
    assert parent.state == S.ON_HOLD
    parent.release(by="legal")
    clock.forward(days=1)
    system.run()
    assert parent.state == S.COMPLETED
    with pytest.raises(TransitionError, match="completed"):
        parent.cancel()
    with pytest.raises(HoldError):
        part.hold(by="legal", reason="late")


def test_a_held_file_survives_a_restart_masked_and_undone(
    system: System, clock: Clock, bench: Workbench, tmp_path: Path
) -> None:
    nodes = training_ids(system)[:2]
    parent = system.submit_file(IdFile(write(tmp_path / "ids.csv", nodes), "nodes"))
    parent.hold(by="legal", reason="claim 7")
    system.close()
    opened = bench.open(system.home, clock=clock)
    other = opened.submit(Erasure(nodes=[training_ids(opened)[0]]))
    clock.forward(days=2)

    opened.run()

    assert opened.request(parent.request_id).state == S.ON_HOLD
    assert other.state == S.COMPLETED
    assert not opened.graph.has_node(nodes[0]) and opened.engine.live.graph.has_node(nodes[0])


def test_an_expedited_file_is_done_at_once_and_extended_in_all_its_parts(
    system: System, tmp_path: Path
) -> None:
    parent = system.submit_file(
        IdFile(write(tmp_path / "ids.csv", training_ids(system)[:2]), "nodes")
    )
    due = parent.record.due_at

    parent.extend(by="desk", reason="complex")
    parent.expedite(by="desk")
    system.run()

    assert parent.record.due_at > due
    assert {p.record.due_at for p in system.requests(parent_id=parent.request_id)} == {
        parent.record.due_at
    }
    assert parent.state == S.COMPLETED


def test_what_was_asked_before_is_a_duplicate_within_a_file(system: System, tmp_path: Path) -> None:
    a, b = training_ids(system)[:2]
    system.erase(Erasure(labels=[a]))
    file = IdFile(write(tmp_path / "ids.csv", [a, b]), "labels")

    parent = system.submit_file(file)

    assert counts(system, parent.request_id) == {S.ACCEPTED: 1, S.DUPLICATE: 1}
    assert parent.state == S.ACCEPTED


def test_a_file_names_what_another_request_waits_to_forget(
    system: System, clock: Clock, tmp_path: Path
) -> None:
    first, second = training_ids(system)[:2]
    plain = system.submit(Erasure(nodes=[first]))
    asked = system.submit_file(IdFile(write(tmp_path / "f.csv", [first, second]), "nodes"))

    assert counts(system, asked.request_id) == {S.ACCEPTED: 2}
    plain.cancel(by="desk")
    clock.forward(days=2)
    system.run()

    assert asked.state == S.COMPLETED
    live = system.engine.live.graph
    assert not live.has_node(first) and not live.has_node(second)
