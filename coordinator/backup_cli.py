"""``unweave backup``, ``backups``, ``restore`` and ``tombstones``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.terminal import Home, Json, emit, open_system

if TYPE_CHECKING:
    from coordinator.ledger.backup_table import Backup


tombstones = typer.Typer(
    name="tombstones", help="What was erased, as keyed hashes.", no_args_is_help=True
)


def backup(
    home: Home,
    name: Annotated[str | None, typer.Option("--name", help="Default: the time.")] = None,
    as_json: Json = False,
) -> None:
    """Copy what is published; destroyed after retention.backup_days."""
    with open_system(home, "inline") as system:
        made = _row(system.backup(name))
    if as_json:
        emit(made)
    else:
        typer.echo(f"{made['name']}  {made['path']}  until {made['expires_at']}")


def backups(
    home: Home,
    remove: Annotated[str | None, typer.Option("--remove", help="Destroy this one now.")] = None,
    as_json: Json = False,
) -> None:
    """List the copies that are kept, with the time each is destroyed."""
    with open_system(home, "inline") as system:
        if remove is not None:
            system.remove_backup(remove)
        rows = [_row(item) for item in system.backups()]
    if as_json:
        emit({"backups": rows})
        return
    for row in rows:
        typer.echo(f"{row['name']}  made {row['made_at']}  until {row['expires_at']}")
    if not rows:
        typer.echo("no backups; make one with `unweave backup --home HOME`")


def restore(
    home: Home,
    backup: Annotated[str, typer.Option("--backup", help="Name in the home, or a folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="Make a new home here.")] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", help="'backup' for the one of then, a file or a preset."),
    ] = None,
    tombstones: Annotated[
        Path | None, typer.Option("--tombstones", help="An export, where the ledger is lost.")
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="ray, or inline.")] = "inline",
    as_json: Json = False,
) -> None:
    """Publish a backup's graph less everything erased since."""
    from coordinator.restore import restore as restore_home

    done = restore_home(home, backup, to=to, config=config, tombstones=tombstones, pool=pool)
    if as_json:
        emit(vars(done))
        return
    typer.echo(
        f"{done.home}: generation {done.generation} with {done.nodes} nodes and {done.edges} edges "
        f"({done.nodes_kept_out} nodes and {done.edges_kept_out} edges of the backup kept out)"
    )


@tombstones.command("export")
def export_command(
    home: Home,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("tombstones.json"),
    as_json: Json = False,
) -> None:
    """Write what was erased, as keyed hashes that name nobody; keep it away from the home."""
    from coordinator.restore import export_tombstones

    with open_system(home, "inline") as system:
        body = export_tombstones(system.engine.ledger, system.engine.clock())
    out.write_text(json.dumps(body) + "\n")
    result = {"out": str(out), "tombstones": len(body["tombstones"])}
    if as_json:
        emit(result)
    else:
        typer.echo(f"{result['tombstones']} tombstones in {out}")


def _row(backup: Backup) -> dict[str, Any]:
    return {
        "name": backup.name,
        "path": backup.path,
        "made_at": backup.made_at.isoformat(),
        "expires_at": backup.expires_at.isoformat() if backup.expires_at else None,
        "epoch": backup.epoch,
    }
