"""What has to hold of a home after whatever happened to it; run in a process of its own."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.errors import HomeError
from coordinator.evidence.chain import require_chain, require_heads
from coordinator.evidence.keys import read_keys
from coordinator.requests.states import CLOSED, State
from coordinator.system import System
from tests.coordinator.systems import artefacts_of, files_of
from tests.faults.driver import StepClock, erasure_of, finish, open_or_fit

OF_A_HOME = {"HOME", "LOCK", "config.yaml", "home.key", "signing.key", "issuer.pub"}
LIFE = ("schedule", "start", "built")  # may be done again after a failed batch
PATIENCE_S = 60
ONCE = ("publish", "purge", "complete")


def settle(home: str, report: str, pool: str = "inline", **options: Any) -> None:
    """Open a home after a fault, let it finish, check it, and write what it came to.

    Args:
        home: folder of the system.
        report: file for the outcome, to be compared with that of a run without faults.
        pool: where training runs.
        options: ``erase``, what the caller asks for again; ``step``, the time; and overrides of
            the configuration, for a home whose fit may have been interrupted.
    """
    again, clock = options.pop("erase", None), StepClock(options.pop("step", 0))
    system = open_or_fit(home, clock, pool, **options)
    if again is not None:
        assert system.erase(erasure_of(again)).request_id
    finish(system, clock)
    check(system)
    Path(report).write_text(json.dumps(outcome(system)))
    system.close()
    check_closed(Path(home))


def take_over(home: str, report: str, erase: dict[str, Any]) -> None:
    """Wait until the lease of a paused coordinator ran out, finish its work, and do some more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            system = System.open(home, pool="inline", clock=StepClock())
        except HomeError as error:
            waits = "in use" in str(error) or "locked" in str(error)
            if not waits or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            break
    assert system.erase(erasure_of(erase)).request_id
    check(system)
    Path(report).write_text(json.dumps(outcome(system)))
    system.close()


def outcome(system: System) -> dict[str, Any]:
    """The last state, without what depends on when things happened."""
    generation = system.generation
    requests = [
        [r.record.body_digest, r.record.external_request_id or "", str(r.state)]
        for r in system.requests()
    ]
    return {
        "keys": [generation.key, generation.graph_key, generation.partition_key],
        "shards": {str(shard): list(entry) for shard, entry in generation.shards.items()},
        "requests": sorted(requests),
    }


def check(system: System) -> None:
    """Everything that holds of a home at rest."""
    ledger = system.engine.ledger
    assert system.verify().ok, system.verify()
    assert files_of(system.home).keys() == artefacts_of(system)
    known = {f"{kind}/{key}" for kind, key in ledger.registered()}
    assert known == artefacts_of(system)
    assert ledger.batches.list(state="open") == []
    assert ledger.vault.names() == set()
    rows = [asdict(row) for row in ledger.audit.rows()]
    require_chain(rows)
    keys = read_keys(system.home / "keys" / "issuer.pub") if system.requests() else {}
    require_heads(rows, list(ledger.audit.signed_heads().values()), keys)
    completed = [r.request_id for r in system.requests(state=State.COMPLETED)]
    assert sorted(c.request_id for c in ledger.certificates.list()) == completed
    for kind, key in system.generation.artefacts:
        system.engine.store.get(kind, key)
    for request in system.requests():
        assert request.state in CLOSED, request
        check_events(system, request.request_id)


def check_events(system: System, request_id: str) -> None:
    """A request was published, purged and completed once, with one receipt."""
    record = system.request(request_id).record
    actions = Counter(event.action for event in system.request(request_id).events())
    completed = record.state == "completed"
    assert (record.receipt is not None) == completed
    assert all(actions[name] == int(completed) for name in ONCE), actions
    assert all(actions[name] <= int(completed) + actions["fail"] for name in LIFE), actions
    assert actions["schedule"] == int(completed) + actions["fail"], actions
    sequence = [event.seq for event in system.request(request_id).events()]
    assert sequence == list(range(1, len(sequence) + 1))


def check_closed(home: Path, extra: Sequence[str] = ()) -> None:
    """No file lies in a home that is neither an object, nor one of those that every home has."""
    for path in (p for p in home.rglob("*") if p.is_file()):
        inside = path.relative_to(home).parts
        barred = inside[0] == "staging" and len(inside) == 2 and path.stat().st_size == 0
        known = path.name in OF_A_HOME or path.name.startswith("ledger.db") or path.name in extra
        assert inside[0] == "objects" or known or barred, f"stray file {path}"
        assert path.suffix != ".tmp", path
