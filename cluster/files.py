"""Which files a home may hold: artefacts, backups, and a short table of files without records.

Every file that can contain a record is created by the artefact store, which the ledger knows of
before the first byte, or belongs to a backup that the ledger lists. Whatever else lies under a home
is in :data:`FIXED_FILES`, each with the reason why no record is in it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from cluster.store import DOOMED, SUFFIX

DATABASE: Final = "ledger.db"  # stands for whatever storage.database names
BACKUPS: Final = "backups"
CONFIG_FILE: Final = "config.yaml"
FIXED_FILES: Final = {
    "HOME": "a random id, which makes the folder a home",
    "LOCK": "number of the process that holds the home",
    CONFIG_FILE: "settings",
    DATABASE: "the ledger: keyed hashes, counts, digests; what names a record is in cipher",
    f"{DATABASE}-wal": "the ledger's log, cut when a request is done",
    f"{DATABASE}-shm": "index of that log",
    f"{DATABASE}-journal": "the ledger's rollback journal",
    "keys/*": "random keys",
    "keys/payload/*": "random keys of requests' payloads, destroyed with them",
    "staging/*/config.yaml.tmp": "the configuration, before it is renamed into place",
    "staging/*": "an empty file that bars an earlier holder of the lease",
}


def is_fixed(path: PurePosixPath, database: str = DATABASE) -> bool:
    """Whether a path, relative to its home, is in the table.

    Args:
        path: the file.
        database: the ledger's file, relative to the home.
    """
    names = [name.replace(DATABASE, database) for name in FIXED_FILES]
    return any(_matches(path, PurePosixPath(name)) for name in names)


def _matches(path: PurePosixPath, pattern: PurePosixPath) -> bool:
    same_depth = len(path.parts) == len(pattern.parts)
    pairs = zip(path.parts, pattern.parts, strict=False)
    return same_depth and all(fnmatchcase(part, wanted) for part, wanted in pairs)


def artefact_of(path: PurePosixPath) -> tuple[str, str] | None:
    """``(kind, key)`` of a file of an artefact: promoted, staged, or about to be destroyed."""
    parts = path.parts
    if len(parts) != 3:
        return None
    if parts[0] == "objects" and parts[2].endswith(SUFFIX):
        return parts[1], parts[2].removesuffix(SUFFIX)
    if parts[0] == "staging" and (SUFFIX in parts[2] or parts[2].endswith(DOOMED)):
        name = parts[2].partition(SUFFIX)[0].removesuffix(DOOMED)
        kind, _, key = name.partition(".")
        return kind, key
    return None


def backup_of(path: PurePosixPath) -> str | None:
    """Name of the backup that a file belongs to, relative to its home."""
    return path.parts[1] if len(path.parts) > 2 and path.parts[0] == BACKUPS else None


def files_below(home: Path) -> Iterator[PurePosixPath]:
    """Every file under a home, by its path in it."""
    for folder, _, names in os.walk(home):
        inside = PurePosixPath(Path(folder).relative_to(home).as_posix())
        yield from (inside / name for name in sorted(names))


def stray_files(
    home: Path,
    registered: Collection[tuple[str, str]],
    backups: Collection[str],
    database: str = DATABASE,
) -> list[str]:
    """Files under a home that nothing accounts for, so that no purge would find them.

    Args:
        home: folder of the system.
        registered: every artefact that the ledger knows of.
        backups: names of the backups that it knows of.
        database: the ledger's file, relative to the home.
    """
    return [
        str(path)
        for path in files_below(home)
        if not is_fixed(path, database)
        and artefact_of(path) not in registered
        and backup_of(path) not in backups
    ]
