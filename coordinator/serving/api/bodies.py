"""How large, how deep, how slow and of which type a body may be, before anything parses it."""

from __future__ import annotations

import asyncio
import re
from email.message import Message as Headers
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from coordinator.serving.api.problems import ProblemError

_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # possessive: linear time
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_OPENING: Final = (b"[", b"{")


def bounded(receive: Receive, limit: int, timeout_s: float) -> Receive:
    """Receive a body of at most ``limit`` bytes within ``timeout_s`` seconds in all.

    Raises, when it is called:
        ProblemError: 413 or 408.
    """
    size, end, is_over = 0, asyncio.get_running_loop().time() + timeout_s, False

    async def call() -> Message:
        nonlocal size, is_over
        if is_over:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            text = f"the body took longer than {timeout_s:g} s"
            raise ProblemError(408, text, headers={"Connection": "close"}) from None
        size += len(message.get("body", b""))
        is_over = not message.get("more_body", False)
        if size > limit:
            raise too_large(limit)
        return message

    return call


def too_large(limit: int) -> ProblemError:
    """The problem of a body that is longer than allowed."""
    text = f"the body is longer than {limit} bytes"
    return ProblemError(413, text, headers={"Connection": "close"})


def check_length(request: Request, limit: int) -> None:
    """Refuse by its declared length what is too long.

    Raises:
        ProblemError: 413, or 400 where the length is no number.
    """
    declared = request.headers.get("content-length")
    if declared is None:
        return
    if not (declared.isascii() and declared.isdigit()):
        raise ProblemError(400, "Content-Length is no number")
    if int(declared[:20]) > limit:
        raise too_large(limit)


async def read_body(request: Request) -> bytes:
    """The whole body of a request whose ``receive`` is bounded."""
    chunks = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def media_type(request: Request) -> str:
    """``type/subtype`` of the body, lower case; empty where it is not said."""
    text = request.headers.get("content-type", "")
    headers = Headers()
    headers["content-type"] = text
    return headers.get_content_type() if text else ""


def require_json(request: Request) -> None:
    """Refuse a body that is not declared as JSON.

    Raises:
        ProblemError: 415.
    """
    if media_type(request) != "application/json":
        raise ProblemError(415, "send the body as application/json")


def check_depth(body: bytes, limit: int) -> None:
    """Refuse JSON that is nested too deeply or is no UTF-8, without parsing it.

    Raises:
        ProblemError: 422.
    """
    depth = 0
    if b"\0" in body:  # UTF-16 and UTF-32 always hold some; Python would read them
        raise ProblemError(422, "the body is no JSON in UTF-8", kind="validation")
    for match in _BRACKETS.finditer(_TEXT.sub(b"", body)):
        depth += 1 if match[0] in _OPENING else -1
        if depth > limit:
            raise ProblemError(422, f"the body is nested more than {limit} deep", kind="too-deep")
