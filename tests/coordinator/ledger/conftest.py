"""Every contract test runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.ledger import Ledger
from tests.coordinator.ledger.postgres import Server, find_binaries, running

Open = Callable[..., Ledger]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(
            "no PostgreSQL binaries (initdb, postgres) on PATH or in /usr/lib/postgresql; "
            "apt-get install postgresql"
        )
    with running(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A new database, as ``storage.database`` names it."""
    if request.param == "sqlite":
        return "ledger.db"
    server: Server = request.getfixturevalue("server")
    return server.new_database()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def opened(home: Path, database: str) -> Iterator[Open]:
    """Opens ledgers on the same home and database; closes them in the end."""
    ledgers: list[Ledger] = []

    def open_one(**options: Any) -> Ledger:
        ledgers.append(Ledger(database, home=home, **options))
        return ledgers[-1]

    yield open_one
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(opened: Open) -> Ledger:
    """One ledger with the lease."""
    made = opened()
    made.acquire()
    return made
