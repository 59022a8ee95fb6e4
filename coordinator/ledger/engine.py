"""How the database is reached: SQLite beside the home's files, or a PostgreSQL server.

SQLite runs in WAL mode with ``synchronous=FULL`` and ``secure_delete``; Python's own transaction
handling is switched off, so that a writer begins with ``BEGIN IMMEDIATE`` and never fails half way
for want of the lock. Errors name the database without its password and never show parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from cluster.errors import ConfigError, HomeError

POSTGRES = "postgresql+psycopg"
BUSY_S = 10  # a writer waits so long for another one
IDLE_S = 20  # the server ends a session that stops in mid-transaction, with its locks
CONNECT_S = 10
SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_S * 1000}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=ON",
    "foreign_keys=ON",
)
POSTGRES_SETTINGS = (
    f"lock_timeout='{BUSY_S}s'",
    f"idle_in_transaction_session_timeout='{IDLE_S}s'",
    "synchronous_commit=on",
)
_BEGIN = "begin_with"  # execution option: how a SQLite transaction begins


def database_url(database: str | Path, home: Path) -> URL:
    """Where the ledger is.

    Args:
        database: a file, relative to the home, or a SQLAlchemy URL; ``postgresql://`` means
            psycopg.
        home: folder of the system.

    Raises:
        ConfigError: the URL is malformed or names another kind of database.
    """
    if isinstance(database, Path) or "://" not in database:
        return URL.create("sqlite", database=str(home / database))
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "storage.database is not a URL that can be read (not shown, it may hold a password); "
            f"write {POSTGRES}://user@host/name, or the name of a file in the home"
        ) from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"storage.database names a {backend!r} database; the ledger knows SQLite files and "
            f"{POSTGRES}:// URLs"
        )
    return url.set(drivername="sqlite" if backend == "sqlite" else POSTGRES)


def shown(url: URL) -> str:
    """The database in words, without password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    user = f"{url.username}@" if url.username else ""
    host = url.host or url.query.get("host") or "local socket"
    return f"PostgreSQL {user}{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def open_engine(url: URL) -> Engine:
    """Connect once, and hand out the engine.

    Raises:
        HomeError: the file cannot be read or written, or the server is not reachable.
        ConfigError: psycopg is not installed.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    wait = {} if is_sqlite or "connect_timeout" in url.query else {"connect_timeout": CONNECT_S}
    try:
        engine = create_engine(
            url, hide_parameters=True, pool_pre_ping=not is_sqlite, connect_args=wait
        )
    except ImportError as error:
        if is_sqlite:
            raise
        raise ConfigError(
            f"{shown(url)} needs psycopg, which is not installed here ({error}); "
            "pip install 'unweave[postgres]'"
        ) from error
    event.listen(engine, "connect", _set_pragmas if is_sqlite else _set_session)
    if is_sqlite:
        event.listen(engine, "begin", _begin_sqlite)
    with translated(engine), engine.connect():
        pass
    return engine


def _set_pragmas(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says so
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    how = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if how:
        connection.exec_driver_sql(how)


def _set_session(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        for setting in POSTGRES_SETTINGS:
            cursor.execute(f"SET {setting}")
    connection.commit()


# ---- transactions


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads."""
    with translated(engine), engine.begin() as tx:
        yield tx


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write; on SQLite it takes the write lock at once."""
    with translated(engine), _beginning(engine, "BEGIN IMMEDIATE").begin() as tx:
        yield tx


def _beginning(engine: Engine, how: str) -> Engine:
    return engine.execution_options(**{_BEGIN: how})


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the errors of a database that is not there into ones that say what to do.

    Raises:
        HomeError: instead of SQLAlchemy's errors; mistakes in statements pass unchanged.
    """
    try:
        yield
    except DBAPIError as error:
        advice = _advice(engine.url, error)
        if advice is None:
            raise
        raise HomeError(advice) from error


def _advice(url: URL, error: DBAPIError) -> str | None:
    name, reason = shown(url), " ".join(str(error.orig).split())
    if url.password:
        reason = reason.replace(str(url.password), "***")
    lost = error.connection_invalidated
    if url.get_backend_name() != "sqlite":
        if "lock timeout" in reason:
            return f"{name} is locked by another session ({reason}); end that one, or try again"
        if lost or isinstance(error, OperationalError):
            return (
                f"{name} cannot be reached ({reason}); a transaction that was not committed left "
                "nothing behind; check server, name and password, and do it again"
            )
        return None
    if "readonly" in reason or "unable to open" in reason or "permission" in reason.lower():
        return f"{name} cannot be written ({reason}); check the owner and mode of the home"
    if "locked" in reason:
        return f"{name} is locked by another process ({reason}); end it (kill -9 if it is paused)"
    if "full" in reason or "disk I/O" in reason:
        return f"{name} cannot grow ({reason}); free some space, then open the home again"
    if "not a database" in reason or "malformed" in reason:
        return f"{name} is not a readable ledger ({reason}); restore it"
    return None


# ---- what the two dialects do differently


def insert_new(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose primary key is not there yet."""
    if rows:
        dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
        tx.execute(dialect.insert(table).on_conflict_do_nothing(), list(rows))


def clock(tx: Connection) -> float:
    """The database's own time, seconds since 1970."""
    if tx.dialect.name == "sqlite":
        query = "SELECT (julianday('now') - 2440587.5) * 86400.0"
    else:
        query = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
    return float(tx.execute(text(query)).scalar_one())


def truncate_log(engine: Engine) -> bool:
    """Move SQLite's log into the database and cut it; whether that was possible.

    PostgreSQL's log cannot be cut from here: what it held in cipher is beyond use once the vault's
    key is destroyed.
    """
    if engine.dialect.name != "sqlite":
        return True
    with translated(engine), _beginning(engine, "").connect() as connection:
        return not connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0]


def write_anew(engine: Engine, tables: Sequence[Table]) -> bool:
    """Have PostgreSQL write tables into new files, without dead rows; whether that was possible.

    ``VACUUM`` alone leaves the bytes of a dead row where they are until a new row takes the place.
    SQLite overwrites what is deleted, and needs nothing.
    """
    if engine.dialect.name != "postgresql":
        return True
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in tables:
                connection.execute(text(f"VACUUM (FULL) {table.name}"))
    except DBAPIError:
        return False
    return True
