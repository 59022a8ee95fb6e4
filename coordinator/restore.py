"""Restore: a backup's graph, less everything erased since, published as a new generation.

In place, the live ledger says what was erased. Elsewhere a new home is made, which takes the
tombstones along, so that what was erased stays erased there. Nothing is served before either is
done, and neither can be done where the tombstones may be older than the backup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from cluster.errors import ConfigError, HomeError
from cluster.files import BACKUPS, CONFIG_FILE
from cluster.graph import Graph
from cluster.home import load_graph, load_partition
from cluster.partition import Partition
from cluster.store import LocalStore
from coordinator.backups import Manifest
from coordinator.config import Config, StorageConfig, load_config
from coordinator.engine import Engine, utc_now
from coordinator.generation import Generation
from coordinator.ledger import Ledger
from coordinator.ledger.engine import database_url
from coordinator.ledger.ledger import mark
from coordinator.ledger.tombstone_table import Stone, standing
from coordinator.ledger.vault import Vault
from coordinator.mask import Mask
from coordinator.people import MAP, RULES
from coordinator.pools import Pool
from coordinator.preflight import check_config, require_labels
from coordinator.reconcile import Progress, Wanted, write_blobs
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.states import MASKED, State, may_return
from coordinator.selectors.subjects import SUBJECTS, SubjectMap
from coordinator.tombstones import UNLEARNED, Standing, without_erased

EXPORT_FORMAT = 1
OLDER_CONFIG = "backup"  # the configuration that the backup was made under


@dataclass(frozen=True)
class Restored:
    """What a restore published.

    Attributes:
        home: where.
        generation: its number there.
        generation_key: its key.
        nodes: nodes of its graph.
        edges: edges of its graph.
        nodes_kept_out: nodes of the backup that were erased since.
        edges_kept_out: edges of the backup that went since, with their nodes or alone.
    """

    home: str
    generation: int
    generation_key: str
    nodes: int
    edges: int
    nodes_kept_out: int
    edges_kept_out: int


def restore(
    home: str | Path,
    backup: str | Path,
    *,
    to: str | Path | None = None,
    config: Any = None,
    tombstones: str | Path | None = None,
    pool: str | Pool = "inline",
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Restored:
    """Build the surviving graph of a backup, and publish it.

    Requests that may still be taken back, or that are on hold, stay as they are in the live ledger
    and masked; all others count as erased.

    Args:
        home: the home that the backup is of.
        backup: name of a backup in it, or a folder that holds one.
        to: a new home to make; default the home itself, whose next generation it becomes.
        config: what to build with: the home's present configuration by default, ``"backup"`` for
            the one of then, or whatever :func:`coordinator.config.load_config` takes.
        tombstones: a file by :func:`export_tombstones`, where the ledger is lost; needs ``to``.
        pool: as in :meth:`coordinator.system.System.fit`.
        progress: called with (stage, done, total).
        clock: what is timed by.

    Raises:
        HomeError: there is no such backup, or what was erased since is not known.
        ConfigError: the options do not fit together.
    """
    source = Path(home)
    folder = Path(backup) if Path(backup).is_dir() else source / BACKUPS / str(backup)
    manifest = Manifest.read(folder)
    settings = _chosen_config(source, folder, config)
    report = progress or (lambda stage, done, total: None)
    if to is None:
        if tombstones is not None:
            raise ConfigError("a tombstone file stands for a lost ledger: give to=, a new home")
        return _in_place(source, folder, manifest, settings, pool, report, clock)
    stones = _stones(source, folder, manifest, tombstones)
    settings = settings.model_copy(update={"storage": StorageConfig()})
    engine = _new_home(Path(to), folder, settings, stones, pool, report, clock)
    try:
        copied = load_graph(LocalStore(folder), manifest.body["graph_key"])
        graph = without_erased(engine.ledger, copied)
        require_labels(graph, settings)
        _take_people(engine, folder, manifest, graph)
        engine.begin(graph, _partition(folder, manifest, settings, graph), LocalStore(folder))
        return _restored(engine, copied)
    finally:
        engine.close()


def _chosen_config(home: Path, folder: Path, config: Any) -> Config:
    """What to build with; where requests, copies and the ledger go stays as it is now."""
    older = load_config(folder / CONFIG_FILE)
    present = load_config(home / CONFIG_FILE) if (home / CONFIG_FILE).exists() else older
    if config is None:
        return present
    chosen = older if config == OLDER_CONFIG else load_config(config)
    kept = ("storage", "erasure", "retention")
    chosen = chosen.model_copy(update={name: getattr(present, name) for name in kept})
    check_config(chosen, None)
    return chosen


def _partition(folder: Path, manifest: Manifest, config: Config, graph: Graph) -> Partition | None:
    """The backup's partition of what survives; None where the configuration asks for another."""
    older = load_config(folder / CONFIG_FILE)
    same = (older.partition, older.roles) == (config.partition, config.roles)
    partition = load_partition(LocalStore(folder), manifest.body["partition_key"])
    if not same or partition.guarantee == "rederived":
        return None
    return partition.restrict(graph)


