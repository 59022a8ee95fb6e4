"""Schemas: a home of the first release is taken over whole, a newer one is refused."""

from __future__ import annotations

import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cluster.errors import HomeError
from coordinator.ledger import Ledger
from coordinator.ledger.engine import database_url, open_engine, reading
from coordinator.ledger.tables import HEAD, metadata
from coordinator.ledger.upgrade import MIGRATIONS
from coordinator.ledger.vault import Vault
from coordinator.lock import HomeLock
from coordinator.requests.states import State
from tests.coordinator.ledger.records import add, record

FIRST_SCHEMA = """
CREATE TABLE settings (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE requests (request_id TEXT NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL,
    payload TEXT, receipt TEXT, PRIMARY KEY (request_id), UNIQUE (epoch));
CREATE TABLE tombstones (mark BLOB NOT NULL, kind TEXT NOT NULL, request_id TEXT NOT NULL,
    PRIMARY KEY (mark));
CREATE TABLE artefacts (kind TEXT NOT NULL, "key" TEXT NOT NULL, epoch INTEGER NOT NULL,
    PRIMARY KEY (kind, "key"));
CREATE TABLE generations (number INTEGER NOT NULL, body TEXT NOT NULL, is_current BOOLEAN NOT NULL,
    PRIMARY KEY (number));
"""
SECRET = bytes(range(32))
MOMENT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
DONE = f"req_{int(MOMENT.timestamp()) * 10**9:016x}aaaaaaaa"
OPEN = f"req_{int(MOMENT.timestamp()) * 10**9 + 10**9:016x}bbbbbbbb"
PAYLOAD = {
    "nodes": [["str", "zanzibar"]],
    "edges": [],
    "features": [],
    "labels": [],
    "records": {"nodes": 1, "edges": 4, "features": 0, "labels": 0},
}
RECEIPT = {"request_id": DONE, "epoch": 1, "seconds": 2.5, "records": {"nodes": 0, "edges": 1}}
BODY = {"epoch": 1, "shards": {"0": ["k", "c", "w", []]}, "aggregator": {"kind": "mean"}}


@pytest.fixture
def old(home: Path) -> sqlite3.Connection:
    """The ledger of a home of the first release: one request done, one accepted."""
    base = sqlite3.connect(home / "ledger.db")
    base.execute("PRAGMA journal_mode=WAL")
    base.executescript(FIRST_SCHEMA)
    settings = {"schema_version": "1", "home_id": "h" * 32, "secret": SECRET.hex(), "fence": "4"}
    base.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
    rows = [
        (DONE, 1, "completed", None, json.dumps(RECEIPT)),
        (OPEN, 2, "accepted", json.dumps(PAYLOAD), None),
    ]
    base.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", rows)
    base.execute("INSERT INTO tombstones VALUES (?, 'edge', ?)", (b"m" * 32, DONE))
    base.execute("INSERT INTO artefacts VALUES ('segment', 's1', 1)")
    base.execute("INSERT INTO generations VALUES (1, ?, 1)", (json.dumps(BODY),))
    base.commit()
    return base


def drop_columns_of_0005(tx: Connection) -> None:
    for name in ("serving_policy", "acceptance"):
        tx.exec_driver_sql(f"ALTER TABLE requests DROP COLUMN {name}")


def _raw(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(home.glob("ledger.db*")))


def test_a_home_of_the_first_release_is_taken_over_whole(
    old: sqlite3.Connection, home: Path
) -> None:
    assert b"zanzibar" in _raw(home)
    assert SECRET.hex().encode() in _raw(home)
    old.close()

    ledger = Ledger("ledger.db", home=home)

    assert (home / "keys" / "home.key").read_bytes() == SECRET
    assert (home / "keys" / "home.key").stat().st_mode & 0o777 == 0o600
    assert ledger.setting("secret") == ""
    assert ledger.setting("home_id") == "h" * 32
    assert ledger.epoch() == 2
    assert ledger.current_generation() == (1, BODY)
    assert ledger.registered() == {("segment", "s1")}
    assert ledger.erased_by([b"m" * 32], unlearned_only=True) == {b"m" * 32: DONE}
    assert ledger.acquire() == 5
    ledger.close()
    raw = _raw(home)
    assert b"zanzibar" not in raw
    assert SECRET.hex().encode() not in raw
    assert SECRET not in raw


def test_requests_of_the_first_release_become_full_ones(
    old: sqlite3.Connection, home: Path
) -> None:
    old.close()
    ledger = Ledger("ledger.db", home=home)
    done, waiting = ledger.requests.get(DONE), ledger.requests.get(OPEN)
    assert done is not None
    assert waiting is not None

    assert (done.state, done.epoch, done.kind) == (State.COMPLETED, 1, "mixed")
    assert done.receipt == RECEIPT
    assert done.received_at == MOMENT
    assert done.completed_at == MOMENT.replace(second=8, microsecond=500000)
    assert (waiting.state, waiting.epoch, waiting.kind) == (State.ACCEPTED, 2, "nodes")
    assert waiting.priority == "urgent"
    assert waiting.records == PAYLOAD["records"]
    assert (waiting.due_at - waiting.received_at).days == 30
    assert ledger.requests.payload(OPEN) == PAYLOAD
    assert ledger.requests.payload(DONE) is None
    assert [r.request_id for r in ledger.pending()] == [OPEN]
    assert [e.action for e in ledger.requests.events(OPEN)] == ["upgrade"]
    ledger.close()


