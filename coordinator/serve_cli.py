"""The ``serve`` command: a home answered for over HTTP, on this machine or on a cluster."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import ConfigError
from coordinator.terminal import Home

if TYPE_CHECKING:
    from coordinator.serving.settings import ServeSettings


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
    _serve(home, host, port, replicas, _load(settings), init)


def _load(path: Path | None) -> ServeSettings:
    """The settings of a file; the defaults without one.

    Raises:
        ConfigError: it cannot be read, or says something wrong.
    """
    import yaml
    from pydantic import ValidationError

    from coordinator.serving.settings import ServeSettings

    if path is None:
        return ServeSettings()
    try:
        return ServeSettings.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _serve(
    home: Path, host: str, port: int, replicas: int, settings: ServeSettings, init: bool
) -> None:
    """Serve until the process is told to end.

    Raises:
        ConfigError: the extra is not installed, or ``init`` and there are keys.
    """
    from coordinator.pools.ray import connect, disconnect  # before Ray: declares its environment

    try:
        from coordinator.serving.deployment import start, stop
    except ImportError as error:
        raise ConfigError(
            f"serving needs the extra 'serve' ({error}); pip install 'unweave[serve]'"
        ) from error

    ended, owns = threading.Event(), connect()
    try:
        args = {"home": home.absolute(), "replicas": replicas, "settings": settings}
        start(args, host, port)
        for name in (signal.SIGINT, signal.SIGTERM):  # Ray puts its own handlers in when it starts
            signal.signal(name, lambda *_: ended.set())
        url = f"http://{host}:{port}"
        typer.echo(f"answering at {url}, console at {url}/console", err=True)
        key = _first_key() if init else {}
        typer.echo(json.dumps({"url": url, "home": str(home), **key}))
        ended.wait()
    finally:
        stop()
        if owns:
            disconnect()


def _first_key() -> dict[str, str]:
    """Make the first admin key.

    Raises:
        ConfigError: there are keys already.
    """
    from coordinator.serving.deployment import RayOffice
    from coordinator.serving.office import Office

    office = RayOffice()
    if office.ask_now(Office.list_keys):
        raise ConfigError(
            "this home has API keys already; leave --init out, and make further ones with an admin "
            "key at /console/settings or POST /v1/api-keys"
        )
    key = str(office.ask_now(Office.create_key, "admin", "serve --init")["key"])
    typer.echo(f"admin key, shown this once: {key}", err=True)
    return {"admin_key": key}
