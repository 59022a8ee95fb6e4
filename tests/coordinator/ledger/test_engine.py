"""Databases that are not there, cannot be written, are full, locked, or cut off."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

import coordinator.ledger.engine as engine_module
from cluster.errors import ConfigError, HomeError
from coordinator.ledger import Ledger
from coordinator.ledger.engine import clock, database_url, shown
from tests.coordinator.ledger.postgres import Server
from tests.coordinator.ledger.records import PAYLOAD, add, record

PASSWORD = "hunter2"


# ---- where it is


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("ledger.db", "/homes/a/ledger.db"),
        ("/data/x.db", "/data/x.db"),
        ("sqlite:////data/x.db", "/data/x.db"),
        (f"postgresql://me:{PASSWORD}@db.example/graph", "PostgreSQL me@db.example/graph"),
        (f"postgresql+psycopg://me:{PASSWORD}@db:5433/g", "PostgreSQL me@db:5433/g"),
        (f"postgresql://me@/g?host=/run/pg&password={PASSWORD}", "PostgreSQL me@/run/pg/g"),
    ],
)
def test_a_database_is_shown_without_its_password(database: str, words: str) -> None:
    url = database_url(database, Path("/homes/a"))

    assert shown(url) == words
    assert url.drivername in ("sqlite", "postgresql+psycopg")


@pytest.mark.parametrize(
    ("database", "says"),
    [
        (f"mysql://me:{PASSWORD}@db/g", "'mysql'"),
        (f"postgresql://me:{PASSWORD}@db:port/g", "is not a URL"),
        (f"://{PASSWORD}", "is not a URL"),
    ],
)
def test_another_kind_of_database_is_refused_without_showing_the_password(
    database: str, says: str, home: Path
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Ledger(database, home=home)

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "place", ["u:hunter2@/g?host=/nowhere", "u@/g?host=/nowhere&password=hunter2"]
)
def test_a_server_that_is_not_there_is_named_without_the_password(home: Path, place: str) -> None:
    with pytest.raises(HomeError, match="PostgreSQL u@/nowhere/g cannot be reached") as caught:
        Ledger(f"postgresql://{place}", home=home)

    assert PASSWORD not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(ConfigError, match=r"unweave\[postgres\]"):
        Ledger("postgresql://u@/g", home=home)


# ---- files


@pytest.mark.parametrize("content", [b"not a database at all" * 300, b"SQLite format 3\x00" * 400])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(home: Path, content: bytes) -> None:
    (home / "ledger.db").write_bytes(content)

    with pytest.raises(HomeError, match=r"ledger\.db is not a readable ledger .* restore it"):
        Ledger("ledger.db", home=home)

    assert (home / "ledger.db").read_bytes() == content


READ_ONLY = """
import os, sys, tempfile
from pathlib import Path
from coordinator.ledger import Ledger
from cluster.errors import HomeError
with tempfile.TemporaryDirectory() as folder:
    first = Ledger("ledger.db", home=Path(folder))  # imports what it needs while it may
    first.acquire()
    first.close()
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    ledger = Ledger("ledger.db", home=Path(sys.argv[1]))
    ledger.acquire()
except HomeError as error:
    print(error)
else:
    print("opened")
"""


@pytest.fixture
def public_home() -> Iterator[Path]:
    """A home that another account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="uw-home-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("fitted", [False, True], ids=["empty", "with a ledger"])
def test_a_read_only_home_is_a_clear_error_and_stays_as_it_is(
    public_home: Path, fitted: bool
) -> None:
    if fitted:
        Ledger("ledger.db", home=public_home).close()
        for path in public_home.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
    public_home.chmod(0o555)
    before = sorted(public_home.rglob("*"))

    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(public_home)], capture_output=True, text=True
    )

    assert "cannot be written" in done.stdout, done.stderr
    assert "check the owner and mode of the home" in done.stdout
    assert sorted(public_home.rglob("*")) == before


def test_a_full_disk_is_a_clear_error_and_nothing_is_half_written(home: Path) -> None:
    ledger = Ledger("ledger.db", home=home)
    ledger.acquire()
    add(ledger, first := record())

    with pytest.raises(HomeError, match=r"cannot grow .* free some space"), ledger.write() as tx:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
        try:
            records = [record(i) for i in range(1, 400)]
            ledger.requests.add(tx, records, {r.request_id: PAYLOAD for r in records}, {})
        finally:
            tx.exec_driver_sql("PRAGMA max_page_count=1000000")

    assert ledger.requests.find() == [first]
    add(ledger, second := record(1000))
    assert ledger.requests.find() == [first, second]
    ledger.close()


