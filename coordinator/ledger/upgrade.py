"""Bring a ledger's schema up to date when it is opened, in one transaction."""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text

from cluster.errors import HomeError
from coordinator.ledger.engine import reading, shown, writing
from coordinator.ledger.tables import HEAD, SCHEMA_VERSION, settings
from coordinator.lock import HomeLock

FIRST = "0001"
KNOWN = (FIRST, "0002", "0003", "0004", HEAD)
MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = threading.Lock()  # Alembic's context is global to the process
_ADVISORY_LOCK = 0x756E7765617665  # "unweave"


def upgrade(engine: Engine, home: Path) -> bool:
    """Create or migrate the tables; whether there was anything to do.

    Raises:
        HomeError: the schema is newer than this release, or an old home is in use.
    """
    with reading(engine) as tx:
        found = _revision(tx, engine)
    if found == HEAD:
        return False
    with ExitStack() as stack:
        if found is not None:
            _require_unused(home, stack)
        tx = stack.enter_context(writing(engine))
        if tx.dialect.name == "postgresql":
            tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = _revision(tx, engine)
        if found != HEAD:
            _migrate(tx, found, home)
        if found is None:
            tx.execute(settings.insert(), {"name": "home_id", "value": secrets.token_hex(16)})
    return True


def _revision(tx: Connection, engine: Engine) -> str | None:
    """Revision of the tables; None where there are none."""
    tables = set(inspect(tx).get_table_names())
    if "alembic_version" in tables:
        found = tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        if found is not None and found not in KNOWN:
            raise _newer(engine, str(found), HEAD)
        return found
    if "settings" not in tables:
        return None
    query = select(settings.c.value).where(settings.c.name == "schema_version")
    version = tx.execute(query).scalar_one_or_none()
    if version != "1":
        raise _newer(engine, str(version), str(SCHEMA_VERSION))
    return FIRST


def _newer(engine: Engine, found: str, known: str) -> HomeError:
    return HomeError(
        f"{shown(engine.url)} has ledger schema {found}, this release reads up to {known}; "
        "use the release that wrote it"
    )


def _require_unused(home: Path, stack: ExitStack) -> None:
    """No older release may be at work on the tables that are about to change."""
    lock = HomeLock(home)
    if not lock.take():
        raise HomeError(
            f"{home} is in use by process {lock.owner()} of an older release; close that System "
            "first, then its ledger is upgraded"
        )
    stack.callback(lock.release)


def _migrate(tx: Connection, found: str | None, home: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes |= {"connection": tx, "home": home}
    with _ONE_AT_A_TIME:
        if found == FIRST and "alembic_version" not in inspect(tx).get_table_names():
            command.stamp(config, FIRST)
        command.upgrade(config, HEAD)
