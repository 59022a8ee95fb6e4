"""Leases on the mask: who may answer, under what, and when a change is in force."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from coordinator.erasure import Erasure
from coordinator.requests.states import State
from coordinator.serving import lessor as module
from coordinator.serving.leases import Grant
from coordinator.serving.lessor import TTL_S, Lessor, _Lease
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, planted, training_ids

PATIENCE_S = 30
WINDOWS = {"erasure.cancel_window": "1h", "erasure.batch_window": "1h"}


class Seconds:
    """A monotonic clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def system(bench: Workbench, clock: Clock) -> System:
    return bench.fit(planted(10), WINDOWS, clock=clock)


@pytest.fixture
def lessor(system: System, seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lessor]:
    monkeypatch.setattr(module, "HOLD_S", 0.0)
    monkeypatch.setattr(module, "EARLIER_S", 0.0)
    found = Lessor(system.erasing, seconds)
    system.engine.mask_moved = found.note
    system.engine.superseding = found.taken_over
    yield found


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def number_of(system: System) -> int:
    return system.generation.number


def rows_masked(grant: Grant) -> list[int]:
    assert grant.located is not None
    return grant.located.removed.tolist()


def test_a_grant_names_what_is_masked_by_its_row(system: System, lessor: Lessor) -> None:
    node = training_ids(system)[0]
    row = int(system.graph.rows([node])[0])
    first = lessor.lease("r", number_of(system), 0)

    system.submit(Erasure(nodes=[node]))
    second = lessor.lease("r", number_of(system), first.version)

    assert rows_masked(first) == []
    assert first.stale == {}
    assert rows_masked(second) == [row]
    assert second.version > first.version
    assert second.epoch == first.epoch + 1
    assert second.stale == dict.fromkeys(sorted(system.plan(Erasure(nodes=[node])).shards), "mask")
    assert second.body is None
    assert second.ttl_s == TTL_S


def alone(system: System) -> dict[int, Any]:
    """Shard -> a training node that no other shard reads."""
    index, found = system.engine.index(), {}
    for node in training_ids(system):
        (shard, *others) = sorted(system.plan(Erasure(nodes=[node])).shards)
        if not others:
            found.setdefault(shard, node)
    assert len(found) >= 2, index
    return found


def test_a_stale_shard_has_the_strictest_policy_of_its_requests(
    system: System, lessor: Lessor
) -> None:
    (first, a), (second, b) = sorted(alone(system).items())[:2]
    number = number_of(system)

    def granted() -> dict[int, str]:
        return dict(lessor.lease("r", number, 0).stale)

    system.submit(Erasure(nodes=[a]), serving_policy="exclude")
    assert granted() == {first: "exclude"}
    system.submit(Erasure(nodes=[b]))
    assert granted() == {first: "exclude", second: "mask"}
    blocking = system.submit(Erasure(labels=[a]), serving_policy="block")
    system.submit(Erasure(nodes=[b]), serving_policy="mask")
    assert granted() == {first: "block", second: "mask"}
    blocking.cancel(by="a")
    assert granted() == {first: "exclude", second: "mask"}


def test_a_request_without_a_policy_has_that_of_the_service_and_one_with_may_ask_for_less(
    system: System, seconds: Seconds
) -> None:
    (first, a), (second, b) = sorted(alone(system).items())[:2]
    system.submit(Erasure(nodes=[a]))
    system.submit(Erasure(nodes=[b]), serving_policy="mask")

    grant = Lessor(system.erasing, seconds, "block").lease("r", number_of(system), 0)

    assert (grant.stale, grant.policy) == ({first: "block", second: "mask"}, "block")


def test_policies_hold_after_a_restart(system: System, seconds: Seconds) -> None:
    node = training_ids(system)[0]
    system.submit(Erasure(nodes=[node]), serving_policy="block")
    system.erasing.load()

    grant = Lessor(system.erasing, seconds).lease("r", number_of(system), 0)

    assert set(grant.stale.values()) == {"block"}


