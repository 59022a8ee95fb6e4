"""After ``completed`` no byte of an erased record is anywhere; before it, each is where it should.

What cannot hold a planted value, and why: ``graph`` (schema and digests), ``submodel``, ``slice``,
``aggregator``, ``posteriors`` (numbers computed from many rows), ``HOME``, ``LOCK``,
``config.yaml``, ``keys`` (random or settings), the ledger (keyed hashes and ciphers; the control
there is that the payload's key opens one that names the record).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.digest import NodeId
from coordinator.erasure import Erasure
from coordinator.people import kept_map
from coordinator.reconcile import Reconciler
from coordinator.requests.states import State
from coordinator.selectors.selector import Subject
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.bytesearch import (
    Planted,
    id_patterns,
    open_files,
    row_patterns,
    search,
    search_file,
    search_tree,
)
from tests.coordinator.cities import City, choose, in_the_workers
from tests.coordinator.clock import Clock
from tests.coordinator.ledger.conftest import server  # noqa: F401
from tests.coordinator.ledger.postgres import Server
from tests.coordinator.systems import Workbench, planted, training_ids

WINDOWS = {"erasure.cancel_window": "1h", "erasure.batch_window": "1h", "erasure.backoff": "1s"}
DERIVED = {"submodel", "slice", "aggregator", "posteriors", "graph"}
WITHOUT = {"HOME", "LOCK", "config.yaml", "keys", "ledger.db", "ledger.db-wal", "ledger.db-shm"}
ASKED, LONE, STAYS = "mwanza-0001", "mwanza-0002", "mwanza-0003"
DESIGNS: dict[str, tuple[str, dict[str, Any]]] = {
    "learned, halo, slices": (
        "str",
        {
            "aggregator.kind": "learned",
            "aggregator.ridge_width": 16,
            "partition.halo.hops": 1,
            "partition.halo.budget": None,
            "shards.slices": 2,
        },
    ),
    "optimal, sparse": ("int", {"aggregator.kind": "optimal"}),
    "merge, sparse, slices": (
        "uuid",
        {"aggregator.kind": "merge", "aggregator.ridge_width": 16, "shards.slices": 3},
    ),
    "similarity, phantoms": ("str", {"aggregator.kind": "similarity", "shards.repair": "mixup"}),
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Everything that is logged, at DEBUG, with tracebacks."""
    path = tmp_path / "debug.log"
    handler = logging.FileHandler(path)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield path
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


def fail_once(monkeypatch: pytest.MonkeyPatch, node: NodeId) -> None:
    """The next training fails with an error that names the node."""
    build, left = Reconciler._build, [1]

    def failing(self: Reconciler, *arguments: Any) -> Any:
        if left.pop() if left else 0:
            raise KeyError(node)
        return build(self, *arguments)

    monkeypatch.setattr(Reconciler, "_build", failing)


def plant_people(system: System, owned: NodeId, node: NodeId, stays: NodeId) -> Planted:
    """Map three people; those returned go: one is asked for, the other only owns what goes."""
    rows: list[Any] = [(ASKED, owned, "owner"), (ASKED, node, "mention")]
    rows += [(LONE, node, "owner"), (STAYS, stays, "owner"), (STAYS, node, "mention")]
    system.set_subjects(SubjectMap.from_rows(rows, system.graph), None)
    return Planted({name: id_patterns(name) for name in (ASKED, LONE)})


