"""Step boundaries of a coordinator: every one is counted, and at a chosen one something happens.

Patched into a process that a test forked, never into the product. The count is shared by a
coordinator and its worker, of which one waits while the other works.
"""

from __future__ import annotations

import mmap
import os
import signal
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine.default import DefaultDialect

import coordinator.ledger.ledger
from coordinator.batch import Batch
from coordinator.evidence.keys import Signer
from coordinator.ledger import Ledger
from coordinator.ledger.lease import Lease
from coordinator.pools.inline import InlinePool

KILL, STOP, CUT, FILL = "kill", "stop", "cut", "fill"
_COUNT = struct.Struct("q")
_fsync = os.fsync


class Points:
    """Counts the boundaries that a process and its children pass, and acts at one of them.

    Attributes:
        target: number of the boundary, from 0; -1 for none.
        action: kill the process group there, stop the process until it is continued, cut its
            connections to a database, or fill a disk.
        trace: file to which each boundary's name goes, a line each.
        where: URL of that database, or folder of the disk to fill.
    """

    def __init__(
        self, target: int = -1, action: str = KILL, trace: str = "", where: str = ""
    ) -> None:
        self.target, self.action, self.where = target, action, where
        self._shared = mmap.mmap(-1, _COUNT.size)
        self._renewing = threading.Semaphore()
        self._trace = Path(trace) if trace else None

    def reach(self, name: str, descriptor: int = -1) -> None:
        """Pass a boundary.

        Args:
            name: what it is, for the trace.
            descriptor: a file whose bytes are not on disk yet; half of them are lost by the kill.
        """
        (count,) = _COUNT.unpack(self._shared[:])
        self._shared[:] = _COUNT.pack(count + 1)
        if self._trace:
            with self._trace.open("a") as file:
                file.write(name + "\n")
        if count == self.target and self.action == KILL:
            _tear(descriptor)
            os.killpg(0, signal.SIGKILL)
        elif count == self.target and self.action == CUT:
            _cut(self.where)
        elif count == self.target and self.action == FILL:
            fill(Path(self.where))
        elif count == self.target:
            self._renewing.acquire(timeout=1)  # not in the middle of a transaction of the keeper
            os.kill(os.getpid(), signal.SIGSTOP)
            self._renewing.release()

    def around(self, owner: Any, name: str, label: str) -> None:
        """Make a function's begin and end two boundaries."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {label}{_shown(args)}")
            result = original(*args, **kwargs)
            self.reach(f"after {label}{_shown(args)}")
            return result

        setattr(owner, name, watched)

    def install(self) -> None:
        """Patch this process; what it forks from now on is patched as well."""

        def fsync(descriptor: int) -> None:
            self.reach("before fsync", descriptor)
            _fsync(descriptor)
            self.reach("after fsync")

        os.fsync = fsync
        for owner, name, label in (
            (os, "rename", "rename"),
            (os, "unlink", "unlink"),
            (InlinePool, "map", "pool.map"),
            (InlinePool, "tell", "pool.tell"),
            (Batch, "_unlearn", "unlearn"),
            (Batch, "_publish", "publish"),
            (Batch, "_purge", "purge"),
            (Batch, "_complete", "complete"),
            (Ledger, "publish", "generation row"),
            (Signer, "create", "issuer key"),
            (coordinator.ledger.ledger, "truncate_log", "truncating checkpoint"),
        ):
            self.around(owner, name, label)
        _watch_commits(self.reach)
        renew = Lease.renew

        def renewed(lease: Lease) -> None:
            with self._renewing:
                renew(lease)

        Lease.renew = renewed  # type: ignore[method-assign]


def _watch_commits(reach: Callable[[str], None]) -> None:
    """Commits of transactions that wrote something (on PostgreSQL: of all), but the
    keeper's of the lease, which come by the clock."""
    original, seen = DefaultDialect.do_commit, {}

    def commit(self: Any, connection: Any) -> None:
        changes = getattr(connection.driver_connection, "total_changes", None)
        wrote = changes is None or changes != seen.get(id(connection.driver_connection), 0)
        seen[id(connection.driver_connection)] = changes
        counted = wrote and threading.current_thread() is threading.main_thread()
        if counted:
            reach("before commit")
        original(self, connection)
        if counted:
            reach("after commit")

    DefaultDialect.do_commit = commit


def _shown(args: tuple[Any, ...]) -> str:
    first = str(args[0]) if args and isinstance(args[0], str | Path) else ""
    method = args[1] if len(args) > 1 and isinstance(args[1], str) and not first else ""
    shown = Path(first).name[:12] if first else method
    return f" {shown}" if shown else ""


def _tear(descriptor: int) -> None:
    """Lose half of a file that was written and not synced, as a power cut may."""
    if descriptor >= 0 and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)


def fill(disk: Path, free_kib: int = 0) -> Path:
    """Write a file that leaves so much room on a disk; returns it."""
    ballast, room = disk / "ballast", os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(room.f_bavail * room.f_frsize - free_kib * 1024))
    return ballast


def _cut(url: str) -> None:
    """Have the server end every other session on a database."""
    engine = create_engine(url)
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        connection.execute(text(query))
    engine.dispose()
