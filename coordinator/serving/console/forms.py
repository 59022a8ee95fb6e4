"""Forms that were sent: read within limits, and only from our own pages."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request

from coordinator.serving.api.bodies import bounded, check_length, media_type, read_body
from coordinator.serving.console.refusals import refusal
from coordinator.serving.console.settings import ConsoleSettings

MOST_FIELDS: Final = 500
FORM: Final = "application/x-www-form-urlencoded"


async def read_form(request: Request, settings: ConsoleSettings) -> dict[str, str]:
    """The fields of a form; of two with one name the last counts.

    Raises:
        ProblemError: it is no form, too large, or too slow.
    """
    if media_type(request) != FORM:
        raise refusal(415, "Not a form", f"send {FORM}; or use the API, which takes JSON")
    check_length(request, settings.max_form_bytes)
    receive = bounded(request.receive, settings.max_form_bytes, settings.form_timeout_s)
    body = await read_body(Request(request.scope, receive))
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise refusal(400, "Not a form", "the body is no list of form fields") from None
    return dict(pairs)


def is_same_origin(request: Request) -> bool:
    """Whether a browser says that a page of ours sent this; other programs say nothing.

    Source: Fetch Metadata Request Headers (W3C), RFC 6454. Deviation: of the Origin only host and
    port count, since a proxy in front may speak TLS while this process does not.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def listed(text: str) -> list[str]:
    """One entry a line, blank lines and spaces around left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]
