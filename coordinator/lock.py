"""An advisory lock on a home: one coordinator at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cluster.errors import HomeError


class HomeLock:
    """Held from construction to :meth:`release`; goes with the process."""

    def __init__(self, home: Path) -> None:
        self._file = (home / "LOCK").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise HomeError(
                f"{home} is in use by process {owner}; close that System first"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let the home go; a second call does nothing."""
        self._file.close()
