"""A real server on this machine: events as they happen, JSON logs, and no id in any line."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from cluster.errors import UnknownIdError
from coordinator.pools.inline import InlinePool
from coordinator.serving.api.app import make_app
from coordinator.serving.backend import LocalOffice
from coordinator.serving.logs import EXTRAS, TALKATIVE, JsonFormatter, configure_logs
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import WINDOWS, Replicas
from tests.coordinator.systems import Workbench, planted

MARK = "zanzibar"
SETTINGS = ServeSettings(poll_s=0.05, follow_s=0.02, body_timeout_s=0.5, max_streams=2)


@dataclass
class Served:
    """A server, its office and what it logged.

    Attributes:
        client: speaks to it over the loopback interface, with the key of an admin.
        office: its office.
        log: every line.
        key: the key.
    """

    client: httpx.Client
    office: Office
    log: io.StringIO
    key: str


@pytest.fixture(scope="module")
def served(
    shared_bench: Workbench, pool: InlinePool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    names = ("", *TALKATIVE, "uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(list(x.handlers), x.level, x.propagate, x.disabled) for x in loggers]
    log, clock = io.StringIO(), Clock()
    home = tmp_path_factory.mktemp("served") / "home"
    records = planted(10, prefix=f"{MARK}-")
    shared_bench.fit(records, WINDOWS, home=home, clock=clock).close()
    configure_logs("DEBUG", log)
    with Office(home, pool, clock, SETTINGS) as office:
        key = office.create_key("admin", "test")["key"]
        app = make_app(LocalOffice(office), Replicas(office), SETTINGS)
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            yield Served(client, office, log, key)
        server.should_exit = True
        thread.join()
    for logger, (handlers, level, propagate, disabled) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)


def nodes(*ids: Any) -> dict[str, Any]:
    return {"kind": "nodes", "selector": {"ids": list(ids)}}


def test_events_come_as_they_happen(served: Served) -> None:
    made = served.client.post("/v1/erasures", json=nodes(f"{MARK}-0001")).json()
    path, seen = f"/v1/erasures/{made['request_id']}", []

    with served.client.stream("GET", f"{path}/events", timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
            if seen == ["accepted"] and line == "":
                served.client.post(f"{path}:expedite", json={"reason": "now"})

    assert seen[0] == "accepted" and seen[-1] == "completed"
    assert "running" in seen and "unlearned" in seen
    done = served.client.get(path).json()
    assert done["progress"] is None and done["certificate_id"]


def test_one_key_has_few_streams_and_a_client_that_leaves_frees_its_own(served: Served) -> None:
    made = served.client.post("/v1/erasures", json=nodes(f"{MARK}-0003")).json()
    path = f"/v1/erasures/{made['request_id']}/events"

    def begin(streams: ExitStack) -> int:
        stream = streams.enter_context(served.client.stream("GET", path, timeout=30))
        return int(stream.status_code)

    with ExitStack() as streams:
        assert [begin(streams) for _ in range(3)] == [200, 200, 429]
    end = time.monotonic() + 10
    while True:
        with ExitStack() as streams:
            if begin(streams) == 200:
                break
        assert time.monotonic() < end, "those who left still count"
        time.sleep(0.05)


def test_a_body_that_never_ends_is_given_up(served: Served) -> None:
    def dribble() -> Iterator[bytes]:
        yield b'{"ids":["'
        time.sleep(1.5)
        yield MARK.encode()

    with pytest.raises(httpx.TransportError):  # or an answer, where it comes in time
        answer = served.client.post(
            "/v1/predict", content=dribble(), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 408
        raise httpx.RemoteProtocolError("answered")


def test_no_line_of_the_log_holds_an_id_or_a_key(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = served.client, f"{MARK}-0002"
    jsons = {"Content-Type": "application/json"}
    client.post("/v1/predict", json={"ids": [name, f"{MARK}-nobody"]})
    client.post("/v1/predict", content=f'{{"ids": ["{name}"'.encode(), headers=jsons)
    client.post("/v1/predict", json={"ids": [name], name: name})
    client.post("/v1/erasure-plans", json=nodes(name) | {"unknown": "raise"})
    client.post("/v1/erasure-plans", json=nodes(f"{MARK}-nobody") | {"unknown": "raise"})
    client.post("/v1/subjects:lookup", json=nodes(name))
    where = {"kind": "predicate", "selector": {"where": f"id = '{name}'"}}
    client.post("/v1/erasure-plans", json=where)
    client.post("/v1/erasures:bulk", content=f"id\n{name}\n", headers={"Content-Type": "text/csv"})
    client.get(f"/v1/erasures/{name}")
    client.get(f"/v1/nothing/{name}", params={"id": name})
    client.get("/v1/erasures", params={"state": name, "cursor": name})
    client.get("/v1/shards", headers={"X-Id": name, "Authorization": f"Bearer {name}"})
    client.request("ZANZIBAR", "/v1/predict")

    def fails(*args: Any, **options: Any) -> Any:
        raise KeyError(name)

    with monkeypatch.context() as patch:
        patch.setattr(Office, "shards", fails)
        assert client.get("/v1/shards").status_code == 500
    with monkeypatch.context() as patch:
        patch.setattr(served.office.system, "run", fails)
        patch.setattr(served.office.system.erasing, "next_batch", fails)
        time.sleep(0.3)

    text = served.log.getvalue()
    assert MARK not in text.lower()
    assert served.key.split("_", 3)[3] not in text
    lines = [json.loads(line) for line in text.splitlines()]
    known = {"at", "level", "logger", "message", "error", "frames", *EXTRAS}
    assert all(set(line) <= known for line in lines)
    access = [line for line in lines if line.get("event") == "access"]
    routes = {line["route"] for line in access}
    assert {"/v1/predict", "/v1/erasures:bulk", "unmatched"} <= routes
    assert all({"method", "route", "status", "duration_s"} <= set(line) for line in access)
    failed = [line for line in lines if line.get("event") == "route_failed"]
    assert failed[0]["error"] == "KeyError" and failed[0]["frames"]
    assert any(line.get("event") == "run_failed" for line in lines)


def test_the_place_of_an_error_is_logged_and_its_text_is_not(tmp_path: Path) -> None:
    try:
        raise UnknownIdError([MARK], "the graph")
    except UnknownIdError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it failed", (), info)
    record.secret = MARK

    line = JsonFormatter().format(record)

    found = json.loads(line)
    assert MARK not in line
    assert (found["code"], found["error"]) == ("UW-G002", "UnknownIdError")
    assert "test_logs.py" in found["frames"][0]


def test_what_nobody_waited_for_is_logged_without_its_text() -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)

    async def fail() -> None:
        raise UnknownIdError([MARK], "the graph")

    async def forget() -> None:
        tasks = [asyncio.create_task(fail())]
        await asyncio.sleep(0)
        tasks.clear()
        gc.collect()

    try:
        asyncio.run(forget())
    finally:
        logger.removeHandler(handler)

    assert "never retrieved" in log.getvalue() and MARK not in log.getvalue()
