"""Who may write: two holders, lost leases, paused and killed processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from cluster.errors import HomeError, LeaseError
from cluster.store import Blob, LocalStore
from coordinator.ledger import Ledger
from coordinator.ledger.lease import Lease
from coordinator.ledger.tables import lease as lease_table
from tests.coordinator.ledger.conftest import Open
from tests.coordinator.ledger.records import add, record

TTL_S = 0.6

CHILD = """
import sys
from pathlib import Path
import numpy as np
from cluster.errors import LeaseError
from cluster.store import Blob, LocalStore
from coordinator.ledger import Ledger

database, home, ttl = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
ledger, store = Ledger(database, home=home, ttl_s=ttl), LocalStore(home)
fence = ledger.acquire()
store.bar(fence)
blob = Blob({"x": np.zeros(2)})
store.stage("content", "staged", blob, fence=fence)
print(fence, flush=True)
for line in sys.stdin:
    try:
        if line.strip() == "write":
            ledger.set_settings({"by": "child"})
        elif line.strip() == "publish":
            ledger.publish(7, {})
        elif line.strip() == "stage":
            store.stage("content", "late", blob, fence=fence)
        else:
            store.promote("content", ["staged"], fence=fence)
        print("done", flush=True)
    except LeaseError as error:
        print(error.code, flush=True)
