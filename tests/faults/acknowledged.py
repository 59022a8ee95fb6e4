"""What the children of ``test_acknowledged.py`` run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from coordinator.erasure import Erasure
from coordinator.requests.states import State
from coordinator.system import System
from tests.coordinator.systems import planted, tiny
from tests.faults.checks import check
from tests.faults.driver import StepClock, acknowledge, finish

NODES, FEATURES = 200, 6


def fit(home: str) -> None:
    """A home of a graph with more than a thousand features to forget."""
    graph, clock = planted(10, NODES).graph(), StepClock()
    System.fit(graph, tiny(), home, pool="inline", clock=clock).close()


def erasure(number: int) -> Erasure:
    """The request of one child: a feature of a node."""
    ids = sorted(planted(10, NODES).features, key=str)
    return Erasure(features={ids[number // FEATURES]: [f"f{number % FEATURES}"]})


def submit_and_die(home: str, acks: str, number: int) -> None:
    """Submit through the public API, acknowledge, and be gone before anything else can run."""
    system = System.open(home, pool="inline", clock=StepClock())
    system.submit(erasure(number), external_request_id=f"r{number}")
    acknowledge(acks, number)
    os.kill(os.getpid(), signal.SIGKILL)


def find_all(home: str, acks: str, number: int) -> None:
    """Every acknowledged request is there, masked, and is carried out."""
    clock = StepClock()
    system = System.open(home, pool="inline", clock=clock)
    acknowledged = {f"r{line}" for line in Path(acks).read_text().split()}
    assert len(acknowledged) == number
    found = {r.record.external_request_id: r for r in system.requests()}
    assert found.keys() == acknowledged
    assert {request.state for request in found.values()} == {State.ACCEPTED}
    for name in acknowledged:
        again = system.submit(erasure(int(name[1:])), external_request_id=name)
        assert again.request_id == found[name].request_id
    clock.step = 3 * 24 * 60
    finish(system, clock)
    check(system)
    assert {r.state for r in system.requests()} == {State.COMPLETED}
    system.close()
