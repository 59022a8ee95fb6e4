"""Commits whose answer is lost, and failures around publication, in a process that lives on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import coordinator.batch
import coordinator.ledger.ledger
import shards.recipe
from cluster.errors import ConfigError, HomeError
from coordinator import verify
from coordinator.batch import Batch
from coordinator.certify import open_signer
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.generation import Generation
from coordinator.handle import Request
from coordinator.reconcile import Built, Reconciler
from coordinator.requests.states import State
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.systems import Workbench, assert_same, planted, summary, training_ids

NO_WINDOWS = {"erasure.cancel_window": "0", "erasure.batch_window": "0"}
WINDOWS = {"erasure.cancel_window": "24h", "erasure.batch_window": "6h"}
ONE_BY_ONE = NO_WINDOWS | {"erasure.max_batch": 1}


class Answers:
    """Loses the answer of one of the ledger's commits.

    Attributes:
        left: commits that are answered first.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int = -1) -> None:
        self.left = left
        self._writing = coordinator.ledger.ledger.writing
        monkeypatch.setattr(coordinator.ledger.ledger, "writing", self.writing)

    @contextmanager
    def writing(self, engine: Any) -> Iterator[Any]:
        with self._writing(engine) as tx:
            yield tx
        self.left -= 1
        if self.left == -1:
            raise HomeError("the connection was cut at COMMIT")


def payload_keys(home: Path) -> set[str]:
    return {path.name for path in (home / "keys" / "payload").glob("*")}


def assert_settled(system: System) -> None:
    """Nothing is kept but what the ledger publishes, and that is whole."""
    engine = system.engine
    number, body = engine.ledger.current_generation() or (0, {})
    assert system.generation == Generation.from_json(number, body)
    assert set(system.generation.artefacts) == engine.ledger.registered()
    assert engine.superseded() == []
    assert payload_keys(system.home) == set()
    assert system.verify().ok


def is_certified(system: System, request: Request) -> bool:
    certificate = request.certificate
    assert certificate is not None
    assert certificate.statement["predicate"]["purged"]
    return verify(certificate, system.home / "keys" / "issuer.pub", state=system.home).ok


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException) -> None:
    """Raise instead of calling something; once."""
    real = getattr(owner, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        raise error

    monkeypatch.setattr(owner, name, fail)


# ---- a commit that went through, its answer lost


def test_a_lost_answer_to_any_commit_of_an_erasure_changes_nothing_of_where_it_ends(
    bench: Workbench, tmp_path: Path
) -> None:
    whole, clock, lost = bench.fit(planted(10), NO_WINDOWS), Clock(), 0
    whole.close()
    shutil.copytree(whole.home, tmp_path / "before")
    whole = bench.open(whole.home)
    node = training_ids(whole)[0]
    whole.erase(Erasure(nodes=[node]))

    for number in range(100):
        home = shutil.copytree(tmp_path / "before", tmp_path / f"cut-{number}")
        system = bench.open(home, clock=clock)
        with pytest.MonkeyPatch.context() as patch:
            answers = Answers(patch, number)
            for _ in range(3):
                try:
                    system.submit(Erasure(nodes=[node]), external_request_id="mine")
                    assert not system.graph.has_node(node)
                    system.run()
                except HomeError:
                    lost += 1
                clock.forward(hours=1)
        if answers.left >= 0:
            break
        assert system.engine.ledger.requests.counts() == {"completed": 1}, number
        assert_same(summary(system), summary(whole))
        assert_settled(system)
        (request,) = system.requests()
        assert is_certified(system, request)
        system.close()

    assert number > 10
    assert lost >= 5  # those of the build are noted as a failed try instead


def test_a_request_whose_acceptance_gave_no_answer_is_masked_and_asked_again_the_same(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    node = training_ids(system)[0]
    open_signer(system.engine)  # the first acceptance would make the key, in a commit of its own
    Answers(monkeypatch, 0)
    with pytest.raises(HomeError, match="cut at COMMIT"):
        system.submit(Erasure(nodes=[node]), external_request_id="mine")
    assert not system.graph.has_node(node)

    request = system.submit(Erasure(nodes=[node]), external_request_id="mine")

    assert [known.request_id for known in system.requests()] == [request.request_id]
    system.run()
    assert request.state == State.COMPLETED


def test_an_interrupt_right_after_the_publishing_commit_destroys_nothing_that_is_published(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    node = training_ids(system)[0]
    request = system.submit(Erasure(nodes=[node]))
    publish = Reconciler.publish

    def cut(self: Reconciler, built: Built, also: Any = None) -> None:
        publish(self, built, also)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reconciler, "publish", cut)
        with pytest.raises(KeyboardInterrupt):
            system.run()
    assert not system.graph.has_node(node)

    system.run()

    assert request.state == State.COMPLETED
    assert is_certified(system, request)
    assert_settled(system)


def test_what_is_superseded_is_looked_up_in_the_ledger(bench: Workbench) -> None:
    system = bench.fit(planted(10))
    before = system.engine.live
    system.erase(Erasure(nodes=training_ids(system)[:1]))
    after = system.generation

    for look in (system.engine.superseded, system.engine.purge):
        system.engine.live = before
        assert look() == []
        assert system.generation == after
    assert system.verify().ok


@pytest.mark.parametrize("later", ["run", "erase"])
def test_a_key_whose_destruction_was_lost_with_an_answer_goes_with_what_is_done_next(
    later: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), WINDOWS)
    first, second, third = training_ids(system)[:3]
    request = system.submit(Erasure(nodes=[first]))
    keys = payload_keys(system.home)
    waiting = system.submit(Erasure(nodes=[second]))
    answers = Answers(monkeypatch, 0)
    with pytest.raises(HomeError, match="cut at COMMIT"):
        request.cancel()
    assert request.state == State.CANCELLED
    assert payload_keys(system.home) > keys
    assert answers.left == -1

    if later == "run":
        assert system.run() == []
    else:
        system.erase(Erasure(nodes=[third]))

    assert payload_keys(system.home).isdisjoint(keys)
    assert system.engine.ledger.requests.payload(waiting.request_id) is not None
    assert system.graph.has_node(first)
    assert not system.graph.has_node(second)


# ---- a failure behind publication


@pytest.mark.parametrize("where", ["release", "last_entries"])
def test_nothing_else_runs_before_a_published_batch_is_finished(
    where: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), ONE_BY_ONE)
    shard_of, ids = system.partition.assignment, training_ids(system)
    nodes = [i for i in ids if shard_of[i] == shard_of[ids[0]]][:2]
    requests = [system.submit(Erasure(nodes=[node]), priority="urgent") for node in nodes]
    owner = system.engine if where == "release" else coordinator.batch
    fail_once(monkeypatch, owner, where, HomeError("an actor died"))

    with pytest.raises(HomeError, match="an actor died"):
        system.run()
    left = {State.UNLEARNED, State.PURGING}
    assert sorted(request.state in left for request in requests) == [False, True]

    assert len(system.run()) == 2
    assert all(is_certified(system, request) for request in requests)
    assert_settled(system)


