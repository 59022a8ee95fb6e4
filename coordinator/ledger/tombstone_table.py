"""Tombstones as a whole: read out for copies, carried into another home, set aside for arrivals.

Which request left one is asked of :mod:`coordinator.ledger.request_table`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from coordinator.ledger.request_table import CHUNK, Read
from coordinator.ledger.tables import tombstones


class Stone(NamedTuple):
    """One tombstone.

    Attributes:
        mark: keyed HMAC of kind and record.
        kind: node, edge, label, feature or feature-row.
        readmitted: graph epoch at which the record was let in anew; None if it never was.
    """

    mark: bytes
    kind: str
    readmitted: int | None


class TombstoneTable:
    """The tombstones of one home."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def all(self) -> list[Stone]:
        """Every tombstone once, ascending; one that stands wins over one that was set aside."""
        c = tombstones.c
        with self._read() as tx:
            rows = tx.execute(select(c.mark, c.kind, c.readmitted)).all()
        found: dict[bytes, Stone] = {}
        for mark, kind, readmitted in rows:
            known = found.get(mark)
            if known is None or known.readmitted is not None:
                later = max((known.readmitted if known else None) or 0, readmitted or 0)
                found[mark] = Stone(mark, kind, None if readmitted is None else later)
        return [found[mark] for mark in sorted(found)]

    def readmit(self, tx: Connection, marks: Collection[bytes], epoch: int) -> None:
        """Set tombstones aside for records that are let in anew.

        They are kept: a backup from before still holds the records of then.

        Args:
            tx: a ``ledger.write()``.
            marks: tombstones.
            epoch: graph epoch that lets the records in.
        """
        c = tombstones.c
        ordered = sorted(marks)
        for start in range(0, len(ordered), CHUNK):
            chosen = c.mark.in_(ordered[start : start + CHUNK]), c.readmitted.is_(None)
            tx.execute(update(tombstones).where(*chosen).values(readmitted=epoch))


def standing(stones: Iterable[Stone], since: int) -> dict[bytes, str]:
    """Tombstone -> kind, for those that stand for records of a graph epoch."""
    return {
        stone.mark: stone.kind
        for stone in stones
        if stone.readmitted is None or stone.readmitted > since
    }
