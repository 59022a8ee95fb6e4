"""The ``serve`` command: a home answered for over HTTP, on this machine or on a cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import CapacityError, ConfigError, HomeError
from coordinator.terminal import Home, open_ledger

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
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="Make a further admin key, where the others were lost."),
    ] = False,
) -> None:
    """Answer predictions and erasure requests over HTTP, with a console at /console."""
    served = _load(settings)
    has_keys = _check_home(home)
    if init and has_keys:
        raise ConfigError(
            "this home has API keys already; leave --init out, and make further ones with an admin "
            "key at /console/settings or POST /v1/api-keys. Where no admin key is left, --new-key "
            "makes one"
        )
    if not (init or new_key or has_keys):
        typer.echo("no API key is valid, so nobody can ask: --init makes the first", err=True)
    if "RAY_ADDRESS" not in os.environ:  # a cluster's proxies may be there already
        _check_port(host, port)
    _serve(home, host, port, replicas, served, wants_key=init or new_key)


def _check_home(home: Path) -> bool:
    """Look at a home before anything is started; whether it has a key that is valid.

    Raises:
        HomeError: there is no system, or another process has it.
    """
    from coordinator.engine import utc_now
    from coordinator.lock import HomeLock

    with open_ledger(home) as (ledger, _):
        has_keys = any(key.is_valid(utc_now()) for key in ledger.api_keys.list())
    lock = HomeLock(home)
    if not lock.take():
        raise HomeError(
            f"{home} is in use by process {lock.owner()}, perhaps another `unweave serve`; "
            "end that one first"
        )
    lock.release()
    return has_keys


def _check_port(host: str, port: int) -> None:
    """Refuse a port that is taken; Ray's proxies would share it, and with it the requests.

    Raises:
        ConfigError: somebody listens there, or nobody may.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be listened on ({error.strerror}); end what is "
                "there, or choose another --port"
            ) from None


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
    home: Path, host: str, port: int, replicas: int, settings: ServeSettings, *, wants_key: bool
) -> None:
    """Serve until the process is told to end.

    Raises:
        ConfigError: the extra is not installed.
        CapacityError: Ray could not start the service.
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
        try:
            start(args, host, port)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise CapacityError(f"the service did not start: {why}; see Ray's logs") from None
        for name in (signal.SIGINT, signal.SIGTERM):  # Ray puts its own handlers in when it starts
            signal.signal(name, lambda *_: ended.set())
        url = f"http://{host}:{port}"
        typer.echo(f"answering at {url}, console at {url}/console", err=True)
        key = {"admin_key": _admin_key()} if wants_key else {}
        typer.echo(json.dumps({"url": url, "home": str(home), **key}))
        ended.wait()
        typer.echo("stopping", err=True)
    finally:
        stop()
        if owns:
            disconnect()


def _admin_key() -> str:
    """Make an admin key; its text is printed once and kept nowhere."""
    from coordinator.serving.deployment import RayOffice
    from coordinator.serving.office import Office

    key = RayOffice().ask_now(Office.create_key, "admin", "unweave serve")["key"]
    typer.echo("the admin key below is shown this once", err=True)
    return str(key)
