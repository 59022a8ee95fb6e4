"""The lease: one row that says which process may write to a home, and under which fence.

The fence grows by one with every acquisition and is compared inside each writing transaction,
while the row is locked: safety rests on that comparison alone, on no clock. Time only decides when
another process may take over, and is read from the database (one clock for all hosts on PostgreSQL;
on SQLite the host's). A lease past its time that nobody took still belongs to its holder.

The home's file lock makes a restart quick: when the holder had it, on this host and since this
boot, and it is free now, then the holder is dead and its time need not be waited for.

Reference:
    Gray and Cheriton, Leases, SOSP 1989; fencing as in Burrows, The Chubby lock service, OSDI 2006
    (sequencers). Deviation: the fenced resource is the database that holds the lease, so that check
    and write are one transaction; for files the fence is a staging folder (``LocalStore.bar``).
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from cluster.errors import HomeError, LeaseError
from coordinator.ledger.engine import clock, reading, writing
from coordinator.ledger.tables import lease as table
from coordinator.lock import HomeLock

logger = logging.getLogger(__name__)

TTL_S = 15.0
RENEWALS = 3  # tries within one time to live
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class LeaseRow:
    """The lease as it stands.

    Attributes:
        fence: number of acquisitions so far.
        holder: process and host.
        place: where the holder's file lock can be seen.
        flocked: whether the holder has the file lock.
        expires_at: seconds since 1970 by the database's clock; 0 when it was released.
        now: that clock, when this was read.
    """

    fence: int
    holder: str
    place: str
    flocked: bool
    expires_at: float
    now: float

    @property
    def is_valid(self) -> bool:
        """Whether its time has not run out."""
        return self.expires_at > self.now

    @property
    def until(self) -> str:
        """When its time runs out, in words."""
        return datetime.fromtimestamp(self.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Lease:
    """This process's claim to be the one that writes to a home."""

    def __init__(self, engine: Engine, home: Path, ttl_s: float = TTL_S) -> None:
        self.home = home
        self.ttl_s = ttl_s
        self._engine = engine
        self._lock = HomeLock(home)
        self._fence: int | None = None
        self._sure_until = 0.0  # by this process's monotonic clock
        self.is_lost = False  # whether the keeper found that another process took it
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def fence(self) -> int:
        """The fence of this acquisition.

        Raises:
            LeaseError: the lease was never acquired, or was released.
        """
        if self._fence is None:
            raise LeaseError(
                f"this process has no lease on {self.home}, so it may only read; open a System, or "
                "call ledger.lease.acquire() first"
            )
        return self._fence

    # ---- acquire, renew, release

    def acquire(self) -> int:
        """Become the one that writes; returns the new fence. A keeper thread renews from then on.

        Raises:
            HomeError: another process holds the lease; says which and until when.
        """
        if self._fence is not None:
            raise LeaseError(f"this process holds the lease on {self.home} already")
        flocked, begun = self._lock.take(), time.monotonic()
        try:
            with writing(self._engine) as tx:
                found = _read(tx, lock=True)
                if found.is_valid and not self._is_dead(found, flocked=flocked):
                    raise HomeError(
                        f"{self.home} is in use by process {found.holder}, whose lease runs until "
                        f"{found.until}; close that System first"
                    )
                fence = found.fence + 1
                _write(
                    tx,
                    fence=fence,
                    holder=f"{os.getpid()} on {platform.node()}",
                    place=self._place(),
                    flocked=flocked,
                    expires_at=found.now + self.ttl_s,
                )
        except BaseException:
            self._lock.release()
            raise
        self._fence, self._sure_until = fence, begun + self.ttl_s
        self._start_keeper()
        return fence

    def _is_dead(self, found: LeaseRow, *, flocked: bool) -> bool:
        """Whether the file lock proves that the holder ended."""
        return flocked and found.flocked and found.place == self._place()

    def _place(self) -> str:
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        return f"{platform.node()} {boot} {self.home.resolve()}"

    def renew(self) -> None:
        """Prolong the lease by its time to live, and take the file lock if it is free by now.

        Raises:
            LeaseError: another process took the lease.
        """
        flocked, begun = self._lock.take(), time.monotonic()
        with writing(self._engine) as tx:
            found = self.check(tx)
            _write(tx, expires_at=found.now + self.ttl_s, flocked=flocked)
        self._sure_until = begun + self.ttl_s

    def release(self) -> None:
        """Let the lease go; a second call, or one after it was lost, does nothing."""
        fence, self._fence = self._fence, None
        self._stop.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(self.ttl_s)
        self._sure_until = 0.0
        try:
            if fence is not None:
                with writing(self._engine) as tx:
                    tx.execute(update(table).where(table.c.fence == fence).values(expires_at=0.0))
        except HomeError as error:
            logger.warning("the lease on %s runs out by itself: %s", self.home, error)
        finally:
            self._lock.release()

    def give_up_lock(self) -> None:
        """Leave the file lock to the process that took the lease."""
        self._sure_until, self.is_lost = 0.0, True
        self._lock.release()

    # ---- ask

    @property
    def left_s(self) -> float:
        """Seconds for which no other process can take the lease, as far as this one knows.

        For what is promised to others outside of any transaction; asks no database.
        """
        return max(self._sure_until - time.monotonic(), 0.0)

    def check(self, tx: Connection) -> LeaseRow:
        """Lock the row until the transaction ends and make sure that the fence is ours.

        Raises:
            LeaseError: it is not; the transaction must not go on.
        """
        fence, found = self.fence, _read(tx, lock=True)
        if found.fence != fence:
            raise LeaseError(
                f"the lease on {self.home} was lost: fence {fence} was followed by {found.fence}, "
                f"held by process {found.holder}; nothing was written, close this System"
            )
        return found

    def require(self) -> None:
        """Make sure that the lease is ours now, before work that is no transaction.

        Raises:
            LeaseError: it is not.
        """
        with writing(self._engine) as tx:
            self.check(tx)

    def read(self) -> LeaseRow:
        """The lease as it stands, whoever has it."""
        with reading(self._engine) as tx:
            return _read(tx, lock=False)

    # ---- keep

    def _start_keeper(self) -> None:
        self._stop = threading.Event()
        arguments = (weakref.ref(self), self._stop, self.ttl_s / RENEWALS)
        self._keeper = threading.Thread(
            target=_keep, args=arguments, name="lease-keeper", daemon=True
        )
        self._keeper.start()


def _keep(lease: weakref.ref[Lease], stop: threading.Event, every_s: float) -> None:
    """Renew until told to stop, until the lease is lost, or until nobody refers to it any more."""
    while not stop.wait(every_s):
        kept = lease()
        if kept is None:
            return
        try:
            kept.renew()
        except LeaseError as error:
            if not stop.is_set():
                logger.error("%s", error, extra={"event": "lease_lost"})
                kept.give_up_lock()
            return
        except HomeError as error:
            logger.warning("renewing the lease failed, once more: %s", error)
        except Exception as error:  # as on a full disk; whoever ends here never renews again
            logger.warning("renewing the lease failed, once more: %s", type(error).__name__)
        del kept


def _read(tx: Connection, *, lock: bool) -> LeaseRow:
    query = select(table).where(table.c.id == 1)
    row = tx.execute(query.with_for_update() if lock else query).one()
    return LeaseRow(row.fence, row.holder, row.place, row.flocked, row.expires_at, clock(tx))


def _write(tx: Connection, **values: Any) -> None:
    tx.execute(update(table).where(table.c.id == 1).values(**values))
