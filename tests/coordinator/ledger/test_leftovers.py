"""What a kill or a full disk leaves of a ledger and its keys."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from cluster.errors import HomeError
from coordinator.ledger import Ledger
from coordinator.ledger.engine import translated


def test_a_key_file_that_was_half_written_is_gone_once_the_home_is_opened(home: Path) -> None:
    Ledger("ledger.db", home=home).close()
    halves = [home / "keys" / "home.key.7.tmp", home / "keys" / "payload" / "ab.key.7.tmp"]
    for path in halves:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")

    ledger = Ledger("ledger.db", home=home)
    ledger.acquire()
    ledger.close()

    assert not any(path.exists() for path in halves)
    assert (home / "keys" / "home.key").exists()


@pytest.mark.parametrize("reason", ["disk I/O error", "database or disk is full"])
def test_a_database_that_cannot_grow_asks_for_space_and_not_for_a_backup(reason: str) -> None:
    engine = create_engine("sqlite:///ledger.db")

    with pytest.raises(HomeError, match="free some space") as raised, translated(engine):
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError(reason))

    assert "restore" not in str(raised.value)
