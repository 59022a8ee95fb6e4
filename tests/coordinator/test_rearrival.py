"""Records that were erased and arrive again: kept back, refused, or let in as new ones."""

from __future__ import annotations

import pytest

from cluster.errors import RearrivalError
from cluster.segments import graph_digest
from coordinator.erasure import Erasure
from coordinator.rearrival import admit
from coordinator.restore import restore
from coordinator.system import System
from coordinator.tombstones import without_erased
from tests.coordinator.systems import Records, Workbench, planted, training_ids


@pytest.fixture
def records() -> Records:
    return planted(10)


@pytest.fixture
def system(bench: Workbench, records: Records) -> System:
    return bench.fit(records)


def erase_each_kind(system: System, records: Records) -> Erasure:
    """A node, an edge and labels and features of others."""
    node, labelled, *_ = training_ids(system)
    edge = next(e for e in sorted(records.edges) if node not in e and labelled not in e)
    asked = Erasure([node], [edge], {labelled: ["f1", "f4"]}, [labelled])
    system.erase(asked)
    return asked


def test_quarantine_returns_the_rest_and_counts_what_it_keeps_back(
    system: System, records: Records
) -> None:
    asked = erase_each_kind(system, records)

    arrival = admit(system.engine.ledger, records.graph(), "quarantine")

    cells = sum(records.features[i][column] != 0 for i in asked.features for column in (1, 4))
    assert arrival.kept_back == {"nodes": 1, "edges": 1, "features": cells, "labels": 1}
    assert set(arrival.readmitted.values()) == {0}
    assert graph_digest(arrival.graph) == graph_digest(records.without(asked).graph())


def test_block_refuses_the_graph_and_names_counts_and_ten_ids_at_most(
    system: System, records: Records
) -> None:
    nodes = training_ids(system)[:12]
    system.erase(Erasure(nodes=nodes))

    with pytest.raises(RearrivalError, match=r"\(12 nodes; nodes ") as caught:
        admit(system.engine.ledger, records.graph(), "block")

    assert sum(repr(node) in str(caught.value).split() or f"{node}," in str(caught.value)
               or f"{node})" in str(caught.value) for node in nodes) == 10  # fmt: skip


@pytest.mark.parametrize("policy", ["quarantine", "block", "allow_as_new"])
def test_a_graph_without_erased_records_passes_as_it_is(
    policy: str, system: System, records: Records
) -> None:
    erase_each_kind(system, records)
    clean = system.graph

    arrival = admit(system.engine.ledger, clean, policy)  # type: ignore[arg-type]

    assert arrival.graph is clean
    assert set(arrival.kept_back.values()) == set(arrival.readmitted.values()) == {0}


def test_what_is_allowed_as_new_is_no_longer_filtered_and_can_be_erased_again(
    system: System, records: Records
) -> None:
    asked = erase_each_kind(system, records)
    ledger, graph = system.engine.ledger, records.graph()
    epoch = ledger.epoch()

    arrival = admit(ledger, graph, "allow_as_new")

    assert arrival.graph is graph
    assert arrival.readmitted["nodes"] == 1
    assert ledger.epoch() == epoch + 1
    assert without_erased(ledger, graph) is graph
    assert system.erasing.forgotten(asked.nodes) == []
    assert [row.action for row in ledger.audit.rows()][-1] == "readmit"
    assert admit(ledger, graph, "block").graph is graph


def test_one_cell_that_is_allowed_does_not_let_in_the_others(
    system: System, records: Records
) -> None:
    node = next(i for i in training_ids(system) if min(records.features[i][:2]) > 0)
    system.erase(Erasure(features={node: ["f0", "f1"]}))
    ledger, graph = system.engine.ledger, records.graph()
    partly = records.without(Erasure(features={node: ["f1"]})).graph()

    assert admit(ledger, partly, "allow_as_new").readmitted["features"] == 1

    assert admit(ledger, graph, "quarantine").kept_back["features"] == 1


def test_a_backup_from_before_is_still_filtered_of_what_was_let_in_anew(
    system: System, bench: Workbench, records: Records
) -> None:
    gone = training_ids(system)[0]
    system.backup("before")
    system.erase(Erasure(nodes=[gone]))
    admit(system.engine.ledger, records.graph(), "allow_as_new")
    system.close()

    restore(system.home, "before", pool=bench.pool)

    assert not bench.open(system.home).graph.has_node(gone)
