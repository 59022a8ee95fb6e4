"""One request to an ASGI app, message by message, as a hostile client would send it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What an app answered.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        body: the whole body.
        taken: number of body messages that the app asked for.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    taken: int = 0

    def json(self) -> Any:
        return json.loads(self.body)


def send_raw(
    app: Any,
    method: str,
    path: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    chunks: Iterable[bytes] = (),
    *,
    pause_s: float = 0.0,
    raw_path: bytes | None = None,
) -> Answer:
    """Send a request whose body comes in chunks, each after a pause; the end is never said."""
    answer, left = Answer(), iter(chunks)

    async def receive() -> dict[str, Any]:
        answer.taken += 1
        await asyncio.sleep(pause_s)
        try:
            return {"type": "http.request", "body": next(left), "more_body": True}
        except StopIteration:
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            found = message["headers"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in found}
        else:
            answer.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw_path or path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return answer
