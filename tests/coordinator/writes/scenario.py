"""A life of a home, from fit to expiry, in a process of its own: ``scenario.py HOME POOL``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sitecustomize

from coordinator.erasure import Erasure
from coordinator.ledger.backup_table import BackupTable
from coordinator.ledger.ledger import Ledger
from coordinator.restore import restore
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import planted, tiny, training_ids

NOTE: Any = sitecustomize.note  # type: ignore[attr-defined]
SETTINGS = {
    "erasure.cancel_window": "1h",
    "erasure.batch_window": "1h",
    "aggregator.kind": "learned",
    "aggregator.ridge_width": 16,
    "shards.slices": 2,
}


def watch_ledger() -> None:
    """Note what the ledger is told of, in line with what is written."""
    register, add = Ledger.register, BackupTable.add

    def noted(self: Ledger, keys: Iterable[tuple[str, str]], *rest: Any, **more: Any) -> None:
        listed = list(keys)
        register(self, listed, *rest, **more)
        for kind, key in listed:
            NOTE("artefact", kind, key)

    def noted_backup(self: BackupTable, tx: Any, backup: Any) -> None:
        add(self, tx, backup)
        NOTE("backup", backup.name)

    Ledger.register, BackupTable.add = noted, noted_backup  # type: ignore[method-assign]


def live(home: Path, pool: str) -> None:
    """Everything that a home goes through."""
    clock, records = Clock(), planted(10)
    with System.fit(records.graph(), tiny(SETTINGS), home, pool=pool, clock=clock) as system:
        first, second, third, *others = training_ids(system)
        system.predict(others)
        system.backup("a")
        system.submit(Erasure(nodes=[first]))
        system.predict(others)
        system.submit(Erasure(nodes=[second])).cancel()
        clock.forward(hours=3)
        assert len(system.run()) == 1
        system.erase(Erasure(features={third: None}, labels=[others[0]]))
        assert system.verify("all").ok
    restore(home, "a", clock=clock)
    with System.open(home, graph=records.graph(), pool=pool, clock=clock) as system:
        system.rebuild()
        system.predict(others)
        clock.forward(days=8)
        system.erase(Erasure(nodes=[others[1]]))
        assert not system.backups()


if __name__ == "__main__":
    watch_ledger()
    live(Path(sys.argv[1]), sys.argv[2])
