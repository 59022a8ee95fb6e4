"""A served home with a past, and headless Chromium."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from coordinator.pools.inline import InlinePool
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from shards.config import ShardsConfig
from shards.recipe import choose_profile
from tests.coordinator.serving.console.browsing import console_app
from tests.coordinator.systems import Workbench, planted

CHROMIUM = Path("/usr/bin/chromium")
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PEOPLE, SHARDS, EPOCHS = 160, 6, 60
DAYS = 12  # of the past that the home has
POLL_S = 0.1


class PastClock:
    """Tells a time of the past until it is told that this is today."""

    def __init__(self) -> None:
        self.behind = timedelta(days=DAYS)

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.behind


@dataclass
class Served:
    """A console that answers.

    Attributes:
        url: of the server.
        office: behind it.
        keys: role -> API key.
    """

    url: str
    office: Office
    keys: dict[str, str]

    def fresh_id(self) -> str:
        """Somebody whom nobody asked to forget."""
        return trained_on(self.office)[-1]

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for the office."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(POLL_S)


def trained_on(office: Office) -> list[str]:
    """Ids that a shard holds and that nobody asked to forget, ascending."""
    system = office.system
    return [str(i) for i in sorted(system.partition.assignment) if system.graph.has_node(i)]


def past_of(office: Office, clock: PastClock) -> None:
    """Requests of some days, most of them carried out, and some that wait."""
    ids = trained_on(office)
    options = {"requested_by": "dpo", "priority": "urgent"}
    for day in range(DAYS, 0, -2):
        clock.behind = timedelta(days=day)
        for node in ids[day : day + 1 + day % 3]:
            office.submit({"kind": "nodes", "selector": {"ids": [node]}}, None, options)
        office.system.run()
    clock.behind = timedelta(0)
    waiting = [submit_one(office, node) for node in ids[20:24]]
    office.act(waiting[0], "hold", "dpo", "a legal claim, file 12/2026")
    office.act(waiting[1], "cancel", "dpo", "asked by mistake")
    large = {"kind": "labels", "selector": {"ids": ids[30:55]}}
    office.submit(large, None, {"requested_by": "dpo"})


def submit_one(office: Office, node: str) -> str:
    """Id of a request that waits for its window."""
    asked = {"kind": "nodes", "selector": {"ids": [node]}}
    return str(office.submit(asked, None, {"requested_by": "dpo"})["request_id"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = ShardsConfig()
    pool = InlinePool(choose_profile(config), config, SHARDS)
    root, clock = tmp_path_factory.mktemp("served"), PastClock()
    bench = Workbench(pool, root)
    options = {
        "partition.num_shards": SHARDS,
        "shards.training_epochs": EPOCHS,
        "erasure.approve_above": 20,
    }
    bench.fit(planted(5, PEOPLE, prefix="person-"), options, home=root / "home").close()
    with Office(root / "home", pool, clock, ServeSettings(run_batches=False)) as office:
        past_of(office, clock)
    with Office(root / "home", pool, clock, ServeSettings(poll_s=0.2)) as office:
        keys = {
            role: office.create_key(role, "test", note=note)["key"]
            for role, note in (("admin", "Ada"), ("viewer", "wall screen"), ("requester", "desk"))
        }
        with running(office) as url:
            yield Served(url, office, keys)
    pool.close()


@contextmanager
def running(office: Office) -> Iterator[str]:
    """Serve the console on a free port of this host; its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(console_app(office), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, headless, which asks nobody but our server."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; install it with: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGS))
        yield browser
        browser.close()
