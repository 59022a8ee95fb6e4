"""Callbacks: signed, at least once, with growing pauses; and never to where they may not go."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import NotFoundError, RequestError
from coordinator.pools.inline import InlinePool
from coordinator.serving.callbacks import LIFE
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from coordinator.serving.webhooks import Caller, check_url, is_public
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import served_home
from tests.coordinator.systems import Workbench

LOCAL = ServeSettings(
    run_batches=False,
    webhook_hosts=("127.0.0.1", "localhost", ".example.com"),
    webhook_private=True,
    webhook_http=True,
    webhook_timeout_s=0.5,
)
STRICT = LOCAL.model_copy(update={"webhook_private": False})


@dataclass
class Receiver:
    """A server on this machine that answers as it is told and keeps what it got."""

    status: int = 200
    location: str = ""
    drip: bool = False
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/cb?x=1"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append((self.path, dict(self.headers), body))
            if state.drip:
                self.wfile.write(b"HTTP/1.0 ")
                for _ in range(100):
                    time.sleep(0.1)
                    self.wfile.write(b" ")
            self.send_response(state.status)
            if state.location:
                self.send_header("Location", state.location)
            self.end_headers()
            self.wfile.write(b"x" * 1_000_000)

        def log_message(self, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


# ---- where calls may go


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.1", "198.18.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::",
        "2001:db8::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_open_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_addresses_of_the_open_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://dsr.example.com/cb",
        "ftp://dsr.example.com/",
        "file:///etc/passwd",
        "gopher://dsr.example.com/",
        "https://evil.com/",
        "https://example.com.evil.com/",
        "https://evil-example.com/",
        "https://dsr.example.com@evil.com/",
        "https://user:pass@dsr.example.com/",
        "https://dsr.example.com/#x",
        "https://dsr.example.com:0/",
        "https://dsr.example.com:99999/",
        "https://dsr.example.com/\r\nHost: evil.com",
        "https://dsr.example.com/ x",
        "https://dsr.еxample.com/",
        "https://[::1/",
        "https:///cb",
        "//dsr.example.com/cb",
        "https://dsr.example.com/" + "x" * 3000,
        "",
    ],
)
def test_urls_that_are_refused_when_they_are_given(url: str) -> None:
    settings = ServeSettings(webhook_hosts=(".example.com",))
    with pytest.raises(RequestError):
        check_url(url, settings)


def test_urls_that_are_taken() -> None:
    settings = ServeSettings(webhook_hosts=("dsr.example.com", ".example.org"))
    for url in (
        "https://dsr.example.com/cb?x=1",
        "https://DSR.example.com:8443",
        "https://a.example.org",
    ):
        check_url(url, settings)
    with pytest.raises(RequestError):
        check_url("https://dsr.example.com/", ServeSettings())  # nobody is allowed at first


def test_a_private_address_gets_no_byte(receiver: Receiver) -> None:
    assert Caller(STRICT).post(receiver.url, b"{}", {}).error == "private_address"
    assert receiver.got == []
    assert Caller(LOCAL).post(receiver.url, b"{}", {}).status == 200
    assert len(receiver.got) == 1


def test_the_address_that_was_checked_is_the_one_that_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when asked first, this machine ever after."""
    asked, connected = [], []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34" if len(asked) == 1 else "127.0.0.1"]

    def mixed(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    def refuse(address: Any, *args: Any, **options: Any) -> Any:
        connected.append(address)
        raise OSError("no way out")

    monkeypatch.setattr(socket, "create_connection", refuse)
    url = f"http://dsr.example.com:{receiver.port}/"

    assert Caller(STRICT, rebinding).post(url, b"{}", {}).error == "no_answer"
    assert asked == ["dsr.example.com"]
    assert connected == [("93.184.216.34", receiver.port)]
    assert Caller(STRICT, rebinding).post(url, b"{}", {}).error == "private_address"
    assert Caller(STRICT, mixed).post(url, b"{}", {}).error == "private_address"
    assert len(connected) == 1


def test_the_name_is_resolved_by_nothing_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    real = socket.create_connection

    def note(address: Any, *args: Any, **options: Any) -> Any:
        connected.append(address)
        return real(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", note)
    caller = Caller(LOCAL, lambda host, port: ["127.0.0.1"])
    outcome = caller.post(f"http://dsr.example.com:{receiver.port}/cb", b"{}", {})

    assert outcome.status == 200
    assert connected == [("127.0.0.1", receiver.port)]
    assert receiver.got[0][1]["Host"] == f"dsr.example.com:{receiver.port}"


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.location = 307, f"http://127.0.0.1:{receiver.port}/elsewhere"
    outcome = Caller(LOCAL).post(receiver.url, b"{}", {})
    assert (outcome.status, outcome.error) == (307, "status")
    assert [path for path, _, _ in receiver.got] == ["/cb?x=1"]


def test_a_server_that_dribbles_is_cut_off(receiver: Receiver) -> None:
    receiver.drip, started = True, time.monotonic()
    assert Caller(LOCAL).post(receiver.url, b"{}", {}).error
    assert time.monotonic() - started < 3


def test_a_server_that_dribbles_a_handshake_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def dribble() -> None:
            channel, _ = server.accept()
            with channel, suppress(OSError):
                channel.sendall(b"\x16\x03\x03\x40\x00")
                while True:
                    channel.sendall(b"x")
                    time.sleep(0.1)

        threading.Thread(target=dribble, daemon=True).start()
        started = time.monotonic()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        assert Caller(LOCAL).post(url, b"{}", {}).error
    assert time.monotonic() - started < 3


def test_a_host_that_is_not_there(receiver: Receiver) -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert Caller(LOCAL, nowhere).post("http://x.example.com/", b"", {}).error == "no_such_host"
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    assert Caller(LOCAL).post(f"http://127.0.0.1:{port}/", b"", {}).error == "no_answer"
    tls = LOCAL.model_copy(update={"webhook_http": False})
    url = receiver.url.replace("http://", "https://")
    assert Caller(tls).post(url, b"", {}).error in ("tls", "no_answer", "timeout")


# ---- what is delivered


@pytest.fixture(scope="module")
def telling(
    shared_bench: Workbench, pool: InlinePool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    clock = Clock()
    home = served_home(shared_bench, clock, tmp_path_factory.mktemp("telling") / "home")
    with Office(home, pool, clock, LOCAL) as office:
        yield office


def submit(office: Office, url: str, node: int, **options: Any) -> tuple[dict[str, Any], str]:
    secret = office.create_webhook_secret("ann")
    node_id = office.system.graph.ids.tolist()[node]
    asked = {"kind": "nodes", "selector": {"ids": [node_id]}}
    told = [{"url": url, "secret_id": secret["secret_id"]}]
    made = office.submit(asked, options={"callbacks": told, **options})
    return made, secret["secret"]


def test_every_event_is_told_once_and_signed(telling: Office, receiver: Receiver) -> None:
    made, secret = submit(telling, receiver.url, 0)
    key = made["request_id"]
    assert made["callbacks"][0]["host"] == "127.0.0.1"

    assert telling.deliver() == 1
    telling.act(key, "hold", "bob", "a claim")
    telling.act(key, "cancel", "bob")
    assert telling.deliver() == 2
    assert telling.deliver() == 0

    bodies = [json.loads(body) for _, _, body in receiver.got]
    assert [body["event"]["action"] for body in bodies] == ["accept", "hold", "cancel"]
    now = telling.request(key)
    assert {name: bodies[-1][name] for name in now if name != "parts"} == {
        name: value for name, value in now.items() if name != "parts"
    }
    for _, headers, body in receiver.got:
        parts = dict(part.split("=") for part in headers["Unweave-Signature"].split(","))
        signed = f"{parts['t']}.".encode() + body
        assert parts["v1"] == hmac.digest(secret.encode(), signed, hashlib.sha256).hex()
    assert len({headers["Unweave-Delivery"] for _, headers, _ in receiver.got}) == 3
    assert {d["state"] for d in telling.deliveries(request_id=key)} == {"delivered"}


def test_a_delivery_is_tried_for_three_days_and_is_then_a_dead_letter(
    telling: Office, receiver: Receiver
) -> None:
    clock: Any = telling.clock
    receiver.status = 500
    made, _ = submit(telling, receiver.url, 1)
    key, pauses, started = made["request_id"], [], clock()
    while True:
        telling.deliver()
        (delivery,) = telling.deliveries(request_id=key)
        if delivery["state"] == "dead":
            break
        assert clock() - started < LIFE
        pauses.append(datetime.fromisoformat(delivery["next_at"]) - clock())
        clock.now = datetime.fromisoformat(delivery["next_at"])

    assert pauses[:4] == [timedelta(seconds=s) for s in (10, 20, 40, 80)]
    assert max(pauses) == timedelta(hours=6)
    assert delivery["attempts"] == len(receiver.got) == len(pauses) + 1
    assert (delivery["last_status"], delivery["last_error"]) == (500, "status")
    assert telling.metrics()["deliveries"]["dead"] == 1

    receiver.status = 204
    telling.redeliver(delivery["delivery_id"], "ann")
    assert telling.deliver() == 1
    assert telling.deliveries(request_id=key)[0]["state"] == "delivered"
    with pytest.raises(NotFoundError):
        telling.redeliver("dlv_none")


def test_what_was_told_long_ago_is_let_go_of_and_not_told_again(
    telling: Office, receiver: Receiver
) -> None:
    clock: Any = telling.clock
    open_one, _ = submit(telling, receiver.url, 3)
    closed, _ = submit(telling, receiver.url, 4, idempotency_key="once")
    telling.act(closed["request_id"], "cancel", "bob")
    telling.deliver()
    clock.forward(days=29)
    telling.deliver()
    assert len(telling.deliveries(request_id=closed["request_id"])) == 2

    clock.forward(days=2)
    telling.deliver()

    callbacks = telling.ledger.callbacks
    names = [item["request_id"] for item in (open_one, closed)]
    assert [item.request_id for item in callbacks.of_requests(names)] == names[:1]
    assert not telling.deliveries(request_id=closed["request_id"])
    told = len(receiver.got)
    telling.add_callbacks(names[1], [(receiver.url, "127.0.0.1", "whs_0")])
    assert telling.deliver() == 0 and len(receiver.got) == told
    telling.act(names[0], "hold", "bob", "a claim")
    assert telling.deliver() == 1


def test_asking_again_by_the_same_key_tells_nobody_twice(
    telling: Office, receiver: Receiver
) -> None:
    secret = telling.create_webhook_secret("ann")["secret_id"]
    asked = {"kind": "nodes", "selector": {"ids": ["nobody"]}}
    options = {"callbacks": [{"url": receiver.url, "secret_id": secret}], "idempotency_key": "t"}
    first = telling.submit(asked, options=options)
    telling.deliver()
    again = telling.submit(asked, options=options)

    assert first["request_id"] == again["request_id"] and len(again["callbacks"]) == 1
    assert telling.deliver() == 0


def test_a_secret_that_was_taken_back_signs_nothing(telling: Office, receiver: Receiver) -> None:
    made, _ = submit(telling, receiver.url, 2)
    telling.delete_webhook_secret(made["callbacks"][0]["secret_id"], "ann")
    telling.deliver()

    (delivery,) = telling.deliveries(request_id=made["request_id"])
    assert (delivery["state"], delivery["last_error"]) == ("pending", "no_secret")
    assert receiver.got == []
    with pytest.raises(RequestError):
        telling.submit(
            {"kind": "nodes", "selector": {"ids": ["nobody"]}},
            options={"callbacks": [{"url": receiver.url, "secret_id": "whs_none"}]},
        )


def test_neither_urls_nor_secrets_stand_in_the_database(
    telling: Office, receiver: Receiver, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{receiver.port}/subjects/ada-lovelace"
    made, secret = submit(telling, url, 3)
    telling.deliver()

    raw = b"".join(path.read_bytes() for path in telling.system.home.glob("ledger.db*"))
    assert made["request_id"].encode() in raw
    assert b"ada-lovelace" not in raw and secret.encode() not in raw
    assert "ada-lovelace" not in json.dumps(telling.request(made["request_id"]))