def _people(
    engine: Engine, folder: Path, manifest: Manifest, graph: Graph, kept: Standing
) -> Callable[[Connection], None]:
    """Store the subject map that goes with a restored graph.

    It is the backup's, with the rules of then; where that holds none, the home's own stays. Who was
    erased since is not in it, and no node that the graph lacks.

    Returns:
        What makes it the home's, to be done where the graph is published.
    """
    people, ledger = engine.people, engine.ledger
    store, source = (folder, manifest.subjects) if manifest.subjects else (engine.home, "")
    key = source or ledger.setting(MAP)
    if not key:
        return lambda tx: None
    copied = SubjectMap.from_blob(LocalStore(store).get(SUBJECTS, key))
    subjects = people.survivors(copied, graph, kept)
    blobs = {(SUBJECTS, str(subjects.key)): subjects.to_blob()}
    write_blobs(ledger, engine.store, blobs, ledger.epoch())  # a damaged one is written again

    def note(tx: Connection) -> None:
        people.note(tx, subjects)
        if source:
            ledger.set_settings({RULES: manifest.rules}, tx)
        ledger.next_epoch(tx)  # a plan made under another map is void
        detail = {"subjects": len(subjects.subjects), "rows": subjects.num_rows}
        ledger.audit.append(tx, "restore subjects", "", None, detail)

    return note


def _take_people(engine: Engine, folder: Path, manifest: Manifest, graph: Graph) -> None:
    """The same for a home that holds nothing yet: the map is there before the graph is."""
    engine.store.initialise(engine.ledger.setting("home_id"))
    engine.store.bar(engine.ledger.lease.fence)
    note = _people(engine, folder, manifest, graph, UNLEARNED)
    with engine.ledger.write() as tx:
        note(tx)


def _restored(engine: Engine, copied: Graph) -> Restored:
    live = engine.live
    return Restored(
        str(engine.home),
        live.generation.number,
        live.generation.key,
        live.graph.num_nodes,
        live.graph.num_edges,
        copied.num_nodes - live.graph.num_nodes,
        copied.num_edges - live.graph.num_edges,
    )


# ---- in place


def _in_place(
    home: Path,
    folder: Path,
    manifest: Manifest,
    settings: Config,
    pool: str | Pool,
    progress: Progress,
    clock: Callable[[], datetime],
) -> Restored:
    _require_ledger(home, settings)
    engine = Engine(home, load_config(home / CONFIG_FILE), pool, progress, clock)
    try:
        _require_newer(engine.ledger, manifest)
        engine.store.check_marker(manifest.home_id)
        engine.store.bar(engine.ledger.lease.fence)
        number, body = engine.ledger.current_generation() or (manifest.number, manifest.body)
        previous = Generation.from_json(number, body)
        copied = load_graph(LocalStore(folder), manifest.body["graph_key"])
        kept = Standing(False, _kept_back(engine, clock()), manifest.epoch)
        graph = without_erased(engine.ledger, copied, kept)
        partition = _partition(folder, manifest, settings, graph)
        engine.config = settings
        made = partition or engine.cut(graph, allow_empty=True)
        wanted = Wanted(graph, made, engine.ledger.epoch(), None, previous)
        people = _people(engine, folder, manifest, graph, kept)
        engine.adopt(settings, wanted, LocalStore(folder), people)
        return _restored(engine, copied)
    finally:
        engine.close()


def _kept_back(engine: Engine, now: datetime) -> tuple[str, ...]:
    """Requests whose records must not be destroyed here.

    They may return, or meet what is on hold, or are of people: what those share with somebody who
    may return is told apart when their batch starts.
    """
    mask = Mask(engine)
    mask.load()
    return tuple(
        record.request_id
        for record in engine.ledger.requests.find(state=MASKED)
        if may_return(record, now)
        or record.request_id in mask.people
        or (record.request_id in mask.erasures and mask.is_held(record.request_id))
    )


def _require_ledger(home: Path, settings: Config) -> None:
    """No ledger may be made here: an empty one would know of no erasure."""
    database = settings.storage.database or "ledger.db"
    url = database_url(database, home)
    is_file = url.get_backend_name() == "sqlite"
    files = [home / CONFIG_FILE, home / "keys" / "home.key"]
    files += [Path(str(url.database))] if is_file else []
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise HomeError(
            f"{home} has no {', '.join(missing)}, so it is not known what was erased since the "
            "backup; give to=, a new home, and tombstones=, an export from after the backup"
        )