def test_an_upgrade_that_fails_leaves_the_old_ledger_as_it_was(
    old: sqlite3.Connection, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(old.iterdump())

    def fails(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "seal", fails)
        with pytest.raises(OSError, match="No space"):
            Ledger("ledger.db", home=home)
    assert list(old.iterdump()) == before
    old.close()

    ledger = Ledger("ledger.db", home=home)
    assert ledger.requests.payload(OPEN) == PAYLOAD
    ledger.acquire()
    assert len(ledger.vault.names()) == 1  # the key of the failed upgrade is gone
    ledger.close()


def test_an_old_home_in_use_is_not_upgraded(old: sqlite3.Connection, home: Path) -> None:
    before = list(old.iterdump())
    lock = HomeLock(home)
    assert lock.take()

    with pytest.raises(HomeError, match=r"in use by process .* older release"):
        Ledger("ledger.db", home=home)

    assert list(old.iterdump()) == before
    lock.release()
    old.close()


def test_an_old_home_beside_the_key_of_another_is_refused(
    old: sqlite3.Connection, home: Path
) -> None:
    before = list(old.iterdump())
    Vault(home).begin(bytes(32))

    with pytest.raises(HomeError, match="key of another ledger"):
        Ledger("ledger.db", home=home)

    assert list(old.iterdump()) == before
    old.close()


def test_a_newer_schema_is_refused_and_both_revisions_are_named(home: Path, database: str) -> None:
    Ledger(database, home=home).close()
    engine = open_engine(database_url(database, home))
    with engine.begin() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0009'")
    engine.dispose()

    with pytest.raises(HomeError, match=r"schema 0009, this release reads up to 0005"):
        Ledger(database, home=home)


def test_a_home_of_the_second_release_is_taken_over_and_its_digests_are_not_sampled(
    home: Path, database: str
) -> None:
    ledger = Ledger(database, home=home)
    ledger.acquire()
    ledger.publish(1, BODY)
    ledger.close()
    engine = open_engine(database_url(database, home))
    is_postgres = engine.dialect.name == "postgresql"
    with engine.begin() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
        for table in ("callbacks", "deliveries", "api_keys", "webhook_secrets"):  # of later ones
            tx.exec_driver_sql(f"DROP TABLE {table}")
        drop_columns_of_0005(tx)
        if is_postgres:
            tx.exec_driver_sql("ALTER TABLE artefacts ALTER COLUMN key SET STATISTICS -1")

    ledger = Ledger(database, home=home)

    assert ledger.current_generation() == (1, BODY)
    ledger.acquire()
    ledger.register([("segment", f"{number:064x}") for number in range(100)], 1)
    ledger.close()
    with engine.begin() as tx:
        found = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        assert found == HEAD
        if is_postgres:
            tx.exec_driver_sql("ANALYZE artefacts")
            query = "SELECT attname FROM pg_stats WHERE tablename = 'artefacts'"
            assert set(tx.exec_driver_sql(query).scalars()) == {"kind", "epoch"}
    engine.dispose()


def test_requests_of_the_fourth_schema_have_the_policy_of_the_service(
    home: Path, database: str
) -> None:
    before = record(1)
    ledger = Ledger(database, home=home)
    ledger.acquire()
    add(ledger, before)
    ledger.close()
    engine = open_engine(database_url(database, home))
    with engine.begin() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0004'")
        drop_columns_of_0005(tx)
    engine.dispose()

    ledger = Ledger(database, home=home)

    assert ledger.requests.get(before.request_id) == before
    assert before.serving_policy is None and before.acceptance is None
    ledger.close()


def test_an_unknown_first_schema_is_refused(old: sqlite3.Connection, home: Path) -> None:
    old.execute("UPDATE settings SET value = '7' WHERE name = 'schema_version'")
    old.commit()
    old.close()

    with pytest.raises(HomeError, match="schema 7, this release reads up to 2"):
        Ledger("ledger.db", home=home)


def test_an_old_release_would_refuse_an_upgraded_home(home: Path, database: str) -> None:
    ledger = Ledger(database, home=home)

    assert ledger.setting("schema_version") == "2"
    ledger.close()


def test_migrations_end_in_the_tables_that_the_code_speaks_of(home: Path, database: str) -> None:
    Ledger(database, home=home).close()
    engine = open_engine(database_url(database, home))

    with reading(engine) as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_an_upgraded_home_has_the_tables_of_a_new_one(
    old: sqlite3.Connection, home: Path, tmp_path: Path
) -> None:
    old.close()
    (tmp_path / "new").mkdir()
    for folder in (home, tmp_path / "new"):
        Ledger("ledger.db", home=folder).close()

    def schema(folder: Path) -> list[tuple[str, ...]]:
        base = sqlite3.connect(folder / "ledger.db")
        columns = [
            (table, *map(str, row[1:]))
            for (table,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for row in base.execute(f"PRAGMA table_info({table})")
        ]
        base.close()
        return sorted(columns)

    assert schema(home) == schema(tmp_path / "new")


def test_the_newest_revision_is_the_head_of_the_scripts() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_a_migration_neither_prints_nor_touches_logging(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogger("alembic").handlers

    Ledger("ledger.db", home=home).close()

    assert capsys.readouterr() == ("", "")
    assert (list(root.handlers), root.level, logging.getLogger("alembic").handlers) == before


def test_a_new_database_opened_by_many_at_once_is_made_once(home: Path, database: str) -> None:
    def open_one(number: int) -> str:
        ledger = Ledger(database, home=home)
        found = ledger.setting("home_id")
        ledger.close()
        return found

    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(open_one, range(4)))

    assert len(ids) == 1