def test_a_database_locked_by_another_process_is_a_clear_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ("busy_timeout=100", *engine_module.SQLITE_PRAGMAS[1:])
    monkeypatch.setattr(engine_module, "SQLITE_PRAGMAS", quick)
    ledger = Ledger("ledger.db", home=home)
    ledger.acquire()
    other = sqlite3.connect(home / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(HomeError, match="locked by another process"):
        ledger.set_settings({"a": "1"})

    other.execute("ROLLBACK")
    other.close()
    ledger.set_settings({"a": "2"})
    assert ledger.setting("a") == "2"
    ledger.close()


def test_sqlite_is_set_to_keep_every_commit_and_to_overwrite_what_goes(home: Path) -> None:
    ledger = Ledger("ledger.db", home=home)
    with ledger.read() as tx:
        values = [
            tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "secure_delete", "busy_timeout")
        ]

    assert values == ["wal", 2, 1, 10_000]
    ledger.close()


# ---- servers


@pytest.fixture
def remote(server: Server, home: Path) -> Iterator[Ledger]:
    ledger = Ledger(server.new_database(), home=home)
    ledger.acquire()
    yield ledger
    ledger.close()


def test_a_connection_cut_in_mid_transaction_leaves_nothing_and_the_next_one_works(
    server: Server, remote: Ledger
) -> None:
    add(remote, kept := record())

    with pytest.raises(HomeError, match=r"cannot be reached .* left nothing"), remote.write() as tx:
        remote.requests.add(tx, [record(1)], {}, {})
        remote.audit.append(tx, "accept")
        remote.next_epoch(tx)
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
        server.execute("SELECT pg_terminate_backend(:pid)", pid=pid)
        tx.execute(text("SELECT 1"))

    assert remote.requests.find() == [kept]
    assert (remote.audit.head()[0], remote.epoch()) == (0, 0)
    add(remote, later := record(2))
    assert remote.requests.find() == [kept, later]


def test_a_connection_cut_just_before_the_commit_leaves_nothing(
    server: Server, remote: Ledger
) -> None:
    with pytest.raises(HomeError, match="cannot be reached"), remote.write() as tx:
        remote.next_epoch(tx)
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
        server.execute("SELECT pg_terminate_backend(:pid)", pid=pid)

    assert remote.epoch() == 0


def test_connections_cut_while_they_idle_are_not_noticed(server: Server, remote: Ledger) -> None:
    remote.set_settings({"a": "1"})
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'home_%'"
    )

    remote.set_settings({"a": "2"})

    assert remote.setting("a") == "2"


def test_a_session_that_stops_in_mid_transaction_is_ended_by_the_server(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = (*engine_module.POSTGRES_SETTINGS, "idle_in_transaction_session_timeout='200ms'")
    url = server.new_database()
    Ledger(url, home=home).close()  # its first schema may take longer than what follows
    monkeypatch.setattr(engine_module, "POSTGRES_SETTINGS", quick)
    paused, taker = Ledger(url, home=home, ttl_s=0.1), Ledger(url, home=home)
    paused.acquire()
    paused.lease._stop.set()

    with pytest.raises(HomeError, match="cannot be reached"), paused.write() as tx:
        paused.next_epoch(tx)
        time.sleep(0.5)
        assert taker.acquire() == 2
        tx.execute(text("SELECT 1"))

    assert taker.epoch() == 0
    paused.close()
    taker.close()


def test_the_clock_of_either_database_tells_the_time(home: Path, database: str) -> None:
    ledger = Ledger(database, home=home)

    with ledger.read() as tx:
        assert clock(tx) == pytest.approx(time.time(), abs=5)
    ledger.close()


def test_the_binaries_of_the_server_are_run_by_an_account_that_may(server: Server) -> None:
    owner = (server.socket / "data").stat().st_uid

    assert owner != 0
    assert server.execute("SHOW listen_addresses")[0][0] == ""
    assert (server.socket / ".s.PGSQL.5432").exists()
