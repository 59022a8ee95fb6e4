"""Answers that are kept row by row, shared by the views of one generation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NEVER = -1  # version of an entry that nobody has written


class RowTable:
    """One entry a row, with the version of the view that it was computed in.

    An entry counts for a view if nothing that it was computed from has moved since, and the view
    itself is not older.
    """

    def __init__(self, num_rows: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._values: Array = np.empty((num_rows, *shape), dtype)  # memory is taken when written
        self._version = np.full(num_rows, NEVER, np.int64)
        self._lock = threading.Lock()  # for an entry and its version together

    def lookup(self, rows: Array, since: Array, until: int) -> tuple[Array, Array]:
        """``[n, ...]`` entries and ``[n]`` bool, which of them count.

        Args:
            rows: ``[n]`` the rows.
            since: ``[N]`` version in which each row's answer last moved.
            until: version of the view that asks.
        """
        with self._lock:
            version = self._version[rows]
            return self._values[rows], (version >= since[rows]) & (version <= until)

    def answers(
        self, rows: Array, since: Array, until: int, compute: Callable[[Array], Array]
    ) -> Array:
        """``[n, ...]`` entries, those that do not count computed first.

        Args:
            rows: as in :meth:`lookup`; each once.
            since: as in :meth:`lookup`.
            until: as in :meth:`lookup`.
            compute: answers on some of the rows.
        """
        found, counts = self.lookup(rows, since, until)
        if not counts.all():
            missing = rows[~counts]
            found[~counts] = self.write(missing, compute(missing), until)
        return found

    def write(self, rows: Array, values: Array, version: int) -> Array:
        """Put entries in, and give them back."""
        with self._lock:
            self._values[rows] = values
            self._version[rows] = version
        return values

    def missing(self, since: Array, until: int) -> Array:
        """``[N]`` bool, rows whose entry does not count."""
        with self._lock:
            missing: Array = (self._version < since) | (self._version > until)
            return missing

    def clear(self, rows: Array) -> None:
        """Destroy entries."""
        with self._lock:
            self._values[rows] = 0
            self._version[rows] = NEVER
