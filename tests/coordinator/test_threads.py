"""Asking, cancelling and holding go on while another thread retrains."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.errors import TransitionError
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.reconcile import Built, Wanted
from coordinator.requests.states import State
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import (
    Workbench,
    assert_same,
    kept_partition,
    planted,
    summary,
    training_ids,
)

PATIENCE_S = 60
WINDOWS = {"erasure.cancel_window": "1h", "erasure.batch_window": "1h"}


@contextmanager
def while_it_builds(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run what is due in another thread, and do the body while its submodels are being built."""
    building, go_on = threading.Event(), threading.Event()
    build = Engine.build

    def paused(engine: Engine, wanted: Wanted) -> Built:
        building.set()
        assert go_on.wait(PATIENCE_S)
        return build(engine, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "build", paused)
        done: list[Any] = []
        runner = threading.Thread(daemon=True, target=lambda: done.append(system.erasing.run()))
        runner.start()
        assert building.wait(PATIENCE_S)
        try:
            yield
        finally:
            go_on.set()
            runner.join(PATIENCE_S)
        assert done, "the batch did not finish"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def system(bench: Workbench, clock: Clock) -> System:
    return bench.fit(planted(10), WINDOWS, clock=clock)


def test_requests_are_taken_in_and_taken_back_while_a_shard_retrains(
    system: System, clock: Clock, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = training_ids(system)[:4]
    begun = system.submit(Erasure(nodes=[first]))
    clock.forward(hours=3)

    with while_it_builds(system, monkeypatch):
        assert begun.state == State.RUNNING
        later = system.submit(Erasure(nodes=[second]))
        regretted = system.submit(Erasure(nodes=[third]))
        held = system.submit(Erasure(nodes=[fourth]))
        regretted.cancel(by="a")
        held.hold(by="b", reason="a claim")
        assert not {first, second, fourth} & set(system.graph.ids.tolist())
        assert system.graph.has_node(third)
        with pytest.raises(TransitionError):
            begun.cancel(by="a")

    assert begun.state == State.COMPLETED
    assert regretted.state == State.CANCELLED
    assert system.engine.live.graph.has_node(fourth)
    held.release(by="b")
    clock.forward(hours=3)
    system.run()
    assert [later.state, held.state] == [State.COMPLETED] * 2
    survivors = planted(10).without(Erasure(nodes=[first, second, fourth]))
    kept = kept_partition(system.partition, survivors)
    assert_same(summary(system), summary(bench.fit(survivors, WINDOWS, partition=kept)))


def test_two_threads_do_not_carry_out_the_same_batch(
    system: System, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = training_ids(system)[:2]
    system.submit(Erasure(nodes=[node]))
    clock.forward(hours=3)
    urgent: list[Any] = []

    with while_it_builds(system, monkeypatch):
        eraser = threading.Thread(
            target=lambda: urgent.append(system.erase(Erasure(nodes=[other])))
        )
        eraser.start()
        eraser.join(0.3)
        assert not urgent, "an urgent request has to wait for the batch that is being carried out"
    eraser.join(PATIENCE_S)

    assert urgent[0].generation == system.generation.number
    assert not {node, other} & set(system.engine.live.graph.ids.tolist())
