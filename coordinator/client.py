"""A typed client of the REST interface: ``Client("http://127.0.0.1:8000", key="uw_k1_...")``.

Every method has an asynchronous twin whose name begins with ``a``. A call is tried again, at most
twice, when the service answers 503 or the connection is closed: both happen for a moment while a
replica is replaced. Erasures carry an idempotency key, so that trying again asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import httpx

from cluster.digest import NodeId
from cluster.errors import UnweaveError

RETRIES = 2
PAUSE_S = 0.2  # before the first try again; each one waits twice as long
TIMEOUT_S = 60.0
CLOSED = frozenset({"completed", "cancelled", "rejected", "duplicate", "failed"})


class ServiceError(UnweaveError):
    """The service refused a call, or could not be reached.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        problem: the problem document (RFC 9457).
    """

    code = "UW-S010"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, dict(problem)
        super().__init__(status, problem)

    def __str__(self) -> str:
        title, detail = self.problem.get("title", ""), self.problem.get("detail", "")
        code = self.problem.get("code")
        return f"{self.status} {title}{f' ({code})' if code else ''}: {detail}"


@dataclass(frozen=True)
class Answers:
    """Predictions of one call; all of one generation.

    Attributes:
        generation: its number.
        epoch: graph epoch up to which erasures are masked.
        policy: the strictest that held while shards retrain.
        stale_shards: shards that retrain.
        shard_policies: stale shard -> the policy that held for it.
        results: one a node, in order: ``id`` with ``label`` and ``proba``, or with ``error``.
    """

    generation: int
    epoch: int
    policy: str
    stale_shards: tuple[int, ...]
    shard_policies: Mapping[int, str]
    results: tuple[Mapping[str, Any], ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Answers:
        """From the body of an answer."""
        return cls(
            data["generation"],
            data["epoch"],
            data["policy"],
            tuple(data["stale_shards"]),
            {int(shard): policy for shard, policy in data["shard_policies"].items()},
            tuple(data["results"]),
        )

    def to_pandas(self) -> Any:
        """A data frame, one row a node."""
        import pandas as pd

        return pd.DataFrame(list(self.results))


@dataclass(frozen=True)
class Call:
    """One HTTP call."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """For httpx."""
        query = {name: value for name, value in self.query.items() if value is not None}
        body = {} if self.body is None else {"json": self.body}
        return {"params": query, "headers": dict(self.headers), **body}


class Client:
    """Talks to one service; a context manager, with ``with`` or ``async with``.

    Args:
        url: where it is.
        key: an API key or a token.
        timeout: seconds a call may take.
        retries: how often a call is tried again on 503 or a closed connection.
    """

    def __init__(
        self, url: str, key: str = "", *, timeout: float = TIMEOUT_S, retries: int = RETRIES
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._settings: dict[str, Any] = {
            "base_url": url.rstrip("/"),
            "headers": headers,
            "timeout": timeout,
        }
        self.retries = retries
        self.tried_again = 0  # calls that had to be tried again
        self._sync: httpx.Client | None = None
        self._async: httpx.AsyncClient | None = None

    # ---- predict

    def predict(
        self, ids: Sequence[NodeId], *, policy: str | None = None, top_k: int | None = None
    ) -> Answers:
        """Predict nodes.

        Args:
            ids: the nodes.
            policy: ``mask``, ``exclude`` or ``block`` while shards retrain; by default the
                strictest of the requests they retrain for, or the service's.
            top_k: only the most likely classes.
        """
        return Answers.from_json(self._send(_predict(ids, policy, top_k)))

    async def apredict(
        self, ids: Sequence[NodeId], *, policy: str | None = None, top_k: int | None = None
    ) -> Answers:
        """:meth:`predict`, asynchronously."""
        return Answers.from_json(await self._asend(_predict(ids, policy, top_k)))

    # ---- erase

    def plan(self, kind: str, selector: Mapping[str, Any]) -> dict[str, Any]:
        """Say what an erasure would do; its ``plan_id`` can be handed to :meth:`erase`."""
        return self._send(_plan(kind, selector))

    async def aplan(self, kind: str, selector: Mapping[str, Any]) -> dict[str, Any]:
        """:meth:`plan`, asynchronously."""
        return await self._asend(_plan(kind, selector))

    def erase(
        self,
        kind: str = "nodes",
        selector: Mapping[str, Any] | None = None,
        *,
        plan_id: str | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Ask for an erasure; once this returns it is durable, and no answer reads the records.

        Args:
            kind: ``nodes``, ``edges``, ``features``, ``labels``, ``subject`` or ``predicate``.
            selector: which, e.g. ``{"ids": [...]}`` or ``{"subject_id": "..."}``.
            plan_id: a plan instead.
            idempotency_key: names this call, so that it may be repeated; a fresh one by default.
            options: ``regulation``, ``priority``, ``serving_policy``, ``reason``,
                ``external_request_id``, ``callbacks`` and others of the route.
        """
        return self._send(_erase(kind, selector, plan_id, idempotency_key, options))

    async def aerase(
        self,
        kind: str = "nodes",
        selector: Mapping[str, Any] | None = None,
        *,
        plan_id: str | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """:meth:`erase`, asynchronously."""
        return await self._asend(_erase(kind, selector, plan_id, idempotency_key, options))

    def request(self, request_id: str) -> dict[str, Any]:
        """Where a request stands."""
        return self._send(Call("GET", f"/v1/erasures/{request_id}"))

    async def arequest(self, request_id: str) -> dict[str, Any]:
        """:meth:`request`, asynchronously."""
        return await self._asend(Call("GET", f"/v1/erasures/{request_id}"))

    def requests(self, **wanted: Any) -> Iterator[dict[str, Any]]:
        """All requests, page by page.

        Args:
            wanted: ``state``, ``due_before``, ``kind``, ``parent_id``.
        """
        cursor: str | None = None
        while True:
            page = self._send(_page(wanted, cursor))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def arequests(self, **wanted: Any) -> AsyncIterator[dict[str, Any]]:
        """:meth:`requests`, asynchronously."""
        cursor: str | None = None
        while True:
            page = await self._asend(_page(wanted, cursor))
            for item in page["items"]:
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def act(self, request_id: str, action: str, reason: str = "") -> dict[str, Any]:
        """``approve``, ``reject``, ``hold``, ``release``, ``extend``, ``retry``, ``expedite``."""
        return self._send(_act(request_id, action, reason))

    async def aact(self, request_id: str, action: str, reason: str = "") -> dict[str, Any]:
        """:meth:`act`, asynchronously."""
        return await self._asend(_act(request_id, action, reason))

    def cancel(self, request_id: str) -> dict[str, Any]:
        """Take a request back, while its window is open."""
        return self._send(Call("DELETE", f"/v1/erasures/{request_id}"))

    async def acancel(self, request_id: str) -> dict[str, Any]:
        """:meth:`cancel`, asynchronously."""
        return await self._asend(Call("DELETE", f"/v1/erasures/{request_id}"))

    def events(self, request_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Changes of a request as they happen, until it is closed; goes on after a lost connection.

        Args:
            request_id: the request.
            after: number of the last event seen.

        Raises:
            ServiceError: the call was refused, or nobody answered for as long as a call may take.
        """
        heard_at = time.monotonic()
        while True:
            try:
                for event in self._stream(request_id, after):
                    after = event["seq"]
                    yield event
                    if event["state"] in CLOSED:
                        return
                heard_at = time.monotonic()
                if self.request(request_id)["is_closed"]:  # what closed it was seen before
                    return
            except httpx.TransportError as error:
                if time.monotonic() - heard_at > TIMEOUT_S:
                    raise _unreachable(error) from None
            time.sleep(PAUSE_S)

    def _stream(self, request_id: str, after: int) -> Iterator[dict[str, Any]]:
        path, headers = f"/v1/erasures/{request_id}/events", {"Last-Event-ID": str(after)}
        with self._client().stream("GET", path, headers=headers) as answer:
            if answer.is_error:
                answer.read()
            _checked(answer)
            yield from _events(answer.iter_lines())

    def wait(self, request_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until a request is closed.

        Raises:
            ServiceError: the time is over.
        """
        started = time.monotonic()
        while True:
            found = self.request(request_id)
            if found["state"] in CLOSED:
                return found
            if timeout is not None and time.monotonic() - started > timeout:
                detail = f"{request_id} is {found['state']} after {timeout} s; it goes on"
                raise ServiceError(0, {"title": "Not finished yet", "detail": detail})
            time.sleep(PAUSE_S)

    # ---- evidence

    def acceptance(self, request_id: str) -> dict[str, Any]:
        """The signed receipt of a request's acceptance, as the envelope."""
        return self._send(Call("GET", f"/v1/erasures/{request_id}/acceptance"))

    async def aacceptance(self, request_id: str) -> dict[str, Any]:
        """:meth:`acceptance`, asynchronously."""
        return await self._asend(Call("GET", f"/v1/erasures/{request_id}/acceptance"))

    def certificate(self, certificate_id: str) -> dict[str, Any]:
        """A certificate, as the signed envelope."""
        return self._send(Call("GET", f"/v1/certificates/{certificate_id}.dsse"))

    async def acertificate(self, certificate_id: str) -> dict[str, Any]:
        """:meth:`certificate`, asynchronously."""
        return await self._asend(Call("GET", f"/v1/certificates/{certificate_id}.dsse"))

    def keys(self) -> dict[str, Any]:
        """Public keys of the issuer."""
        return self._send(Call("GET", "/v1/keys"))

    def shards(self) -> dict[str, Any]:
        """The shards and how they stand."""
        return self._send(Call("GET", "/v1/shards"))

    # ---- sending

    def _client(self) -> httpx.Client:
        if self._sync is None:
            self._sync = httpx.Client(**self._settings)
        return self._sync

    def _send(self, call: Call) -> dict[str, Any]:
        for attempt in range(self.retries + 1):
            try:
                answer = self._client().request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                last: Exception = error
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or attempt == self.retries:
                    return _checked(answer)
                last = ServiceError(answer.status_code, {})
            if attempt < self.retries:
                self.tried_again += 1
                time.sleep(_pause(attempt))
        raise _unreachable(last)

    async def _asend(self, call: Call) -> dict[str, Any]:
        if self._async is None:
            self._async = httpx.AsyncClient(**self._settings)
        for attempt in range(self.retries + 1):
            try:
                answer = await self._async.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                last: Exception = error
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or attempt == self.retries:
                    return _checked(answer)
                last = ServiceError(answer.status_code, {})
            if attempt < self.retries:
                self.tried_again += 1
                await asyncio.sleep(_pause(attempt))
        raise _unreachable(last)

    def close(self) -> None:
        """Close the connections."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """:meth:`close`, asynchronously."""
        if self._async is not None:
            await self._async.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


# ---- what is sent and what comes back


def _predict(ids: Sequence[NodeId], policy: str | None, top_k: int | None) -> Call:
    options = {"policy": policy, "top_k": top_k}
    body = {name: value for name, value in options.items() if value is not None}
    return Call("POST", "/v1/predict", {"ids": _plain(ids), **body})


def _plan(kind: str, selector: Mapping[str, Any]) -> Call:
    return Call("POST", "/v1/erasure-plans", {"kind": kind, "selector": _plain(selector)})


def _erase(
    kind: str,
    selector: Mapping[str, Any] | None,
    plan_id: str | None,
    idempotency_key: str | None,
    options: Mapping[str, Any],
) -> Call:
    what = {"kind": kind, "selector": _plain(selector or {})} if plan_id is None else {}
    body = (
        what | ({"plan_id": plan_id} if plan_id else {}) | {k: _plain(options[k]) for k in options}
    )
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return Call("POST", "/v1/erasures", body, headers=headers)


def _page(wanted: Mapping[str, Any], cursor: str | None) -> Call:
    query = {name: _plain(value) for name, value in wanted.items()} | {"cursor": cursor}
    return Call("GET", "/v1/erasures", query=query)


def _act(request_id: str, action: str, reason: str) -> Call:
    return Call("POST", f"/v1/erasures/{request_id}:{action}", {"reason": reason})


def _plain(value: Any) -> Any:
    """As JSON has it: UUIDs and times as text, numbers of NumPy as those of Python."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _pause(attempt: int) -> float:
    return float(PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        found: dict[str, Any] = answer.json() if answer.is_closed and answer.content else {}
        return found
    try:
        problem = answer.json()
    except ValueError:
        problem = {"title": answer.reason_phrase, "detail": answer.text[:500]}
    raise ServiceError(answer.status_code, problem)


def _unreachable(error: Exception) -> ServiceError:
    detail = f"{type(error).__name__}: {error}; check the address, and that the service runs"
    return ServiceError(0, {"title": "No answer", "detail": detail})


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The ``data`` of server-sent events."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []
