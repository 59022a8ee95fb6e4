"""A private PostgreSQL server for tests: temporary folder, Unix socket, no TCP."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

ROLE = "unweave"
START_S = 60


def find_binaries() -> Path | None:
    """Folder with ``initdb`` and ``postgres``, the newest one, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).resolve().parent] if found else []
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


@dataclass
class Server:
    """A running server."""

    socket: Path
    number: int = 0

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://{ROLE}@/{database}?host={self.socket}"

    def new_database(self) -> str:
        """URL of an empty database."""
        self.number += 1
        name = f"home_{self.number}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement as the administrator, outside a transaction."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.execute(text(statement), values)
            rows = list(result) if result.returns_rows else []
        engine.dispose()
        return rows


@contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """Start a server that ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="uw-pg-", dir="/tmp"))
    account = _account()
    if account:
        os.chown(folder, account["user"], account["group"])
    data = folder / "data"
    options = ["-A", "trust", "-U", ROLE, "-E", "UTF8", "--locale=C", "--no-sync", "-D", str(data)]
    plain: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, **account}
    subprocess.run([binaries / "initdb", *options], check=True, **plain)
    command = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "-c", "fsync=off"], stderr=log, **plain)
    try:
        yield _wait(Server(folder), server, folder / "log")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> dict[str, Any]:
    """The server refuses to run as root: another account for it then."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> Server:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.execute("SELECT 1")
        except OperationalError:
            time.sleep(0.1)
        else:
            return server
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")
