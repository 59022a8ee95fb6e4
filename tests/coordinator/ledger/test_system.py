"""A whole system whose ledger is on a server, and one that lost its lease."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import HomeError, LeaseError
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from tests.coordinator.ledger.postgres import Server
from tests.coordinator.systems import (
    Workbench,
    artefacts_of,
    assert_same,
    files_of,
    planted,
    summary,
    training_ids,
)


def test_a_system_forgets_the_same_with_its_ledger_on_a_server(
    bench: Workbench, server: Server
) -> None:
    records = planted(10)
    url = server.new_database().replace("unweave@", "unweave:hunter2@")
    remote = bench.fit(records, {"storage.database": url})
    local = bench.fit(records)
    erasure = Erasure(nodes=training_ids(local)[:1])

    local.erase(erasure)
    receipt = remote.erase(erasure)
    assert "hunter2" not in json.dumps(remote.status())
    assert (remote.home / "config.yaml").stat().st_mode & 0o777 == 0o600
    with pytest.raises(HomeError, match="in use by process") as caught:
        bench.open(remote.home)
    assert "hunter2" not in str(caught.value)
    remote.close()
    again = bench.open(remote.home, graph=records.graph())

    assert_same(summary(again), summary(local))
    assert again.erase(erasure) == receipt
    assert not list(again.home.glob("ledger.db*"))


def test_a_system_that_lost_its_lease_changes_neither_ledger_nor_files(
    bench: Workbench, tmp_path: Path
) -> None:
    system = bench.fit(planted(10))
    node = training_ids(system)[0]
    system.engine.ledger.lease._stop.set()
    with system.engine.ledger.write() as tx:
        tx.exec_driver_sql("UPDATE lease SET expires_at = 1")
    taker = bench.open(system.home)
    before = files_of(system.home)

    with pytest.raises(LeaseError, match="was lost"):
        system.erase(Erasure(nodes=[node]))
    with pytest.raises(LeaseError):
        system.engine.store.promote("content", ["x"], fence=1)
    with pytest.raises(LeaseError):
        system.rebuild()
    system.close()

    assert files_of(system.home) == before
    assert taker.engine.ledger.requests.counts() == {}
    taker.erase(Erasure(nodes=[node]))
    assert files_of(taker.home).keys() == artefacts_of(taker)


def test_the_bars_of_many_openings_are_one_empty_file_each(bench: Workbench) -> None:
    system = bench.fit(planted(6))
    for _ in range(3):
        system.close()
        system = bench.open(system.home)

    left = {p.name: p.is_file() for p in (system.home / "staging").iterdir()}
    assert left == {"1": True, "2": True, "3": True}
    assert isinstance(system.engine.ledger, Ledger)