def test_an_excluded_shard_gets_no_vote_back_until_a_replica_has_left_the_old_generation(
    system: System, lessor: Lessor, clock: Clock
) -> None:
    number, node = number_of(system), training_ids(system)[0]
    grant = lessor.lease("r", number, 0)
    system.submit(Erasure(nodes=[node]), serving_policy="exclude")
    stale = lessor.lease("r", number, grant.version).stale
    clock.forward(hours=3)

    running = in_thread(system.erasing.run)
    while (old := lessor.lease("r", number, grant.version)).body is None:
        assert running.is_alive()

    assert set(stale.values()) == {"exclude"} and old.stale == stale
    taken = lessor.mask_of(number + 1)
    assert taken.stale == {}, "the published submodels have not seen the records"
    lessor.lease("r", number + 1, taken.version)
    running.join(PATIENCE_S)
    assert not running.is_alive()


def test_a_change_is_in_force_when_every_replica_has_confirmed_it(
    system: System, lessor: Lessor
) -> None:
    number, node = number_of(system), training_ids(system)[0]
    first = {name: lessor.lease(name, number, 0) for name in ("a", "b")}
    for name, grant in first.items():
        lessor.lease(name, number, grant.version)
    system.submit(Erasure(nodes=[node]))

    waiting = in_thread(lessor.in_force)
    granted = {name: lessor.lease(name, number, first[name].version) for name in ("a", "b")}
    lessor.lease("a", number, granted["a"].version)
    waiting.join(0.3)
    assert waiting.is_alive(), "b may still answer under the old mask"
    lessor.lease("b", number, granted["b"].version)
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_a_replica_that_is_silent_is_waited_for_until_its_lease_has_run_out(
    system: System, lessor: Lessor, seconds: Seconds
) -> None:
    number = number_of(system)
    first = lessor.lease("r", number, 0)
    lessor.lease("r", number, first.version)
    system.submit(Erasure(nodes=training_ids(system)[:1]))

    waiting = in_thread(lessor.in_force)
    seconds.now += TTL_S - 0.1
    waiting.join(0.3)
    assert waiting.is_alive()
    seconds.now += 0.2
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_asking_again_without_confirming_does_not_prolong_the_old_mask(
    system: System, lessor: Lessor, seconds: Seconds
) -> None:
    number = number_of(system)
    first = lessor.lease("r", number, 0)
    lessor.lease("r", number, first.version)
    system.submit(Erasure(nodes=training_ids(system)[:1]))
    seconds.now += TTL_S - 0.1
    lessor.lease("r", number, first.version)

    waiting = in_thread(lessor.in_force)
    seconds.now += 0.2
    waiting.join(PATIENCE_S)

    assert not waiting.is_alive()


def test_an_old_generation_stays_masked_until_every_replica_has_taken_the_new_one(
    system: System, lessor: Lessor, clock: Clock
) -> None:
    number, (node, other) = number_of(system), training_ids(system)[:2]
    row, next_row = system.graph.rows([node, other]).tolist()
    grant = lessor.lease("r", number, 0)
    system.submit(Erasure(nodes=[node]))
    clock.forward(hours=3)
    grant = lessor.lease("r", number, grant.version)

    running = in_thread(system.erasing.run)
    while lessor.lease("r", number, grant.version).body is None:
        assert running.is_alive()
    later = lessor.lease("r", number, grant.version)
    assert later.generation == number + 1
    assert rows_masked(later) == [row], "it has left the published graph, not the replica's"
    system.submit(Erasure(nodes=[other]))
    assert rows_masked(lessor.lease("r", number, later.version)) == sorted([row, next_row])
    assert (
        rows_masked(lessor.mask_of(number + 1)) == system.engine.live.graph.rows([other]).tolist()
    )
    while not system.engine.ledger.requests.find(state=State.PURGING):
        assert running.is_alive()
    running.join(0.2)
    assert running.is_alive(), "nothing is purged while the replica answers with the old generation"

    taken = lessor.mask_of(number + 1)
    assert lessor.lease("r", number + 1, taken.version).ttl_s == TTL_S
    running.join(PATIENCE_S)
    assert not running.is_alive()
    assert not system.engine.ledger.requests.find(state=State.PURGING)
    assert lessor.lease("r", number, 0).ttl_s == 0, "the old generation is over"