def _require_newer(ledger: Ledger, manifest: Manifest) -> None:
    """The ledger must go on where the backup's ended: same home, same audit log, more rows.

    Raises:
        HomeError: it does not, so that erasures could be missing in it.
    """
    seq, wanted = manifest.audit
    row = next(ledger.audit.rows(after=seq - 1), None) if seq else None
    same = row is None if not seq else row is not None and (row.seq, row.hash) == (seq, wanted)
    known = ledger.setting("home_id") == manifest.home_id and ledger.epoch() >= manifest.counter
    if not (known and same):
        raise HomeError(
            f"the ledger {ledger.name} is older than the backup or of another home, so it does not "
            "tell what was erased since; give to=, a new home, and tombstones=, an export from "
            "after the backup"
        )


# ---- into a new home


def _stones(
    home: Path, folder: Path, manifest: Manifest, file: str | Path | None
) -> dict[bytes, str]:
    """Every tombstone that is known of the home the backup is of."""
    exported = _read_export(Path(file), folder, manifest) if file is not None else None
    try:
        present = _live_stones(home, manifest)
    except HomeError:
        if exported is None:
            raise
        present = []
    return standing([*present, *(exported or ())], manifest.epoch)


def _live_stones(home: Path, manifest: Manifest) -> list[Stone]:
    config = load_config(home / CONFIG_FILE) if (home / CONFIG_FILE).exists() else Config()
    _require_ledger(home, config)
    ledger = Ledger(config.storage.database or "ledger.db", home=home)
    try:
        _require_newer(ledger, manifest)
        return ledger.tombstones.all()
    finally:
        ledger.close()


def _new_home(
    home: Path,
    folder: Path,
    config: Config,
    stones: Mapping[bytes, str],
    pool: str | Pool,
    progress: Progress,
    clock: Callable[[], datetime],
) -> Engine:
    """A home that knows what was erased in another, and holds nothing yet."""
    home.mkdir(parents=True, exist_ok=True)
    if (home / CONFIG_FILE).exists():
        raise HomeError(f"{home} holds a system already; restore into a new folder")
    Vault(home).begin(Vault(folder).secret)
    engine = Engine(home, config, pool, progress, clock)
    now = clock()
    record = RequestRecord(
        request_id=new_request_id(now),
        kind="mixed",
        state=State.COMPLETED,
        regulation=config.erasure.regulation,
        priority="normal",
        received_at=now,
        due_at=now,
        cancel_until=now,
        accepted_at=now,
        completed_at=now,
        reason="erased in the home that the backup is of",
    )
    with engine.ledger.write() as tx:
        record = replace(record, epoch=engine.ledger.next_epoch(tx))
        marks = {record.request_id: stones}
        engine.ledger.requests.add(tx, [record], {}, marks, action="restore")
        engine.ledger.audit.append(tx, "restore", "", None, {"tombstones": len(stones)}, at=now)
    return engine


# ---- the tombstones alone


def export_tombstones(ledger: Ledger, now: datetime) -> dict[str, Any]:
    """Every tombstone, as plain JSON: keyed hashes, which name nobody without the home's secret.

    Args:
        ledger: whose.
        now: the time.
    """
    seq, head = ledger.audit.head()
    body: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "home_id": ledger.setting("home_id"),
        "exported_at": now.isoformat(),
        "epoch": ledger.epoch(),
        "audit": [seq, head],
        "tombstones": [[s.mark.hex(), s.kind, s.readmitted] for s in ledger.tombstones.all()],
    }
    return body | {"seal": ledger.mark("tombstones", json.dumps(body, sort_keys=True)).hex()}


def _read_export(path: Path, folder: Path, manifest: Manifest) -> list[Stone]:
    """The tombstones of an export that was made after the backup.

    Raises:
        HomeError: it was not, is of another home, or was changed.
    """
    try:
        data = json.loads(path.read_text())
        seal = bytes.fromhex(data.pop("seal"))
        found = [Stone(bytes.fromhex(m), kind, at) for m, kind, at in data["tombstones"]]
        epoch, (seq, _), home_id = data["epoch"], data["audit"], data["home_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HomeError(
            f"{path} is no tombstone export ({type(error).__name__}); write one with "
            "`unweave tombstones export`"
        ) from error
    if home_id != manifest.home_id or seal != mark(
        Vault(folder).secret, "tombstones", json.dumps(data, sort_keys=True)
    ):
        raise HomeError(f"{path} is of another home than the backup, or was changed since")
    if epoch < manifest.counter or seq < manifest.audit[0]:
        raise HomeError(
            f"{path} is older than the backup ({data['exported_at']} against {manifest.made_at}), "
            "so it does not tell what was erased since; give a newer one"
        )
    return found