def mapped(system: System) -> list[str]:
    """People in the stored map, read back from its file."""
    ((kind, key),) = kept_map(system.engine.ledger)
    found: list[str] = SubjectMap.from_blob(system.engine.store.get(kind, key)).subjects.tolist()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_nothing_of_an_erased_record_is_left_in_any_byte(
    design: str, bench: Workbench, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, overrides = DESIGNS[design]
    city, clock = City(kind, sparse="sparse" in design), Clock()
    system = bench.fit(city.graph(), WINDOWS | overrides, clock=clock)
    node, edge, features, cancelled = choose(system, city)
    u, v = city.edges[edge]
    planted = city.planted(node, edge, features)
    refused = Planted({"id": id_patterns(cancelled)})
    owned = training_ids(system)[3]
    people = plant_people(system, owned, node, cancelled)
    system.predict(city.ids[:5])
    system.backup("before")

    # each class of file that should hold it does
    before = search(system.home, planted)
    everything = set(planted.patterns)
    assert before["segment"] == everything
    assert before["content"] >= everything - {"note"}
    assert before["partition"] == before["subjects"] == {"id"}
    assert all(not before.get(name) for name in DERIVED | WITHOUT), before
    assert search_tree(system.home / "backups", planted)
    assert set(in_the_workers(system, planted)) >= {"id", "row", "features"}
    assert set(people.patterns) <= set(mapped(system))
    assert {name: found for name, found in search(system.home, people).items() if found} == {
        "subjects": set(people.patterns), "backup": set(people.patterns),
    }  # fmt: skip

    # a masked view, a cancelled request, a batch that fails and is tried again
    back = system.submit(Erasure(nodes=[cancelled]))
    requests = [
        system.submit(Erasure(nodes=[node])),
        system.submit(Erasure(edges=[(city.ids[u], city.ids[v])])),
        system.submit(Erasure(features={features: None}, labels=[features])),
        system.submit(Subject(ASKED)),
    ]
    system.predict([i for i in city.ids if i not in (node, owned, cancelled)][:5])
    payload = system.engine.ledger.requests.payload(requests[0].request_id)
    assert payload is not None and str(node) in str(payload)
    back.cancel()
    assert not any(search(system.home, refused).get(name) for name in WITHOUT)
    fail_once(monkeypatch, node)
    clock.forward(hours=3)
    assert system.run() == []
    assert [request.record.attempts for request in requests] == [1, 1, 1, 1]
    clock.forward(hours=3)
    system.run()
    assert {request.state for request in requests} == {State.COMPLETED}

    after = search(system.home, planted)
    assert {name: found for name, found in after.items() if found - {"backup"}} == {
        "backup": everything
    }
    assert {name for name, found in search(system.home, people).items() if found} == {"backup"}
    assert mapped(system) == [STAYS]
    assert in_the_workers(system, planted) == {}
    assert "a batch failed with KeyError" in log.read_text()
    assert search_file(log, planted) == set()
    assert search_file(log, refused) == search_file(log, people) == set()
    assert not list((system.home / "keys" / "payload").iterdir())

    # the residual goes when its time is over
    clock.forward(days=8)
    system.engine.purge()
    assert not any(search(system.home, planted).values())
    assert not any(search(system.home, people).values())
    system.close()
    assert not any(search(system.home, planted).values())
    assert not any(search(system.home, people).values())


def test_superseded_files_are_neither_open_nor_mapped(bench: Workbench) -> None:
    city = City("str", sparse=False)
    system = bench.fit(city.graph(), {"aggregator.kind": "merge", "aggregator.ridge_width": 16})
    system.predict(city.ids[:3])

    system.erase(Erasure(nodes=training_ids(system)[:1]))

    (worker,) = system.pool.tell("call", ("os:getpid", ()))
    for pid in (os.getpid(), worker):
        held = {path for path in open_files(pid) if str(system.home / "objects") in path}
        assert held == set()


def test_an_idle_worker_holds_nothing_of_a_system_that_closed(bench: Workbench) -> None:
    city = City("str", sparse=False)
    system = bench.fit(city.graph(), {"aggregator.kind": "merge", "aggregator.ridge_width": 16})
    system.predict(city.ids[:3])
    planted = city.planted(city.ids[0], 0, city.ids[1])
    assert in_the_workers(system, planted)

    system.close()
    call = ("tests.coordinator.bytesearch:held_in_memory", (dict(planted.patterns),))

    assert bench.pool.tell("call", call) == [{}]


def test_a_server_s_files_never_hold_what_was_erased(
    bench: Workbench,
    server: Server,  # noqa: F811
    log: Path,
) -> None:
    city, clock = City("str", sparse=False), Clock()
    url = server.new_database()
    system = bench.fit(city.graph(), WINDOWS | {"storage.database": url}, clock=clock)
    node, edge, features, cancelled = choose(system, city)
    people = plant_people(system, training_ids(system)[3], node, cancelled)
    patterns = city.planted(node, edge, features).patterns
    planted = Planted({name: patterns[name] for name in ("id", "row", "note")})
    data = server.socket / "data"
    server.execute("CREATE TABLE control (text text)")
    server.execute("INSERT INTO control VALUES ('nairobi-0042')")
    system.submit(Erasure(nodes=[cancelled])).cancel()
    request = system.submit(Erasure(nodes=[node]))
    person = system.submit(Subject(ASKED))
    clock.forward(hours=3)
    system.run()
    system.backup("after")
    server.execute("CHECKPOINT")

    assert search_tree(data, Planted({"control": (b"nairobi-0042",)}))
    assert request.state == person.state == State.COMPLETED
    assert search_tree(data, planted) == search_tree(data, people) == {}
    assert search_tree(data, Planted({"id": id_patterns(cancelled)})) == {}
    assert not any(search(system.home, planted).values())
    assert not any(search(system.home, people).values())


def test_a_server_s_files_hold_no_key_of_what_was_destroyed(
    bench: Workbench,
    server: Server,  # noqa: F811
) -> None:
    system = bench.fit(planted(10), {"storage.database": server.new_database()})
    ledger, node = system.engine.ledger, training_ids(system)[0]
    system.set_subjects(SubjectMap.from_rows([(ASKED, node, "owner")], system.graph), None)
    before = set(system.generation.artefacts) | kept_map(ledger)
    with ledger._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.exec_driver_sql("ANALYZE")
        session.exec_driver_sql("CHECKPOINT")
    tables = server.socket / "data" / "base"

    def in_tables(keys: set[tuple[str, str]]) -> set[str]:
        wanted = Planted({key: (key.encode(),) for _, key in keys})
        return {key for found in search_tree(tables, wanted).values() for key in found}

    assert in_tables(before) == {key for _, key in before}

    system.erase(Subject(ASKED))
    server.execute("CHECKPOINT")

    gone = before - set(system.generation.artefacts)
    assert {"subjects", "submodel", "graph"} <= {kind for kind, _ in gone}
    assert in_tables(gone) == set()
    assert in_tables(set(system.generation.artefacts)) != set()


def test_the_search_reads_compressed_pages(tmp_path: Path) -> None:
    rows = pa.table({"id": ["zanzibar-0042"] * 200, "x": np.full(200, 1.2345678, np.float32)})
    pq.write_table(rows, tmp_path / "a.parquet", compression="zstd", use_dictionary=["id"])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(tmp_path / "a.arrow", rows.schema, options=options) as writer:
        writer.write_table(rows)
    planted = Planted({"id": id_patterns("zanzibar-0042"), "x": row_patterns([1.2345678])})

    assert search_file(tmp_path / "a.parquet", planted) == {"id", "x"}
    assert search_file(tmp_path / "a.arrow", planted) == {"id", "x"}
