"""What ``unweave serve`` looks at before it starts anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError, HomeError
from coordinator import serve_cli
from coordinator.pools.inline import InlinePool
from coordinator.serving.office import Office
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import QUIET, served_home
from tests.coordinator.systems import Workbench


@pytest.fixture(scope="module")
def home(shared_bench: Workbench, clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_home(shared_bench, clock, tmp_path_factory.mktemp("served") / "home")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is handed to Ray Serve, which is not started."""
    found: list[Any] = []
    monkeypatch.setattr(serve_cli, "_serve", lambda *a, **named: found.append((a, named)))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_home_that_is_not_there_or_in_use_is_refused_at_once(
    home: Path, asked: list[Any], pool: InlinePool, port: int, tmp_path: Path
) -> None:
    with pytest.raises(HomeError, match="no system in"):
        serve_cli.serve(tmp_path / "nothing", port=port)
    with Office(home, pool, settings=QUIET), pytest.raises(HomeError, match="in use by process"):
        serve_cli.serve(home, port=port)
    assert not asked


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_somebody_listens_on_is_refused(
    home: Path, asked: list[Any], shares: bool
) -> None:
    with socket.socket() as other:
        if shares:  # as Ray's proxies do
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="choose another --port"):
            serve_cli.serve(home, port=other.getsockname()[1])
    assert not asked


def test_the_first_key_is_made_once_and_a_further_one_on_demand(
    home: Path, asked: list[Any], pool: InlinePool, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_cli.serve(home, port=port)
    assert "--init makes the first" in capsys.readouterr().err
    serve_cli.serve(home, port=port, init=True)
    with Office(home, pool, settings=QUIET) as office:
        made = office.create_key("admin", "test")["key_id"]

    with pytest.raises(ConfigError, match="--new-key makes one"):
        serve_cli.serve(home, port=port, init=True)
    serve_cli.serve(home, port=port, new_key=True)
    serve_cli.serve(home, port=port)

    assert [named["wants_key"] for _, named in asked] == [False, True, True, False]
    assert capsys.readouterr().err == ""
    with Office(home, pool, settings=QUIET) as office:
        office.delete_key(made, "test")
    serve_cli.serve(home, port=port, init=True)  # none is valid any more
