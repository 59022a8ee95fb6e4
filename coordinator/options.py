"""What the commands that open a home share: options, what was typed, and progress."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.schema import Schema
    from coordinator.erasure import Erasure
    from coordinator.reconcile import Progress
    from coordinator.system import System

Home = Annotated[Path, typer.Option("--home", help="Folder of the system.")]
PoolName = Annotated[str, typer.Option("--pool", help="ray, or inline for one child process.")]

# ---- reading what was typed


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


def parse_erasure(
    schema: Schema,
    nodes: list[str] | None,
    edges: list[str] | None,
    features: list[str] | None,
    labels: list[str] | None,
) -> Erasure:
    """An erasure from the command line's options.

    Raises:
        ConfigError: nothing is asked, or an option cannot be read.
    """
    from coordinator.erasure import Erasure

    pairs = [text.split(",") for text in edges or []]
    for pair in pairs:
        if len(pair) != 2:
            raise ConfigError(f"--edge {','.join(pair)!r} is not U,V")
    cells = [text.partition("=") for text in features or []]
    erasure = Erasure(
        parse_ids(nodes or [], schema),
        [tuple(parse_ids(pair, schema)) for pair in pairs],
        {
            parse_ids([node_id], schema)[0]: columns.split(",") if sign else None
            for node_id, sign, columns in cells
        },
        parse_ids(labels or [], schema),
    )
    if erasure.is_empty:
        raise ConfigError(
            "nothing to forget; give --node, --edge, --feature, --label, "
            "--subject, --where or --ids-file"
        )
    return erasure


def parse_shards(text: str) -> list[int]:
    """Shard numbers from ``0,3,7``.

    Raises:
        ConfigError: the text is something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--replay {text!r} is neither 'all' nor shard numbers as 0,3,7"
        ) from None


def check_unknown(text: str) -> Any:
    """``raise`` or ``report``.

    Raises:
        ConfigError: the text is something else.
    """
    if text not in ("raise", "report"):
        raise ConfigError(f"--unknown is {text!r}; choose raise or report")
    return text


# ---- around a command


@contextmanager
def open_system(home: Path, pool: str) -> Iterator[System]:
    """Open a home with progress on the terminal."""
    from coordinator.system import System

    with progress_bars() as progress, System.open(home, pool=pool, progress=progress) as system:
        yield system


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
