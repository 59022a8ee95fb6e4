"""A coordinator that carries out a plan of steps, acknowledging each; run again, it goes on.

``python -m tests.faults.driver '{"home": ..., "plan": ..., "acks": ...}'``, or forked by a nursery.
It uses the public API alone. What it did before it was killed it may do once more: requests have
external ids, and what was erased is erased already.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cluster.errors import HomeError
from coordinator.erasure import Erasure
from coordinator.requests.states import CLOSED, State
from coordinator.system import System
from tests.coordinator.systems import tiny
from tests.faults.plan import Step, records

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
_fsync = os.fsync  # what a test counts is patched later


class StepClock:
    """A minute a step, so that a run that was interrupted sees the same times."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def __call__(self) -> datetime:
        return START + timedelta(minutes=self.step)


def run(home: str, plan: str, acks: str, pool: str = "inline", **overrides: Any) -> None:
    """Carry out every step that is not acknowledged yet.

    Args:
        home: folder of the system; fitted if there is none.
        plan: file with the steps as JSON.
        acks: file to which the number of each finished step goes, durably.
        pool: where training runs.
        overrides: of the configuration, when it is fitted.
    """
    steps: list[Step] = json.loads(Path(plan).read_text())
    done = len(Path(acks).read_text().splitlines()) if Path(acks).exists() else 0
    clock = StepClock(done)
    system = open_or_fit(home, clock, pool, **overrides)
    for number in range(done, len(steps)):
        clock.step = number
        _carry_out(system, clock, steps[number])
        acknowledge(acks, number)
    system.close()


def open_or_fit(home: str, clock: StepClock, pool: str = "inline", **overrides: Any) -> System:
    """The system of a home; a fit that was interrupted goes on."""
    try:
        return System.open(home, pool=pool, clock=clock)
    except HomeError as error:
        if "System.fit" not in str(error):
            raise
    graph = records().graph()
    return System.fit(graph, tiny(overrides), home, pool=pool, clock=clock)


def acknowledge(path: str, number: int) -> None:
    """Write down durably that a step is done: what a caller was promised."""
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
        file.flush()
        _fsync(file.fileno())


def erasure_of(what: dict[str, Any]) -> Erasure:
    """Records out of a plan."""
    return Erasure(
        nodes=what.get("nodes", []),
        edges=[(u, v) for u, v in what.get("edges", [])],
        features=dict(what.get("features", [])),
        labels=what.get("labels", []),
    )


def _carry_out(system: System, clock: StepClock, step: Step) -> None:
    do = step["do"]
    if do == "submit":
        what = erasure_of(step["what"])
        system.submit(what, external_request_id=step["id"], requested_by="ada")
    elif do == "erase":
        system.erase(erasure_of(step["what"]))
    elif do == "predict":
        ids = system.graph.ids.tolist()
        assert len(system.predict(ids).labels) == len(ids)
    elif do == "run":
        system.run()
    elif do == "finish":
        finish(system, clock)
    else:
        _decide(system, do, step["id"])


def _decide(system: System, do: str, name: str) -> None:
    """An action of a person, unless it was done before the process ended."""
    (request,) = system.requests(external_request_id=name)
    if do == "cancel" and request.state != State.CANCELLED:
        request.cancel(by="ada")
    elif do == "hold" and request.state != State.ON_HOLD:
        request.hold(by="grace", reason="a claim")
    elif do == "release" and request.state == State.ON_HOLD:
        request.release(by="grace")
    elif do == "approve" and request.state == State.NEEDS_APPROVAL:
        request.approve(by="grace")
    elif do == "reject" and request.state != State.REJECTED:
        request.reject(by="grace", reason="art. 17(3)")


def finish(system: System, clock: StepClock) -> None:
    """Run until every request is closed."""
    for _ in range(20):
        clock.step += 120
        system.run()
        if all(request.state in CLOSED for request in system.requests()):
            return
    raise AssertionError([repr(request) for request in system.requests()])


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
