"""What the commands of several modules share: options, ids, an open system, the JSON line."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import ConfigError, HomeError

if TYPE_CHECKING:
    from cluster.schema import Schema
    from coordinator.config import Config
    from coordinator.ledger import Ledger
    from coordinator.reconcile import Progress
    from coordinator.system import System

Home = Annotated[Path, typer.Option("--home", help="Folder of the system.")]
PoolName = Annotated[str, typer.Option("--pool", help="ray, or inline for one child process.")]
Data = Annotated[str, typer.Option("--data", help="A named data set or a folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.field=value, may be repeated.")
]


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object as the last line of stdout."""
    sys.stdout.write(json.dumps(value) + "\n")


def parse_ids(texts: list[str], schema: Schema) -> list[Any]:
    """Typed ids from the command line.

    Raises:
        ConfigError: a text is not an id of the graph's type.
    """
    make: Any = {"int": int, "str": str, "uuid": uuid.UUID}[schema.id_type]
    try:
        return [make(text) for text in texts]
    except ValueError as error:
        raise ConfigError(f"ids of this graph are {schema.id_type}: {error}") from None


@contextmanager
def open_system(home: Path, pool: str, *, settle: bool = True) -> Iterator[System]:
    """Open a home with progress on the terminal."""
    from coordinator.system import System

    with (
        progress_bars() as progress,
        System.open(home, pool=pool, progress=progress, settle=settle) as system,
    ):
        yield system


@contextmanager
def open_ledger(home: Path) -> Iterator[tuple[Ledger, Config]]:
    """A home's ledger to read, beside a coordinator that may be at work, and its configuration.

    Raises:
        HomeError: there is no system in this folder.
    """
    from coordinator.config import load_config
    from coordinator.ledger import Ledger

    file = home / "config.yaml"
    if not file.exists():
        raise HomeError(f"no system in {home}; make one with `unweave train --home {home}`")
    config = load_config(file)
    ledger = Ledger(config.storage.database or "ledger.db", home=home)
    try:
        yield ledger, config
    finally:
        ledger.close()


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars on stderr, one a stage; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks or bars.tasks[tasks[stage]].finished:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