def test_a_cancelled_request_is_no_longer_masked(system: System, lessor: Lessor) -> None:
    number, (node, other) = number_of(system), training_ids(system)[:2]
    kept = int(system.graph.rows([other])[0])
    request = system.submit(Erasure(nodes=[node]))
    system.submit(Erasure(nodes=[other]))

    request.cancel(by="a")

    assert rows_masked(lessor.lease("r", number, 0)) == [kept]


def test_an_answer_is_held_back_while_nothing_moves_and_comes_at_once_when_something_does(
    system: System, lessor: Lessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", float(PATIENCE_S))
    live = Lessor(system.erasing)
    system.engine.mask_moved = live.note
    number = number_of(system)
    first = live.lease("r", number, 0)
    found: list[Grant] = []

    waiting = in_thread(lambda: found.append(live.lease("r", number, first.version)))
    waiting.join(0.2)
    assert not found
    system.submit(Erasure(nodes=training_ids(system)[:1]))
    waiting.join(5)

    assert found[0].version > first.version


def test_versions_of_a_later_office_lie_above_those_of_an_earlier_one(system: System) -> None:
    earlier = Lessor(system.erasing).lease("r", number_of(system), 0)

    assert Lessor(system.erasing).lease("r", number_of(system), 0).version > earlier.version


def test_a_new_office_waits_until_leases_of_the_one_before_have_run_out(
    system: System, seconds: Seconds
) -> None:
    lessor = Lessor(system.erasing, seconds)

    waiting = in_thread(lessor.in_force)
    seconds.now += TTL_S - 0.1
    waiting.join(0.3)
    assert waiting.is_alive(), "a replica that was never heard of here may still answer"
    seconds.now += 0.2
    waiting.join(PATIENCE_S)

    assert not waiting.is_alive()


def test_a_version_of_an_office_whose_clock_was_ahead_confirms_nothing(
    system: System, lessor: Lessor, seconds: Seconds
) -> None:
    number, ahead = number_of(system), 10**30
    lessor.lease("r", number, ahead)
    system.submit(Erasure(nodes=training_ids(system)[:1]))

    waiting = in_thread(lessor.in_force)
    lessor.lease("r", number, ahead)
    waiting.join(0.3)
    assert waiting.is_alive()
    seconds.now += TTL_S + 0.1
    waiting.join(PATIENCE_S)

    assert not waiting.is_alive()


def test_an_old_generation_stays_masked_where_its_successor_was_published_unnoticed(
    system: System, lessor: Lessor, clock: Clock
) -> None:
    number, node = number_of(system), training_ids(system)[0]
    row, before = int(system.graph.rows([node])[0]), system.engine.live
    system.submit(Erasure(nodes=[node]))
    clock.forward(hours=3)
    system.engine.superseding = lambda: None
    system.erasing.run()
    system.engine.live = before  # as when the answer to the publishing commit was lost
    system.erasing._in_doubt = True

    lessor.refresh()

    assert system.engine.live.generation.number == number + 1
    assert rows_masked(lessor.mask_of(number)) == [row]


def test_a_lease_from_before_a_swap_counts_under_the_mask_that_was_taken_with_it(
    system: System, lessor: Lessor, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, (node, other) = number_of(system), training_ids(system)[:2]
    granted = lessor.lease("r", number, 0)  # the replica may answer until TTL_S from now
    system.submit(Erasure(nodes=[node]))
    taken = lessor.mask_of(number)  # as a replica does before it takes what it has read
    assert taken.version > granted.version
    monkeypatch.setattr(module, "HOLD_S", float(PATIENCE_S))
    asking = in_thread(lambda: lessor.lease("r", number, taken.version))
    asking.join(0.3)
    system.submit(Erasure(nodes=[other]))
    asking.join(PATIENCE_S)  # the grant is on its way, and not at the replica yet

    waiting = in_thread(lessor.in_force)
    waiting.join(0.3)
    assert waiting.is_alive(), "by the first grant it still answers, and reads the second node"
    seconds.now += TTL_S + 0.1
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_replicas_whose_leases_have_run_out_are_forgotten(
    system: System, lessor: Lessor, seconds: Seconds
) -> None:
    number = number_of(system)
    for name in range(50):
        lessor.lease(f"r{name}", number, 0)
        seconds.now += TTL_S
    for _ in range(50):  # one that never confirms
        lessor.lease("slow", number, 0)
        system.submit(Erasure(labels=training_ids(system)[:1])).cancel(by="a")
        seconds.now += TTL_S

    assert len(lessor._leases) <= 2
    assert sum(len(lease.until) for lease in lessor._leases.values()) <= 3


def test_leases_are_granted_while_somebody_works_on_the_state(
    system: System, lessor: Lessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.1)
    number, found = number_of(system), []
    with system.engine.locks.state:  # a graph is cut, files are destroyed
        for ask in (lambda: lessor.lease("r", number, 0), lambda: lessor.mask_of(number)):
            asking = in_thread(lambda ask=ask: found.append(ask()))
            asking.join(5)

    assert [grant.ttl_s for grant in found] == [TTL_S, TTL_S]


def test_an_office_that_may_have_lost_its_home_grants_nothing(
    system: System, lessor: Lessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, lease = number_of(system), system.engine.ledger.lease
    assert lessor.lease("r", number, 0).ttl_s == TTL_S
    monkeypatch.setattr(lease, "_sure_until", time.monotonic() + 1.0)  # renewing it fails

    assert 0 < lessor.lease("r", number, 0).ttl_s <= 1.0
    monkeypatch.setattr(lease, "_sure_until", 0.0)

    assert lessor.lease("r", number, 0).ttl_s == 0


@dataclass(eq=False)
class _Asked:
    at: float


class Told:
    """A replica and the office's side of its lease; messages arrive late, or never."""

    def __init__(self) -> None:
        self.now, self.version, self.in_force = 0.0, 1, 0
        self.mask, self.until = 0, -1.0  # what the replica answers under, and how long
        self.lease = _Lease(1, 0)
        self.asked: list[tuple[_Asked, int]] = []  # on their way to the office
        self.held: list[_Asked] = []  # arrived there, and not answered
        self.granted: list[tuple[_Asked, int]] = []  # on their way back
        self.waits_for: _Asked | None = None

    def tick(self) -> None:
        self.now += 0.4

    def mask_moves(self) -> None:
        self.version += 1

    def ask(self) -> None:  # also where the answer before did not come in time
        self.waits_for = _Asked(self.now)
        self.asked.append((self.waits_for, self.mask))

    def arrive(self) -> None:
        if self.asked:
            asked, mask = self.asked.pop(0)
            self.lease.confirm(1, mask, self.now)
            self.held.append(asked)

    def grant(self) -> None:
        if self.held:
            self.lease.until[self.version] = self.now + TTL_S
            self.granted.append((self.held.pop(0), self.version))

    def receive(self) -> None:
        if self.granted:
            asked, version = self.granted.pop(0)
            if asked is self.waits_for:
                self.mask, self.until = version, max(self.until, asked.at + TTL_S)

    def take_over(self) -> None:
        self.mask = self.version  # by mask_of, which grants nothing

    def acknowledge(self) -> None:
        if not self.lease.below(self.version, self.now):
            self.in_force = self.version


def test_no_replica_answers_under_less_than_what_is_in_force() -> None:
    chance = random.Random(5)
    steps = [step for name, step in vars(Told).items() if not name.startswith("_")]
    for _ in range(1000):
        told = Told()
        for _ in range(150):
            chance.choice(steps)(told)
            assert told.now >= told.until or told.mask >= told.in_force
