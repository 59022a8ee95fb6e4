"""``unweave audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import ConfigError
from coordinator.terminal import Home, Json, emit, open_system, parse_ids

if TYPE_CHECKING:
    from coordinator.audit.settings import QueryMode

EXIT_FAILED = 7

Copy = Annotated[
    str, typer.Option("--data", help="The auditor's copy of the graph: a data set or a folder.")
]
ErasedFile = Annotated[
    Path | None, typer.Option("--erased-file", help="File with one erased node id a line.")
]


def audit_cmd(
    home: Home,
    data: Copy,
    node: Annotated[list[str] | None, typer.Option("--node", help="Erased node.")] = None,
    erased_file: ErasedFile = None,
    shard: Annotated[list[int] | None, typer.Option("--shard", help="Shard to audit.")] = None,
    references: Annotated[int, typer.Option("--references", help="Honest retrains.")] = 16,
    shadows: Annotated[int, typer.Option("--shadows", help="For LiRA; 0 without.")] = 32,
    level: Annotated[float, typer.Option("--level", help="Chance of a false alarm.")] = 0.01,
    query: Annotated[str, typer.Option("--query", help="0hop, or ind with edges.")] = "0hop",
    seed: Annotated[int, typer.Option("--seed", help="Of all trainings of the audit.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask statistically whether submodels still hold erased nodes; trains copies to compare."""
    from cluster.readers.catalog import load_dataset
    from coordinator.audit import AuditSettings, Verdict, audit_system
    from coordinator.erasure import Erasure

    settings = AuditSettings(
        references=references, shadows=shadows, level=level, seed=seed, query=_mode(query)
    )
    source = load_dataset(data)
    ids = parse_ids([*(node or []), *_lines(erased_file)], source.schema)
    erased = Erasure(nodes=ids) if ids else None
    with open_system(home, "inline") as system:
        report = audit_system(system, source, erased, shards=shard or None, settings=settings)
    if as_json:
        emit(report.to_json())
    else:
        from coordinator.screens import show_audit

        show_audit(report)
    if report.verdict is Verdict.FAIL:
        raise typer.Exit(EXIT_FAILED)


def _mode(text: str) -> QueryMode:
    """A query mode; the settings refuse any other."""
    mode: Any = text
    found: QueryMode = mode
    return found


def _lines(path: Path | None) -> list[str]:
    """Lines of a file that are not empty.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--erased-file {path} cannot be read as text ({error}); give one node id a line"
        ) from None
