"""``unweave serve`` as a user starts it: its own processes, a real Ray, HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.client import Client, ServiceError
from coordinator.system import System
from tests.coordinator.systems import planted, tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "serving.md").read_text()
START_S = 30  # on a quiet machine with two cores
PATIENCE_S = 150


@dataclass
class Service:
    """What ``unweave serve`` printed, and how long it took."""

    url: str
    key: str
    seconds: float


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serve")
    config = tiny({"aggregator.kind": "learned"})
    System.fit(planted(10, 60).graph(), config, folder / "home", pool="inline").close()
    command = [sys.executable, "-m", "coordinator.cli", "serve", "--home", str(folder / "home")]
    command += ["--init", "--port", str(free_port())]
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, (folder / "log").read_text()[-3000:]
        found = json.loads(line)
        yield Service(found["url"], found["admin_key"], time.monotonic() - started)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_S)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_a_fresh_home_is_predicted_and_forgets(service: Service) -> None:
    with Client(service.url, service.key) as client:
        answers = client.predict([11, 14])
        assert [result["id"] for result in answers.results] == [11, 14]
        assert answers.generation == 1

        made = client.erase("nodes", {"ids": [11]}, priority="urgent")
        again = client.predict([11, 14, 12])
        errors = [result.get("error", {}).get("status") for result in again.results]
        assert errors == [410, None, 404]

        done = client.wait(made["request_id"], PATIENCE_S)
        assert done["state"] == "completed"
        assert client.predict([14]).generation == 2
        assert client.predict([11]).results[0]["error"]["status"] == 410


def test_a_wrong_key_is_refused(service: Service) -> None:
    with Client(service.url, "uw_k1_no") as client, pytest.raises(ServiceError) as refused:
        client.predict([14])

    assert refused.value.status == 401


def test_the_documents_curl_examples_work(service: Service) -> None:
    (script,) = blocks("bash")

    done = subprocess.run(
        ["bash", "-euc", script],
        env=os.environ | {"URL": service.url, "KEY": service.key},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr + done.stdout


def test_the_documents_python_works(service: Service, tmp_path: Path) -> None:
    (code,) = blocks("python")
    (tmp_path / "example.py").write_text(f"URL, KEY = {service.url!r}, {service.key!r}\n{code}")

    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout


def test_the_console_asks_for_a_key(service: Service) -> None:
    import httpx

    page = httpx.get(f"{service.url}/console/", follow_redirects=True)

    assert page.status_code == 200
    assert page.url.path == "/console/login"