def test_a_home_whose_published_batch_fails_again_opens_only_once_that_is_purged(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    request = system.submit(Erasure(nodes=training_ids(system)[:1]))
    for _ in range(2):
        fail_once(monkeypatch, Engine, "release", HomeError("an actor died"))
        with pytest.raises(HomeError, match="an actor died"):
            system.run()
    system.close()
    fail_once(monkeypatch, Engine, "release", HomeError("an actor died"))
    with pytest.raises(HomeError, match="an actor died"):
        bench.open(system.home)

    again = bench.open(system.home)

    assert is_certified(again, again.request(request.request_id))
    assert_settled(again)


@pytest.mark.parametrize("environment", ["same", "another"])
def test_a_rebuild_finishes_a_published_batch_first(
    environment: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    request = system.submit(Erasure(nodes=training_ids(system)[:1]))
    fail_once(monkeypatch, coordinator.batch, "last_entries", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        system.run()
    assert request.state == State.UNLEARNED
    if environment == "another":
        monkeypatch.setattr(shards.recipe, "NUMERICS_VERSION", 10**6)

    system.rebuild()

    assert request.state == State.COMPLETED
    certificate = request.certificate
    assert certificate is not None
    assert certificate.statement["predicate"]["purged"]
    assert_settled(system)


# ---- a batch that was begun, and cannot go on


def test_a_batch_whose_requests_are_all_on_hold_now_is_closed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    node = training_ids(system)[0]
    request = system.submit(Erasure(nodes=[node]))
    fail_once(monkeypatch, Batch, "carry_out", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        system.run()
    request.hold(by="counsel", reason="claim")
    system.close()

    reopened = bench.open(system.home)

    assert reopened.run() == []
    assert reopened.engine.live.graph.has_node(node)
    held = reopened.request(request.request_id)
    held.release(by="counsel")
    reopened.run()
    assert held.state == State.COMPLETED


def test_a_batch_begun_in_another_environment_waits_for_a_rebuild(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.fit(planted(10), NO_WINDOWS)
    node = training_ids(system)[0]
    request = system.submit(Erasure(nodes=[node]))
    fail_once(monkeypatch, Batch, "_check", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        system.run()
    system.close()
    monkeypatch.setattr(shards.recipe, "NUMERICS_VERSION", 10**6)

    reopened = bench.open(system.home)

    waiting = reopened.request(request.request_id)
    assert waiting.state == State.VERIFYING
    assert reopened.generation.number == 1
    assert not reopened.graph.has_node(node)
    with pytest.raises(ConfigError, match="another environment"):
        reopened.run()
    reopened.rebuild()
    reopened.run()
    assert waiting.state == State.COMPLETED
    assert reopened.verify().ok
