"""The file lock of a home: it goes with the process, so it tells at once that a holder died.

It is a hint, never a guard: a paused process keeps it, a network file system may lose it. What
guards the home is the lease in the ledger (``coordinator/ledger/lease.py``).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from cluster.errors import HomeError


class HomeLock:
    """An exclusive lock on ``home/LOCK``."""

    def __init__(self, home: Path) -> None:
        self.path = home / "LOCK"
        self._file: IO[str] | None = None

    def take(self) -> bool:
        """Take the lock without waiting; whether it is held now.

        Raises:
            HomeError: the home cannot be written.
        """
        if self._file is not None:
            return True
        try:
            file = self.path.open("a+")
        except OSError as error:
            raise HomeError(
                f"{self.path} cannot be written ({error.strerror}); check that the home exists, "
                "its owner and its mode"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        return True

    def owner(self) -> str:
        """The process that wrote its number last."""
        return self.path.read_text().strip() or "unknown"

    def release(self) -> None:
        """Let the lock go; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
