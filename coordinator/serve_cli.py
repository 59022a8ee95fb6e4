"""The ``serve`` command: a home answered for over HTTP, on this machine or on a cluster."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.terminal import Home


def serve(
    home: Home,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Replicas.")] = 1,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of the serve: section.")
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Make the first admin key and print it, once.")
    ] = False,
) -> None:
    """Answer predictions and erasure requests over HTTP, with a console at /console."""
    from coordinator.serving.settings import load_settings

    found = load_settings(settings)
    if init:
        _print_first_key(home)
    _serve(home, host, port, replicas, found)


def _print_first_key(home: Path) -> None:
    from coordinator.serving.access import first_admin_key

    key = first_admin_key(home)
    typer.echo(f"admin key, shown this once: {key}", err=True)
    typer.echo(json.dumps({"admin_key": key}))


def _serve(home: Path, host: str, port: int, replicas: int, settings: Any) -> None:
    from coordinator.pools.ray import connect
    from coordinator.serving.deployment import APP, app

    import ray  # noqa: I001 (its environment is declared by the import above)
    from ray import serve as ray_serve

    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    owns = connect()
    try:
        ray_serve.start(http_options={"host": host, "port": port})
        args = {"home": home.absolute(), "replicas": replicas, "settings": settings}
        ray_serve.run(app(args), name=APP, route_prefix="/")
        typer.echo(
            f"answering at http://{host}:{port}, console at http://{host}:{port}/console", err=True
        )
        typer.echo(json.dumps({"url": f"http://{host}:{port}", "home": str(home)}))
        ended.wait()
    finally:
        ray_serve.shutdown()
        if owns:
            ray.shutdown()
