"""The ``unweave`` command. Imports torch and Ray only inside the commands that need them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import ConfigError, UnweaveError
from coordinator.audit_cli import audit_cmd
from coordinator.backup_cli import backup, backups, restore, tombstones
from coordinator.erase_cli import erase, plan
from coordinator.evidence_cli import certificates, log
from coordinator.requests_cli import app as requests_app
from coordinator.serve_cli import serve
from coordinator.study_cli import compare, tune
from coordinator.subjects_cli import app as subjects_app
from coordinator.terminal import (
    Data,
    Home,
    Json,
    PoolName,
    Settings,
    emit,
    open_system,
    parse_ids,
    progress_bars,
)

app = typer.Typer(
    name="unweave",
    help="Train graph neural networks on a sharded graph, and forget records exactly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    data: Data = "cora",
    config: Annotated[str, typer.Option("--config", help="File or preset.")] = "unweave",
    home: Annotated[Path | None, typer.Option("--home", help="Default: runs/demo-N.")] = None,
    pool: PoolName = "ray",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train 20 shards on Cora, forget one record of each kind, verify by replay."""
    from cluster.readers.catalog import load_dataset
    from coordinator.config import load_config, parse_overrides
    from coordinator.demo import run_demo

    resolved = load_config(config, parse_overrides(settings or []))
    with progress_bars() as progress:
        result = run_demo(data, load_dataset(data), resolved, home, pool, progress)
    if not as_json:
        from coordinator.screens import show_demo

        show_demo(result)
    emit(result)


@app.command()
def train(
    data: Data,
    home: Home,
    config: Annotated[str | None, typer.Option("--config", help="File or preset.")] = None,
    pool: PoolName = "ray",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Partition a graph, train every shard, fit the aggregator, publish."""
    from cluster.readers.catalog import load_dataset
    from coordinator.config import load_config, parse_overrides
    from coordinator.system import System

    resolved = load_config(config, parse_overrides(settings or []))
    with (
        progress_bars() as progress,
        System.fit(load_dataset(data), resolved, home, pool=pool, progress=progress) as system,
    ):
        accuracy = {role: round(system.accuracy(role), 4) for role in ("val", "test")}
        status_now = system.status() | {"accuracy": accuracy}
    if as_json:
        emit(status_now)
    else:
        from coordinator.screens import show_status

        show_status(status_now)


@app.command()
def predict(
    ids: Annotated[list[str], typer.Argument(help="Node ids.")],
    home: Home,
    pool: PoolName = "ray",
    as_json: Json = False,
) -> None:
    """Predict nodes of the current graph."""
    with open_system(home, pool) as system:
        answers = system.predict(parse_ids(ids, system.graph.schema))
    if as_json:
        rows = [
            {"id": str(i), "label": label, "proba": [round(p, 6) for p in proba]}
            for i, label, proba in zip(
                answers.ids, answers.labels.tolist(), answers.proba.tolist(), strict=True
            )
        ]
        emit({"generation": answers.generation, "results": rows})
    else:
        from coordinator.screens import show_predictions

        show_predictions(answers)


@app.command()
def verify(
    certificate: Annotated[
        Path | None, typer.Argument(help="A certificate; without one, --home is checked.")
    ] = None,
    home: Annotated[Path | None, typer.Option("--home", help="Folder of the system.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The issuer's issuer.pub, for a certificate.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="A home to compare a certificate with.")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option("--replay", help="all, or shards as 0,3,7; for a certificate: the home."),
    ] = None,
    shard: Annotated[
        list[int] | None, typer.Option("--shard", help="Of a certificate to replay.")
    ] = None,
    secret: Annotated[
        Path | None, typer.Option("--secret", help="File with a certificate's secret.")
    ] = None,
    disclosure: Annotated[
        Path | None, typer.Option("--disclosure", help="File with a disclosed leaf key.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="File with a record to look up.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild what is damaged.")] = False,
    as_json: Json = False,
) -> None:
    """Check a certificate; or a home: derive every key again, replay shards in a fresh process."""
    if certificate is not None:
        from coordinator.evidence_cli import verify_certificate

        if key is None:
            raise ConfigError("a certificate is checked with the issuer's key; give --key")
        verify_certificate(
            certificate,
            key,
            state=state,
            replay=None if replay is None else Path(replay),
            shards=shard,
            secret=secret,
            disclosure=disclosure,
            record=record,
            as_json=as_json,
        )
        return
    if home is None:
        raise ConfigError("nothing to verify; give --home, or a certificate and --key")
    shards = replay if replay is None or replay == "all" else parse_shards(replay)
    with open_system(home, "inline") as system:
        report = system.verify(shards, repair=repair)  # type: ignore[arg-type]
    if as_json:
        emit(report.to_json())
    else:
        from coordinator.screens import show_report

        show_report(report)
    if not report.ok:
        raise typer.Exit(7)


@app.command()
def status(home: Home, as_json: Json = False) -> None:
    """Show what is published: generation, shards, requests."""
    with open_system(home, "inline") as system:
        found = system.status()
    if as_json:
        emit(found)
    else:
        from coordinator.screens import show_status

        show_status(found)


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="A named data set or a folder.")] = None,
    as_json: Json = False,
) -> None:
    """List the named data sets, or load one and say what is in it."""
    from cluster.readers.catalog import DATASETS, load_dataset

    if name is None:
        found: dict[str, Any] = {"datasets": sorted(DATASETS)}
    else:
        graph = load_dataset(name)
        schema = graph.schema
        found = {
            "dataset": name,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "directed": schema.directed,
            "features": schema.num_features,
            "layout": schema.layout,
            "classes": list(schema.classes),
            "labelled": int((graph.y >= 0).sum()),
        }
    if as_json:
        emit(found)
    else:
        for key, value in found.items():
            typer.echo(f"{key:>10}  {value}")


app.command()(plan)
app.command()(erase)
app.command()(serve)
app.add_typer(requests_app)
app.add_typer(subjects_app)
app.add_typer(log, name="log")
app.add_typer(certificates, name="certificates")
app.command("audit")(audit_cmd)
app.command()(tune)
app.command()(compare)
for command in (backup, backups, restore):
    app.command()(command)
app.add_typer(tombstones)


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


def main() -> None:
    """Entry point: errors a user can act on become one message and an exit code."""
    try:
        app()
    except UnweaveError as error:
        typer.secho(f"error {error.code}  {error}", err=True, fg="red")
        if "--json" in sys.argv:
            problem = {"code": error.code, "type": type(error).__name__, "message": str(error)}
            emit({"error": problem})
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
