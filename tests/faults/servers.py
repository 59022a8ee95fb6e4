"""Homes whose ledger is a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from tests.coordinator.ledger.postgres import Server
from tests.faults.conftest import DRIVE, Ground
from tests.faults.plan import OVERRIDES


def fit_on_server(ground: Ground, server: Server, name: str, **overrides: str) -> tuple[Path, str]:
    """A home with its database; copies are made of both."""
    url, home = server.new_database(), ground.root / name
    ground.nursery.run(
        DRIVE,
        home=str(home),
        plan=ground.plan("empty", []),
        acks=str(ground.root / f"{name}.acks"),
        **OVERRIDES,
        **{"storage.database": url, **overrides},
    )
    return home, url


def copy_with_database(ground: Ground, server: Server, fitted: tuple[Path, str]) -> Path:
    """Another home with a copy of the database."""
    url = server.new_database()
    source, target = (u.split("?")[0].rsplit("/", 1)[1] for u in (fitted[1], url))
    server.execute(f"DROP DATABASE {target}")
    server.execute(f"CREATE DATABASE {target} TEMPLATE {source}")
    return ground.copy(source=fitted[0], storage_database=url)
