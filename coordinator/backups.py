"""Backups: named copies of a home, kept for ``retention.backup_days`` and listed as residual.

A copy holds the artefacts of the published generation, the subject map and its rules, the
configuration, the home's secret and the ledger's rows. It holds no key of a request's payload and
none of the payloads, so what was asked and is not done yet is beyond use in it: pending requests
live on in the ledger of the home alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from cluster.errors import ConfigError, HomeError
from cluster.files import BACKUPS, CONFIG_FILE, DATABASE
from cluster.store import LocalStore, fsync_folder, write_privately
from coordinator.ledger import Ledger
from coordinator.ledger.backup_table import Backup
from coordinator.ledger.engine import database_url, open_engine, writing
from coordinator.ledger.tables import batches, certificates, lease, metadata, requests
from coordinator.ledger.vault import Vault
from coordinator.people import MAP, RULES, kept_map
from coordinator.requests.states import MASKED
from coordinator.selectors.subjects import SUBJECTS

if TYPE_CHECKING:
    from coordinator.engine import Engine

MANIFEST = "backup.json"  # written last: a copy without it is none
FORMATS = (1, 2)  # the last is written; 1 knew no subject map
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PAGE = 1000
# what is left out of the copied rows, and what stands in its place
LEFT_OUT: dict[str, dict[str, Any]] = {
    requests.name: {"payload": None, "vault_key": None},
    batches.name: {"evidence": None},
    certificates.name: {"secret": b""},
}


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself.

    Attributes:
        home_id: home it was made of.
        epoch: graph epoch up to which it holds no erased record.
        counter: epochs that the ledger had counted.
        audit: number and hash of the last row of the audit log.
        key_check: tells the home's secret, without telling it.
        made_at: when, in ISO 8601.
        number: number of the generation.
        body: the generation.
        subjects: key of the subject map; empty where the copy holds none.
        rules: what goes with a person, as the ledger keeps it.
    """

    home_id: str
    epoch: int
    counter: int
    audit: tuple[int, str]
    key_check: str
    made_at: str
    number: int
    body: dict[str, Any]
    subjects: str = ""
    rules: str = ""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it from a backup's folder.

        Raises:
            HomeError: there is no finished backup.
        """
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_text())
            if data.pop("format") not in FORMATS:
                raise HomeError(f"{path} is of another format; restore it with its own release")
            return cls(**data | {"audit": tuple(data["audit"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HomeError(
                f"{folder} holds no finished backup ({type(error).__name__}); `unweave backups` "
                "lists those of a home"
            ) from error


def make_backup(engine: Engine, name: str | None = None) -> Backup:
    """Copy what is published under ``home/backups/<name>``.

    The ledger lists the copy before its first byte, so that it is found and destroyed whatever
    happens.

    Args:
        engine: the home.
        name: its name; the time by default.

    Raises:
        ConfigError: the name cannot be that of a folder.
        HomeError: the name is taken, or the home cannot be written.
    """
    ledger, now = engine.ledger, engine.clock()
    name = name or now.strftime("%Y%m%dT%H%M%SZ")
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"backup name {name!r}: use up to 64 letters, digits, '.', '_', '-', a letter or digit "
            "first"
        )
    folder = engine.home / BACKUPS / name
    if folder.exists() and name not in {backup.name for backup in ledger.backups.list()}:
        raise HomeError(f"{folder} is there and is no backup of this ledger; choose another name")
    with ledger.write() as tx:
        epoch = _clean_up_to(ledger, tx)
        expires = now + timedelta(days=engine.config.retention.backup_days)
        backup = Backup(name, f"{BACKUPS}/{name}", now, expires, epoch)
        ledger.backups.add(tx, backup)
        ledger.audit.append(tx, "backup", "", None, {"name": name}, at=now)
    try:
        _fill(engine, folder, backup)
    except OSError as error:
        destroy_backup(ledger, engine.home, backup)
        raise HomeError(
            f"the backup {name!r} cannot be written ({error.strerror}); nothing of it is left, "
            "free some space or remove an older one"
        ) from error
    return backup


def _clean_up_to(ledger: Ledger, tx: Connection) -> int:
    """The last graph epoch before which nothing waits any more to be unlearned."""
    waiting = ledger.requests.find(state=MASKED, tx=tx)
    epochs = [record.epoch for record in waiting if record.epoch is not None]
    return min(epochs) - 1 if epochs else ledger.epoch(tx)


def _fill(engine: Engine, folder: Path, backup: Backup) -> None:
    engine.catch_up()
    generation, ledger = engine.live.generation, engine.ledger
    folder.mkdir(parents=True, mode=0o700)
    for kind, key in (*generation.artefacts, *kept_map(ledger)):
        source, target = engine.store.path(kind, key), LocalStore(folder).path(kind, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        _fsync(target)
    write_privately(folder / CONFIG_FILE, (engine.home / CONFIG_FILE).read_text())
    Vault(folder).begin(ledger.vault.secret)
    counter, audit = _copy_ledger(ledger, folder)
    manifest = Manifest(
        ledger.setting("home_id"),
        backup.epoch,
        counter,
        audit,
        ledger.vault.check_value(),
        backup.made_at.isoformat(),
        generation.number,
        generation.to_json(),
        ledger.setting(MAP),
        ledger.setting(RULES),
    )
    for below in (path for path in folder.rglob("*") if path.is_dir()):
        fsync_folder(below)
    write_privately(folder / MANIFEST, json.dumps(vars(manifest) | {"format": FORMATS[-1]}))
    fsync_folder(folder.parent)


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _copy_ledger(ledger: Ledger, folder: Path) -> tuple[int, tuple[int, str]]:
    """Write the rows of a ledger, whatever its database, into a new SQLite file.

    Rows and not pages: what dead pages hold does not come along.

    Returns:
        Epochs counted, and the head of the audit log.
    """
    target = open_engine(database_url(Path(DATABASE), folder))
    try:
        metadata.create_all(target)
        with ledger.write() as tx, writing(target) as out:
            for table in metadata.sorted_tables:
                if table is lease:
                    continue
                for page in tx.execute(select(table)).mappings().partitions(PAGE):
                    rows = [dict(row) | LEFT_OUT.get(table.name, {}) for row in page]
                    out.execute(table.insert(), rows)
            found = ledger.epoch(tx), ledger.audit.head(tx)
    finally:
        target.dispose()
    (folder / DATABASE).chmod(0o600)
    return found


def holds_people(home: Path, backup: Backup) -> bool:
    """Whether a copy holds a subject map, by what lies in it."""
    copied = LocalStore(home / backup.path).keys()
    return any(kind == SUBJECTS for kind, _ in copied)


# ---- their end


def expire_backups(ledger: Ledger, home: Path, now: datetime) -> list[str]:
    """Destroy backups whose time is over, and those that were never finished; their names."""
    over = {backup.name for backup in ledger.backups.list(expired_at=now)}
    doomed = [
        backup
        for backup in ledger.backups.list()
        if backup.name in over or not (home / backup.path / MANIFEST).exists()
    ]
    for backup in doomed:
        destroy_backup(ledger, home, backup)
    return [backup.name for backup in doomed]


def remove_backup(engine: Engine, name: str) -> None:
    """Destroy a backup before its time.

    Raises:
        HomeError: there is none of that name.
    """
    found = [backup for backup in engine.ledger.backups.list() if backup.name == name]
    if not found:
        names = [backup.name for backup in engine.ledger.backups.list()]
        raise HomeError(f"{engine.home} has no backup {name!r}; it has {names}")
    destroy_backup(engine.ledger, engine.home, found[0])


def destroy_backup(ledger: Ledger, home: Path, backup: Backup) -> None:
    """Destroy a copy and take it off the list; may be done again after an interruption."""
    folder = home / backup.path
    ledger.lease.require()
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
        fsync_folder(folder.parent)
    with ledger.write() as tx:
        ledger.backups.remove(tx, backup.name)
        ledger.audit.append(tx, "destroy backup", "", None, {"name": backup.name})