"""


@pytest.fixture
def child(home: Path, database: str) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts another process that holds the lease and does what it is told on its input."""
    started: list[subprocess.Popen[str]] = []
    LocalStore(home).initialise("test")

    def start(ttl_s: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, database, str(home), str(ttl_s)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def tell(process: subprocess.Popen[str], order: str) -> str:
    """Give an order; returns the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _silence(ledger: Ledger) -> None:
    """End the keeper, as if the process were paused."""
    ledger.lease._stop.set()


# ---- two holders


def test_the_second_holder_is_refused_and_told_who_and_until_when(
    ledger: Ledger, opened: Open
) -> None:
    with pytest.raises(HomeError, match=rf"process {os.getpid()} on .* until 20.* UTC"):
        opened().acquire()

    ledger.set_settings({"still": "mine"})


def test_a_released_lease_is_taken_at_once_and_every_acquisition_has_a_higher_fence(
    opened: Open,
) -> None:
    fences = []
    for _ in range(4):
        ledger = opened()
        fences.append(ledger.acquire())
        ledger.close()

    assert fences == [1, 2, 3, 4]


def test_without_the_lease_a_ledger_reads_and_writes_nothing(ledger: Ledger, opened: Open) -> None:
    ledger.set_settings({"a": "1"})
    other = opened()

    assert other.setting("a") == "1"
    with pytest.raises(LeaseError, match=r"lease\.acquire"):
        other.set_settings({"a": "2"})
    with pytest.raises(LeaseError):
        _ = other.lease.fence
    with pytest.raises(LeaseError, match="already"):
        ledger.lease.acquire()


def test_a_holder_that_lost_its_lease_can_write_nothing(opened: Open) -> None:
    paused = opened(ttl_s=TTL_S)
    paused.acquire()
    paused.publish(1, {})
    _silence(paused)
    time.sleep(TTL_S + 0.1)

    taker = opened()
    assert taker.acquire() == 2

    for attempt in (
        lambda: paused.set_settings({"a": "1"}),
        lambda: paused.publish(2, {}),
        lambda: paused.register([("content", "k")], 1),
        lambda: paused.unregister([("content", "k")]),
        lambda: add(paused, record()),
        paused.lease.renew,
        paused.lease.require,
    ):
        with pytest.raises(LeaseError, match="fence 1 was followed by 2"):
            attempt()
    assert paused.requests.find() == []
    assert paused.vault.names() - taker.vault.names() == set()
    assert taker.current_generation() == (1, {})


def test_a_holder_knows_for_how_long_nobody_can_follow_it(opened: Open) -> None:
    ledger, other = opened(ttl_s=TTL_S), opened()
    assert ledger.lease.left_s == 0
    ledger.acquire()
    _silence(ledger)
    assert 0 < ledger.lease.left_s <= TTL_S
    with pytest.raises(HomeError, match="in use"):
        other.acquire()

    time.sleep(TTL_S + 0.1)
    assert ledger.lease.left_s == 0
    ledger.lease.renew()
    assert ledger.lease.left_s > 0
    ledger.close()
    assert ledger.lease.left_s == 0


def test_a_lost_lease_is_not_released_by_the_one_that_lost_it(opened: Open) -> None:
    paused, taker, third = opened(ttl_s=TTL_S), opened(), opened()
    paused.acquire()
    _silence(paused)
    time.sleep(TTL_S + 0.1)
    taker.acquire()
    assert not taker.lease.read().flocked

    paused.close()

    with pytest.raises(HomeError, match="in use"):
        third.acquire()  # the file lock is free now, but the holder never had it
    taker.lease.renew()
    assert taker.lease.read().flocked
    with pytest.raises(HomeError, match="in use"):
        third.acquire()
    taker.close()
    assert third.acquire() == 3


def test_a_keeper_that_finds_the_lease_lost_says_so_and_leaves_the_file_lock(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    paused, taker = opened(ttl_s=TTL_S), opened()
    paused.acquire()
    _silence(paused)
    time.sleep(TTL_S + 0.1)
    taker.acquire()

    paused.lease._start_keeper()
    time.sleep(TTL_S)

    assert "was lost: fence 1 was followed by 2" in caplog.text
    assert paused.lease.is_lost and not taker.lease.is_lost
    taker.lease.renew()
    assert taker.lease.read().flocked


def test_the_keeper_goes_on_after_any_failure(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, failures = opened(ttl_s=2 * TTL_S), [OSError("no space"), RuntimeError("unforeseen")]
    plain = Lease.renew

    def renew(lease: Lease) -> None:
        if failures:
            raise failures.pop()
        plain(lease)

    monkeypatch.setattr(Lease, "renew", renew)
    ledger.acquire()

    time.sleep(4 * TTL_S)

    assert not failures and ledger.lease.left_s > 0


def test_a_lease_past_its_time_that_nobody_took_still_writes(opened: Open) -> None:
    ledger = opened(ttl_s=0.1)
    ledger.acquire()
    _silence(ledger)
    time.sleep(0.3)

    ledger.set_settings({"late": "yes"})

    assert not ledger.lease.read().is_valid
    assert ledger.setting("late") == "yes"


def test_a_holder_seen_from_another_host_is_waited_for(ledger: Ledger, opened: Open) -> None:
    with ledger.write() as tx:
        tx.execute(update(lease_table).values(place="elsewhere", expires_at=4e9))
    _silence(ledger)
    ledger.lease._lock.release()

    with pytest.raises(HomeError, match="until 2096"):
        opened().acquire()


# ---- the keeper


def test_the_keeper_renews_the_lease_until_it_is_released(opened: Open) -> None:
    ttl_s = 2 * TTL_S  # a busy machine may wake the keeper late
    ledger, other = opened(ttl_s=ttl_s), opened()
    ledger.acquire()
    first = ledger.lease.read().expires_at

    time.sleep(2 * ttl_s)

    assert ledger.lease.read().expires_at > first + ttl_s
    with pytest.raises(HomeError, match="in use"):
        other.acquire()
    ledger.close()
    assert _keepers() == 0
    assert other.acquire() == 2


def test_a_ledger_that_nobody_holds_any_more_is_not_kept(home: Path) -> None:
    ledger = Ledger("ledger.db", home=home, ttl_s=0.3)
    ledger.acquire()
    before = _keepers()
    del ledger
    gc.collect()

    time.sleep(0.5)

    assert _keepers() == before - 1


def _keepers() -> int:
    return sum(thread.name == "lease-keeper" for thread in threading.enumerate())


# ---- other processes


def test_a_killed_holder_on_this_host_is_followed_at_once(
    child: Callable[[float], subprocess.Popen[str]], opened: Open
) -> None:
    process = child(600)
    with pytest.raises(HomeError, match=f"process {process.pid} "):
        opened().acquire()

    process.kill()
    process.wait()

    assert opened().acquire() == 2


def test_a_paused_process_that_wakes_can_neither_write_publish_stage_nor_promote(
    child: Callable[[float], subprocess.Popen[str]], opened: Open, home: Path
) -> None:
    process = child(TTL_S)
    assert tell(process, "write") == "done"
    process.send_signal(signal.SIGSTOP)
    ledger, store = opened(), LocalStore(home)
    time.sleep(TTL_S + 0.1)

    store.bar(ledger.acquire())
    process.send_signal(signal.SIGCONT)

    answers = [tell(process, order) for order in ("write", "publish", "stage", "promote")]
    assert answers == ["UW-H002"] * 4
    assert ledger.current_generation() is None
    assert list(store.keys()) == []
    store.stage("content", "mine", Blob({"x": np.zeros(1)}), fence=2)
    store.promote("content", ["mine"], fence=2)
    assert list(store.keys()) == [("content", "mine")]


def test_a_process_that_was_paused_and_not_followed_goes_on(
    child: Callable[[float], subprocess.Popen[str]],
) -> None:
    process = child(TTL_S)
    process.send_signal(signal.SIGSTOP)
    time.sleep(TTL_S + 0.1)
    process.send_signal(signal.SIGCONT)

    assert [tell(process, order) for order in ("write", "stage", "promote")] == ["done"] * 3
